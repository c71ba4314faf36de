//! The PCI 9052's local configuration registers (LCR) as one table, and what they hold.
//!
//! Offsets and reset values as public drivers and emulators give them. It stores and reads back; what INTCSR and CNTRL
//! do is `interrupt`'s and the chip's business.

use super::fields::{Cntrl, Descriptor, Intcsr, Range, Remap};
use crate::pci::{Bar, Location};
use crate::register::{Row, is_sorted, low32};

/// A register of the LCR, by the data book's name; the number is the local address space or chip select.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Register {
    LasRr(usize),
    EromRr,
    LasBa(usize),
    EromBa,
    LasBrd(usize),
    EromBrd,
    CsBase(usize),
    Intcsr,
    Cntrl,
}

const fn row(register: Register, offset: u64, name: &'static str) -> Row<Register> {
    Row { register, offset, bytes: 4, name }
}

/// What is not listed, up to 7Fh, reads 0 and ignores writes.
pub(crate) const TABLE: &[Row<Register>] = &[
    row(Register::LasRr(0), 0x00, "LAS0RR"),
    row(Register::LasRr(1), 0x04, "LAS1RR"),
    row(Register::LasRr(2), 0x08, "LAS2RR"),
    row(Register::LasRr(3), 0x0C, "LAS3RR"),
    row(Register::EromRr, 0x10, "EROMRR"),
    row(Register::LasBa(0), 0x14, "LAS0BA"),
    row(Register::LasBa(1), 0x18, "LAS1BA"),
    row(Register::LasBa(2), 0x1C, "LAS2BA"),
    row(Register::LasBa(3), 0x20, "LAS3BA"),
    row(Register::EromBa, 0x24, "EROMBA"),
    row(Register::LasBrd(0), 0x28, "LAS0BRD"),
    row(Register::LasBrd(1), 0x2C, "LAS1BRD"),
    row(Register::LasBrd(2), 0x30, "LAS2BRD"),
    row(Register::LasBrd(3), 0x34, "LAS3BRD"),
    row(Register::EromBrd, 0x38, "EROMBRD"),
    row(Register::CsBase(0), 0x3C, "CS0BASE"),
    row(Register::CsBase(1), 0x40, "CS1BASE"),
    row(Register::CsBase(2), 0x44, "CS2BASE"),
    row(Register::CsBase(3), 0x48, "CS3BASE"),
    row(Register::Intcsr, 0x4C, "INTCSR"),
    row(Register::Cntrl, 0x50, "CNTRL"),
];

const _: () = assert!(is_sorted(TABLE));

/// The register that an aligned access of 32 bits at `offset` is of, if there is one: they lie side by side.
pub(crate) fn whole(offset: u64) -> Option<Register> {
    let row = TABLE.get(usize::try_from(offset / 4).ok()?)?;
    debug_assert!(row.offset == offset && row.bytes == 4, "the table has no gaps");
    Some(row.register)
}

/// Bytes of the LCR's windows.
pub(crate) const LENGTH: u64 = 0x80;

/// The local bus has 28 address bits.
pub(crate) const LOCAL_MASK: u32 = 0x0FFF_FFFF;

/// What the registers hold. INTCSR's and CNTRL's read-only bits are not in here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lcr {
    pub lasrr: [Range; 4],
    pub eromrr: u32,
    pub lasba: [Remap; 4],
    pub eromba: u32,
    pub lasbrd: [Descriptor; 4],
    pub erombrd: u32,
    pub csbase: [u32; 4],
    pub intcsr: Intcsr,
    pub cntrl: Cntrl,
}

impl Lcr {
    /// The values after RST#, before the EEPROM is read.
    pub(crate) fn reset(&mut self) {
        let Self { lasrr, eromrr, lasba, eromba, lasbrd, erombrd, csbase, intcsr, cntrl } = self;
        *lasrr = [Range(0x0FF0_0000), Range(0), Range(0), Range(0)];
        *eromrr = 0x07FF_8000;
        *lasba = [Remap(0); 4];
        *eromba = 0x0008_0000;
        *lasbrd = [Descriptor(0x0080_0000); 4];
        *erombrd = 0x0080_0000;
        *csbase = [0; 4];
        *intcsr = Intcsr(0);
        *cntrl = Cntrl(0);
    }

