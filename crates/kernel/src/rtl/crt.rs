//! The C run-time's string routines that `ntoskrnl.exe` exports, narrow and wide.
//!
//! Page: *String manipulation (CRT)*. One function serves `strcmp` and `wcscmp`: `W` is the bytes of a character. Case
//! is ASCII's in `_stricmp`, Unicode's in `_wcsicmp`. Each charges one instruction a character. Printing is in `print`.

use engine::Flow;

use super::{memory, text};
use crate::cx::Cx;
use crate::ke::slice;

/// The characters at `address` up to a zero or `most` of them; a narrow one is widened as it is.
pub(crate) fn read<const W: u64>(cx: &mut Cx<'_>, address: u64, most: u64) -> Flow<Vec<u16>> {
    let mut units = scan::<W>(cx, address, most, |units| units.last() == Some(&0))?;
    if units.last() == Some(&0) {
        units.pop();
    }
    Ok(units)
}

/// Reads characters one by one until `stops` says so of all that were read, or `most` were; those behind the last are not looked at.
fn scan<const W: u64>(
    cx: &mut Cx<'_>,
    address: u64,
    most: u64,
    mut stops: impl FnMut(&[u16]) -> bool,
) -> Flow<Vec<u16>> {
    let mut units: Vec<u16> = Vec::new();
    while (units.len() as u64) < most {
        let at = address.wrapping_add(units.len() as u64 * W);
        let reach = memory::reach(at, W, (most - units.len() as u64).saturating_mul(W));
        let before = units.len();
        let (mut done, mut stopped) = (0, false);
        while done < reach && !stopped {
            let part = CHUNK.min(reach - done);
            stopped = peek::<W>(cx, at.wrapping_add(done), part)?.into_iter().any(|unit| {
                units.push(unit);
                stops(&units)
            });
            done += part;
        }
        let looked = (units.len() - before) as u64;
        memory::looked_at(cx, at, looked * W)?;
        slice::work(cx, 1 + looked)?;
        if stopped {
            break;
        }
    }
    Ok(units)
}

/// Bytes that are read at once of what can be: most texts are short, and what lies behind them up to the end of its page is not copied.
const CHUNK: u64 = 128;

/// The characters in these bytes, which can be read at once, although perhaps not all of them are of the text.
fn peek<const W: u64>(cx: &mut Cx<'_>, at: u64, bytes: u64) -> Flow<Vec<u16>> {
    let bytes = memory::peek(cx, at, bytes)?;
    Ok(if W == 1 { bytes.into_iter().map(u16::from).collect() } else { text::units(&bytes) })
}

/// Characters without a limit.
pub(crate) const ALL: u64 = u64::MAX;

pub(crate) fn write<const W: u64>(cx: &mut Cx<'_>, address: u64, units: &[u16]) -> Flow<()> {
    let bytes: Vec<u8> = if W == 1 {
        units.iter().map(|unit| unit.to_le_bytes()[0]).collect()
    } else {
        units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
    };
    memory::store(cx, address, &bytes)
}

/// `strlen`, `wcslen`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn length<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<u64> {
    Ok(read::<W>(cx, text, ALL)?.len() as u64)
}

/// `strnlen`, `wcsnlen`.
///
/// # Errors
/// As [`length`].
pub(crate) fn length_n<const W: u64>(cx: &mut Cx<'_>, text: u64, most: u64) -> Flow<u64> {
    Ok(read::<W>(cx, text, most)?.len() as u64)
}

/// `strcpy`, `wcscpy`.
///
/// # Errors
/// As [`length`].
pub(crate) fn copy<const W: u64>(cx: &mut Cx<'_>, to: u64, from: u64) -> Flow<u64> {
    let mut units = read::<W>(cx, from, ALL)?;
    units.push(0);
    write::<W>(cx, to, &units)?;
    Ok(to)
}

