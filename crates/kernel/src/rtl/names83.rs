//! Names as FAT has them: eight characters, a dot, three.
//!
//! Pages: *RtlIsNameLegalDOS8Dot3 function*, *RtlIsValidOemCharacter function*. Names are upcased and in the OEM code page. No short name is made of a
//! long one here.

use abi::{DriverPtr, STRING, UNICODE_STRING};
use engine::Flow;

use super::oem::{from_unit, to_unit};
use super::{crt, string, text};
use crate::cx::Cx;

/// Characters that no such name has, besides control characters.
const ILLEGAL: &[u8] = b"\"*+,/:;<=>?[\\]|";

/// Whether it is one, and whether there are spaces in it.
fn is_legal(name: &[u8]) -> (bool, bool) {
    let spaces = name.contains(&b' ');
    if name == b"." || name == b".." {
        return (true, spaces);
    }
    let (base, extension) = match name.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&name[..dot], Some(&name[dot + 1..])),
        None => (name, None),
    };
    let is_good = |byte: &u8| *byte >= 0x20 && *byte != b'.' && !ILLEGAL.contains(byte);
    let base_is = (1..=8).contains(&base.len()) && base.iter().all(is_good) && base.last() != Some(&b' ');
    let extension_is = extension.is_none_or(|own| {
        (1..=3).contains(&own.len()) && own.iter().all(is_good) && own.last() != Some(&b' ')
    });
    (base_is && extension_is, spaces)
}

/// `RtlIsNameLegalDOS8Dot3`: if it is, its OEM form is given, and whether it has spaces, where they are asked for.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub fn is_name_legal(
    cx: &mut Cx<'_>,
    name: DriverPtr<UNICODE_STRING>,
    oem: DriverPtr<STRING>,
    spaces: DriverPtr<u8>,
) -> Flow<bool> {
    let units = string::read(cx, name)?;
    if units.len() > 12 {
        return Ok(false);
    }
    let bytes: Vec<u8> = units.iter().map(|&unit| from_unit(text::upcase(unit))).collect();
    let has_unknown = units.iter().zip(&bytes).any(|(&unit, &byte)| byte == b'?' && unit != u16::from(b'?'));
    let (legal, has_spaces) = is_legal(&bytes);
    if !legal || has_unknown {
        return Ok(false);
    }
    if !oem.is_null() {
        let buffer = cx.read(oem + STRING::Buffer)?.address;
        let room = cx.read(oem + STRING::MaximumLength)?;
        if usize::from(room) < bytes.len() {
            return Ok(false);
        }
        let wide: Vec<u16> = bytes.iter().map(|&byte| byte.into()).collect();
        crt::write::<1>(cx, buffer, &wide)?;
        cx.write(oem + STRING::Length, u16::try_from(bytes.len()).unwrap_or(0))?;
    }
    if !spaces.is_null() {
        cx.write(spaces, has_spaces.into())?;
    }
    Ok(true)
}

/// `RtlIsValidOemCharacter`: whether the code page has it; it becomes what is left of it there.
///
/// # Errors
/// As [`is_name_legal`].
pub fn is_valid_oem(cx: &mut Cx<'_>, unit: DriverPtr<u16>) -> Flow<bool> {
    let own = cx.read(unit)?;
    let byte = from_unit(text::upcase(own));
    let is_known = byte != b'?' || own == u16::from(b'?');
    cx.write(unit, if is_known { to_unit(byte) } else { u16::from(b'_') })?;
    Ok(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_eight_characters_a_dot_and_three() {
        for name in ["A", "README.TXT", "12345678.123", ".", "..", "A B.C"] {
            assert!(is_legal(name.as_bytes()).0, "{name}");
        }
        for name in ["", "123456789", "A.1234", "A.B.C", ".A", "A.", "A ", "A*", "A.B ", "A\x07"] {
            assert!(!is_legal(name.as_bytes()).0, "{name}");
        }
        assert!(is_legal(b"A B.C").1 && !is_legal(b"AB.C").1);
    }
}
