//! UTF-8 and UTF-16.
//!
//! Pages: *RtlUTF8ToUnicodeN function*, *RtlUnicodeToUTF8N function*, *RtlUTF8StringToUnicodeString function*,
//! *RtlUnicodeStringToUTF8String function*, *RtlInitUTF8String function*, *RtlInitUTF8StringEx function*, *RtlFreeUTF8String function*. What is
//! no character becomes U+FFFD, each part of it that cannot go on once, and the status says so. Only whole characters are written. Whether
//! the rest had any that are none does not matter where the buffer ends before.

use abi::{DriverPtr, NtStatus, STRING, UNICODE_STRING};
use engine::Flow;

use super::{convert, crt, string, text};
use crate::cx::Cx;

/// Text in pieces that are written whole or not at all, and whether some of it was no character.
struct Converted<T> {
    characters: Vec<Vec<T>>,
    replaced: bool,
}

impl<T: Copy> Converted<T> {
    /// As many units as whole characters of them fit into `room`, and whether that is all.
    fn fitting(&self, room: usize) -> (Vec<T>, bool) {
        let mut units = Vec::new();
        for character in &self.characters {
            if units.len() + character.len() > room {
                return (units, false);
            }
            units.extend_from_slice(character);
        }
        (units, true)
    }

    fn units(&self) -> usize {
        self.characters.iter().map(Vec::len).sum()
    }

    const fn status(&self) -> NtStatus {
        if self.replaced { NtStatus::SOME_NOT_MAPPED } else { NtStatus::SUCCESS }
    }
}

fn to_utf16(bytes: &[u8]) -> Converted<u16> {
    let text = String::from_utf8_lossy(bytes);
    let unit = |character: char| character.encode_utf16(&mut [0; 2]).to_vec();
    // A replacement character of the source's own is three bytes, and no replacement.
    let replaced = std::str::from_utf8(bytes).is_err();
    Converted { characters: text.chars().map(unit).collect(), replaced }
}

fn to_utf8(units: &[u16]) -> Converted<u8> {
    let mut replaced = false;
    let mut bytes = |decoded: Result<char, _>| {
        replaced |= decoded.is_err();
        let character: char = decoded.unwrap_or(char::REPLACEMENT_CHARACTER);
        character.encode_utf8(&mut [0; 4]).as_bytes().to_vec()
    };
    let characters = char::decode_utf16(units.iter().copied()).map(&mut bytes).collect();
    Converted { characters, replaced }
}

/// `RtlUTF8ToUnicodeN`: without a buffer, how many bytes it takes; STATUS_BUFFER_TOO_SMALL where not all fits.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub fn utf8_to_unicode(
    cx: &mut Cx<'_>,
    to: u64,
    room: u32,
    written: DriverPtr<u32>,
    from: u64,
    length: u32,
) -> Flow<NtStatus> {
    if let Some(status) = refused(to, written, from) {
        return Ok(status);
    }
    let bytes = cx.read_bytes(from, length.into())?;
    let converted = to_utf16(&bytes);
    if to == 0 {
        return answer(cx, written, 2 * converted.units(), converted.status());
    }
    let (units, all) = converted.fitting(usize::try_from(room / 2).unwrap_or(usize::MAX));
    crt::write::<2>(cx, to, &units)?;
    answer(cx, written, 2 * units.len(), if all { converted.status() } else { NtStatus::BUFFER_TOO_SMALL })
}

/// `RtlUnicodeToUTF8N`: `length` is in bytes; else as [`utf8_to_unicode`].
///
/// # Errors
/// As [`utf8_to_unicode`].
pub fn unicode_to_utf8(
    cx: &mut Cx<'_>,
    to: u64,
    room: u32,
    written: DriverPtr<u32>,
    from: u64,
    length: u32,
) -> Flow<NtStatus> {
    if let Some(status) = refused(to, written, from) {
        return Ok(status);
    }
    if !length.is_multiple_of(2) {
        return Ok(NtStatus::INVALID_PARAMETER_5);
    }
    let bytes = cx.read_bytes(from, length.into())?;
    let converted = to_utf8(&text::units(&bytes));
    if to == 0 {
        return answer(cx, written, converted.units(), converted.status());
    }
    let (bytes, all) = converted.fitting(usize::try_from(room).unwrap_or(usize::MAX));
    cx.write_bytes(to, &bytes)?;
    answer(cx, written, bytes.len(), if all { converted.status() } else { NtStatus::BUFFER_TOO_SMALL })
}

fn refused(to: u64, written: DriverPtr<u32>, from: u64) -> Option<NtStatus> {
    match (to, written.is_null(), from) {
        (0, true, _) => Some(NtStatus::INVALID_PARAMETER),
        (_, _, 0) => Some(NtStatus::INVALID_PARAMETER_4),
        _ => None,
    }
}

fn answer(cx: &mut Cx<'_>, written: DriverPtr<u32>, bytes: usize, status: NtStatus) -> Flow<NtStatus> {
    convert::store_count(cx, written, bytes)?;
    Ok(status)
}

/// `RtlUTF8StringToUnicodeString`: cut off, with STATUS_BUFFER_OVERFLOW, where the caller's buffer ends.
///
/// # Errors
/// As [`utf8_to_unicode`].
pub fn string_to_unicode(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    let bytes = string::read_ansi(cx, from)?;
    let converted = to_utf16(&bytes);
    put::<2, u16>(cx, to, &converted, allocate)
}

/// `RtlUnicodeStringToUTF8String`: as [`string_to_unicode`].
///
/// # Errors
/// As [`utf8_to_unicode`].
pub fn unicode_to_string(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    let units = string::read(cx, from)?;
    let converted = to_utf8(&units);
    put::<1, u8>(cx, to, &converted, allocate)
}

/// Into the buffer of a string, with a zero behind it if there is room.
fn put<const W: u64, T: Copy + Into<u16>>(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    converted: &Converted<T>,
    allocate: bool,
) -> Flow<NtStatus> {
    let room = if allocate {
        usize::MAX
    } else {
        usize::from(cx.read(to + UNICODE_STRING::MaximumLength)?) / usize::try_from(W).unwrap_or(1)
    };
    let (units, all) = converted.fitting(room);
    let zero = allocate || units.len() < room;
    let units = units.into_iter().map(Into::into).collect();
    match convert::put::<W>(cx, to, units, zero, allocate)? {
        NtStatus::SUCCESS if !all => Ok(NtStatus::BUFFER_OVERFLOW),
        NtStatus::SUCCESS => Ok(converted.status()),
        status => Ok(status),
    }
}
