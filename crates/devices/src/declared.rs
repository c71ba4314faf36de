//! Capabilities that are typed, or that a sheet says, for any card: a PCI Express function with extended ones, and any other by its bytes.
//!
//! PCI Express Base Specification 4.0, 7.5.3, 7.8.4 and 7.9.3. Power management (`pm=`) and messages are their own keys. A card of the conventional bus, as the PCI 9052 is, has
//! what its data sheet gives it and none of these.

use std::ops::Range;

use crate::catalog::Key;
use crate::pci::{self, Header};
use crate::spec::{Options, SpecError, hex, number};

/// That it is a PCI Express function.
pub(crate) const EXPRESS: Key = Key {
    name: "express",
    meaning: "a PCI Express function: 4 KiB of configuration space, a PCI Express capability, a serial number at 100h; nothing, or \
              WORD[+WORD]…: gen1 to gen5 and x1 to x32 (what its link does), flr (it can be reset by its driver)",
    default: "a conventional one",
};
/// Its serial number.
pub(crate) const SERIAL: Key = Key {
    name: "serial",
    meaning: "the serial number of an express function, 16 hexadecimal digits",
    default: "ab8967feff452301",
};
/// Advanced error reporting.
pub(crate) const ERRORS: Key = Key {
    name: "aer",
    meaning: "advanced error reporting, of an express function: an extended capability at 140h",
    default: "none",
};
/// Other capabilities.
pub(crate) const CAPABILITIES: Key = Key {
    name: "caps",
    meaning: "ID:BYTES[+ID:BYTES]…, hexadecimal: capabilities of which nothing is known but their bytes (behind the pointer to the next)",
    default: "none",
};
/// Other extended capabilities.
pub(crate) const EXTENDED: Key = Key {
    name: "xcaps",
    meaning: "ID:VERSION:BYTES[+ID:VERSION:BYTES]…, hexadecimal: the same, extended ones of an express function, behind the others",
    default: "none",
};

/// Bytes of the PCI Express capability, version 2.
const LENGTH: usize = 0x3C;
/// Bytes of an extended capability's head.
const HEAD: usize = 4;
/// Of the advanced error reporting capability.
const ERRORS_LENGTH: usize = 0x48;
/// Where it is.
const ERRORS_AT: u16 = 0x140;
/// Where configuration space ends.
const END: usize = 0x1000;
/// Where a header's device-specific bytes begin.
const SPECIFIC: usize = 0x40;
const USUAL_SERIAL: u64 = 0xAB89_67FE_FF45_2301;

/// What its link does.
#[derive(Clone, Copy)]
struct Link {
    speed: u32,
    width: u32,
    can_reset: bool,
}

/// Reads all of these keys. `free` is where the model has nothing in configuration space.
pub(crate) fn declared(options: &Options<'_>, header: &mut Header, free: Range<u8>) -> Result<(), SpecError> {
    let mut place = Places { free };
    if let Some(link) = options.value(
        EXPRESS.name,
        "nothing, or gen1 to gen5, x1 to x32 and flr with + between them",
        link,
    )? {
        if header.capabilities != 0 && header.is_extended() || options.has("config") {
            return Err(options.bad(EXPRESS.name, "left out: config= says what the function is"));
        }
        header.specific.resize(END - SPECIFIC, 0);
        place.add(options, EXPRESS.name, header, pci::EXPRESS, &capability(link))?;
        extended(options, header)?;
    } else if let Some(key) =
        [SERIAL.name, ERRORS.name, EXTENDED.name].into_iter().find(|key| options.has(key))
    {
        return Err(options.bad(key, "of a PCI Express function; add express"));
    }
    const FORM: &str = "ID:BYTES, hexadecimal, several with + between them, e.g. 09:04aa";
    let all = |text: &str| text.split('+').map(one).collect::<Option<Vec<_>>>();
    for (id, bytes) in options.value(CAPABILITIES.name, FORM, all)?.unwrap_or_default() {
        let own = match id {
            0x01 => Some("pm="),
            0x05 => Some("msi="),
            0x11 => Some("msix="),
            0x10 => Some("express"),
            _ => None,
        };
        if let Some(own) = own {
            return Err(options.bad(CAPABILITIES.name, &format!("without {id:02x}, which is {own}")));
        }
        place.add(options, CAPABILITIES.name, header, id, &bytes)?;
    }
    Ok(())
}

/// Free places of the conventional list.
struct Places {
    free: Range<u8>,
}

impl Places {
    /// Puts a capability in front of the list: its bytes behind the pointer.
    fn add(
        &mut self,
        options: &Options<'_>,
        key: &str,
        header: &mut Header,
        id: u8,
        bytes: &[u8],
    ) -> Result<(), SpecError> {
        let length = (bytes.len() + 2).next_multiple_of(4);
        let room = usize::from(self.free.end - self.free.start);
        if length > room {
            return Err(
                options.bad(key, &format!("shorter: {room} bytes of configuration space are left for it"))
            );
        }
        let at = self.free.start;
        self.free.start = u8::try_from(usize::from(at) + length).unwrap_or(self.free.end);
        let index = usize::from(at) - SPECIFIC;
        if header.specific.len() < index + length {
            header.specific.resize(index + length, 0);
        }
        header.specific[index..index + 2].copy_from_slice(&[id, header.capabilities]);
        header.specific[index + 2..index + 2 + bytes.len()].copy_from_slice(bytes);
        header.capabilities = at;
        Ok(())
    }
}

