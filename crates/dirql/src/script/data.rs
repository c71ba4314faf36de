//! Bytes in a script: `hex:3c00`, `text:"hello"`, `utf16:"hi"`, `u32:0x1234`, `zero:64`, `file:path`, joined by `+`.
//!
//! A file is not read here: [`Data::resolve`] gets a routine that reads it from the player of the script.

use super::MAX_TRANSFER;
use super::error::{Outcome, fault, unknown};
use super::lexer::Word;
use super::value::parse_number;

/// Some bytes, in pieces that follow each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Data {
    /// The pieces.
    pub pieces: Vec<Piece>,
}

/// A part of a [`Data`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// These bytes; `None` is a byte that may be any (`??`), which only an expectation has.
    Bytes(Vec<Option<u8>>),
    /// The content of the file of this name.
    File(String),
}

impl Data {
    /// All the bytes, files read by `read`.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn resolve<E>(&self, mut read: impl FnMut(&str) -> Result<Vec<u8>, E>) -> Result<Vec<Option<u8>>, E> {
        let mut all = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => all.extend(bytes),
                Piece::File(path) => all.extend(read(path)?.into_iter().map(Some)),
            }
        }
        Ok(all)
    }

    /// Whether some byte may be any.
    #[must_use]
    pub fn has_wildcards(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Bytes(bytes) if bytes.contains(&None)))
    }
}

/// The kinds of bytes, as they are written.
pub(super) const KINDS: [&str; 9] =
    ["hex:", "text:", "utf16:", "u8:", "u16:", "u32:", "u64:", "zero:", "file:"];

/// Whether a word looks like bytes: it starts with a known kind.
pub(super) fn is_data(word: &Word) -> bool {
    KINDS.iter().any(|kind| word.bare.starts_with(kind))
}

/// Reads one piece.
pub(super) fn parse_piece(word: &Word) -> Outcome<Piece> {
    let Some(colon) = word.bare.find(':') else {
        let written = word.text();
        return fault(
            word.at,
            format!(
                "`{written}` is not bytes; write hex:3c00, text:\"…\", utf16:\"…\", u32:1, zero:64 or file:PATH"
            ),
        );
    };
    let (kind, rest) = word.bare.split_at(colon + 1);
    let content = match word.quoted {
        Some(quoted) if rest.is_empty() => quoted,
        Some(_) => return fault(word.at, format!("put all of it in the quotes: {kind}\"{rest}…\"")),
        None => rest,
    };
    match kind {
        "hex:" => hex(word, content),
        "text:" => Ok(known(escaped(word, content, &mut |c, out: &mut Vec<u8>| {
            out.extend(c.to_string().as_bytes());
        })?)),
        "utf16:" => utf16(word, content),
        "u8:" => integer(word, content, 1),
        "u16:" => integer(word, content, 2),
        "u32:" => integer(word, content, 4),
        "u64:" => integer(word, content, 8),
        "zero:" => zeros(word, content),
        "file:" if content.is_empty() => fault(word.at, "name the file: file:PATH"),
        "file:" => Ok(Piece::File(content.to_owned())),
        other => fault(word.at, unknown("kind of bytes", other, KINDS)),
    }
}

fn known(bytes: Vec<u8>) -> Piece {
    Piece::Bytes(bytes.into_iter().map(Some).collect())
}

fn hex(word: &Word, content: &str) -> Outcome<Piece> {
    let digits = content.chars().filter(|&c| c != '_' && c != ' ');
    if digits.clone().count() % 2 == 1 {
        return fault(word.at, format!("hex:{content} has an odd number of digits; two digits make a byte"));
    }
    let byte = |high: char, low: char| match (high, low) {
        ('?', '?') => Some(None),
        (high, low) => Some(Some(u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()?)),
    };
    let pairs = digits.clone().step_by(2).zip(digits.skip(1).step_by(2));
    match pairs.map(|(high, low)| byte(high, low)).collect() {
        Some(bytes) => Ok(Piece::Bytes(bytes)),
        None => fault(
            word.at,
            format!("hex:{content} has something else than hexadecimal digits, `_` between them, and ??"),
        ),
    }
}

fn utf16(word: &Word, content: &str) -> Outcome<Piece> {
    let units = escaped(word, content, &mut |c, out: &mut Vec<u16>| {
        out.extend(c.encode_utf16(&mut [0; 2]).iter());
    })?;
    Ok(known(units.into_iter().flat_map(u16::to_le_bytes).collect()))
}

