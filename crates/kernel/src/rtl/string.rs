//! Counted strings: `UNICODE_STRING` and `ANSI_STRING`.
//!
//! Pages: *RtlInitUnicodeString function*, *RtlCopyUnicodeString function*, *RtlAppendUnicodeToString function*,
//! *RtlCompareUnicodeString function*, *RtlUpcaseUnicodeString function* and their neighbours. Conversions are in
//! `convert`.

use abi::{DriverPtr, NtStatus, STRING, UNICODE_STRING};
use engine::Flow;

use super::{crt, text};
use crate::cx::Cx;
use crate::mm::pool;

/// Strings the run-time library allocates, freed by `RtlFreeUnicodeString` or `ExFreePool`.
pub(crate) const TAG: u32 = pool::tag(b"RtlS");

/// The longest `UNICODE_STRING`, in bytes.
const LONGEST: u64 = 0xFFFE;

/// The code units of a `UNICODE_STRING`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn read(cx: &mut Cx<'_>, string: DriverPtr<UNICODE_STRING>) -> Flow<Vec<u16>> {
    let length = cx.read(string + UNICODE_STRING::Length)?;
    let buffer = cx.read(string + UNICODE_STRING::Buffer)?;
    let bytes = cx.read_bytes(buffer.address, (length & !1).into())?;
    Ok(text::units(&bytes))
}

/// The bytes of an `ANSI_STRING`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn read_ansi(cx: &mut Cx<'_>, string: DriverPtr<STRING>) -> Flow<Vec<u8>> {
    let length = cx.read(string + STRING::Length)?;
    let buffer = cx.read(string + STRING::Buffer)?;
    cx.read_bytes(buffer.address, length.into())
}

/// Sets the three members of a string of either kind.
pub(crate) fn set(
    cx: &mut Cx<'_>,
    string: DriverPtr<UNICODE_STRING>,
    length: u64,
    maximum: u64,
    buffer: u64,
) -> Flow<()> {
    cx.write(string + UNICODE_STRING::Length, short(length))?;
    cx.write(string + UNICODE_STRING::MaximumLength, short(maximum))?;
    cx.write(string + UNICODE_STRING::Buffer, DriverPtr::new(buffer))
}

fn short(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// `RtlInitUnicodeString`: a null source makes an empty string.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn init_unicode(cx: &mut Cx<'_>, string: DriverPtr<UNICODE_STRING>, source: u64) -> Flow<()> {
    if source == 0 {
        return set(cx, string, 0, 0, 0);
    }
    let length = (2 * crt::length::<2>(cx, source)?).min(LONGEST - 2);
    set(cx, string, length, length + 2, source)
}

