//! Who may open a device: a security descriptor, made of its text when the driver is compiled.
//!
//! Pages: *SDDL for Device Objects*, *Securing Device Objects*, *Security Descriptor Definition Language*, *ACE Strings*, *ZwSetSecurityObject function*. It does what
//! `IoCreateDeviceSecure` does, which is a library's routine and no export, with the text; that routine's class, by which an administrator puts another descriptor in its place, is
//! for devices that Plug and Play does not know: those of this crate have theirs in the INF (`HKR,,Security` in `.HW`, or of the class), which is set for the whole stack and counts. The text has a
//! discretionary list of entries that allow or deny, with generic, standard and hexadecimal rights; no owner, audit, inheritance or objects.
//!
//! ```
//! use wdm::Security;
//!
//! /// The system and administrators may do everything, users may read.
//! const SECURITY: Security = Security::new("D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GR;;;BU)");
//! ```
//!
//! A mistake in the text does not compile:
//!
//! ```compile_fail
//! const SECURITY: wdm::Security = wdm::Security::new("D:P(A;;GA;;;XY)");
//! ```

use core::ptr::null_mut;

use abi::DEVICE_OBJECT;

use crate::irql::Passive;
use crate::{Result, sys};

/// Bytes of the largest descriptor.
const CAPACITY: usize = 256;
/// Bytes of a descriptor before its list, and of a list before its entries.
const HEAD: usize = 20;
const LIST: usize = 8;

/// `SE_DACL_PRESENT`, `SE_DACL_PROTECTED`, `SE_SELF_RELATIVE`.
const PRESENT: u16 = 0x0004;
const PROTECTED: u16 = 0x1000;
const SELF_RELATIVE: u16 = 0x8000;

/// Names of rights in an entry.
const RIGHTS: &[(&[u8; 2], u32)] = &[
    (b"GA", 0x1000_0000),
    (b"GX", 0x2000_0000),
    (b"GW", 0x4000_0000),
    (b"GR", 0x8000_0000),
    (b"RC", 0x0002_0000),
    (b"SD", 0x0001_0000),
    (b"WD", 0x0004_0000),
    (b"WO", 0x0008_0000),
    (b"FA", 0x001F_01FF),
    (b"FR", 0x0012_0089),
    (b"FW", 0x0012_0116),
    (b"FX", 0x0012_00A0),
];

/// Names of identifiers: the authority, and one or two parts behind it.
const NAMES: &[(&[u8; 2], u8, &[u32])] = &[
    (b"WD", 1, &[0]),
    (b"NU", 5, &[2]),
    (b"IU", 5, &[4]),
    (b"SU", 5, &[6]),
    (b"AN", 5, &[7]),
    (b"AU", 5, &[11]),
    (b"RC", 5, &[12]),
    (b"SY", 5, &[18]),
    (b"LS", 5, &[19]),
    (b"NS", 5, &[20]),
    (b"BA", 5, &[32, 544]),
    (b"BU", 5, &[32, 545]),
    (b"BG", 5, &[32, 546]),
    (b"PU", 5, &[32, 547]),
    (b"SO", 5, &[32, 549]),
];

/// A security descriptor, in one piece.
#[derive(Clone)]
pub struct Security {
    bytes: [u8; CAPACITY],
}

