//! More of the C run-time: kinds of characters, numbers in any base, spans, code pages, sorting.
//!
//! Pages: *isdigit*, *_itoa, itoa functions*, *_itoa_s, _itow_s functions*, *strtoul, wcstoul*, *_strtoui64*, *strspn, wcsspn*, *_strnset*,
//! *_strrev*, *mbstowcs*, *wcstombs*, *qsort*, *bsearch*, *rand*, *srand*. The locale is C's, the code page Windows-1252. Elements are sorted where
//! they lie, and elements that compare as equal do not keep their order, as the page says.

use abi::{Code, DriverPtr};
use engine::Flow;

use super::crt::{ALL, read, write};
use super::{memory, text};
use crate::cx::Cx;
use crate::event::Role;
use crate::ke::callout::call_routine;
use crate::ke::slice;

const EINVAL: i32 = 22;
const ERANGE: i32 = 34;

/// `isdigit`, `islower`, `isprint`, `isspace`, `isupper`, `isxdigit`, by their numbers in [`KINDS`].
///
/// # Errors
/// None.
pub(crate) fn is<const KIND: usize>(_cx: &mut Cx<'_>, letter: i32) -> Flow<i32> {
    let is = KINDS[KIND];
    Ok(u8::try_from(letter).is_ok_and(is).into())
}

pub(crate) const KINDS: [fn(u8) -> bool; 6] = [
    |letter| letter.is_ascii_digit(),
    |letter| letter.is_ascii_lowercase(),
    |letter| (0x20..0x7F).contains(&letter),
    |letter| matches!(letter, 9..=13 | 32),
    |letter| letter.is_ascii_uppercase(),
    |letter| letter.is_ascii_hexdigit(),
];

/// A number in this base, in small letters.
fn digits(mut value: u64, base: u32) -> Vec<u16> {
    let mut units = Vec::new();
    loop {
        let digit = u32::try_from(value % u64::from(base)).unwrap_or(0);
        units.push(
            char::from_digit(digit, base).and_then(|digit| u16::try_from(u32::from(digit)).ok()).unwrap_or(0),
        );
        value /= u64::from(base);
        if value == 0 {
            break;
        }
    }
    units.reverse();
    units
}

/// With a sign only in base 10.
fn signed(value: i32, base: u32) -> Vec<u16> {
    if base == 10 && value < 0 {
        let mut units = digits(value.unsigned_abs().into(), base);
        units.insert(0, b'-'.into());
        units
    } else {
        digits(value.cast_unsigned().into(), base)
    }
}

fn signed_64(value: i64, base: u32) -> Vec<u16> {
    if base == 10 && value < 0 {
        let mut units = digits(value.unsigned_abs(), base);
        units.insert(0, b'-'.into());
        units
    } else {
        digits(value.cast_unsigned(), base)
    }
}

/// `_itoa`, `_itow`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn print<const W: u64>(cx: &mut Cx<'_>, value: i32, to: u64, base: u32) -> Flow<u64> {
    let mut units = if (2..=36).contains(&base) { signed(value, base) } else { Vec::new() };
    units.push(0);
    write::<W>(cx, to, &units)?;
    Ok(to)
}

fn print_safely<const W: u64>(
    cx: &mut Cx<'_>,
    to: u64,
    room: u64,
    base: u32,
    number: impl FnOnce() -> Vec<u16>,
) -> Flow<i32> {
    if to == 0 || room == 0 {
        return Ok(EINVAL);
    }
    let (mut units, answer) = if (2..=36).contains(&base) { (number(), 0) } else { (Vec::new(), EINVAL) };
    let fits = (units.len() as u64) < room;
    if !fits {
        units.clear();
    }
    units.push(0);
    write::<W>(cx, to, &units)?;
    Ok(if fits { answer } else { ERANGE })
}

/// `_itoa_s`, `_itow_s`, `_ltoa_s`, `_ltow_s`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_s<const W: u64>(cx: &mut Cx<'_>, value: i32, to: u64, room: u64, base: u32) -> Flow<i32> {
    print_safely::<W>(cx, to, room, base, || signed(value, base))
}

/// `_ultoa_s`, `_ultow_s`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_unsigned_s<const W: u64>(
    cx: &mut Cx<'_>,
    value: u32,
    to: u64,
    room: u64,
    base: u32,
) -> Flow<i32> {
    print_safely::<W>(cx, to, room, base, || digits(value.into(), base))
}

/// `_i64toa_s`, `_i64tow_s`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_64_s<const W: u64>(
    cx: &mut Cx<'_>,
    value: i64,
    to: u64,
    room: u64,
    base: u32,
) -> Flow<i32> {
    print_safely::<W>(cx, to, room, base, || signed_64(value, base))
}