    /// The stored value.
    pub(crate) fn get(&self, register: Register) -> u32 {
        match register {
            Register::LasRr(n) => self.lasrr[n].0,
            Register::EromRr => self.eromrr,
            Register::LasBa(n) => self.lasba[n].0,
            Register::EromBa => self.eromba,
            Register::LasBrd(n) => self.lasbrd[n].0,
            Register::EromBrd => self.erombrd,
            Register::CsBase(n) => self.csbase[n],
            Register::Intcsr => self.intcsr.0,
            Register::Cntrl => self.cntrl.0,
        }
    }

    /// Stores `value` in the bits of `lanes`.
    pub(crate) fn set(&mut self, register: Register, value: u32, lanes: u32) {
        let merged = (self.get(register) & !lanes) | (value & lanes);
        match register {
            Register::LasRr(n) => self.lasrr[n] = Range(merged),
            Register::EromRr => self.eromrr = merged,
            Register::LasBa(n) => self.lasba[n] = Remap(merged),
            Register::EromBa => self.eromba = merged,
            Register::LasBrd(n) => self.lasbrd[n] = Descriptor(merged),
            Register::EromBrd => self.erombrd = merged,
            Register::CsBase(n) => self.csbase[n] = merged,
            Register::Intcsr => self.intcsr = Intcsr(merged),
            Register::Cntrl => self.cntrl = Cntrl(merged),
        }
    }

    /// BAR0 to BAR5 as the registers ask for them. A disabled space has none.
    pub(crate) fn bars(&self) -> [Option<Bar>; 6] {
        let (memory, port) = match self.cntrl.get(Cntrl::BAR_SELECT) {
            1 => (true, false),
            2 => (false, true),
            _ => (true, true),
        };
        [
            memory.then_some(Bar::memory(LENGTH)),
            port.then_some(Bar::Port { length: LENGTH }),
            self.space(0),
            self.space(1),
            self.space(2),
            self.space(3),
        ]
    }

    /// The window of a local address space, if it is enabled. The lowest set bit of the range is its size.
    fn space(&self, space: usize) -> Option<Bar> {
        let range = self.lasrr[space];
        let port = range.is(Range::IO_SPACE);
        let mask = range.0 & if port { Range::IO_MASK.mask() } else { Range::MEMORY_MASK.mask() };
        if mask == 0 || !self.lasba[space].is(Remap::ENABLE) {
            return None;
        }
        let length = 1 << mask.trailing_zeros();
        if port {
            return Some(Bar::Port { length });
        }
        let location = match range.get(Range::LOCATION) {
            1 => Location::Below1M,
            2 => Location::Any64,
            _ => Location::Any32,
        };
        Some(Bar::Memory { length, location, prefetchable: range.is(Range::PREFETCHABLE) })
    }

    /// The local bus address of an offset in a space's window.
    pub(crate) fn local_address(&self, space: usize, offset: u64) -> u32 {
        let length = self.space(space).map_or(1, Bar::length);
        let base = u64::from(self.lasba[space].0 & LOCAL_MASK) & !(length - 1);
        low32(base | offset) & LOCAL_MASK
    }

    /// The expansion ROM's size, if its range register asks for one.
    pub(crate) fn rom(&self) -> Option<u32> {
        let mask = self.eromrr & 0x0FFF_F800;
        (mask != 0).then(|| 1 << mask.trailing_zeros())
    }

    /// The chip select that the chip drives for a local address: bit 0 enables, the lowest set bit above it is half the
    /// size, what is above that the base.
    pub(crate) fn chip_select(&self, local: u32) -> Option<usize> {
        self.csbase.iter().position(|base| {
            let size_bit = base & !1 & LOCAL_MASK;
            if base & 1 == 0 || size_bit == 0 {
                return false;
            }
            let length = 2 << size_bit.trailing_zeros();
            local & !(length - 1) == base & LOCAL_MASK & !(length - 1)
        })
    }
}
