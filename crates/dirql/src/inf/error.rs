//! What is wrong with a file of text (an INF, or of the registry), or was passed over in it, with the place.

use std::fmt;

/// A place in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Spot {
    /// The line, counted from 1.
    pub line: usize,
    /// The character in the line, counted from 1.
    pub column: usize,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A file that cannot be used: an INF, or one of the registry. `Display` gives `file:line:column: what is wrong; what to do`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The file as the user knows it.
    pub file: String,
    /// Where, if it is anywhere.
    pub spot: Option<Spot>,
    /// What is wrong and what to do about it, without the place.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spot {
            Some(spot) => write!(f, "{}:{spot}: {}", self.file, self.message),
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
    /// The character in the line, counted from 1.
    pub column: usize,
    /// What, and why.
    pub text: String,
}

impl Remark {
    pub(super) fn new(spot: Spot, text: String) -> Self {
        Self { line: spot.line, column: spot.column, text }
    }
}

/// An [`Error`] that does not know its file yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) spot: Option<Spot>,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn of(self, file: &str) -> Error {
        Error { file: file.to_owned(), spot: self.spot, message: self.message }
    }
}

pub(crate) type Outcome<T> = Result<T, Fault>;

pub(crate) fn fault<T>(spot: Option<Spot>, message: String) -> Outcome<T> {
    Err(Fault { spot, message })
}
