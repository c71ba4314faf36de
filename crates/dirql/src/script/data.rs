//! Bytes in a script: `hex:3c00`, `text:"hello"`, `utf16:"hi"`, `u32:0x1234`, `zero:64`, `file:path`, `handle:name`, `number:name`, `event:name`, `page:name`, joined by
//! `+`.
//!
//! A file is not read here, nor is it known what number a name stands for: [`Data::resolve`] gets routines for that from the player of the script.

use super::MAX_TRANSFER;
use super::ast::{Name, Position};
use super::error::{Outcome, fault, unknown};
use super::lexer::Word;
use super::names::{Kind, Names, checked};
use super::value::parse_number;
use crate::record::hex;

/// Some bytes: those that the script says itself, and what stands between them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Data {
    bytes: Box<[u8]>,
    /// With how many of `bytes` stand before it; in order.
    between: Box<[(usize, Gap)]>,
}

/// Bytes of a [`Data`] that the script does not say.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Gap {
    /// A byte that may be any (`??`), which only an expectation has.
    Any,
    /// The content of the file of this name.
    File(String),
    /// A number that is known when the script runs.
    Number(Number, Name),
}

/// What numbers an application knows of what a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Number {
    /// `pid:`: the id of a process, 4 bytes.
    ProcessId,
    /// `handle:`: a handle, 8 bytes.
    Handle,
    /// `address:`: where its memory is, 8 bytes.
    Address,
    /// `number:`: what a driver has answered, 4 bytes.
    Answered,
    /// `event:`: the handle of an event that it makes where it is first named, 8 bytes.
    Event,
    /// `page:`: where [`PAGE`] bytes of memory are that it takes where they are first named, 8 bytes.
    Page,
}

/// How long a `page:` is: zeroes at first.
pub const PAGE: usize = 0x1000;

impl Number {
    const fn bytes(self) -> usize {
        match self {
            Self::ProcessId | Self::Answered => 4,
            Self::Handle | Self::Address | Self::Event | Self::Page => 8,
        }
    }
}

impl Data {
    /// The bytes, if the script says all of them itself.
    #[must_use]
    pub fn known(&self) -> Option<&[u8]> {
        self.between.is_empty().then_some(&self.bytes)
    }

    /// All the bytes, files read by `read`, numbers said by `number`; `None` is a byte that may be any.
    ///
    /// # Errors
    /// What `read` and `number` return.
    pub fn resolve<E>(
        &self,
        mut read: impl FnMut(&str) -> Result<Vec<u8>, E>,
        mut number: impl FnMut(Number, &str) -> Result<u64, E>,
    ) -> Result<Vec<Option<u8>>, E> {
        let mut all = Vec::with_capacity(self.bytes.len());
        let mut taken = 0;
        for (before, gap) in &self.between {
            all.extend(self.bytes[taken..*before].iter().copied().map(Some));
            taken = *before;
            match gap {
                Gap::Any => all.push(None),
                Gap::File(path) => all.extend(read(path)?.into_iter().map(Some)),
                Gap::Number(what, name) => {
                    let number = number(*what, name)?.to_le_bytes();
                    all.extend(number.into_iter().take(what.bytes()).map(Some));
                }
            }
        }
        all.extend(self.bytes[taken..].iter().copied().map(Some));
        Ok(all)
    }

    /// The names of the files whose content is part of it.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.between.iter().filter_map(|(_, gap)| match gap {
            Gap::File(name) => Some(name.as_str()),
            Gap::Any | Gap::Number(..) => None,
        })
    }

    /// What is made where it is first named, of all that is part of it.
    pub fn made(&self) -> impl Iterator<Item = (Number, &str)> {
        self.between.iter().filter_map(|(_, gap)| match gap {
            Gap::Number(what @ (Number::Event | Number::Page), name) => Some((*what, &**name)),
            _ => None,
        })
    }

    /// The bytes that a script has so (`u32:0x1 + zero:60`). None if some of them are known only when it runs, or stand in quotes.
    pub(crate) fn literal(text: &str) -> Option<Vec<u8>> {
        let mut pieces = Pieces::default();
        for piece in text.split(" + ") {
            let word = Word { at: Position { line: 1, column: 1 }, bytes: (0, 0), bare: piece, quoted: None };
            pieces.add(&word, None).ok()?;
        }
        let Data { bytes, between } = pieces.finish();
        between.is_empty().then(|| bytes.into_vec())
    }

    /// Whether some byte may be any.
    #[must_use]
    pub fn has_wildcards(&self) -> bool {
        self.between.iter().any(|(_, gap)| *gap == Gap::Any)
    }
}