/// Characters with `\n \r \t \0 \\ \" \xHH` replaced; `push` appends a character's code units, `\xHH` is one unit.
fn escaped<U: From<u8>>(
    word: &Word,
    content: &str,
    push: &mut dyn FnMut(char, &mut Vec<U>),
) -> Outcome<Vec<U>> {
    let mut out = Vec::new();
    let mut rest = content.chars();
    while let Some(c) = rest.next() {
        if c != '\\' || word.quoted.is_none() {
            push(c, &mut out);
            continue;
        }
        match rest.next() {
            Some('n') => push('\n', &mut out),
            Some('r') => push('\r', &mut out),
            Some('t') => push('\t', &mut out),
            Some('0') => push('\0', &mut out),
            Some(c @ ('\\' | '"')) => push(c, &mut out),
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                let all_hex = digits.len() == 2 && digits.chars().all(|c| c.is_ascii_hexdigit());
                match u8::from_str_radix(&digits, 16) {
                    Ok(unit) if all_hex => out.push(U::from(unit)),
                    _ => return fault(word.at, format!("`\\x{digits}` needs two hexadecimal digits")),
                }
            }
            other => {
                let written = other.map(String::from).unwrap_or_default();
                return fault(
                    word.at,
                    format!(
                        "there is no escape `\\{written}`; there is: \\n \\r \\t \\0 \\\\ \\\" \\xHH; write `\\\\` for a backslash"
                    ),
                );
            }
        }
    }
    Ok(out)
}

fn integer(word: &Word, content: &str, size: usize) -> Outcome<Piece> {
    let Some(value) = parse_number(content) else {
        return fault(word.at, format!("`{}` needs a number after the colon, decimal or 0x…", word.text()));
    };
    let bytes = value.to_le_bytes();
    if bytes[size..].iter().any(|&byte| byte != 0) {
        return fault(word.at, format!("{content} does not fit into u{}", size * 8));
    }
    Ok(known(bytes[..size].to_vec()))
}

fn zeros(word: &Word, content: &str) -> Outcome<Piece> {
    match parse_number(content).and_then(|count| u32::try_from(count).ok()) {
        Some(count) if count <= MAX_TRANSFER => Ok(known(vec![0; count as usize])),
        _ => fault(word.at, format!("zero:{content} needs a number of bytes, at most {MAX_TRANSFER}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::ast::Position;

    fn piece(bare: &str, quoted: Option<&str>) -> Outcome<Piece> {
        parse_piece(&Word { at: Position { line: 1, column: 1 }, bare, quoted })
    }

    fn bytes(bare: &str, quoted: Option<&str>) -> Vec<u8> {
        let data = Data { pieces: vec![piece(bare, quoted).unwrap()] };
        data.resolve(|_| Err(())).unwrap().into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn every_kind_of_bytes_is_what_it_says() {
        assert_eq!(bytes("hex:3c_00FF", None), [0x3c, 0, 0xff]);
        assert_eq!(bytes("text:", Some(r"a\n\x80\\")), [b'a', 10, 0x80, b'\\']);
        assert_eq!(bytes(r"text:a\n", None), br"a\n");
        assert_eq!(bytes("utf16:", Some(r"é\xff")), [0xe9, 0, 0xff, 0]);
        assert_eq!(bytes("u16:0x1234", None), [0x34, 0x12]);
        assert_eq!(bytes("u8:255", None), [255]);
        assert_eq!(bytes("zero:3", None), [0, 0, 0]);
    }

    #[test]
    fn bytes_that_are_none_are_refused_with_a_reason() {
        for (bare, says) in [
            ("hex:123", "odd number"),
            ("hex:1?", "hexadecimal"),
            ("hex:zz", "hexadecimal"),
            ("u8:256", "does not fit into u8"),
            ("u32:", "needs a number"),
            ("zero:99999999999", "at most"),
            ("txt:abc", "did you mean `text:`"),
            ("3c00", "write hex:3c00"),
            ("file:", "name the file"),
        ] {
            let message = piece(bare, None).unwrap_err().message;
            assert!(message.contains(says), "{bare}: {message}");
        }
    }

    #[test]
    fn a_file_is_read_only_when_the_script_is_carried_out() {
        let data =
            Data { pieces: vec![piece("hex:01", None).unwrap(), piece("file:", Some("a b")).unwrap()] };
        assert_eq!(data.resolve(|path| Err(path.to_owned())), Err("a b".to_owned()));
        assert_eq!(data.resolve(|_| Ok::<_, ()>(vec![2])), Ok(vec![Some(1), Some(2)]));
    }
}
