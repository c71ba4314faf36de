//! What a user types after `--device`: `MODEL[,key[=value]]…`, cut into keys, and the values that keys take.
//!
//! It knows no model and no key. Every error is one message that says what, where, and what would be right.

use std::fmt;

use crate::suggest::nearest;

/// How a model reads the files that keys name; the crate does no I/O of its own.
pub type ReadFile<'a> = dyn Fn(&str) -> Result<Vec<u8>, String> + 'a;

/// A device specification that cannot be used: one message for the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpecError {
    message: String,
}

impl SpecError {
    /// An error with this message.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SpecError {}

/// The keys of a specification, in the order given.
pub(crate) struct Options<'a> {
    /// The model's name.
    pub model: &'a str,
    pairs: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Options<'a> {
    /// Cuts `MODEL[,key[=value]]…`.
    pub(crate) fn cut(spec: &'a str) -> Result<Self, SpecError> {
        let mut pieces = spec.split(',').map(str::trim);
        let model = pieces.next().unwrap_or_default();
        let mut pairs: Vec<(&str, Option<&str>)> = Vec::new();
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let (key, value) = match piece.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.trim())),
                None => (piece, None),
            };
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(SpecError::new(format!(
                    "device `{model}`: key `{key}` is given twice; keep one"
                )));
            }
            pairs.push((key, value));
        }
        Ok(Self { model, pairs })
    }

    /// The keys given.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().map(|(key, _)| *key)
    }

    /// The keys given, with their values.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        self.pairs.iter().copied()
    }

    /// Whether the key stands there, with or without a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys().any(|known| known == key)
    }

    /// The key's text; `Some("")` if it stands there without a value.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(known, _)| *known == key).map(|(_, value)| value.unwrap_or(""))
    }

    /// The key's value as `read` understands it. `form` says in words what would be right.
    pub(crate) fn value<T>(
        &self,
        key: &str,
        form: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, SpecError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| self.bad(key, form))
    }

    /// The error for a key whose value cannot be used.
    pub(crate) fn bad(&self, key: &str, form: &str) -> SpecError {
        let (model, text) = (self.model, self.text(key).unwrap_or(""));
        SpecError::new(format!("device `{model}`: {key}={text} is not usable; {key} is {form}"))
    }
}

/// A number: decimal, or hexadecimal after `0x`.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => hex(digits, 16),
        None => text.parse().ok(),
    }
}

/// Bytes: a number, with `K`, `M` or `G` (powers of 1024) after it if one likes.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 1 << 10),
        'm' | 'M' => (&text[..text.len() - 1], 1 << 20),
        'g' | 'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    number(digits)?.checked_mul(unit)
}

/// Units of time, in nanoseconds.
pub(crate) const TIME_UNITS: [(&str, u64); 4] =
    [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// A duration in nanoseconds: a number, with `ns`, `us`, `ms` or `s` after it if one likes.
pub(crate) fn nanoseconds(text: &str) -> Option<u64> {
    let (digits, unit) = TIME_UNITS
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits, *factor)))
        .unwrap_or((text, 1));
    number(digits.trim())?.checked_mul(unit)
}

/// Hexadecimal digits, at most `digits` of them, without a prefix.
pub(crate) fn hex(text: &str, digits: usize) -> Option<u64> {
    let usable = !text.is_empty() && text.len() <= digits && text.chars().all(|c| c.is_ascii_hexdigit());
    usable.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// An offset, hexadecimal, a multiple of 4.
pub(crate) fn word_offset(text: &str) -> Option<u64> {
    hex(text, 8).filter(|offset| offset.is_multiple_of(4))
}

/// What [`words`] takes, for who types it.
pub(crate) const WORDS: &str =
    "OFFSET:VALUE, hexadecimal, several with + between them, e.g. 0:1234abcd+4c:1; OFFSET a multiple of 4";

/// `OFFSET:VALUE+OFFSET:VALUE`, hexadecimal: words of 32 bits.
pub(crate) fn words(text: &str) -> Option<Vec<(u64, u32)>> {
    let word = |text: &str| {
        let (offset, value) = text.split_once(':')?;
        Some((word_offset(offset)?, u32::try_from(hex(value, 8)?).ok()?))
    };
    text.split('+').map(word).collect()
}

/// `VVVV:DDDD`, both hexadecimal.
pub(crate) fn id_pair(text: &str) -> Option<(u16, u16)> {
    let (vendor, device) = text.split_once(':')?;
    Some((u16::try_from(hex(vendor, 4)?).ok()?, u16::try_from(hex(device, 4)?).ok()?))
}

/// `; did you mean …?`, if a candidate is near enough to be meant.
pub(crate) fn hint<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(word, candidates).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!(
            (size("128"), size("64K"), size("0x80"), size("1G")),
            (Some(128), Some(65536), Some(128), Some(1 << 30))
        );
        assert_eq!((size(""), size("K"), size("-1"), size("99999999999G")), (None, None, None, None));
        assert_eq!(
            (nanoseconds("50"), nanoseconds("50us"), nanoseconds("2 ms"), nanoseconds("1s")),
            (Some(50), Some(50_000), Some(2_000_000), Some(1_000_000_000))
        );
        assert_eq!(id_pair("10b5:9050"), Some((0x10B5, 0x9050)));
        assert_eq!((id_pair("10b5"), id_pair("10b5:90500"), id_pair("+1:2")), (None, None, None));
    }
}