/// A text, and how far it was read.
struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    const fn peek(&self) -> u8 {
        if self.at < self.text.len() { self.text[self.at] } else { 0 }
    }

    const fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == byte && self.at < self.text.len();
        if is_there {
            self.at += 1;
        }
        is_there
    }

    /// A name of two letters from a list: its place there.
    const fn is_at(&mut self, name: &[u8; 2]) -> bool {
        let is_there = self.at + 2 <= self.text.len()
            && self.text[self.at] == name[0]
            && self.text[self.at + 1] == name[1];
        if is_there {
            self.at += 2;
        }
        is_there
    }

    const fn rights(&mut self) -> u32 {
        if self.is_at(b"0x") {
            return self.hexadecimal();
        }
        let mut rights = 0;
        while self.peek() != b';' {
            let (mut index, before) = (0, self.at);
            while index < RIGHTS.len() {
                if self.is_at(RIGHTS[index].0) {
                    rights |= RIGHTS[index].1;
                    break;
                }
                index += 1;
            }
            assert!(
                self.at > before,
                "rights in SDDL are GA, GR, GW, GX, RC, SD, WD, WO, FA, FR, FW, FX or 0x…"
            );
        }
        rights
    }

    const fn hexadecimal(&mut self) -> u32 {
        let (mut number, before) = (0, self.at);
        loop {
            let digit = match self.peek() {
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'f' => digit - b'a' + 10,
                digit @ b'A'..=b'F' => digit - b'A' + 10,
                _ => break,
            };
            number = number << 4 | digit as u32;
            self.at += 1;
        }
        let digits = self.at - before;
        assert!(0 < digits && digits <= 8, "hexadecimal rights in SDDL have one to eight digits");
        number
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is compared")]
    const fn decimal(&mut self) -> u32 {
        let (mut number, before) = (0_u64, self.at);
        while self.peek().is_ascii_digit() {
            number = number * 10 + (self.peek() - b'0') as u64;
            assert!(number <= u32::MAX as u64, "a part of an identifier in SDDL is a number of 32 bits");
            self.at += 1;
        }
        assert!(self.at > before, "an identifier in SDDL is S-1-… with decimal parts");
        number as u32
    }
}

/// A descriptor as it grows.
struct Writer {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl Writer {
    const fn byte(&mut self, byte: u8) {
        assert!(self.length < CAPACITY, "the security descriptor is longer than 256 bytes");
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    const fn dword(&mut self, number: u32) {
        let bytes = number.to_le_bytes();
        let mut index = 0;
        while index < bytes.len() {
            self.byte(bytes[index]);
            index += 1;
        }
    }

    /// Puts a number where there is room for it.
    #[expect(clippy::cast_possible_truncation, reason = "at most CAPACITY")]
    const fn put(&mut self, at: usize, number: usize) {
        let [low, high] = (number as u16).to_le_bytes();
        self.bytes[at] = low;
        self.bytes[at + 1] = high;
    }

    const fn identifier(&mut self, reader: &mut Reader<'_>) {
        if reader.is_at(b"S-") {
            assert!(
                reader.decimal() == 1 && reader.take(b'-'),
                "an identifier in SDDL is S-1-… with decimal parts"
            );
            let authority = reader.decimal();
            let count = self.identifier_of(authority);
            while reader.take(b'-') {
                self.dword(reader.decimal());
                self.bytes[count] += 1;
            }
            assert!(
                0 < self.bytes[count] && self.bytes[count] <= 15,
                "an identifier has one to fifteen parts"
            );
            return;
        }
        let mut index = 0;
        while index < NAMES.len() {
            let (name, authority, parts) = NAMES[index];
            if reader.is_at(name) {
                let count = self.identifier_of(authority as u32);
                let mut part = 0;
                while part < parts.len() {
                    self.dword(parts[part]);
                    self.bytes[count] += 1;
                    part += 1;
                }
                return;
            }
            index += 1;
        }
        panic!("who is meant in SDDL is SY, BA, BU, BG, WD, AU, AN, IU, NU, SU, LS, NS, PU, SO, RC or S-1-…");
    }

    /// Begins an identifier: where its parts are counted.
    const fn identifier_of(&mut self, authority: u32) -> usize {
        self.byte(1);
        let count = self.length;
        self.byte(0);
        self.byte(0);
        self.byte(0);
        let bytes = authority.to_be_bytes();
        let mut index = 0;
        while index < bytes.len() {
            self.byte(bytes[index]);
            index += 1;
        }
        count
    }

    /// `(A;;rights;;;who)`, or `(D;…`.
    const fn entry(&mut self, reader: &mut Reader<'_>) {
        const FORM: &str = "an entry in SDDL is (A;;rights;;;who), or (D;;rights;;;who)";
        let begin = self.length;
        let kind = match (reader.take(b'A'), reader.take(b'D')) {
            (true, false) => 0,
            (false, true) => 1,
            _ => panic!("{}", FORM),
        };
        assert!(reader.take(b';') && reader.take(b';'), "{}", FORM);
        self.byte(kind);
        self.byte(0);
        self.byte(0);
        self.byte(0);
        self.dword(reader.rights());
        assert!(reader.take(b';') && reader.take(b';') && reader.take(b';'), "{}", FORM);
        self.identifier(reader);
        assert!(reader.take(b')'), "{}", FORM);
        self.put(begin + 2, self.length - begin);
    }
}

impl Security {
    /// The descriptor of an SDDL text, for a constant.
    ///
    /// # Panics
    /// If the text has a mistake: where it is a constant, when the driver is compiled.
    #[must_use]
    pub const fn new(sddl: &str) -> Self {
        let mut reader = Reader { text: sddl.as_bytes(), at: 0 };
        let mut writer = Writer { bytes: [0; CAPACITY], length: HEAD + LIST };
        assert!(reader.is_at(b"D:"), "the SDDL text of a device begins with D:");
        let protected = if reader.take(b'P') { PROTECTED } else { 0 };
        let mut entries = 0;
        while reader.take(b'(') {
            writer.entry(&mut reader);
            entries += 1;
        }
        assert!(
            reader.at == reader.text.len(),
            "behind D: or D:P there are entries in SDDL, and nothing else"
        );
        assert!(entries > 0, "with a list without entries no one can open the device");
        writer.bytes[0] = 1;
        writer.put(2, (PRESENT | protected | SELF_RELATIVE) as usize);
        writer.put(16, HEAD);
        writer.bytes[HEAD] = 2;
        let length = writer.length - HEAD;
        writer.put(HEAD + 2, length);
        writer.put(HEAD + 4, entries);
        Self { bytes: writer.bytes }
    }

