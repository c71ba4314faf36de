//! The lines of a sheet that are not empty, with their indentation and their first word.

use crate::sheet::cursor::Cursor;
use crate::sheet::error::Wrong;
use crate::sheet::token::{Placed, tokens};

/// Characters of a line.
const LONGEST_LINE: usize = 400;

/// A line that is not empty, without its comment.
pub(super) struct Line<'t> {
    pub(super) number: usize,
    pub(super) indent: usize,
    /// Up to the first space.
    pub(super) first: &'t str,
    /// What follows it.
    pub(super) rest: &'t str,
    /// The column of `rest`.
    pub(super) column: usize,
}

impl<'t> Line<'t> {
    /// Where its first word is.
    pub(super) const fn begin(&self) -> usize {
        self.indent + 1
    }

    pub(super) fn tokens(&self) -> Result<Vec<Placed<'t>>, Wrong> {
        tokens(self.rest, self.column)
    }

    pub(super) fn cursor<'p>(&self, tokens: &'p [Placed<'t>]) -> Cursor<'p, 't> {
        Cursor::new(tokens, self.column + self.rest.chars().count())
    }
}
pub(super) fn lines(text: &str) -> Result<Vec<Line<'_>>, Wrong> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        let body = line.trim_start();
        if body.is_empty() {
            continue;
        }
        let indent = line.len() - body.len();
        if line[..indent].contains(|c| c != ' ') {
            return Err(
                Wrong::at(1, "indent with spaces: how wide a tab is differs between editors").on(number)
            );
        }
        if line.chars().count() > LONGEST_LINE {
            return Err(
                Wrong::at(LONGEST_LINE, "the line is too long; 400 characters are allowed").on(number)
            );
        }
        let first = body.split_whitespace().next().unwrap_or_default();
        let rest = body[first.len()..].trim_start();
        let column = line.chars().count() - rest.chars().count() + 1;
        lines.push(Line { number, indent, first, rest, column });
    }
    Ok(lines)
}
