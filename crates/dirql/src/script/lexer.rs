//! A script's text as words and separators, each with its place.
//!
//! Words end at white space and `;`; a `#` at the start of a word begins a comment (`pci9052#0` is one word); quotes,
//! brackets `(…)` and braces `{…}` inside a word keep it together. What words mean is not decided here.

use super::ast::Position;
use super::error::{Outcome, fault};

/// One word: what stands bare, then what stood in quotes, if anything did: `text:"a b"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub(super) at: Position,
    pub(super) bare: String,
    /// What stood between the quotes, escapes and all.
    pub(super) quoted: Option<String>,
}

impl Word {
    /// The word as written.
    pub(super) fn text(&self) -> String {
        match &self.quoted {
            Some(quoted) => format!("{}\"{quoted}\"", self.bare),
            None => self.bare.clone(),
        }
    }

    /// The word without quotes, where it is all bare or all quoted.
    pub(super) fn plain(&self) -> Option<&str> {
        match &self.quoted {
            Some(quoted) if self.bare.is_empty() => Some(quoted),
            Some(_) => None,
            None => Some(&self.bare),
        }
    }
}

/// A piece of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Word(Word),
    /// `;` or the end of a line.
    End(Position),
    /// `{` at the start of a word.
    Open(Position),
    /// `}` that closes none inside the word.
    Close(Position),
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    at: Position,
}

/// Whether backslashes are escapes in the quotes that follow this prefix.
pub(super) fn has_escapes(prefix: &str) -> bool {
    matches!(prefix, "text:" | "utf16:")
}

/// Cuts a script into tokens. The last one is an `End`.
pub(super) fn tokens(text: &str) -> Outcome<Vec<Token>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lexer = Lexer { rest: text.chars().peekable(), at: Position { line: 1, column: 1 } };
    let mut found = Vec::new();
    while let Some(&next) = lexer.rest.peek() {
        let at = lexer.at;
        match next {
            '\n' | ';' => found.push(Token::End(at)),
            '{' => found.push(Token::Open(at)),
            '}' => found.push(Token::Close(at)),
            '#' => {
                lexer.comment();
                continue;
            }
            _ if next.is_whitespace() => {}
            _ => {
                found.push(Token::Word(lexer.word()?));
                continue;
            }
        }
        lexer.advance();
    }
    found.push(Token::End(lexer.at));
    Ok(found)
}

impl Lexer<'_> {
    fn advance(&mut self) -> Option<char> {
        let taken = self.rest.next()?;
        if taken == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(taken)
    }

    fn comment(&mut self) {
        while self.rest.peek().is_some_and(|&c| c != '\n') {
            self.advance();
        }
    }

    fn word(&mut self) -> Outcome<Word> {
        let at = self.at;
        let mut bare = String::new();
        let mut open: Vec<(char, Position)> = Vec::new();
        while let Some(&next) = self.rest.peek() {
            match next {
                '"' => {
                    let quoted = Some(self.quoted(has_escapes(&bare))?);
                    return Ok(Word { at, bare, quoted });
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
            bare.push(next);
        }
        match open.last() {
            Some(&(bracket, place)) => fault(
                place,
                format!("this `{bracket}` is not closed; put the whole word on one line, or in quotes"),
            ),
            None => Ok(Word { at, bare, quoted: None }),
        }
    }

    /// From an opening quote to past the closing one.
    fn quoted(&mut self, escapes: bool) -> Outcome<String> {
        let start = self.at;
        self.advance();
        let mut inside = String::new();
        loop {
            match self.rest.peek() {
                None | Some('\n') => {
                    return fault(start, "this quote is not closed; put a `\"` before the line ends");
                }
                Some('"') => break,
                Some(_) => {}
            }
            let taken = self.advance();
            inside.extend(taken);
            if escapes && taken == Some('\\') && self.rest.peek().is_some_and(|&c| c != '\n') {
                inside.extend(self.advance());
            }
        }
        self.advance();
        match self.rest.peek() {
            Some(&next) if !next.is_whitespace() && !matches!(next, ';' | '}' | '#') => {
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
        tokens(text)
            .unwrap()
            .into_iter()
            .map(|token| match token {
                Token::Word(word) => word.text(),
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
        let error = tokens("open x as c\nwrite c text:\"abc").unwrap_err();
        assert_eq!(error.at, Position { line: 2, column: 14 });
    }
}
