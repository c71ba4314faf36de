//! The C run-time's string routines that `ntoskrnl.exe` exports, narrow and wide.
//!
//! Page: *String manipulation (CRT)*. One function serves `strcmp` and `wcscmp`: `W` is the bytes of a character. Case
//! is ASCII's in `_stricmp`, Unicode's in `_wcsicmp`. Each charges one instruction a character. Printing is in `print`.

use engine::{Flow, TouchKind};

use super::text;
use crate::cx::Cx;
use crate::ke::slice;
use crate::mm::shadow;

/// The characters at `address` up to a zero or `most` of them; a narrow one is widened as it is.
pub(crate) fn read<const W: u64>(cx: &mut Cx<'_>, address: u64, most: u64) -> Flow<Vec<u16>> {
    const PAGE: u64 = engine::windows::PAGE;
    let mut units: Vec<u16> = Vec::new();
    let mut at = address;
    loop {
        let left = most - units.len() as u64;
        if left == 0 {
            return Ok(units);
        }
        // To the end of the page, so that nothing behind the zero is touched; a character may straddle.
        let room = ((PAGE - at % PAGE) / W).clamp(1, left);
        let mut bytes = vec![0; usize::try_from(room * W).unwrap_or(0)];
        if let Err(bad) = cx.engine().read_bytes(at, &mut bytes) {
            return Err(cx.bad_pointer(bad));
        }
        let piece: Vec<u16> = if W == 1 {
            bytes.into_iter().map(u16::from).collect()
        } else {
            bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect()
        };
        let end = piece.iter().position(|&unit| unit == 0);
        let text = &piece[..end.unwrap_or(piece.len())];
        let looked_at = text.len() as u64 + u64::from(end.is_some());
        shadow::pointed(cx, at, looked_at * W, TouchKind::Read)?;
        slice::work(cx, 1 + text.len() as u64)?;
        units.extend(text);
        if end.is_some() {
            return Ok(units);
        }
        at = at.wrapping_add(room * W);
    }
}

/// Characters without a limit.
pub(crate) const ALL: u64 = u64::MAX;

pub(crate) fn write<const W: u64>(cx: &mut Cx<'_>, address: u64, units: &[u16]) -> Flow<()> {
    let bytes: Vec<u8> = if W == 1 {
        units.iter().map(|unit| unit.to_le_bytes()[0]).collect()
    } else {
        units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
    };
    cx.write_bytes(address, &bytes)
}

/// `strlen`, `wcslen`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub fn length<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<u64> {
    Ok(read::<W>(cx, text, ALL)?.len() as u64)
}

/// `strnlen`, `wcsnlen`.
///
/// # Errors
/// As [`length`].
pub fn length_n<const W: u64>(cx: &mut Cx<'_>, text: u64, most: u64) -> Flow<u64> {
    Ok(read::<W>(cx, text, most)?.len() as u64)
}

/// `strcpy`, `wcscpy`.
///
/// # Errors
/// As [`length`].
pub fn copy<const W: u64>(cx: &mut Cx<'_>, to: u64, from: u64) -> Flow<u64> {
    let mut units = read::<W>(cx, from, ALL)?;
    units.push(0);
    write::<W>(cx, to, &units)?;
    Ok(to)
}

/// `strncpy`, `wcsncpy`: exactly `count` characters, zeroes behind a shorter text, no zero behind a longer one.
///
/// # Errors
/// As [`length`].
pub fn copy_n<const W: u64>(cx: &mut Cx<'_>, to: u64, from: u64, count: u64) -> Flow<u64> {
    let units = read::<W>(cx, from, count)?;
    write::<W>(cx, to, &units)?;
    let written = units.len() as u64 * W;
    super::memory::zero(cx, to + written, count.saturating_mul(W) - written)?;
    Ok(to)
}

/// `strcat`, `wcscat`.
///
/// # Errors
/// As [`length`].
pub fn append<const W: u64>(cx: &mut Cx<'_>, to: u64, from: u64) -> Flow<u64> {
    append_n::<W>(cx, to, from, ALL)
}

