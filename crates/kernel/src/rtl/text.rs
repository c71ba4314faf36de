//! Text in UTF-16 code units: case, comparison, integers, ANSI. The computations behind `RtlUpcaseUnicodeString`,
//! `RtlCompareUnicodeString`, `RtlPrefixUnicodeString`, `RtlUnicodeStringToInteger`, `RtlIntegerToUnicodeString` and
//! `RtlAnsiStringToUnicodeString`, whose pages they follow.
//!
//! The ANSI code page is always 1252. Case is one unit to one, by the Unicode data of the compiler, without what
//! Windows' table leaves alone; pairs of surrogates keep their case, and there is no best fit into ANSI.

use abi::NtStatus;

/// The upper-case form of a code unit, as `RtlUpcaseUnicodeChar`.
#[must_use]
pub fn upcase(unit: u16) -> u16 {
    match unit {
        // What nearly all names are made of.
        0x61..=0x7a => unit - 0x20,
        0..0x80 => unit,
        // Windows leaves the micro sign, dotless i, long s and the Georgian letters as they are.
        0x00b5 | 0x0131 | 0x017f | 0x10d0..=0x10ff => unit,
        // Greek with iota subscript: Unicode's full mapping has two letters, its simple one these.
        0x1f80..=0x1faf => unit | 8,
        0x1fb3 | 0x1fc3 | 0x1ff3 => unit + 9,
        _ => single(unit, char::to_uppercase),
    }
}

/// The lower-case form of a code unit, as `RtlDowncaseUnicodeChar`.
#[must_use]
pub fn downcase(unit: u16) -> u16 {
    match unit {
        // Dotted capital I; the Kelvin, ohm and ångström signs would not come back.
        0x0130 | 0x2126 | 0x212a | 0x212b | 0x10a0..=0x10c5 | 0x1c90..=0x1cbf => unit,
        _ => single(unit, char::to_lowercase),
    }
}

/// The mapping, if it is one unit to one.
fn single<I: Iterator<Item = char>>(unit: u16, map: fn(char) -> I) -> u16 {
    let Some(letter) = char::from_u32(u32::from(unit)) else { return unit };
    let mut mapped = map(letter);
    match (mapped.next(), mapped.next()) {
        (Some(only), None) => u16::try_from(u32::from(only)).unwrap_or(unit),
        _ => unit,
    }
}

/// Compares code unit by code unit, then by length: below 0 if `a` comes first, 0 if they are equal, else above 0.
#[must_use]
pub fn compare(a: &[u16], b: &[u16], ignore_case: bool) -> i32 {
    for (&x, &y) in a.iter().zip(b) {
        let difference = i32::from(folded(x, ignore_case)) - i32::from(folded(y, ignore_case));
        if difference != 0 {
            return difference;
        }
    }
    match a.len().cmp(&b.len()) {
        std::cmp::Ordering::Less => -1,
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Greater => 1,
    }
}

/// Whether `text` begins with `prefix`.
#[must_use]
pub fn has_prefix(prefix: &[u16], text: &[u16], ignore_case: bool) -> bool {
    text.get(..prefix.len()).is_some_and(|start| compare(prefix, start, ignore_case) == 0)
}

fn folded(unit: u16, ignore_case: bool) -> u16 {
    if ignore_case { upcase(unit) } else { unit }
}

/// Reads a number as `RtlUnicodeStringToInteger` does: white space, a sign, digits up to the first that is none.
///
/// `base` is 2, 8, 10, 16, or 0 to go by a prefix `0x`, `0o`, `0b`. Text without digits is 0; what does not fit into 32
/// bits wraps.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for an empty text or another base.
pub fn parse_integer(text: &[u16], base: u32) -> Result<u32, NtStatus> {
    if text.is_empty() || !matches!(base, 0 | 2 | 8 | 10 | 16) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let is = |unit: Option<&u16>, letter: u8| unit == Some(&u16::from(letter));
    let start = text.iter().position(|&unit| unit > u16::from(b' ')).unwrap_or(text.len());
    let mut rest = &text[start..];
    let negative = is(rest.first(), b'-');
    if negative || is(rest.first(), b'+') {
        rest = &rest[1..];
    }
    let mut radix = if base == 0 { 10 } else { base };
    if base == 0 && is(rest.first(), b'0') {
        for (letter, prefixed) in [(b'x', 16), (b'o', 8), (b'b', 2)] {
            if is(rest.get(1), letter) {
                radix = prefixed;
                rest = &rest[2..];
                break;
            }
        }
    }
    let mut value = 0_u32;
    for &unit in rest {
        let Some(digit) = char::from_u32(u32::from(unit)).and_then(|letter| letter.to_digit(radix)) else {
            break;
        };
        value = value.wrapping_mul(radix).wrapping_add(digit);
    }
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// Writes a number as `RtlIntegerToUnicodeString` and `RtlInt64ToUnicodeString` do: unsigned, digits above 9 in upper
/// case. `base` is 2, 8, 10 or 16; 0 is 10.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for another base.
pub fn print_integer(value: u64, base: u32) -> Result<Vec<u16>, NtStatus> {
    let digits = match base {
        0 | 10 => format!("{value}"),
        2 => format!("{value:b}"),
        8 => format!("{value:o}"),
        16 => format!("{value:X}"),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    };
    Ok(digits.encode_utf16().collect())
}

/// Windows-1252, 80h–9Fh; what is not assigned maps to the control character of the same number.
const HIGH: [u16; 32] = [
    0x20ac, 0x0081, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152,
    0x008d, 0x017d, 0x008f, 0x0090, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122,
    0x0161, 0x203a, 0x0153, 0x009d, 0x017e, 0x0178,
];

/// The code units that these bytes are, little-endian; a single last byte is none.
#[must_use]
pub fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect()
}