/// `_ui64toa_s`, `_ui64tow_s`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_unsigned_64_s<const W: u64>(
    cx: &mut Cx<'_>,
    value: u64,
    to: u64,
    room: u64,
    base: u32,
) -> Flow<i32> {
    print_safely::<W>(cx, to, room, base, || digits(value, base))
}

/// White space, a sign, perhaps a prefix, digits: the value, whether it is negative, and how many characters were taken. None if what is
/// there is no number, or does not fit below `most`, which stands for it then.
fn parse(units: &[u16], base: u32, most: u64) -> (u64, bool, usize) {
    let at = |index: usize| units.get(index).and_then(|&unit| char::from_u32(unit.into())).unwrap_or('\0');
    let mut start = units.iter().take_while(|&&unit| matches!(unit, 9..=13 | 32)).count();
    let negative = at(start) == '-';
    start += usize::from(matches!(at(start), '-' | '+'));
    let hexadecimal =
        at(start) == '0' && matches!(at(start + 1), 'x' | 'X') && at(start + 2).is_ascii_hexdigit();
    let base = match base {
        0 if hexadecimal => 16,
        0 if at(start) == '0' => 8,
        0 => 10,
        base => base,
    };
    start += if base == 16 && hexadecimal { 2 } else { 0 };
    let digits = (start..).map_while(|index| at(index).to_digit(base)).collect::<Vec<u32>>();
    let value = digits.iter().try_fold(0_u64, |value, &digit| {
        value.checked_mul(base.into())?.checked_add(digit.into()).filter(|&value| value <= most)
    });
    match value {
        _ if digits.is_empty() => (0, false, 0),
        Some(value) => (value, negative, start + digits.len()),
        None => (most, false, start + digits.len()),
    }
}

/// `wcstoul`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn to_unsigned(cx: &mut Cx<'_>, text: u64, end: DriverPtr<u64>, base: u32) -> Flow<u32> {
    let value = to_number::<2>(cx, text, end, base, u32::MAX.into())?;
    Ok(u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0))
}

/// `_strtoui64`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn to_unsigned_64(cx: &mut Cx<'_>, text: u64, end: DriverPtr<u64>, base: u32) -> Flow<u64> {
    to_number::<1>(cx, text, end, base, u64::MAX)
}

fn to_number<const W: u64>(
    cx: &mut Cx<'_>,
    text: u64,
    end: DriverPtr<u64>,
    base: u32,
    most: u64,
) -> Flow<u64> {
    let units = read::<W>(cx, text, ALL)?;
    let known = base == 0 || (2..=36).contains(&base);
    let (value, negative, taken) = if known { parse(&units, base, most) } else { (0, false, 0) };
    if !end.is_null() {
        cx.write(end, text + taken as u64 * W)?;
    }
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// `strspn`, `wcsspn`: how many characters at the start are of `set`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn span<const W: u64>(cx: &mut Cx<'_>, text: u64, set: u64) -> Flow<u64> {
    span_while::<W>(cx, text, set, true)
}

/// `wcscspn`: how many are not.
///
/// # Errors
/// As [`print()`].
pub(crate) fn span_without<const W: u64>(cx: &mut Cx<'_>, text: u64, set: u64) -> Flow<u64> {
    span_while::<W>(cx, text, set, false)
}

fn span_while<const W: u64>(cx: &mut Cx<'_>, text: u64, set: u64, of_it: bool) -> Flow<u64> {
    let set = read::<W>(cx, set, ALL)?;
    let units = read::<W>(cx, text, ALL)?;
    Ok(units.iter().take_while(|unit| set.contains(unit) == of_it).count() as u64)
}

/// `_strnset`, `_wcsnset`: the first characters of a text, but not its zero.
///
/// # Errors
/// As [`print()`].
pub(crate) fn set_n<const W: u64>(cx: &mut Cx<'_>, text: u64, unit: i32, count: u64) -> Flow<u64> {
    let length = read::<W>(cx, text, count)?.len();
    let [low, high, ..] = unit.to_le_bytes();
    write::<W>(cx, text, &vec![u16::from_le_bytes([low, high]); length])?;
    Ok(text)
}

/// `_strrev`, `_wcsrev`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn reverse<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<u64> {
    let mut units = read::<W>(cx, text, ALL)?;
    units.reverse();
    write::<W>(cx, text, &units)?;
    Ok(text)
}

/// `mbstowcs`: without `to`, only how many characters there would be.
///
/// # Errors
/// As [`print()`].
pub(crate) fn widen(cx: &mut Cx<'_>, to: u64, from: u64, count: u64) -> Flow<u64> {
    let units = read::<1>(cx, from, if to == 0 { ALL } else { count })?;
    let length = units.len() as u64;
    if to != 0 {
        let mut wide: Vec<u16> = units.iter().map(|unit| text::ansi_to_unit(unit.to_le_bytes()[0])).collect();
        wide.extend((length < count).then_some(0));
        write::<2>(cx, to, &wide)?;
    }
    Ok(length)
}

