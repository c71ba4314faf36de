//! What is wrong with a sheet, and where.

/// One message for the user. Line and column count from 1; a line of 0 is not known yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

impl Wrong {
    /// In this column of a line that the caller knows.
    pub(super) fn at(column: usize, message: impl Into<String>) -> Self {
        Self { line: 0, column, message: message.into() }
    }

    /// In this line, if it is not known yet.
    #[must_use]
    pub(super) fn on(self, line: usize) -> Self {
        if self.line == 0 { Self { line, ..self } } else { self }
    }

    /// With the file's name in front.
    pub(super) fn located(&self, file: &str) -> String {
        format!("{file}:{}:{}: {}", self.line, self.column, self.message)
    }
}
