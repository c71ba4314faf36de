//! What is wrong with a script: one message that says where, what, and what to do about it.
//!
//! It does not print: the command line does.

use std::fmt;

use super::ast::Position;
use super::suggest::nearest;

/// A script that cannot be run. `Display` gives `file:line:column: what is wrong; what to do`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The script's name as the user knows it: a path, or `--do`.
    pub source: String,
    /// Where it is wrong.
    pub at: Position,
    /// What is wrong and what to do about it, without the place.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.source, self.at, self.message)
    }
}

impl std::error::Error for Error {}

/// What the inner parsers return: a place and a message; [`super::parse`] adds the script's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) at: Position,
    pub(super) message: String,
}

pub(super) type Outcome<T> = Result<T, Fault>;

pub(super) fn fault<T>(at: Position, message: impl Into<String>) -> Outcome<T> {
    Err(Fault { at, message: message.into() })
}

/// ``there is no WHAT `wrong`; did you mean `right`?``, or the list of what there is.
pub(super) fn unknown<'a>(
    what: &str,
    wrong: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    match nearest(wrong, known.clone()) {
        Some(right) => format!("there is no {what} `{wrong}`; did you mean `{right}`?"),
        None => {
            let all: Vec<&str> = known.into_iter().collect();
            if all.is_empty() {
                format!("there is no {what} `{wrong}`")
            } else {
                format!("there is no {what} `{wrong}`; there is: {}", all.join(", "))
            }
        }
    }
}