/// `RtlInitUnicodeStringEx`: what is too long is refused.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn init_unicode_ex(
    cx: &mut Cx<'_>,
    string: DriverPtr<UNICODE_STRING>,
    source: u64,
) -> Flow<NtStatus> {
    let length = if source == 0 { 0 } else { 2 * crt::length::<2>(cx, source)? };
    if length > LONGEST - 2 {
        return Ok(NtStatus::NAME_TOO_LONG);
    }
    init_unicode(cx, string, source)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlInitAnsiString`, `RtlInitString`.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn init_ansi(cx: &mut Cx<'_>, string: DriverPtr<UNICODE_STRING>, source: u64) -> Flow<()> {
    if source == 0 {
        return set(cx, string, 0, 0, 0);
    }
    let length = crt::length::<1>(cx, source)?.min(LONGEST);
    set(cx, string, length, length + 1, source)
}

/// `RtlInitUTF8StringEx`: what is too long is refused.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn init_ansi_ex(
    cx: &mut Cx<'_>,
    string: DriverPtr<UNICODE_STRING>,
    source: u64,
) -> Flow<NtStatus> {
    if source != 0 && crt::length::<1>(cx, source)? > LONGEST {
        return Ok(NtStatus::NAME_TOO_LONG);
    }
    init_ansi(cx, string, source)?;
    Ok(NtStatus::SUCCESS)
}

/// `RtlCopyUnicodeString`: as much as fits, and a zero if there is room. A null source empties.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn copy_unicode(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
) -> Flow<()> {
    copy::<2>(cx, to, from)
}

/// `RtlCopyString`.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn copy_ansi(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
) -> Flow<()> {
    copy::<1>(cx, to, from)
}

/// `RtlUpperString`: as much as fits, each character upcased in the ANSI code page.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn upper(cx: &mut Cx<'_>, to: DriverPtr<UNICODE_STRING>, from: DriverPtr<STRING>) -> Flow<()> {
    let mut bytes = read_ansi(cx, from)?;
    bytes.truncate(cx.read(to + UNICODE_STRING::MaximumLength)?.into());
    let upper: Vec<u8> = bytes.iter().map(|&byte| text::upcase_ansi(byte)).collect();
    let target = cx.read(to + UNICODE_STRING::Buffer)?.address;
    cx.write_bytes(target, &upper)?;
    cx.write(to + UNICODE_STRING::Length, short(upper.len() as u64))
}

/// `RtlUpperChar`.
///
/// # Errors
/// None.
pub(crate) fn upper_character(_cx: &mut Cx<'_>, byte: u8) -> Flow<u8> {
    Ok(text::upcase_ansi(byte))
}

fn copy<const W: u64>(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
) -> Flow<()> {
    if from.is_null() {
        return cx.write(to + UNICODE_STRING::Length, 0);
    }
    let room: u64 = cx.read(to + UNICODE_STRING::MaximumLength)?.into();
    let length = u64::from(cx.read(from + UNICODE_STRING::Length)?).min(room);
    let source = cx.read(from + UNICODE_STRING::Buffer)?.address;
    let target = cx.read(to + UNICODE_STRING::Buffer)?.address;
    super::memory::copy(cx, target, source, length)?;
    cx.write(to + UNICODE_STRING::Length, short(length))?;
    if W == 2 && length + 2 <= room {
        cx.write(DriverPtr::<u16>::new(target + length), 0)?;
    }
    Ok(())
}

/// `RtlAppendUnicodeToString`.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn append_unicode(cx: &mut Cx<'_>, to: DriverPtr<UNICODE_STRING>, source: u64) -> Flow<NtStatus> {
    if source == 0 {
        return Ok(NtStatus::SUCCESS);
    }
    let units = crt::read::<2>(cx, source, crt::ALL)?;
    append(cx, to, &units)
}

/// `RtlAppendUnicodeStringToString`.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn append_string(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let units = read(cx, from)?;
    append(cx, to, &units)
}

/// `RtlAppendStringToString`: bytes, and no zero.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn append_ansi(cx: &mut Cx<'_>, to: DriverPtr<STRING>, from: DriverPtr<STRING>) -> Flow<NtStatus> {
    let bytes = read_ansi(cx, from)?;
    let length: u64 = cx.read(to + STRING::Length)?.into();
    let room: u64 = cx.read(to + STRING::MaximumLength)?.into();
    let end = length + bytes.len() as u64;
    if end > room {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    let buffer = cx.read(to + STRING::Buffer)?.address;
    super::memory::store(cx, buffer + length, &bytes)?;
    cx.write(to + STRING::Length, short(end))?;
    Ok(NtStatus::SUCCESS)
}

/// Appends, with a zero if there is room; `STATUS_BUFFER_TOO_SMALL`, and nothing is done, if it does not fit.
fn append(cx: &mut Cx<'_>, to: DriverPtr<UNICODE_STRING>, units: &[u16]) -> Flow<NtStatus> {
    let length: u64 = cx.read(to + UNICODE_STRING::Length)?.into();
    let room: u64 = cx.read(to + UNICODE_STRING::MaximumLength)?.into();
    let end = length + 2 * units.len() as u64;
    if end > room {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    let buffer = cx.read(to + UNICODE_STRING::Buffer)?.address;
    crt::write::<2>(cx, buffer + length, units)?;
    cx.write(to + UNICODE_STRING::Length, short(end))?;
    if end + 2 <= room {
        cx.write(DriverPtr::<u16>::new(buffer + end), 0)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `RtlCompareUnicodeString`.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn compare_unicode(
    cx: &mut Cx<'_>,
    one: DriverPtr<UNICODE_STRING>,
    two: DriverPtr<UNICODE_STRING>,
    ignore_case: bool,
) -> Flow<i32> {
    let (one, two) = (read(cx, one)?, read(cx, two)?);
    Ok(text::compare(&one, &two, ignore_case))
}

/// `RtlEqualUnicodeString`.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn equal_unicode(
    cx: &mut Cx<'_>,
    one: DriverPtr<UNICODE_STRING>,
    two: DriverPtr<UNICODE_STRING>,
    ignore_case: bool,
) -> Flow<bool> {
    compare_unicode(cx, one, two, ignore_case).map(|order| order == 0)
}

/// `RtlPrefixUnicodeString`: whether `two` begins with `one`.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn prefix_unicode(
    cx: &mut Cx<'_>,
    one: DriverPtr<UNICODE_STRING>,
    two: DriverPtr<UNICODE_STRING>,
    ignore_case: bool,
) -> Flow<bool> {
    let (one, two) = (read(cx, one)?, read(cx, two)?);
    Ok(text::has_prefix(&one, &two, ignore_case))
}

/// `RtlCompareString`.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn compare_ansi(
    cx: &mut Cx<'_>,
    one: DriverPtr<STRING>,
    two: DriverPtr<STRING>,
    ignore_case: bool,
) -> Flow<i32> {
    let (one, two) = (read_ansi(cx, one)?, read_ansi(cx, two)?);
    Ok(text::compare(&text::ansi_to_unicode(&one), &text::ansi_to_unicode(&two), ignore_case))
}

/// `RtlEqualString`.
///
/// # Errors
/// As [`init_unicode`].
pub(crate) fn equal_ansi(
    cx: &mut Cx<'_>,
    one: DriverPtr<STRING>,
    two: DriverPtr<STRING>,
    ignore_case: bool,
) -> Flow<bool> {
    compare_ansi(cx, one, two, ignore_case).map(|order| order == 0)
}

/// `RtlUpcaseUnicodeChar`.
///
/// # Errors
/// None.
pub(crate) fn upcase_character(_cx: &mut Cx<'_>, unit: u16) -> Flow<u16> {
    Ok(text::upcase(unit))
}

/// `RtlDowncaseUnicodeChar`.
///
/// # Errors
/// None.
pub(crate) fn downcase_character(_cx: &mut Cx<'_>, unit: u16) -> Flow<u16> {
    Ok(text::downcase(unit))
}

/// `RtlFreeUnicodeString`, `RtlFreeAnsiString`: frees the buffer, if there is one, and empties the string.
///
/// # Errors
/// A verdict if the buffer is no block of pool.
pub(crate) fn free(cx: &mut Cx<'_>, string: DriverPtr<UNICODE_STRING>) -> Flow<()> {
    let buffer = cx.read(string + UNICODE_STRING::Buffer)?;
    if buffer.is_null() {
        return Ok(());
    }
    pool::free(cx, buffer)?;
    set(cx, string, 0, 0, 0)
}