/// The code unit of an ANSI character.
#[must_use]
pub fn ansi_to_unit(byte: u8) -> u16 {
    match byte {
        0x80..=0x9f => HIGH[usize::from(byte - 0x80)],
        _ => u16::from(byte),
    }
}

/// An ANSI character as a Rust one.
#[must_use]
pub fn ansi_to_char(byte: u8) -> char {
    char::from_u32(u32::from(ansi_to_unit(byte))).unwrap_or('?')
}

/// ANSI text in UTF-16.
#[must_use]
pub fn ansi_to_unicode(text: &[u8]) -> Vec<u16> {
    text.iter().map(|&byte| ansi_to_unit(byte)).collect()
}

/// The ANSI character of a code unit; `?` where there is none.
#[must_use]
pub fn unit_to_ansi(unit: u16) -> u8 {
    match u8::try_from(unit) {
        Ok(byte) if !(0x80..=0x9f).contains(&byte) => byte,
        _ => match HIGH.iter().position(|&high| high == unit) {
            Some(index) => u8::try_from(index + 0x80).unwrap_or(b'?'),
            None => b'?',
        },
    }
}

/// The ANSI character that is this one's upper case; itself where the code page has none.
#[must_use]
pub fn upcase_ansi(byte: u8) -> u8 {
    let upper = upcase(ansi_to_unit(byte));
    match unit_to_ansi(upper) {
        b'?' if upper != u16::from(b'?') => byte,
        upper => upper,
    }
}

/// UTF-16 text in ANSI: one byte for each code unit.
#[must_use]
pub fn unicode_to_ansi(text: &[u16]) -> Vec<u8> {
    text.iter().map(|&unit| unit_to_ansi(unit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    #[test]
    fn names_differ_by_case_only_when_asked() {
        assert_eq!(compare(&wide(r"\Device\Pci9052"), &wide(r"\DEVICE\pci9052"), true), 0);
        assert!(compare(&wide("a"), &wide("B"), false) > 0);
        assert!(compare(&wide("a"), &wide("B"), true) < 0);
        assert!(compare(&wide("ab"), &wide("abc"), true) < 0);
        assert!(has_prefix(&wide("\\??\\"), &wide("\\??\\C:"), false));
        assert!(!has_prefix(&wide("abc"), &wide("ab"), true));
    }

    #[test]
    fn case_is_one_unit_to_one() {
        for (from, to) in
            [('é', 'É'), ('ÿ', 'Ÿ'), ('я', 'Я'), ('ß', 'ß'), ('ﬁ', 'ﬁ'), ('ı', 'ı'), ('µ', 'µ'), ('ᾀ', 'ᾈ')]
        {
            assert_eq!(upcase(wide(&from.to_string())[0]), wide(&to.to_string())[0], "{from}");
        }
        assert_eq!(downcase(u16::from(b'Q')), u16::from(b'q'));
        assert_eq!(downcase(0x0130), 0x0130);
        assert_eq!(upcase(0xd83d), 0xd83d);
    }

    #[test]
    fn upper_case_is_its_own_upper_case() {
        for unit in 0..=u16::MAX {
            assert_eq!(upcase(upcase(unit)), upcase(unit), "{unit:#06x}");
            assert_eq!(upcase(unit) == 0, unit == 0);
        }
    }

    #[test]
    fn numbers_are_read_as_the_page_says() {
        for (text, base, value) in [
            ("123", 10, 123),
            ("  -345", 10, 345_u32.wrapping_neg()),
            ("xyz", 10, 0),
            ("   +678abc", 10, 678),
            ("   +678abc", 16, 6_785_724),
            ("007", 10, 7),
            ("789", 8, 7),
            ("FGH", 16, 15),
            ("      ", 10, 0),
            ("0x1F", 0, 0x1f),
            ("0o17", 0, 15),
            ("0b101", 0, 5),
            ("  \t42 ", 0, 42),
            ("0x12", 16, 0),
            ("4294967297", 10, 1),
        ] {
            assert_eq!(parse_integer(&wide(text), base), Ok(value), "{text} in base {base}");
        }
        assert_eq!(parse_integer(&[], 10), Err(NtStatus::INVALID_PARAMETER));
        assert_eq!(parse_integer(&wide("1"), 7), Err(NtStatus::INVALID_PARAMETER));
    }

    #[test]
    fn numbers_are_written_unsigned_and_in_upper_case() {
        assert_eq!(print_integer(0xabc, 16), Ok(wide("ABC")));
        assert_eq!(print_integer(0, 0), Ok(wide("0")));
        assert_eq!(print_integer(u64::from(u32::MAX), 10), Ok(wide("4294967295")));
        assert_eq!(print_integer(1, 36), Err(NtStatus::INVALID_PARAMETER));
    }

    #[test]
    fn every_ansi_character_comes_back() {
        for byte in 0..=u8::MAX {
            assert_eq!(unit_to_ansi(ansi_to_unit(byte)), byte);
        }
        assert_eq!(ansi_to_char(0x80), '€');
        assert_eq!(unicode_to_ansi(&wide("日\u{1f980}")), b"???");
    }
}
