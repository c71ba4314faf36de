//! The data of a value: a string, a number, or bytes that go on over several lines.
//!
//! Page: *How to add, modify, or delete registry subkeys and values by using a .reg file*, the table of its types.

use abi::{REG_BINARY, REG_DWORD, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ};

use super::What;
use super::read::Reader;
use crate::inf::Outcome;
use crate::script::suggest::nearest;

/// How data begins that is no string.
const KINDS: [&str; 2] = ["dword", "hex"];
/// How data may look.
const FORMS: &str = "data is \"text\", dword:0000002a, hex:01,02, hex(7):61,00,00,00,00,00 with another type's number, or - to delete the value";

impl Reader<'_> {
    /// `"text"`, with `\\` and `\"` in it.
    pub(super) fn string(&mut self) -> Outcome<String> {
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
    pub(super) fn data(&mut self, name: String) -> Outcome<What> {
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
