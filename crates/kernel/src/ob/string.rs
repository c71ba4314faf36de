//! Counted strings in driver memory: `UNICODE_STRING` to and from text.
//!
//! Page: *UNICODE_STRING structure*. What is not UTF-16 is replaced; nothing is case-folded here.

use abi::{DriverPtr, UNICODE_STRING};
use engine::Flow;

use crate::cx::Cx;
use crate::mm::pool;
use crate::rtl::text;
use crate::verdict::Verdict;

/// The text of the counted string at `from`. A null pointer and an empty buffer are empty text. A `MaximumLength` below `Length`, as
/// some hand-made constants have it, is reported and does not matter: a reader uses `Length` only. Of an odd length the last
/// byte is no character.
///
/// # Errors
/// A verdict if the structure or its buffer cannot be read.
pub(crate) fn read(cx: &mut Cx<'_>, from: DriverPtr<UNICODE_STRING>) -> Flow<String> {
    if from.is_null() {
        return Ok(String::new());
    }
    let length = cx.read(from + UNICODE_STRING::Length)?;
    let maximum = cx.read(from + UNICODE_STRING::MaximumLength)?;
    if length > maximum || !length.is_multiple_of(2) {
        cx.report(malformed(from, length, maximum));
    }
    let length = length & !1;
    let buffer = cx.read(from + UNICODE_STRING::Buffer)?;
    let bytes = cx.read_bytes(buffer.address, length.into())?;
    Ok(String::from_utf16_lossy(&text::units(&bytes)))
}

fn malformed(at: DriverPtr<UNICODE_STRING>, length: u16, maximum: u16) -> Verdict {
    let message = format!(
        "the UNICODE_STRING at {:#x} is malformed: Length {length}, MaximumLength {maximum}",
        at.address
    );
    Verdict::warning("malformed-string", message)
}

/// Text as UTF-16, little-endian, with a zero at the end.
#[must_use]
pub(crate) fn encode(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Describes `text` at `to`, its characters (and a zero) in new pool; an empty text gets a null buffer.
/// False if there is no memory.
///
/// # Errors
/// A verdict if `to` cannot be written.
pub(crate) fn allocate(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    text: &str,
    kind: pool::Kind,
    tag: u32,
) -> Flow<bool> {
    let bytes = encode(text);
    let Ok(maximum) = u16::try_from(bytes.len()) else {
        return Ok(false);
    };
    let buffer: DriverPtr<u16> = if text.is_empty() {
        DriverPtr::NULL
    } else {
        let buffer = pool::allocate(cx, kind, maximum.into(), tag)?;
        if buffer.is_null() {
            return Ok(false);
        }
        cx.write_bytes(buffer.address, &bytes)?;
        buffer
    };
    describe(cx, to, buffer, maximum)?;
    Ok(true)
}

/// Writes a `UNICODE_STRING` over `bytes` of zero-terminated characters at `buffer`.
pub(crate) fn describe(
    cx: &mut Cx<'_>,
    to: DriverPtr<UNICODE_STRING>,
    buffer: DriverPtr<u16>,
    bytes: u16,
) -> Flow<()> {
    let maximum = if buffer.is_null() { 0 } else { bytes };
    cx.write(to + UNICODE_STRING::Length, maximum.saturating_sub(2))?;
    cx.write(to + UNICODE_STRING::MaximumLength, maximum)?;
    cx.write(to + UNICODE_STRING::Buffer, buffer)
}
