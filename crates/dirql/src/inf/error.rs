//! What is wrong with an INF file, or was passed over in it, with the line.

use std::fmt;

/// An INF file that cannot be used. `Display` gives `file:line: what is wrong; what to do`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The file as the user knows it.
    pub file: String,
    /// The line, counted from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong and what to do about it, without the place.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for Error {}

/// Something in the file that was passed over, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// The line, counted from 1.
    pub line: usize,
    /// What, and why.
    pub text: String,
}

/// An [`Error`] that does not know its file yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn of(self, file: &str) -> Error {
        Error { file: file.to_owned(), line: self.line, message: self.message }
    }
}

pub(super) type Outcome<T> = Result<T, Fault>;

pub(super) fn fault<T>(line: Option<usize>, message: String) -> Outcome<T> {
    Err(Fault { line, message })
}
