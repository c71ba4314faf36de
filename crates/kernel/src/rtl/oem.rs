//! Strings in the OEM code page, which is 437 here: that of a PC in the United States.
//!
//! Pages: *RtlOemToUnicodeN function*, *RtlUnicodeToOemN function*, *RtlOemStringToUnicodeString function*,
//! *RtlUnicodeStringToOemString function*, *RtlUpcaseUnicodeStringToOemString function*, *RtlFreeOemString function*. One byte is one
//! character, so every size is known beforehand. What the code page has not becomes `?`.

use abi::{DriverPtr, NtStatus, STRING, UNICODE_STRING};
use engine::Flow;

use super::{convert, string, text};
use crate::cx::Cx;

/// Code page 437 from 80h on.
const HIGH: [u16; 128] = [
    0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef, 0x00ee,
    0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6,
    0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa,
    0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb, 0x2591, 0x2592, 0x2593, 0x2502,
    0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b, 0x2510, 0x2514,
    0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550,
    0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c,
    0x2588, 0x2584, 0x258c, 0x2590, 0x2580, 0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4,
    0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320,
    0x2321, 0x00f7, 0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0,
];

pub(super) fn to_unit(byte: u8) -> u16 {
    match byte {
        0x80.. => HIGH[usize::from(byte - 0x80)],
        _ => byte.into(),
    }
}

pub(super) fn from_unit(unit: u16) -> u8 {
    match u8::try_from(unit) {
        Ok(byte) if byte < 0x80 => byte,
        _ => match HIGH.iter().position(|&high| high == unit) {
            Some(index) => u8::try_from(index + 0x80).unwrap_or(b'?'),
            None => b'?',
        },
    }
}

/// `RtlOemToUnicodeN`: as many characters as fit, with STATUS_BUFFER_OVERFLOW if that is not all.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub(crate) fn to_unicode_n(
    cx: &mut Cx<'_>,
    to: u64,
    room: u32,
    written: DriverPtr<u32>,
    from: u64,
    length: u32,
) -> Flow<NtStatus> {
    convert::widen(cx, (to, room), written, (from, length), to_unit).map(status)
}

/// `RtlUnicodeToOemN`: `length` is in bytes; else as [`to_unicode_n`].
///
/// # Errors
/// As [`to_unicode_n`].
pub(crate) fn from_unicode_n(
    cx: &mut Cx<'_>,
    to: u64,
    room: u32,
    written: DriverPtr<u32>,
    from: u64,
    length: u32,
) -> Flow<NtStatus> {
    convert::narrow(cx, (to, room), written, (from, length), from_unit).map(status)
}

/// `RtlUpcaseUnicodeToOemN`.
///
/// # Errors
/// As [`to_unicode_n`].
pub(crate) fn from_unicode_n_upcased(
    cx: &mut Cx<'_>,
    to: u64,
    room: u32,
    written: DriverPtr<u32>,
    from: u64,
    length: u32,
) -> Flow<NtStatus> {
    let byte = |unit| from_unit(text::upcase(unit));
    convert::narrow(cx, (to, room), written, (from, length), byte).map(status)
}

/// Whether all was written.
const fn status(all: bool) -> NtStatus {
    if all { NtStatus::SUCCESS } else { NtStatus::BUFFER_OVERFLOW }
}

/// `RtlOemStringToUnicodeString`.
///
/// # Errors
/// As [`to_unicode_n`].
pub(crate) fn to_unicode(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    from_oem(cx, to, from, allocate, true)
}

/// `RtlOemStringToCountedUnicodeString`: without a zero behind it.
///
/// # Errors
/// As [`to_unicode_n`].
pub(crate) fn to_counted_unicode(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    from_oem(cx, to, from, allocate, false)
}

fn from_oem(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<STRING>,
    allocate: bool,
    zero: bool,
) -> Flow<NtStatus> {
    let bytes = string::read_ansi(cx, from)?;
    convert::put::<2>(cx, to, bytes.iter().map(|&byte| to_unit(byte)).collect(), zero, allocate)
}

/// `RtlUnicodeStringToOemString`: all of it, or nothing and a status that says so.
///
/// # Errors
/// As [`to_unicode_n`].
pub(crate) fn from_unicode(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    store(cx, to, from, allocate, (|unit| unit, true))
}

/// `RtlUpcaseUnicodeStringToOemString`.
///
/// # Errors
/// As [`to_unicode_n`].
pub(crate) fn from_unicode_upcased(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    store(cx, to, from, allocate, (text::upcase, true))
}

/// `RtlUnicodeStringToCountedOemString`: without a zero behind it.
///
/// # Errors
/// As [`to_unicode_n`].
pub(crate) fn from_unicode_counted(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    store(cx, to, from, allocate, (|unit| unit, false))
}

/// `RtlUpcaseUnicodeStringToCountedOemString`.
///
/// # Errors
/// As [`to_unicode_n`].
pub(crate) fn from_unicode_upcased_counted(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
    allocate: bool,
) -> Flow<NtStatus> {
    store(cx, to, from, allocate, (text::upcase, false))
}

fn store(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    from: DriverPtr<UNICODE_STRING>,
    allocate: bool,
    (fold, zero): (fn(u16) -> u16, bool),
) -> Flow<NtStatus> {
    let units = string::read(cx, from)?;
    let oem = units.into_iter().map(|unit| from_unit(fold(unit)).into()).collect();
    convert::put::<1>(cx, to, oem, zero, allocate)
}