/// `strncat`, `wcsncat`: at most `count` characters, and a zero.
///
/// # Errors
/// As [`length`].
pub fn append_n<const W: u64>(cx: &mut Cx<'_>, to: u64, from: u64, count: u64) -> Flow<u64> {
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
pub fn compare<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64) -> Flow<i32> {
    compare_n::<W>(cx, one, two, ALL)
}

/// `strncmp`, `wcsncmp`.
///
/// # Errors
/// As [`length`].
pub fn compare_n<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64, most: u64) -> Flow<i32> {
    order::<W>(cx, one, two, most, |unit| unit)
}

/// `_stricmp`, `_wcsicmp`.
///
/// # Errors
/// As [`length`].
pub fn compare_case<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64) -> Flow<i32> {
    compare_case_n::<W>(cx, one, two, ALL)
}

/// `_strnicmp`, `_wcsnicmp`.
///
/// # Errors
/// As [`length`].
pub fn compare_case_n<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64, most: u64) -> Flow<i32> {
    order::<W>(cx, one, two, most, lower::<W>)
}

/// Compares character by character, reading neither text behind their first difference.
fn order<const W: u64>(cx: &mut Cx<'_>, one: u64, two: u64, most: u64, fold: fn(u16) -> u16) -> Flow<i32> {
    const PIECE: u64 = 64;
    let mut done = 0;
    while done < most {
        let piece = PIECE.min(most - done);
        let (a, b) = (read::<W>(cx, one + done * W, piece)?, read::<W>(cx, two + done * W, piece)?);
        let at = |units: &[u16], index: usize| units.get(index).copied().map_or(0, fold);
        let longer = a.len().max(b.len());
        if let Some(index) = (0..longer).find(|&index| at(&a, index) != at(&b, index)) {
            return Ok(if at(&a, index) < at(&b, index) { -1 } else { 1 });
        }
        if (longer as u64) < piece {
            break;
        }
        done += piece;
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
pub fn find<const W: u64>(cx: &mut Cx<'_>, text: u64, unit: i32) -> Flow<u64> {
    let units = with_end::<W>(cx, text)?;
    Ok(place::<W>(text, units.iter().position(|&other| other == character::<W>(unit))))
}

/// `strrchr`, `wcsrchr`: the last, or null.
///
/// # Errors
/// As [`length`].
pub fn find_last<const W: u64>(cx: &mut Cx<'_>, text: u64, unit: i32) -> Flow<u64> {
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
pub fn find_text<const W: u64>(cx: &mut Cx<'_>, text: u64, part: u64) -> Flow<u64> {
    let (text_units, part) = (read::<W>(cx, text, ALL)?, read::<W>(cx, part, ALL)?);
    if part.is_empty() {
        return Ok(text);
    }
    Ok(place::<W>(text, text_units.windows(part.len()).position(|window| window == part)))
}

/// `_strlwr`, `_wcslwr`: in place.
///
/// # Errors
/// As [`length`].
pub fn make_lower<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<u64> {
    change::<W>(cx, text, lower::<W>)
}

/// `_strupr`, `_wcsupr`: in place.
///
/// # Errors
/// As [`length`].
pub fn make_upper<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<u64> {
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
pub fn lower_character<const W: u64>(_cx: &mut Cx<'_>, unit: i32) -> Flow<i32> {
    Ok(lower::<W>(character::<2>(unit)).into())
}

/// `toupper`, `towupper`.
///
/// # Errors
/// None.
pub fn upper_character<const W: u64>(_cx: &mut Cx<'_>, unit: i32) -> Flow<i32> {
    Ok(upper::<W>(character::<2>(unit)).into())
}

/// `atoi`, `atol`, `_wtoi`, `_wtol`: white space, a sign, digits; what does not fit is the nearest that does.
///
/// # Errors
/// As [`length`].
pub fn to_integer<const W: u64>(cx: &mut Cx<'_>, text: u64) -> Flow<i32> {
    let units = read::<W>(cx, text, ALL)?;
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
