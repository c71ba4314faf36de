//! Going through the tokens of a line, one after the other.

use super::error::Wrong;
use super::token::{Placed, Token};

/// Where a line is read.
#[derive(Clone)]
pub(super) struct Cursor<'p, 't> {
    tokens: &'p [Placed<'t>],
    next: usize,
    /// The column behind the line.
    end: usize,
}

impl<'p, 't> Cursor<'p, 't> {
    /// At the first of these tokens; `end` is the column behind the last.
    pub(super) const fn new(tokens: &'p [Placed<'t>], end: usize) -> Self {
        Self { tokens, next: 0, end }
    }

    /// The column of the token that comes next, or of the line's end.
    pub(super) fn column(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(column, _)| *column)
    }

    pub(super) fn peek(&self) -> Option<&'p Token<'t>> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    pub(super) fn take(&mut self) -> Option<Token<'t>> {
        let token = self.peek().cloned();
        self.skip();
        token
    }

    pub(super) const fn skip(&mut self) {
        self.next += 1;
    }

    /// Whether this sign comes next; then it is taken.
    pub(super) fn sign(&mut self, sign: &str) -> bool {
        self.takes(|token| matches!(token, Token::Sign(next) if *next == sign))
    }

    /// Whether this word comes next; then it is taken.
    pub(super) fn word(&mut self, word: &str) -> bool {
        self.takes(|token| matches!(token, Token::Word(next) if *next == word))
    }

    /// The width that comes next, in bytes, if one does; then it is taken.
    pub(super) fn width(&mut self) -> Option<u64> {
        let widths = [("byte", 1), ("word", 2), ("dword", 4), ("qword", 8)];
        widths.into_iter().find(|(width, _)| self.word(width)).map(|(_, bytes)| bytes)
    }

    fn takes(&mut self, is: impl Fn(&Token<'t>) -> bool) -> bool {
        let found = self.peek().is_some_and(is);
        self.next += usize::from(found);
        found
    }

    pub(super) fn expect_sign(&mut self, sign: &str) -> Result<(), Wrong> {
        let at = self.column();
        if self.sign(sign) { Ok(()) } else { Err(Wrong::at(at, format!("`{sign}` is missing here"))) }
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), Wrong> {
        let at = self.column();
        if self.word(word) { Ok(()) } else { Err(Wrong::at(at, format!("`{word}` is missing here"))) }
    }

    /// A name, and its column; `what` is to be named.
    pub(super) fn name(&mut self, what: &str) -> Result<(usize, &'t str), Wrong> {
        let at = self.column();
        match self.take() {
            Some(Token::Word(word)) => Ok((at, word)),
            _ => Err(Wrong::at(at, format!("the name of {what} is missing here"))),
        }
    }

    /// A number.
    pub(super) fn number(&mut self, what: &str) -> Result<u64, Wrong> {
        let at = self.column();
        match self.take() {
            Some(Token::Number(number)) => Ok(number),
            _ => Err(Wrong::at(at, format!("{what} is missing here: a number, as 12 or 0x1f"))),
        }
    }

    /// Whether the line is over.
    pub(super) fn is_at_end(&self) -> bool {
        self.next >= self.tokens.len()
    }

    /// The line is over.
    pub(super) fn end(&self) -> Result<(), Wrong> {
        if self.is_at_end() {
            return Ok(());
        }
        Err(Wrong::at(self.column(), "the line should end here"))
    }
}
