//! One conversion specification: `%[flags][width][.precision][size]type`.
//!
//! Follows *Format specification syntax*: `*` takes an argument, a negative width is the flag `-`, a negative precision
//! is none. Sizes `h hh l ll w I I32 I64 L` and `z j t` are known.

use super::Arguments;

/// The size prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Length {
    /// None: 32 bits; what the function's own strings are.
    Plain,
    /// `hh`: 8 bits.
    Char,
    /// `h`: 16 bits; ANSI.
    Short,
    /// `l`: 32 bits; Unicode.
    Long,
    /// `w`: Unicode.
    Wide,
    /// `ll I64 I j z t`: 64 bits.
    LongLong,
}

/// A specification, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spec {
    pub(super) left: bool,
    pub(super) plus: bool,
    pub(super) space: bool,
    pub(super) zero: bool,
    pub(super) alternate: bool,
    pub(super) width: usize,
    pub(super) precision: Option<usize>,
    pub(super) length: Length,
    /// The type's letter; `None` where the format ends before it or where `foreign` stands in its place.
    pub(super) conversion: Option<u8>,
    /// What stands in the type's place and is not ASCII.
    pub(super) foreign: Option<u16>,
}

impl Spec {
    /// Reads what follows a `%`; returns it and the rest of the format.
    pub(super) fn parse<'a>(format: &'a [u16], args: &mut dyn Arguments) -> (Self, &'a [u16]) {
        let mut spec = Self {
            left: false,
            plus: false,
            space: false,
            zero: false,
            alternate: false,
            width: 0,
            precision: None,
            length: Length::Plain,
            conversion: None,
            foreign: None,
        };
        let mut rest = format;
        while let Some(flag) = letter(rest) {
            match flag {
                b'-' => spec.left = true,
                b'+' => spec.plus = true,
                b' ' => spec.space = true,
                b'0' => spec.zero = true,
                b'#' => spec.alternate = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        if let Some((width, after)) = amount(rest, args) {
            spec.left |= width < 0;
            spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
            rest = after;
        }
        if letter(rest) == Some(b'.') {
            let (precision, after) = amount(&rest[1..], args).unwrap_or((0, &rest[1..]));
            spec.precision = usize::try_from(precision).ok();
            rest = after;
        }
        (spec.length, rest) = length(rest);
        match rest.split_first() {
            Some((&unit, after)) => {
                match u8::try_from(unit).ok().filter(u8::is_ascii) {
                    Some(letter) => spec.conversion = Some(letter),
                    None => spec.foreign = Some(unit),
                }
                (spec, after)
            }
            None => (spec, rest),
        }
    }
}

fn letter(format: &[u16]) -> Option<u8> {
    format.first().and_then(|&unit| u8::try_from(unit).ok())
}

/// A number or `*`.
fn amount<'a>(format: &'a [u16], args: &mut dyn Arguments) -> Option<(i64, &'a [u16])> {
    if letter(format) == Some(b'*') {
        let [a, b, c, d, ..] = args.next().to_le_bytes();
        return Some((i64::from(i32::from_le_bytes([a, b, c, d])), &format[1..]));
    }
    let mut value = None;
    let mut rest = format;
    while let Some(digit @ b'0'..=b'9') = letter(rest) {
        let so_far: i64 = value.unwrap_or(0);
        value = Some((so_far * 10 + i64::from(digit - b'0')).min(i64::from(i32::MAX)));
        rest = &rest[1..];
    }
    value.map(|value| (value, rest))
}

fn length(format: &[u16]) -> (Length, &[u16]) {
    let at = |index: usize| format.get(index).and_then(|&unit| u8::try_from(unit).ok());
    let (length, taken) = match (at(0), at(1), at(2)) {
        (Some(b'h'), Some(b'h'), _) => (Length::Char, 2),
        (Some(b'h'), ..) => (Length::Short, 1),
        (Some(b'l'), Some(b'l'), _) => (Length::LongLong, 2),
        (Some(b'l'), ..) => (Length::Long, 1),
        (Some(b'w'), ..) => (Length::Wide, 1),
        (Some(b'I'), Some(b'6'), Some(b'4')) => (Length::LongLong, 3),
        (Some(b'I'), Some(b'3'), Some(b'2')) => (Length::Plain, 3),
        (Some(b'I' | b'j' | b'z' | b't'), ..) => (Length::LongLong, 1),
        (Some(b'L'), ..) => (Length::Plain, 1),
        _ => (Length::Plain, 0),
    };
    (length, &format[taken..])
}
