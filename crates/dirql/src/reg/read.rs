//! The text of a registry file, line by line, to what it asks for.
//!
//! Page: *How to add, modify, or delete registry subkeys and values by using a .reg file*. The first thing that is wrong is told, with what was found there.

use abi::{REG_BINARY, REG_DWORD, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ};

use super::paths::{is_systems, resolve};
use super::{Action, VERSIONS, What};
use crate::inf::{Outcome, Spot, fault};
use crate::script::suggest::nearest;

/// The most characters of a value's name.
const LONGEST: usize = 16_383;
/// How data begins that is no string.
const KINDS: [&str; 2] = ["dword", "hex"];
/// How data may look.
const FORMS: &str = "data is \"text\", dword:0000002a, hex:01,02, hex(7):61,00,00,00,00,00 with another type's number, or - to delete the value";

/// All that a file asks for, in its order.
pub(super) fn read(text: &str) -> Outcome<Vec<Action>> {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut reader = Reader { text, starts, at: 0, ansi: false, key: Key::None, actions: Vec::new() };
    reader.version()?;
    while reader.at < text.len() {
        reader.line()?;
    }
    Ok(reader.actions)
}

/// Where a key's name ends: the `]` behind which there is nothing but a comment, since a name may have others.
pub(super) fn closing(line: &str) -> Option<usize> {
    let is_last = |at: &usize| matches!(line[at + 1..].trim_start().chars().next(), None | Some(';'));
    line.match_indices(']').map(|(at, _)| at).find(is_last)
}

/// Which key values are for.
enum Key {
    None,
    Deleted,
    Is(String),
}

