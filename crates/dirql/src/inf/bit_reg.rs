//! `BitReg`: bits of a byte of a binary value in the registry.
//!
//! Follows *INF BitReg Directive*. A value that does not exist, is not binary or is shorter stays as it is, which the page does not say.

use super::addreg::{Place, Remarks, known_bits, lines, place};
use super::error::{Outcome, fault};
use super::registry::{RegistryWrite, Write};
use super::sections::{Entry, Sections};
use super::target::number;

/// `FLG_BITREG_SETBITS`, `FLG_BITREG_32BITKEY`.
const SET: u32 = 0x1;
const KEY_32: u32 = 0x4000;

/// What all sections do that a `BitReg` entry names.
pub(super) fn bit_reg(
    sections: &Sections,
    entry: Entry<'_>,
    remarks: &mut Remarks,
) -> Outcome<Vec<RegistryWrite>> {
    lines(sections, entry, remarks, bits)
}

/// One line: `reg-root,[subkey],value-entry-name,[flags],byte-mask,byte-to-modify`.
pub(super) fn bits(entry: Entry<'_>, remarks: &mut Remarks) -> Outcome<Option<RegistryWrite>> {
    let Some(Place { root, key, name, flags }) = place(entry, remarks)? else { return Ok(None) };
    known_bits(flags, SET | KEY_32, entry)?;
    let mask = entry.value(4)?;
    let digits = mask.to_lowercase();
    let Ok(mask_byte) = u8::from_str_radix(digits.strip_prefix("0x").unwrap_or(&digits), 16) else {
        return fault(
            Some(entry.spot_of(4)),
            format!("the mask `{mask}` is not a byte; write two hexadecimal digits: 0x80"),
        );
    };
    let index = entry.value(5)?;
    let Some(byte) = number(&index) else {
        return fault(
            Some(entry.spot_of(5)),
            format!("`{index}` is not the number of a byte; write 0 for the value's first one"),
        );
    };
    let write = Write::Bits { name, set: flags & SET != 0, mask: mask_byte, byte };
    Ok(Some(RegistryWrite { spot: entry.spot(), root, key, write }))
}

#[cfg(test)]
mod tests {
    use super::super::registry::Root;
    use super::*;

    fn all(lines: &str) -> Outcome<Vec<RegistryWrite>> {
        let sections = Sections::parse(format!("[I]\nBitReg = R\n[R]\n{lines}\n"))?;
        let entry = sections.get("I").unwrap().entries().next().unwrap();
        bit_reg(&sections, entry, &mut Remarks::default())
    }

    #[test]
    fn bits_are_set_and_cleared_as_the_pages_example_has_them() {
        let got = all("HKLM,Software\\AppX,ProgramData,1,0x01,0\nHKR,,ProgramData,,80,2").unwrap();
        let bits = |set, mask, byte| Write::Bits { name: "ProgramData".into(), set, mask, byte };
        assert_eq!((got[0].root, got[0].key.as_str()), (Root::LocalMachine, r"Software\AppX"));
        assert_eq!([&got[0].write, &got[1].write], [&bits(true, 1, 0), &bits(false, 0x80, 2)]);
    }

    #[test]
    fn a_line_that_names_no_bits_is_told_with_what_would_be_right() {
        for (line, says) in [
            ("HKR,,V,1,,0", "is not a byte"),
            ("HKR,,V,1,0x100,0", "is not a byte"),
            ("HKR,,V,1,1,x", "is not the number of a byte"),
            ("HKR,,V,2,1,0", "unknown bits 0x2"),
        ] {
            let message = all(line).unwrap_err().message;
            assert!(message.contains(says), "{line}: {message}");
        }
    }
}
