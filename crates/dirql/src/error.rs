//! What can go wrong before a machine runs, and with what an application asks of it.
//!
//! What a driver does wrong is none of these: that is a verdict, in the [`crate::Report`].

use std::fmt;

use crate::readers::status_text;

/// Something given by the user cannot be used: one message that says what, where, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputError {
    message: String,
}

impl InputError {
    /// An error with this message.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for InputError {}

impl From<crate::inf::Error> for InputError {
    fn from(error: crate::inf::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<crate::script::Error> for InputError {
    fn from(error: crate::script::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Why something asked of a machine did not come about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Something given by the user cannot be used.
    Input(InputError),
    /// The calling thread has a machine already: a process has one at a time, and this thread would wait for itself.
    Busy,
    /// This host cannot run a machine.
    Host(String),
    /// A request failed, as requests may: what was asked, and its NTSTATUS.
    Status {
        /// The request.
        what: String,
        /// NTSTATUS.
        status: u32,
    },
    /// A request does not end: which, and who waits for what.
    Stuck(String),
    /// There is no such device in the machine (any more).
    Absent(String),
    /// A script is not what it expects.
    Failed(crate::report::Failure),
    /// The machine has stopped: [`crate::Machine::finish`] tells why.
    Stopped,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => error.fmt(f),
            Self::Busy => f.write_str(
                "this thread has a machine already, and a process has one at a time; finish it first",
            ),
            Self::Host(why) => write!(f, "this host cannot run a machine: {why}"),
            Self::Status { what, status } => write!(f, "{what}: {}", status_text(*status)),
            Self::Stuck(what) => f.write_str(what),
            Self::Absent(why) => f.write_str(why),
            Self::Failed(failure) => failure.fmt(f),
            Self::Stopped => f.write_str("the machine has stopped; its report tells why"),
        }
    }
}

impl std::error::Error for Error {}

impl From<InputError> for Error {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}