struct Reader<'t> {
    text: &'t str,
    /// Where each line begins, in bytes.
    starts: Vec<usize>,
    /// How far it is read, in bytes.
    at: usize,
    /// Texts that are given as bytes are in the ANSI code page.
    ansi: bool,
    key: Key,
    actions: Vec<Action>,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn next(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// What is left of the line.
    fn rest_of_line(&self) -> &'t str {
        let rest = self.rest();
        rest[..rest.find('\n').unwrap_or(rest.len())].trim_end()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len();
    }

    fn skip_line(&mut self) {
        let rest = self.rest();
        self.at += rest.find('\n').map_or(rest.len(), |end| end + 1);
    }

    fn spot(&self, at: usize) -> Spot {
        let line = self.starts.partition_point(|start| *start <= at);
        Spot { line, column: self.text[self.starts[line - 1]..at].chars().count() + 1 }
    }

    fn fault<T>(&self, at: usize, message: impl Into<String>) -> Outcome<T> {
        fault(Some(self.spot(at)), message.into())
    }

    /// What stands here, for messages.
    fn found(&self) -> String {
        match self.rest_of_line() {
            "" => "the line ends here".to_owned(),
            line if line.chars().count() > 40 => {
                format!("`{}…` stands here", line.chars().take(40).collect::<String>())
            }
            line => format!("`{line}` stands here"),
        }
    }

    fn version(&mut self) -> Outcome<()> {
        let line = self.rest_of_line();
        let Some((_, ansi)) = VERSIONS.iter().find(|(version, _)| *version == line) else {
            let [(five, _), (four, _)] = VERSIONS;
            let near = nearest(line, [five, four])
                .map_or("is this a registry file?".to_owned(), |near| format!("did you mean `{near}`?"));
            return self.fault(0, format!("the first line is neither `{five}` nor `{four}`; {near}"));
        };
        self.ansi = *ansi;
        self.skip_line();
        Ok(())
    }

    fn line(&mut self) -> Outcome<()> {
        self.skip_blanks();
        match self.next() {
            None | Some('\n' | ';') => {
                self.skip_line();
                Ok(())
            }
            Some('[') => self.key(),
            Some('"' | '@') => self.value(),
            Some(_) => {
                let hint =
                    if self.rest_of_line().contains('=') { "; a value's name stands in quotes" } else { "" };
                let found = self.found();
                self.fault(
                    self.at,
                    format!("{found}, which is no [key], no \"name\"=value and no comment (;){hint}"),
                )
            }
        }
    }

    /// `[KEY]` or `[-KEY]`.
    fn key(&mut self) -> Outcome<()> {
        let (at, line) = (self.at, self.rest_of_line());
        let Some(end) = closing(line) else {
            return self.fault(
                at,
                r"this key's `[` has no `]` at the end of the line; write [HKEY_LOCAL_MACHINE\…]",
            );
        };
        let deletes = line[1..].starts_with('-');
        let begin = 1 + usize::from(deletes);
        let path = match resolve(&line[begin..end]) {
            Ok(path) => path,
            Err((into, message)) => return self.fault(at + begin + into, message),
        };
        if deletes && is_systems(&path) {
            return self.fault(at, "this key is the system's own and cannot be deleted; name one below it");
        }
        let (key, what) =
            if deletes { (Key::Deleted, What::Delete) } else { (Key::Is(path.clone()), What::Make) };
        self.key = key;
        self.actions.push(Action { spot: self.spot(at), key: path, what });
        self.skip_line();
        Ok(())
    }

    /// `"name"=data` or `@=data`.
    fn value(&mut self) -> Outcome<()> {
        let at = self.at;
        let name = self.name()?;
        self.skip_blanks();
        if self.next() != Some('=') {
            let found = self.found();
            return self.fault(self.at, format!("{found}, where a `=` belongs, behind the value's name"));
        }
        self.at += 1;
        self.skip_blanks();
        let key = match &self.key {
            Key::Is(key) => key.clone(),
            Key::None => {
                return self.fault(at, "this value stands before the first [key]; write its key above it");
            }
            Key::Deleted => {
                return self.fault(
                    at,
                    "this value stands under a key that is deleted; write [key] above it, without the `-`",
                );
            }
        };
        let (begin, what) = (self.at, self.data(name)?);
        let end = self.at;
        self.skip_blanks();
        if !matches!(self.next(), None | Some('\n' | ';')) {
            if self.text[begin..end].contains('\n') && self.text[begin..].starts_with('"') {
                return self.fault(
                    begin,
                    "this string does not end on its line, nor with one below; put a `\"` where it ends",
                );
            }
            let found = self.found();
            return self
                .fault(self.at, format!("{found}, behind the value's data; put it on a line of its own"));
        }
        self.skip_line();
        self.actions.push(Action { spot: self.spot(at), key, what });
        Ok(())
    }

    fn name(&mut self) -> Outcome<String> {
        let at = self.at;
        if self.next() == Some('@') {
            self.at += 1;
            return Ok(String::new());
        }
        let name = self.string()?;
        let length = name.encode_utf16().count();
        if name.contains('\n') {
            return self
                .fault(at, "the name that begins here does not end on its line; put a `\"` where it ends");
        }
        if length > LONGEST {
            return self
                .fault(at, format!("this value's name has {length} characters; one has at most {LONGEST}"));
        }
        Ok(name)
    }

    /// `"text"`, with `\\` and `\"` in it.
    fn string(&mut self) -> Outcome<String> {
        let start = self.at;
        let mut text = String::new();
        self.at += 1;
        loop {
            let plain = self.rest().find(['"', '\\']);
            let Some(plain) = plain else {
                return self.fault(
                    start,
                    "the quote that begins here is not closed; put a `\"` where the string ends",
                );
            };
            text.push_str(&self.rest()[..plain]);
            self.at += plain;
            let rest = self.rest();
            if rest.starts_with('"') {
                self.at += 1;
                return Ok(text);
            }
            match rest[1..].chars().next() {
                Some(letter @ ('\\' | '"')) => text.push(letter),
                other => {
                    let found = other
                        .filter(|letter| !letter.is_control())
                        .map_or("nothing".to_owned(), |letter| format!("`{letter}`"));
                    return self.fault(
                        self.at,
                        format!("{found} stands behind this backslash; in a string a backslash is written `\\\\`, and a quote `\\\"`"),
                    );
                }
            }
            self.at += 2;
        }
    }

    /// What is done to the value of this name.
    fn data(&mut self, name: String) -> Outcome<What> {
        let at = self.at;
        match self.next() {
            Some('-') => {
                self.at += 1;
                return Ok(What::DeleteValue { name });
            }
            Some('"') => {
                let data = wide(self.string()?.encode_utf16().chain([0]));
                return Ok(What::Set { name, kind: REG_SZ, data });
            }
            _ => {}
        }
        let word: String = self.rest_of_line().chars().take_while(char::is_ascii_alphanumeric).collect();
        self.at += word.len();
        let kind = match word.to_ascii_lowercase().as_str() {
            "dword" => REG_DWORD,
            "hex" => self.kind_of_bytes()?,
            _ => {
                let is_kind = matches!(self.next(), Some(':' | '('));
                let near = nearest(&word, KINDS).filter(|_| is_kind);
                let near = near.map_or(FORMS.to_owned(), |near| format!("did you mean `{near}:`?"));
                self.at = at;
                let found = self.found();
                return self.fault(at, format!("{found}, which is no data of a value; {near}"));
            }
        };
        if self.next() != Some(':') {
            let found = self.found();
            return self.fault(self.at, format!("{found}, where a `:` belongs, behind the type; {FORMS}"));
        }
        self.at += 1;
        let data = if word.eq_ignore_ascii_case("dword") { self.number()? } else { self.bytes()? };
        let is_text = matches!(kind, REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ);
        let data = if self.ansi && is_text { from_ansi(&data) } else { data };
        Ok(What::Set { name, kind, data })
    }

    /// `(N)`, N being the type in hexadecimal; without it they are `REG_BINARY`.
    fn kind_of_bytes(&mut self) -> Outcome<u32> {
        if self.next() != Some('(') {
            return Ok(REG_BINARY);
        }
        let line = self.rest_of_line();
        let digits = line.split_once(')').map(|(digits, _)| &digits[1..]);
        let Some((digits, kind)) = digits.and_then(|digits| Some((digits, hexadecimal(digits)?))) else {
            let found = self.found();
            return self.fault(self.at, format!("{found}, where a type belongs: its number in hexadecimal, between parentheses, as in hex(7):"));
        };
        self.at += digits.len() + 2;
        Ok(kind)
    }

    /// The digits of a `dword:`.
    fn number(&mut self) -> Outcome<Vec<u8>> {
        self.skip_blanks();
        let digits = self.rest_of_line().split([' ', '\t', ';']).next().unwrap_or_default();
        let Some(number) = hexadecimal(digits) else {
            let found = self.found();
            return self.fault(
                self.at,
                format!("{found}, where one to eight hexadecimal digits belong, without 0x: dword:0000002a"),
            );
        };
        self.at += digits.len();
        Ok(number.to_le_bytes().to_vec())
    }

    /// Bytes with commas between them, which go on behind a backslash at the end of a line.
    fn bytes(&mut self) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            self.skip_continued()?;
            let digits: String = self.rest().chars().take_while(char::is_ascii_hexdigit).take(3).collect();
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if digits.len() <= 2 => bytes.push(byte),
                // No bytes at all are a value, too.
                Err(_)
                    if digits.is_empty()
                        && bytes.is_empty()
                        && matches!(self.next(), None | Some('\n' | ';')) =>
                {
                    return Ok(bytes);
                }
                _ => {
                    let found = self.found();
                    return self.fault(
                        self.at,
                        format!("{found}, where a byte belongs: two hexadecimal digits, as in hex:01,2a"),
                    );
                }
            }
            self.at += digits.len();
            self.skip_continued()?;
            if self.next() != Some(',') {
                return Ok(bytes);
            }
            self.at += 1;
        }
    }

    /// Goes over blanks, and over the end of a line that a backslash continues.
    fn skip_continued(&mut self) -> Outcome<()> {
        self.skip_blanks();
        while self.next() == Some('\\') {
            if self.rest_of_line() != "\\" {
                return self.fault(self.at, "there is text behind this backslash, by which the next line goes on; put it on a line of its own");
            }
            self.skip_line();
            self.skip_blanks();
        }
        Ok(())
    }
}

/// One to eight digits.
fn hexadecimal(digits: &str) -> Option<u32> {
    let are_digits = (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16).ok().filter(|_| are_digits)
}

fn wide(units: impl Iterator<Item = u16>) -> Vec<u8> {
    units.flat_map(u16::to_le_bytes).collect()
}

/// Bytes of the ANSI code page as the registry has them.
fn from_ansi(bytes: &[u8]) -> Vec<u8> {
    let text: String = bytes.iter().map(|&byte| kernel::rtl::text::ansi_to_char(byte)).collect();
    wide(text.encode_utf16())
}