/// `strncpy`, `wcsncpy`: exactly `count` characters, zeroes behind a shorter text, no zero behind a longer one.
///
/// # Errors
/// As [`length`].
pub(crate) fn copy_n<const W: u64>(cx: &mut Cx<'_>, to: u64, from: u64, count: u64) -> Flow<u64> {
    let units = read::<W>(cx, from, count)?;
    write::<W>(cx, to, &units)?;
    let written = units.len() as u64 * W;
    memory::zero(cx, to + written, count.saturating_mul(W) - written)?;
    Ok(to)
}

/// `strcat`, `wcscat`.
///
/// # Errors
/// As [`length`].
pub(crate) fn append<const W: u64>(cx: &mut Cx<'_>, to: u64, from: u64) -> Flow<u64> {
    append_n::<W>(cx, to, from, ALL)
}

/// `strncat`, `wcsncat`: at most `count` characters, and a zero.
///
/// # Errors
/// As [`length`].
pub(crate) fn append_n<const W: u64>(cx: &mut Cx<'_>, to: u64, from: u64, count: u64) -> Flow<u64> {
    let before = length::<W>(cx, to)?;
    let mut units = read::<W>(cx, from, count)?;
    units.push(0);
    write::<W>(cx, to + before * W, &units)?;
    Ok(to)
}

/// `strcmp`, `wcscmp`.
///
/// # Errors
/// As [`length`].
pub(crate) fn compare<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64) -> Flow<i32> {
    compare_n::<W>(cx, one, two, ALL)
}

/// `strncmp`, `wcsncmp`.
///
/// # Errors
/// As [`length`].
pub(crate) fn compare_n<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64, most: u64) -> Flow<i32> {
    order::<W>(cx, one, two, most, |unit| unit)
}

/// `_stricmp`, `_wcsicmp`.
///
/// # Errors
/// As [`length`].
pub(crate) fn compare_case<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64) -> Flow<i32> {
    compare_case_n::<W>(cx, one, two, ALL)
}

/// `_strnicmp`, `_wcsnicmp`.
///
/// # Errors
/// As [`length`].
pub(crate) fn compare_case_n<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64, most: u64) -> Flow<i32> {
    order::<W>(cx, one, two, most, lower::<W>)
}

/// Compares character by character, looking at neither text behind their first difference or their end.
fn order<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64, most: u64, fold: fn(u16) -> u16) -> Flow<i32> {
    const PIECE: u64 = 64;
    let mut done = 0;
    while done < most {
        let (at, other) = (one.wrapping_add(done * W), two.wrapping_add(done * W));
        let a = peek::<W>(cx, at, memory::reach(at, W, PIECE.min(most - done).saturating_mul(W)))?;
        let b = peek::<W>(cx, other, memory::reach(other, W, a.len() as u64 * W))?;
        let pairs = a.iter().zip(&b).map(|(&a, &b)| (fold(a), fold(b)));
        let last = pairs.clone().position(|(a, b)| a != b || a == 0);
        let looked = last.map_or(pairs.len(), |last| last + 1) as u64;
        memory::looked_at(cx, at, looked * W)?;
        memory::looked_at(cx, other, looked * W)?;
        slice::work(cx, 2 * (1 + looked))?;
        if let Some((a, b)) = last.and_then(|last| pairs.clone().nth(last)) {
            return Ok(a.cmp(&b) as i32);
        }
        done += looked;
    }
    Ok(0)
}

fn lower<const W: u64>(unit: u16) -> u16 {
    match u8::try_from(unit) {
        Ok(byte) if W == 1 => byte.to_ascii_lowercase().into(),
        _ => text::downcase(unit),
    }
}

fn upper<const W: u64>(unit: u16) -> u16 {
    match u8::try_from(unit) {
        Ok(byte) if W == 1 => byte.to_ascii_uppercase().into(),
        _ => text::upcase(unit),
    }
}

/// `strchr`, `wcschr`: the first, or null; a zero finds the end.
///
/// # Errors
/// As [`length`].
pub(crate) fn find<const W: u64>(cx: &mut Cx<'_>, text: u64, unit: i32) -> Flow<u64> {
    let wanted = character::<W>(unit);
    let units =
        scan::<W>(cx, text, ALL, |units| units.last().is_some_and(|&unit| unit == 0 || unit == wanted))?;
    Ok(place::<W>(text, units.last().filter(|&&last| last == wanted).map(|_| units.len() - 1)))
}

