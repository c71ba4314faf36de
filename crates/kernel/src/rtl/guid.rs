//! Globally unique identifiers and their text.
//!
//! Pages: *RtlGUIDFromString function*, *RtlStringFromGUID function*, *ExUuidCreate function*. Identifiers that are made
//! here are the same in every run.

use abi::{DriverPtr, GUID, NtStatus, UNICODE_STRING};
use engine::Flow;

use super::string;
use crate::cx::Cx;
use crate::ke::time;
use crate::mm::pool;

/// An identifier's four fields.
pub(crate) type Fields = (u32, u16, u16, [u8; 8]);

/// `{6B29FC40-CA47-1067-B31D-00DD010662DA}`.
#[must_use]
pub(crate) fn text((a, b, c, d): Fields) -> String {
    let tail: String = d[2..].iter().map(|byte| format!("{byte:02X}")).collect();
    format!("{{{a:08X}-{b:04X}-{c:04X}-{:02X}{:02X}-{tail}}}", d[0], d[1])
}

/// The fields of such a text; none if it is not one.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<Fields> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let parts: Vec<&str> = inner.split('-').collect();
    let [a, b, c, d, e] = parts.as_slice() else { return None };
    let right = [a.len(), b.len(), c.len(), d.len(), e.len()] == [8, 4, 4, 4, 12];
    if !right || !inner.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()) {
        return None;
    }
    let tail = u64::from_str_radix(&format!("{d}{e}"), 16).ok()?;
    let number = |part: &str| u16::from_str_radix(part, 16).ok();
    Some((u32::from_str_radix(a, 16).ok()?, number(b)?, number(c)?, tail.to_be_bytes()))
}

/// Reads an identifier.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn read(cx: &mut Cx<'_>, from: DriverPtr<GUID>) -> Flow<Fields> {
    Ok((
        cx.read(from + GUID::Data1)?,
        cx.read(from + GUID::Data2)?,
        cx.read(from + GUID::Data3)?,
        cx.read(from + GUID::Data4)?,
    ))
}

/// Writes an identifier.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn write(cx: &mut Cx<'_>, to: DriverPtr<GUID>, (a, b, c, d): Fields) -> Flow<()> {
    cx.write(to + GUID::Data1, a)?;
    cx.write(to + GUID::Data2, b)?;
    cx.write(to + GUID::Data3, c)?;
    cx.write(to + GUID::Data4, d)
}

/// `RtlGUIDFromString`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn from_string(
    cx: &mut Cx<'_>,
    from: DriverPtr<UNICODE_STRING>,
    to: DriverPtr<GUID>,
) -> Flow<NtStatus> {
    let units = string::read(cx, from)?;
    match parse(&String::from_utf16_lossy(&units)) {
        Some(fields) => {
            write(cx, to, fields)?;
            Ok(NtStatus::SUCCESS)
        }
        None => Ok(NtStatus::INVALID_PARAMETER),
    }
}

/// `RtlStringFromGUID`: the text in paged pool, for `RtlFreeUnicodeString`.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn to_string(
    cx: &mut Cx<'_>,
    from: DriverPtr<GUID>,
    to: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let fields = read(cx, from)?;
    let units: Vec<u16> = text(fields).encode_utf16().chain([0]).collect();
    let bytes = 2 * units.len() as u64;
    let buffer = pool::allocate_for_caller::<()>(cx, pool::Kind::Paged, bytes, string::TAG)?;
    if buffer.is_null() {
        return Ok(NtStatus::NO_MEMORY);
    }
    super::crt::write::<2>(cx, buffer.address, &units)?;
    string::set(cx, to, bytes - 2, bytes, buffer.address)?;
    Ok(NtStatus::SUCCESS)
}

/// Units of 100 ns from 1582-10-15, where the time of an identifier begins, to 1601, where system time does.
const GREGORIAN: u64 = 0x0014_6BF3_3E42_C000;
/// The clock sequence and the address of the network card that the machine's identifiers are made with.
const SEQUENCE_AND_NODE: [u8; 8] = [0x9D, 0x19, 0x00, 0x15, 0x5D, 0x64, 0x69, 0x72];

/// `ExUuidCreate`: version 1, of time and of a network card's address, as its page's return values imply. No two are alike.
///
/// # Errors
/// A verdict on a bad pointer.
pub(crate) fn create(cx: &mut Cx<'_>, to: DriverPtr<GUID>) -> Flow<NtStatus> {
    let time = cx.with(|k| {
        let now = GREGORIAN + time::boot(k) + time::interrupt_time(k.engine);
        k.ex.uuids = now.max(k.ex.uuids + 1);
        k.ex.uuids
    });
    let [a, b, c, d, e, f, g, h] = time.to_le_bytes();
    let high = u16::from_le_bytes([g, h]) & 0x0FFF | 0x1000;
    let fields = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]), high, SEQUENCE_AND_NODE);
    write(cx, to, fields)?;
    Ok(NtStatus::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_fields_are_each_others_inverse() {
        let fields = (0x6B29_FC40, 0xCA47, 0x1067, [0xB3, 0x1D, 0, 0xDD, 1, 6, 0x62, 0xDA]);
        assert_eq!(text(fields), "{6B29FC40-CA47-1067-B31D-00DD010662DA}");
        assert_eq!(parse("{6b29fc40-ca47-1067-B31D-00DD010662DA}"), Some(fields));
    }

    #[test]
    fn what_is_nearly_one_is_none() {
        for wrong in [
            "6B29FC40-CA47-1067-B31D-00DD010662DA",
            "{6B29FC40-CA47-1067-B31D-00DD010662D}",
            "{6B29FC40CA47-1067-B31D-00DD010662DA-}",
            "{+B29FC40-CA47-1067-B31D-00DD010662DA}",
            "{}",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
