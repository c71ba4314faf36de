//! A script's text as words and separators, each with its place.
//!
//! Words end at white space and `;`; a `#` at the start of a word begins a comment (`pci9052#0` is one word); quotes,
//! brackets `(…)` and braces `{…}` inside a word keep it together. What words mean is not decided here.

use std::borrow::Cow;

use super::ast::Position;
use super::error::{Outcome, fault};

/// One word: what stands bare, then what stood in quotes, if anything did: `text:"a b"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word<'t> {
    pub(super) at: Position,
    /// Where it begins and ends in the text, in bytes.
    pub(super) bytes: (u32, u32),
    pub(super) bare: &'t str,
    /// What stood between the quotes, escapes and all.
    pub(super) quoted: Option<&'t str>,
}

impl<'t> Word<'t> {
    #[cfg(test)]
    pub(super) fn alone(bare: &'t str, quoted: Option<&'t str>) -> Self {
        Self { at: Position { line: 1, column: 1 }, bytes: (0, 0), bare, quoted }
    }

    /// The word as written.
    pub(super) fn text(&self) -> Cow<'t, str> {
        match self.quoted {
            Some(quoted) => format!("{}\"{quoted}\"", self.bare).into(),
            None => self.bare.into(),
        }
    }

    /// Whether it is this word, and not in quotes.
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.quoted.is_none() && self.bare == keyword
    }

    /// What it names: without its quotes, if it has any around all of it.
    pub(super) fn name(&self) -> String {
        self.plain().map_or_else(|| self.text().into_owned(), str::to_owned)
    }

    /// The word without quotes, where it is all bare or all quoted.
    pub(super) fn plain(&self) -> Option<&'t str> {
        match self.quoted {
            Some(quoted) if self.bare.is_empty() => Some(quoted),
            Some(_) => None,
            None => Some(self.bare),
        }
    }
}

/// A piece of a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token<'t> {
    Word(Word<'t>),
    /// `;` or the end of a line.
    End(Position),
    /// `{` at the start of a word.
    Open(Position),
    /// `}` that closes none inside the word.
    Close(Position),
}

/// A script's tokens, one after the other. The last one is an `End`.
pub(super) struct Lexer<'t> {
    text: &'t str,
    /// Bytes that have been taken of it: at a character's beginning.
    offset: usize,
    at: Position,
    over: bool,
}

/// Whether backslashes are escapes in the quotes that follow this prefix.
pub(super) fn has_escapes(prefix: &str) -> bool {
    matches!(prefix, "text:" | "utf16:")
}

impl<'t> Iterator for Lexer<'t> {
    type Item = Outcome<Token<'t>>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(next) = self.peek() {
            let at = self.at;
            let token = match next {
                '\n' | ';' => Token::End(at),
                '{' => Token::Open(at),
                '}' => Token::Close(at),
                '#' => {
                    self.comment();
                    continue;
                }
                _ if next.is_whitespace() => {
                    self.advance();
                    continue;
                }
                _ => return Some(self.word().map(Token::Word)),
            };
            self.advance();
            return Some(Ok(token));
        }
        (!std::mem::replace(&mut self.over, true)).then_some(Ok(Token::End(self.at)))
    }
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, offset: 0, at: Position { line: 1, column: 1 }, over: false }
    }

    /// The next character.
    #[inline]
    fn peek(&self) -> Option<char> {
        match self.text.as_bytes().get(self.offset) {
            Some(&byte) if byte.is_ascii() => Some(byte.into()),
            _ => self.text[self.offset..].chars().next(),
        }
    }

    /// So many bytes have been taken.
    fn taken(&self) -> u32 {
        u32::try_from(self.offset).expect("`parse` has looked at the length")
    }

    /// What was taken since the rest began there.
    fn since(&self, offset: usize) -> &'t str {
        &self.text[offset..self.offset]
    }

    fn advance(&mut self) -> Option<char> {
        let taken = self.peek()?;
        self.offset += taken.len_utf8();
        if taken == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(taken)
    }

    fn comment(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.advance();
        }
    }

    fn word(&mut self) -> Outcome<Word<'t>> {
        let (at, start, first) = (self.at, self.offset, self.taken());
        let mut open: Vec<(char, Position)> = Vec::new();
        while let Some(next) = self.peek() {
            match next {
                '"' => {
                    let bare = self.since(start);
                    let quoted = Some(self.quoted(has_escapes(bare))?);
                    return Ok(Word { at, bytes: (first, self.taken()), bare, quoted });
                }
                '(' | '{' => open.push((next, self.at)),
                ')' | '}' if open.last().is_some_and(|&(o, _)| (o == '(') == (next == ')')) => {
                    open.pop();
                }
                '}' => break,
                '\n' => break,
                ';' if open.is_empty() => break,
                _ if next.is_whitespace() && open.iter().all(|&(o, _)| o == '{') => break,
                _ => {}
            }
            self.advance();
        }
        match open.last() {
            Some(&(bracket, place)) => fault(
                place,
                format!("this `{bracket}` is not closed; put the whole word on one line, or in quotes"),
            ),
            None => Ok(Word { at, bytes: (first, self.taken()), bare: self.since(start), quoted: None }),
        }
    }

    /// From an opening quote to past the closing one.
    fn quoted(&mut self, escapes: bool) -> Outcome<&'t str> {
        let start = self.at;
        self.advance();
        let begin = self.offset;
        loop {
            match self.peek() {
                None | Some('\n') => {
                    return fault(start, "this quote is not closed; put a `\"` before the line ends");
                }
                Some('"') => break,
                Some(_) => {}
            }
            let taken = self.advance();
            if escapes && taken == Some('\\') && self.peek().is_some_and(|c| c != '\n') {
                self.advance();
            }
        }
        let inside = self.since(begin);
        self.advance();
        match self.peek() {
            Some(next) if !next.is_whitespace() && !matches!(next, ';' | '}' | '#') => {
                fault(self.at, format!("`{next}` follows a closing quote; put a space between them"))
            }
            _ => Ok(inside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Lexer::new(text)
            .map(|token| match token.unwrap() {
                Token::Word(word) => word.text().into_owned(),
                Token::End(_) => ";".into(),
                Token::Open(_) => "{".into(),
                Token::Close(_) => "}".into(),
            })
            .collect()
    }

    #[test]
    fn a_device_number_is_not_a_comment() {
        assert_eq!(words("poke pci9052#0 linti1 1 # and this is"), ["poke", "pci9052#0", "linti1", "1", ";"]);
    }

    #[test]
    fn brackets_and_guids_keep_a_word_together() {
        assert_eq!(words("ioctl c CTL_CODE(1, 2, 3, 4)"), ["ioctl", "c", "CTL_CODE(1, 2, 3, 4)", ";"]);
        assert_eq!(words(r"open \\?\pci#x#{ab-cd} as c"), ["open", r"\\?\pci#x#{ab-cd}", "as", "c", ";"]);
        assert_eq!(words("thread t {read c 4}"), ["thread", "t", "{", "read", "c", "4", "}", ";"]);
    }

    #[test]
    fn quotes_keep_semicolons_and_hashes() {
        assert_eq!(
            words(r#"write c text:"a;b # \" c"; close c"#),
            ["write", "c", r#"text:"a;b # \" c""#, ";", "close", "c", ";"]
        );
    }

    #[test]
    fn an_open_quote_is_told_where_it_opens() {
        let error = Lexer::new("open x as c\nwrite c text:\"abc").find_map(Result::err).unwrap();
        assert_eq!(error.at, Position { line: 2, column: 14 });
    }
}
