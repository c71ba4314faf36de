//! The local configuration registers, by their names in the data book.

/// Name and offset of each, all of 32 bits.
pub const REGISTERS: [(&str, u32); 21] = [
    ("LAS0RR", 0x00),
    ("LAS1RR", 0x04),
    ("LAS2RR", 0x08),
    ("LAS3RR", 0x0C),
    ("EROMRR", 0x10),
    ("LAS0BA", 0x14),
    ("LAS1BA", 0x18),
    ("LAS2BA", 0x1C),
    ("LAS3BA", 0x20),
    ("EROMBA", 0x24),
    ("LAS0BRD", 0x28),
    ("LAS1BRD", 0x2C),
    ("LAS2BRD", 0x30),
    ("LAS3BRD", 0x34),
    ("EROMBRD", 0x38),
    ("CS0BASE", 0x3C),
    ("CS1BASE", 0x40),
    ("CS2BASE", 0x44),
    ("CS3BASE", 0x48),
    ("INTCSR", 0x4C),
    ("CNTRL", 0x50),
];

/// The offset of the register with this name, in capitals or not.
#[must_use]
pub fn offset(name: &str) -> Option<u32> {
    let mut named = REGISTERS.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    named.next().map(|(_, offset)| *offset)
}