    /// Makes it the device object's (`ZwSetSecurityObject`).
    ///
    /// # Errors
    /// Why that could not be.
    ///
    /// # Safety
    /// The device object is the caller's.
    pub(crate) unsafe fn set(&self, object: *mut DEVICE_OBJECT, _passive: &mut Passive) -> Result<()> {
        let mut handle = null_mut();
        // SAFETY: at PASSIVE_LEVEL; the object is the caller's, the handle ours, the descriptor in one piece and not written.
        let status = unsafe {
            let opened = sys::ObOpenObjectByPointer(
                object.cast(),
                abi::OBJ_KERNEL_HANDLE,
                null_mut(),
                abi::WRITE_DAC,
                null_mut(),
                0,
                &raw mut handle,
            );
            if !opened.is_success() {
                return Err(opened);
            }
            let descriptor = self.bytes.as_ptr().cast_mut().cast();
            let set = sys::ZwSetSecurityObject(handle, abi::DACL_SECURITY_INFORMATION, descriptor);
            let _closed = sys::ZwClose(handle);
            set
        };
        if status.is_success() { Ok(()) } else { Err(status) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_as_the_page_of_its_structures_lays_it_out() {
        let of_users = Security::new("D:P(A;;GA;;;SY)(D;;0x12019f;;;S-1-5-32-545)");
        let wanted: &[u8] = &[
            1,
            0,
            0x04,
            0x90,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            20,
            0,
            0,
            0, // the descriptor
            2,
            0,
            8 + 20 + 24,
            0,
            2,
            0,
            0,
            0, // its list
            0,
            0,
            20,
            0,
            0,
            0,
            0,
            0x10,
            1,
            1,
            0,
            0,
            0,
            0,
            0,
            5,
            18,
            0,
            0,
            0, // the system
            1,
            0,
            24,
            0,
            0x9F,
            0x01,
            0x12,
            0,
            1,
            2,
            0,
            0,
            0,
            0,
            0,
            5,
            32,
            0,
            0,
            0,
            0x21,
            2,
            0,
            0, // users
        ];
        assert_eq!(of_users.bytes[..wanted.len()], *wanted);
    }

    #[test]
    fn a_mistake_is_told() {
        for text in [
            "",
            "D:",
            "D:P",
            "O:BAD:P(A;;GA;;;BA)",
            "D:P(A;;GA;;;XX)",
            "D:P(A;;GB;;;BA)",
            "D:P(A;;GA;;;BA",
            "D:P(A;;GA;;BA)",
            "D:P(X;;GA;;;BA)",
            "D:P(A;;0x;;;BA)",
            "D:P(A;;GA;;;S-1-5)",
            "D:P(A;;GA;;;BA) ",
        ] {
            assert!(std::panic::catch_unwind(|| Security::new(text)).is_err(), "{text}");
        }
    }
}