/// `wcstombs`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn narrow(cx: &mut Cx<'_>, to: u64, from: u64, count: u64) -> Flow<u64> {
    let units = read::<2>(cx, from, if to == 0 { ALL } else { count })?;
    let length = units.len() as u64;
    if to != 0 {
        let mut bytes = text::unicode_to_ansi(&units);
        bytes.extend((length < count).then_some(0));
        memory::store(cx, to, &bytes)?;
    }
    Ok(length)
}

/// `mbtowc`: of how many bytes the first character is.
///
/// # Errors
/// As [`print()`].
pub(crate) fn widen_one(cx: &mut Cx<'_>, to: u64, from: u64, count: u64) -> Flow<i32> {
    if from == 0 || count == 0 {
        return Ok(0);
    }
    let byte = memory::load(cx, from, 1)?[0];
    if to != 0 {
        write::<2>(cx, to, &[text::ansi_to_unit(byte)])?;
    }
    Ok((byte != 0).into())
}

/// `wctomb`.
///
/// # Errors
/// As [`print()`].
pub(crate) fn narrow_one(cx: &mut Cx<'_>, to: u64, unit: u16) -> Flow<i32> {
    if to == 0 {
        return Ok(0);
    }
    memory::store(cx, to, &[text::unit_to_ansi(unit)])?;
    Ok(1)
}

/// `srand`.
///
/// # Errors
/// None.
pub(crate) fn set_seed(cx: &mut Cx<'_>, seed: u32) -> Flow<()> {
    cx.with(|k| k.ex.random = seed);
    Ok(())
}

/// `rand`: below 32768, and the same numbers after the same seed.
///
/// # Errors
/// None.
pub(crate) fn next_random(cx: &mut Cx<'_>) -> Flow<u32> {
    Ok(cx.with(|k| {
        k.ex.random = k.ex.random.wrapping_mul(214_013).wrapping_add(2_531_011);
        k.ex.random >> 16 & 0x7FFF
    }))
}

fn compared(cx: &mut Cx<'_>, compare: DriverPtr<Code>, one: u64, two: u64) -> Flow<i32> {
    let answer = call_routine(cx, Role::Compare, compare, 0, &[one, two])?;
    slice::work(cx, 8)?;
    Ok(u32::try_from(answer & u64::from(u32::MAX)).unwrap_or(0).cast_signed())
}

/// `bsearch`: where an element is that compares as equal, or null.
///
/// # Errors
/// As [`print()`]; whatever `compare` comes to.
pub(crate) fn search(
    cx: &mut Cx<'_>,
    key: u64,
    base: u64,
    count: u64,
    size: u64,
    compare: DriverPtr<Code>,
) -> Flow<u64> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        let at = base.wrapping_add(middle.wrapping_mul(size));
        match compared(cx, compare, key, at)? {
            0 => return Ok(at),
            order if order < 0 => high = middle,
            _ => low = middle + 1,
        }
    }
    Ok(0)
}

/// `qsort`.
///
/// # Errors
/// As [`search`].
pub(crate) fn sort(cx: &mut Cx<'_>, base: u64, count: u64, size: u64, compare: DriverPtr<Code>) -> Flow<()> {
    if size == 0 || count < 2 {
        return Ok(());
    }
    for root in (0..count / 2).rev() {
        sift(cx, base, (root, count), size, compare)?;
    }
    for last in (1..count).rev() {
        swap(cx, base, base.wrapping_add(last.wrapping_mul(size)), size)?;
        sift(cx, base, (0, last), size, compare)?;
    }
    Ok(())
}

/// Of a heap of `count` elements, lets the one at `root` sink to its place.
fn sift(
    cx: &mut Cx<'_>,
    base: u64,
    (mut root, count): (u64, u64),
    size: u64,
    compare: DriverPtr<Code>,
) -> Flow<()> {
    let at = |index: u64| base.wrapping_add(index.wrapping_mul(size));
    while 2 * root + 1 < count {
        let mut child = 2 * root + 1;
        if child + 1 < count && compared(cx, compare, at(child), at(child + 1))? < 0 {
            child += 1;
        }
        if compared(cx, compare, at(root), at(child))? >= 0 {
            return Ok(());
        }
        swap(cx, at(root), at(child), size)?;
        root = child;
    }
    Ok(())
}

fn swap(cx: &mut Cx<'_>, one: u64, two: u64, size: u64) -> Flow<()> {
    let (a, b) = (memory::load(cx, one, size)?, memory::load(cx, two, size)?);
    memory::store(cx, one, &b)?;
    memory::store(cx, two, &a)?;
    slice::work(cx, size / 4)
}