fn link(text: &str) -> Option<Link> {
    let mut link = Link { speed: 1, width: 1, can_reset: false };
    for word in text.split('+').filter(|word| !word.is_empty()) {
        let value =
            |prefix: &str| word.strip_prefix(prefix).and_then(number).and_then(|n| u32::try_from(n).ok());
        match (word, value("gen"), value("x")) {
            ("flr", ..) => link.can_reset = true,
            (_, Some(speed @ 1..=5), _) => link.speed = speed,
            (_, _, Some(width @ (1 | 2 | 4 | 8 | 12 | 16 | 32))) => link.width = width,
            _ => return None,
        }
    }
    Some(link)
}

/// The PCI Express capability of an endpoint, version 2, behind the pointer to the next one, as it is after a reset.
fn capability(link: Link) -> Vec<u8> {
    let mut all = vec![0; LENGTH];
    let mut put = |at: usize, value: u32| all[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let reset = if link.can_reset { 1 << 28 } else { 0 };
    // Device Capabilities: 256 bytes of payload, role-based error reporting. Device Control: relaxed ordering, no snoop, requests of 512 bytes.
    put(0x04, 0x8001 | reset);
    put(0x08, 0x2810);
    // Link Capabilities: active state power management L0s and L1. Link Status: what was negotiated, and the slot's clock.
    put(0x0C, link.speed | link.width << 4 | 0xC00);
    put(0x10, (link.speed | link.width << 4 | 0x1000) << 16);
    // Completion timeouts can be disabled. All speeds up to its own; that is the target, too.
    put(0x24, 0x10);
    put(0x2C, ((1 << link.speed) - 1) << 1);
    put(0x30, link.speed);
    all[2..4].copy_from_slice(&2_u16.to_le_bytes());
    all.split_off(2)
}

/// The extended list: serial number, advanced error reporting, what is typed by its bytes.
fn extended(options: &Options<'_>, header: &mut Header) -> Result<(), SpecError> {
    let digits = |text: &str| hex(text, 16).filter(|_| text.len() == 16);
    let serial = options.value(SERIAL.name, "16 hexadecimal digits", digits)?.unwrap_or(USUAL_SERIAL);
    let mut all = vec![(pci::EXTENDED, 0x0003, 1, serial.to_le_bytes().to_vec())];
    let mut next = pci::EXTENDED + 0x10;
    if options.has(ERRORS.name) {
        let mut bytes = vec![0; ERRORS_LENGTH - HEAD];
        // Severity: the errors that are fatal by themselves. Correctable ones: advisory errors are masked. ECRC can be made and checked.
        bytes[8..12].copy_from_slice(&0x0046_2030_u32.to_le_bytes());
        bytes[16..20].copy_from_slice(&0x2000_u32.to_le_bytes());
        bytes[20..24].copy_from_slice(&0xA0_u32.to_le_bytes());
        all.push((ERRORS_AT, pci::ERRORS, 2, bytes));
        next = ERRORS_AT + 0x50;
    }
    const FORM: &str =
        "ID:VERSION:BYTES, hexadecimal, several with + between them, e.g. 000b:1:0102030405060708";
    let typed = |text: &str| text.split('+').map(versioned).collect::<Option<Vec<_>>>();
    for (id, version, bytes) in options.value(EXTENDED.name, FORM, typed)?.unwrap_or_default() {
        let length = u16::try_from((bytes.len() + HEAD).next_multiple_of(16)).unwrap_or(u16::MAX);
        let end = next.checked_add(length).filter(|end| usize::from(*end) <= END);
        let Some(end) = end else {
            return Err(options.bad(EXTENDED.name, "shorter: configuration space ends at 1000h"));
        };
        all.push((next, id, version, bytes));
        next = end;
    }
    let places: Vec<u16> = all.iter().map(|(at, ..)| *at).skip(1).chain([0]).collect();
    for ((at, id, version, bytes), next) in all.into_iter().zip(places) {
        let head = u32::from(id) | u32::from(version) << 16 | u32::from(next) << 20;
        let index = usize::from(at) - SPECIFIC;
        header.specific[index..index + HEAD].copy_from_slice(&head.to_le_bytes());
        header.specific[index + HEAD..index + HEAD + bytes.len()].copy_from_slice(&bytes);
    }
    Ok(())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits =
        text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    digits.map(|pair| u8::try_from(hex(pair?, 2)?).ok()).collect()
}

/// `09:04aa`.
fn one(text: &str) -> Option<(u8, Vec<u8>)> {
    let (id, rest) = text.split_once(':')?;
    Some((u8::try_from(hex(id, 2)?).ok()?, bytes(rest)?))
}

/// `000b:1:01020304`.
fn versioned(text: &str) -> Option<(u16, u8, Vec<u8>)> {
    let (id, rest) = text.split_once(':')?;
    let (version, rest) = rest.split_once(':')?;
    let version = u8::try_from(hex(version, 1)?).ok().filter(|version| *version < 16)?;
    Some((u16::try_from(hex(id, 4)?).ok()?, version, bytes(rest)?))
}
