//! What the EEPROM holds for the PCI 9052: 100 bytes of configuration, most significant word of each register first.
//!
//! The layout is the PLX software kit's. The revision is the chip's own and is not loaded.

use super::eeprom::WORDS;
use super::lcr::{Lcr, Register};
use crate::pci::Header;
use crate::spec::hex;

/// An EEPROM that never was programmed.
pub(crate) const BLANK: [u16; WORDS] = [0xFFFF; WORDS];

/// Registers of the LCR by their place in the image, in bytes.
const LCR_PLACES: [(usize, Register); 21] = [
    (0x10, Register::LasRr(0)),
    (0x14, Register::LasRr(1)),
    (0x18, Register::LasRr(2)),
    (0x1C, Register::LasRr(3)),
    (0x20, Register::EromRr),
    (0x24, Register::LasBa(0)),
    (0x28, Register::LasBa(1)),
    (0x2C, Register::LasBa(2)),
    (0x30, Register::LasBa(3)),
    (0x34, Register::EromBa),
    (0x38, Register::LasBrd(0)),
    (0x3C, Register::LasBrd(1)),
    (0x40, Register::LasBrd(2)),
    (0x44, Register::LasBrd(3)),
    (0x48, Register::EromBrd),
    (0x4C, Register::CsBase(0)),
    (0x50, Register::CsBase(1)),
    (0x54, Register::CsBase(2)),
    (0x58, Register::CsBase(3)),
    (0x5C, Register::Intcsr),
    (0x60, Register::Cntrl),
];

/// The board we ship: BAR2 is 64 KiB of memory at local 0, BAR3 256 ports at local FF00h (the same board's last 256
/// bytes), both 32 bits wide; both LINTi active high, nothing enabled; no ROM.
pub(crate) fn builtin(subsystem: (u16, u16)) -> [u16; WORDS] {
    let mut words = [0; WORDS];
    let (vendor, device) = subsystem;
    put(&mut words, 0x00, 0x9050_10B5);
    put(&mut words, 0x04, 0x0680_0002);
    put(&mut words, 0x08, u32::from(device) << 16 | u32::from(vendor));
    put(&mut words, 0x0C, 0x0000_0100);
    put(&mut words, 0x10, 0x0FFF_0000);
    put(&mut words, 0x14, 0x0FFF_FF01);
    put(&mut words, 0x24, 0x0000_0001);
    put(&mut words, 0x28, 0x0000_FF01);
    for brd in [0x38, 0x3C, 0x40, 0x44, 0x48] {
        put(&mut words, brd, 0x0080_0000);
    }
    put(&mut words, 0x4C, 0x0000_8001);
    put(&mut words, 0x5C, 0x0000_0012);
    put(&mut words, 0x60, 0x0078_4000);
    words
}

/// Whether the chip takes the image: a blank or missing EEPROM leaves its defaults.
pub(crate) fn is_programmed(words: &[u16; WORDS]) -> bool {
    words[0] != 0xFFFF
}

/// Loads the LCR, and the header fields that come from the EEPROM. CNTRL bits 31:24 are pins, not configuration.
pub(crate) fn load(words: &[u16; WORDS], header: &mut Header, lcr: &mut Lcr) {
    let [vendor, device] = halves(get(words, 0x00));
    (header.vendor, header.device) = (vendor, device);
    header.class = get(words, 0x04) >> 8;
    let [vendor, device] = halves(get(words, 0x08));
    (header.subsystem_vendor, header.subsystem) = (vendor, device);
    let [line, pin, ..] = get(words, 0x0C).to_le_bytes();
    header.pin = pin.min(1);
    header.loaded_line = line;
    for (place, register) in LCR_PLACES {
        let lanes = if register == Register::Cntrl { 0x00FF_FFFF } else { u32::MAX };
        lcr.set(register, get(words, place), lanes);
    }
}

/// An image from a file: 16-bit words as hexadecimal text (`#` starts a comment), or binary, low byte first. What is
/// missing at the end is FFFFh.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn parse(bytes: &[u8]) -> Result<[u16; WORDS], String> {
    let words = match std::str::from_utf8(bytes).ok().and_then(text_words) {
        Some(words) => words?,
        None => binary_words(bytes)?,
    };
    if words.is_empty() || words.len() > WORDS {
        return Err(format!("holds {} words; a 93CS46 has 1 to 64", words.len()));
    }
    let mut image = BLANK;
    image[..words.len()].copy_from_slice(&words);
    Ok(image)
}

/// The words of a text, if the bytes are one (printable characters and white space only).
fn text_words(text: &str) -> Option<Result<Vec<u16>, String>> {
    let is_text = text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    is_text.then(|| {
        let code = |line: &'_ str| line.split('#').next().unwrap_or_default().to_owned();
        let mut words = Vec::new();
        for (line, number) in text.lines().map(code).zip(1..) {
            for word in line.split_whitespace() {
                let value = hex(word, 4).filter(|_| word.len() == 4).and_then(|n| u16::try_from(n).ok());
                words.push(value.ok_or_else(|| {
                    format!("line {number}: `{word}` is not a word of four hexadecimal digits")
                })?);
            }
        }
        Ok(words)
    })
}

fn binary_words(bytes: &[u8]) -> Result<Vec<u16>, String> {
    if !bytes.len().is_multiple_of(2) {
        return Err(format!("is binary with {} bytes; words need an even number", bytes.len()));
    }
    Ok(bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
}

fn get(words: &[u16; WORDS], place: usize) -> u32 {
    u32::from(words[place / 2]) << 16 | u32::from(words[place / 2 + 1])
}

fn put(words: &mut [u16; WORDS], place: usize, value: u32) {
    let [low, high] = halves(value);
    words[place / 2] = high;
    words[place / 2 + 1] = low;
}

/// Low half, high half.
fn halves(value: u32) -> [u16; 2] {
    [(value & 0xFFFF) as u16, (value >> 16) as u16]
}
