//! Strings into other strings: code pages, case, numbers.
//!
//! Pages: *RtlUnicodeStringToAnsiString function*, *RtlAnsiStringToUnicodeString function*,
//! *RtlUpcaseUnicodeString function*, *RtlIntegerToUnicodeString function*, *RtlUnicodeStringToInteger function*. The ANSI
//! code page is Windows-1252.

use abi::{DriverPtr, NtStatus, STRING, UNICODE_STRING};
use engine::Flow;

use super::{crt, string, text};
use crate::cx::Cx;
use crate::mm::pool;

/// Puts `units` and, where `zero`, a zero behind them, into `to`, whose buffer is allocated first if `allocate`; `too_long`
/// if it has no room.
pub(crate) fn put<const W: u64>(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    mut units: Vec<u16>,
    zero: bool,
    allocate: bool,
) -> Flow<NtStatus> {
    let length = units.len() as u64 * W;
    if zero {
        units.push(0);
    }
    let need = units.len() as u64 * W;
    if need > 0xFFFE {
        return Ok(NtStatus::INVALID_PARAMETER_2);
    }
    let (buffer, maximum) = if allocate {
        let buffer = pool::allocate_for_caller::<()>(cx, pool::Kind::Paged, need.max(1), string::TAG)?;
        if buffer.is_null() {
            return Ok(NtStatus::NO_MEMORY);
        }
        (buffer.address, need)
    } else {
        let maximum: u64 = cx.read(to + UNICODE_STRING::MaximumLength)?.into();
        if need > maximum {
            return Ok(NtStatus::BUFFER_OVERFLOW);
        }
        (cx.read(to + UNICODE_STRING::Buffer)?.address, maximum)
    };
    crt::write::<W>(cx, buffer, &units)?;
    string::set(cx, to, length, maximum, buffer)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlUnicodeStringToAnsiString`. What does not fit into the caller's buffer is cut off, with a zero at its end and a status that
/// says so.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn unicode_to_ansi(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    let units = string::read(cx, from)?;
    let mut ansi: Vec<u16> = text::unicode_to_ansi(&units).into_iter().map(u16::from).collect();
    if !allocate {
        let room = usize::from(cx.read(to + UNICODE_STRING::MaximumLength)?);
        if ansi.len() >= room {
            ansi.truncate(room.saturating_sub(1));
            if room > 0 {
                let _ = put::<1>(cx, to, ansi, true, false)?;
            }
            return Ok(NtStatus::BUFFER_OVERFLOW);
        }
    }
    put::<1>(cx, to, ansi, true, allocate)
}

/// `RtlAnsiStringToUnicodeString`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn ansi_to_unicode(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    let bytes = string::read_ansi(cx, from)?;
    put::<2>(cx, to, text::ansi_to_unicode(&bytes), true, allocate)
}

/// `RtlUpcaseUnicodeString`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn upcase(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    let units = string::read(cx, from)?.into_iter().map(text::upcase).collect();
    put::<2>(cx, to, units, false, allocate)
}

/// `RtlDowncaseUnicodeString`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn downcase(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    let units = string::read(cx, from)?.into_iter().map(text::downcase).collect();
    put::<2>(cx, to, units, false, allocate)
}

/// `RtlCreateUnicodeString`: a copy in paged pool; false if there is no memory.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn create(cx: &mut Cx<'_>, to: DriverPtr<UNICODE_STRING>, source: u64) -> Flow<bool> {
    let units = crt::read::<2>(cx, source, crt::ALL)?;
    put::<2>(cx, to, units, true, true).map(|status| status == NtStatus::SUCCESS)
}

/// `RtlxUnicodeStringToAnsiSize`: bytes with the zero.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn ansi_size(cx: &mut Cx<'_>, from: DriverPtr<UNICODE_STRING>) -> Flow<u32> {
    Ok(u32::from(cx.read(from + UNICODE_STRING::Length)?) / 2 + 1)
}

/// `RtlxAnsiStringToUnicodeSize`: bytes with the zero.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn unicode_size(cx: &mut Cx<'_>, from: DriverPtr<STRING>) -> Flow<u32> {
    Ok((u32::from(cx.read(from + STRING::Length)?) + 1) * 2)
}

/// `RtlAnsiCharToUnicodeChar`: the next character, behind which the caller's pointer points then.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn ansi_char_to_unicode(cx: &mut Cx<'_>, at: DriverPtr<u64>) -> Flow<u16> {
    let character = DriverPtr::<u8>::new(cx.read(at)?);
    let unit = text::ansi_to_unit(cx.read(character)?);
    cx.write(at, character.address + 1)?;
    Ok(unit)
}

/// `RtlMultiByteToUnicodeN`: as many characters as fit; how many bytes were written goes to `written`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn multi_byte_to_unicode(
    cx: &mut Cx<'_>,
    to: u64,
    room: u32,
    written: DriverPtr<u32>,
    from: u64,
    length: u32,
) -> Flow<NtStatus> {
    widen(cx, (to, room), written, (from, length), text::ansi_to_unit)?;
    Ok(NtStatus::SUCCESS)
}

/// Code units of the bytes at `from`, as many as fit; how many bytes were written goes to `written`. Whether that is all.
pub(super) fn widen(
    cx: &mut Cx<'_>,
    (to, room): (u64, u32),
    written: DriverPtr<u32>,
    (from, length): (u64, u32),
    unit: fn(u8) -> u16,
) -> Flow<bool> {
    let bytes = cx.read_bytes(from, length.min(room / 2).into())?;
    let units: Vec<u16> = bytes.into_iter().map(unit).collect();
    crt::write::<2>(cx, to, &units)?;
    store_count(cx, written, 2 * units.len())?;
    Ok(length <= room / 2)
}

/// `RtlUnicodeToMultiByteN`: `length` is in bytes.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn unicode_to_multi_byte(
    cx: &mut Cx<'_>,
    to: u64,
    room: u32,
    written: DriverPtr<u32>,
    from: u64,
    length: u32,
) -> Flow<NtStatus> {
    narrow(cx, (to, room), written, (from, length), text::unit_to_ansi)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlUpcaseUnicodeToMultiByteN`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn upcase_to_multi_byte(
    cx: &mut Cx<'_>,
    to: u64,
    room: u32,
    written: DriverPtr<u32>,
    from: u64,
    length: u32,
) -> Flow<NtStatus> {
    narrow(cx, (to, room), written, (from, length), |unit| text::unit_to_ansi(text::upcase(unit)))?;
    Ok(NtStatus::SUCCESS)
}

/// As [`widen`], the other way; `length` is in bytes.
pub(super) fn narrow(
    cx: &mut Cx<'_>,
    (to, room): (u64, u32),
    written: DriverPtr<u32>,
    (from, length): (u64, u32),
    byte: fn(u16) -> u8,
) -> Flow<bool> {
    let bytes = cx.read_bytes(from, 2 * u64::from((length / 2).min(room)))?;
    let narrowed: Vec<u8> = text::units(&bytes).into_iter().map(byte).collect();
    cx.write_bytes(to, &narrowed)?;
    store_count(cx, written, narrowed.len())?;
    Ok(length / 2 <= room)
}

/// `RtlUnicodeToMultiByteSize`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn multi_byte_size(
    cx: &mut Cx<'_>,
    size: DriverPtr<u32>,
    _from: u64,
    length: u32,
) -> Flow<NtStatus> {
    cx.write(size, length / 2)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlMultiByteToUnicodeSize`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn multi_byte_unicode_size(
    cx: &mut Cx<'_>,
    size: DriverPtr<u32>,
    _from: u64,
    length: u32,
) -> Flow<NtStatus> {
    cx.write(size, length.saturating_mul(2))?;
    Ok(NtStatus::SUCCESS)
}

/// Stores how many bytes were written, for a caller who wants to know.
pub(super) fn store_count(cx: &mut Cx<'_>, written: DriverPtr<u32>, bytes: usize) -> Flow<()> {
    if written.is_null() {
        return Ok(());
    }
    cx.write(written, u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// `RtlIntegerToUnicodeString`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn integer_to_unicode(
    cx: &mut Cx<'_>,
    value: u32,
    base: u32,
    to: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    int64_to_unicode(cx, value.into(), base, to)
}

/// `RtlInt64ToUnicodeString`: a zero behind the digits if there is room.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn int64_to_unicode(
    cx: &mut Cx<'_>,
    value: u64,
    base: u32,
    to: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    match text::print_integer(value, base) {
        Ok(digits) => {
            let room: u64 = cx.read(to + UNICODE_STRING::MaximumLength)?.into();
            let zero = 2 * (digits.len() as u64 + 1) <= room;
            put::<2>(cx, to, digits, zero, false)
        }
        Err(status) => Ok(status),
    }
}

/// `RtlUnicodeStringToInteger`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn unicode_to_integer(
    cx: &mut Cx<'_>,
    from: DriverPtr<UNICODE_STRING>,
    base: u32,
    value: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let units = string::read(cx, from)?;
    store(cx, text::parse_integer(&units, base), value)
}

/// `RtlCharToInteger`.
///
/// # Errors
/// As [`unicode_to_ansi`].
pub(crate) fn char_to_integer(
    cx: &mut Cx<'_>,
    from: u64,
    base: u32,
    value: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let units = crt::read::<1>(cx, from, crt::ALL)?;
    store(cx, text::parse_integer(&units, base), value)
}

fn store(cx: &mut Cx<'_>, parsed: Result<u32, NtStatus>, value: DriverPtr<u32>) -> Flow<NtStatus> {
    match parsed {
        Ok(number) => {
            cx.write(value, number)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}