/// `strrchr`, `wcsrchr`: the last, or null.
///
/// # Errors
/// As [`length`].
pub(crate) fn find_last<const W: u64>(cx: &mut Cx<'_>, text: u64, unit: i32) -> Flow<u64> {
    let units = with_end::<W>(cx, text)?;
    Ok(place::<W>(text, units.iter().rposition(|&other| other == character::<W>(unit))))
}

fn with_end<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<Vec<u16>> {
    let mut units = read::<W>(cx, text, ALL)?;
    units.push(0);
    Ok(units)
}

fn character<const W: u64>(unit: i32) -> u16 {
    let [low, high, ..] = unit.to_le_bytes();
    u16::from_le_bytes([low, if W == 1 { 0 } else { high }])
}

fn place<const W: u64>(text: u64, index: Option<usize>) -> u64 {
    index.map_or(0, |index| text + index as u64 * W)
}

/// `strstr`, `wcsstr`: where `part` first occurs, or null; an empty one occurs at once.
///
/// # Errors
/// As [`length`].
pub(crate) fn find_text<const W: u64>(cx: &mut Cx<'_>, text: u64, part: u64) -> Flow<u64> {
    let part = read::<W>(cx, part, ALL)?;
    if part.is_empty() {
        return Ok(text);
    }
    let units = scan::<W>(cx, text, ALL, |units| units.last() == Some(&0) || units.ends_with(&part))?;
    Ok(place::<W>(text, units.ends_with(&part).then(|| units.len() - part.len())))
}

/// `_strlwr`, `_wcslwr`: in place.
///
/// # Errors
/// As [`length`].
pub(crate) fn make_lower<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<u64> {
    change::<W>(cx, text, lower::<W>)
}

/// `_strupr`, `_wcsupr`: in place.
///
/// # Errors
/// As [`length`].
pub(crate) fn make_upper<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<u64> {
    change::<W>(cx, text, upper::<W>)
}

fn change<const W: u64>(cx: &mut Cx<'_>, text: u64, with: fn(u16) -> u16) -> Flow<u64> {
    let units: Vec<u16> = read::<W>(cx, text, ALL)?.into_iter().map(with).collect();
    write::<W>(cx, text, &units)?;
    Ok(text)
}

/// `tolower`, `towlower`.
///
/// # Errors
/// None.
pub(crate) fn lower_character<const W: u64>(_cx: &mut Cx<'_>, unit: i32) -> Flow<i32> {
    Ok(lower::<W>(character::<2>(unit)).into())
}

/// `toupper`, `towupper`.
///
/// # Errors
/// None.
pub(crate) fn upper_character<const W: u64>(_cx: &mut Cx<'_>, unit: i32) -> Flow<i32> {
    Ok(upper::<W>(character::<2>(unit)).into())
}

/// `atoi`, `atol`, `_wtoi`, `_wtol`: white space, a sign, digits; what does not fit is the nearest that does.
///
/// # Errors
/// As [`length`].
pub(crate) fn to_integer<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<i32> {
    let mut begun = false;
    let units = scan::<W>(cx, text, ALL, |units| {
        let last = units.last().copied().unwrap_or(0);
        let digit = (u16::from(b'0')..=u16::from(b'9')).contains(&last);
        let goes_on = digit || !begun && (matches!(last, 9..=13 | 32) || last == 43 || last == 45);
        begun |= digit || last == 43 || last == 45;
        !goes_on
    })?;
    let ascii: String = units.iter().map(|&unit| u8::try_from(unit).map_or('?', char::from)).collect();
    let trimmed = ascii.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let digits = digits.chars().map_while(|letter| letter.to_digit(10));
    let value = digits.fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(digit.into()));
    let value = if negative { -value } else { value };
    Ok(i32::try_from(value).unwrap_or(if negative { i32::MIN } else { i32::MAX }))
}