/// Bytes as a script has them: numbers of 32 bits that are not 0, what is left behind them, and how many zeros stand between.
pub(crate) fn written(bytes: &[u8]) -> String {
    let mut pieces: Vec<String> = Vec::new();
    let mut zeros = 0;
    for part in bytes.chunks(4) {
        if part.iter().all(|byte| *byte == 0) {
            zeros += part.len();
            continue;
        }
        if zeros > 0 {
            pieces.push(format!("zero:{}", std::mem::take(&mut zeros)));
        }
        pieces.push(match part.try_into() {
            Ok(number) => format!("u32:{:#x}", u32::from_le_bytes(number)),
            Err(_) => format!("hex:{}", hex(part)),
        });
    }
    if zeros > 0 || pieces.is_empty() {
        pieces.push(format!("zero:{zeros}"));
    }
    pieces.join(" + ")
}

/// A [`Data`] that is being read.
#[derive(Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    between: Vec<(usize, Gap)>,
}

impl Pieces {
    fn gap(&mut self, gap: Gap) {
        self.between.push((self.bytes.len(), gap));
    }

    pub(super) fn finish(self) -> Data {
        Data { bytes: self.bytes.into(), between: self.between.into() }
    }

    /// Reads one piece, which follows those before it. With `names` it may be a number that one of them stands for.
    pub(super) fn add(&mut self, word: &Word, names: Option<&Names>) -> Outcome<()> {
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
            "hex:" => self.hex(word, content)?,
            "text:" => escaped(word, content, &mut |unit| match unit {
                Unit::Character(c) => self.bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
                Unit::Number(byte) => self.bytes.push(byte),
            })?,
            "utf16:" => escaped(word, content, &mut |unit| {
                let mut push = |unit: u16| self.bytes.extend(unit.to_le_bytes());
                match unit {
                    Unit::Character(c) => c.encode_utf16(&mut [0; 2]).iter().copied().for_each(push),
                    Unit::Number(byte) => push(byte.into()),
                }
            })?,
            "u8:" => self.integer(word, content, 1)?,
            "u16:" => self.integer(word, content, 2)?,
            "u32:" => self.integer(word, content, 4)?,
            "u64:" => self.integer(word, content, 8)?,
            "zero:" => self.zeros(word, content)?,
            "fill:" => self.fill(word, content)?,
            "pid:" | "handle:" | "address:" | "number:" | "event:" | "page:" => {
                let Some(names) = names else {
                    let message =
                        format!("`{}` is for what is sent to a driver; it cannot stand here", word.text());
                    return fault(word.at, message);
                };
                let named = Word { bare: content, quoted: None, ..*word };
                let number = number(kind, &named, names)?;
                self.gap(number);
            }
            "file:" if content.is_empty() => return fault(word.at, "name the file: file:PATH"),
            "file:" => self.gap(Gap::File(content.to_owned())),
            other => return fault(word.at, unknown("kind of bytes", other, KINDS)),
        }
        Ok(())
    }

    fn hex(&mut self, word: &Word, content: &str) -> Outcome<()> {
        let mut digits = content.chars().filter(|&c| c != '_' && c != ' ');
        self.bytes.reserve_exact(content.len() / 2);
        while let Some(high) = digits.next() {
            let Some(low) = digits.next() else {
                let message = format!("hex:{content} has an odd number of digits; two digits make a byte");
                return fault(word.at, message);
            };
            match (high, low, high.to_digit(16).zip(low.to_digit(16))) {
                ('?', '?', _) => self.gap(Gap::Any),
                (_, _, Some((high, low))) => self.bytes.extend(u8::try_from(high * 16 + low)),
                _ => {
                    return fault(
                        word.at,
                        format!(
                            "hex:{content} has something else than hexadecimal digits, `_` between them, and ??"
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    fn integer(&mut self, word: &Word, content: &str, size: usize) -> Outcome<()> {
        let Some(value) = parse_number(content) else {
            return fault(
                word.at,
                format!("`{}` needs a number after the colon, decimal or 0x…", word.text()),
            );
        };
        let bytes = value.to_le_bytes();
        if bytes[size..].iter().any(|&byte| byte != 0) {
            return fault(word.at, format!("{content} does not fit into u{}", size * 8));
        }
        self.bytes.extend(&bytes[..size]);
        Ok(())
    }

    /// A word of 32 bits, again and again: `fill:0x41414141:64`.
    fn fill(&mut self, word: &Word, content: &str) -> Outcome<()> {
        let parts = content.split_once(':').map(|(word, count)| (parse_number(word), parse_number(count)));
        match parts {
            Some((Some(value), Some(count))) if value <= u32::MAX.into() && count <= MAX_TRANSFER.into() => {
                let bytes = u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
                self.bytes.extend(bytes.iter().cycle().take(usize::try_from(count).unwrap_or(0)));
                Ok(())
            }
            _ => fault(
                word.at,
                format!(
                    "fill:{content} needs a word of 32 bits and a number of bytes, at most {MAX_TRANSFER}: fill:0x41414141:64"
                ),
            ),
        }
    }

    fn zeros(&mut self, word: &Word, content: &str) -> Outcome<()> {
        match parse_number(content).and_then(|count| u32::try_from(count).ok()) {
            Some(count) if count <= MAX_TRANSFER => {
                self.bytes.resize(self.bytes.len() + count as usize, 0);
                Ok(())
            }
            _ => fault(word.at, format!("zero:{content} needs a number of bytes, at most {MAX_TRANSFER}")),
        }
    }
}

/// The process that carries the command out.
pub const OWN: &str = "self";

/// What a name stands for as a number.
fn number(kind: &str, name: &Word, names: &Names) -> Outcome<Gap> {
    Ok(match kind {
        "pid:" if name.is(OWN) => Gap::Number(Number::ProcessId, Name::from(OWN)),
        "pid:" => Gap::Number(Number::ProcessId, names.process(name)?),
        "event:" => Gap::Number(Number::Event, checked(name)?),
        "page:" => Gap::Number(Number::Page, checked(name)?),
        "number:" => {
            Gap::Number(Number::Answered, names.find(name, "number", |kind| kind == Kind::Number)?.0)
        }
        "handle:" => Gap::Number(Number::Handle, names.find(name, "handle", Kind::is_handle)?.0),
        _ => Gap::Number(Number::Address, names.find(name, "pointer", Kind::is_pointer)?.0),
    })
}

/// The kinds of bytes, as they are written.
pub(super) const KINDS: [&str; 16] = [
    "hex:", "text:", "utf16:", "u8:", "u16:", "u32:", "u64:", "zero:", "fill:", "file:", "pid:", "handle:",
    "address:", "number:", "event:", "page:",
];

/// Whether a word looks like bytes: it starts with a known kind.
pub(super) fn is_data(word: &Word) -> bool {
    KINDS.iter().any(|kind| word.bare.starts_with(kind))
}

/// A part of a text.
enum Unit {
    Character(char),
    /// `\xHH`: one unit of its encoding.
    Number(u8),
}

/// Characters with `\n \r \t \0 \\ \" \xHH` replaced, if they stand in quotes.
fn escaped(word: &Word, content: &str, push: &mut dyn FnMut(Unit)) -> Outcome<()> {
    let mut rest = content.chars();
    while let Some(c) = rest.next() {
        if c != '\\' || word.quoted.is_none() {
            push(Unit::Character(c));
            continue;
        }
        match rest.next() {
            Some('n') => push(Unit::Character('\n')),
            Some('r') => push(Unit::Character('\r')),
            Some('t') => push(Unit::Character('\t')),
            Some('0') => push(Unit::Character('\0')),
            Some(c @ ('\\' | '"')) => push(Unit::Character(c)),
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                let all_hex = digits.len() == 2 && digits.chars().all(|c| c.is_ascii_hexdigit());
                match u8::from_str_radix(&digits, 16) {
                    Ok(unit) if all_hex => push(Unit::Number(unit)),
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(words: &[(&str, Option<&str>)]) -> Outcome<Data> {
        let mut pieces = Pieces::default();
        words.iter().try_for_each(|(bare, quoted)| pieces.add(&Word::alone(bare, *quoted), None))?;
        Ok(pieces.finish())
    }

    fn bytes(bare: &str, quoted: Option<&str>) -> Vec<u8> {
        data(&[(bare, quoted)]).unwrap().known().unwrap().to_vec()
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
            let message = data(&[(bare, None)]).unwrap_err().message;
            assert!(message.contains(says), "{bare}: {message}");
        }
    }

    #[test]
    fn a_file_is_read_only_when_the_script_is_carried_out() {
        let data = data(&[("hex:01??", None), ("file:", Some("a b")), ("u8:3", None)]).unwrap();
        assert_eq!((data.known(), data.files().collect::<Vec<_>>()), (None, vec!["a b"]));
        assert_eq!(data.resolve(|path| Err(path.to_owned()), |_, _| Ok(0)), Err("a b".to_owned()));
        assert_eq!(
            data.resolve(|_| Ok::<_, ()>(vec![2]), |_, _| Ok(0)),
            Ok(vec![Some(1), None, Some(2), Some(3)])
        );
    }
}
