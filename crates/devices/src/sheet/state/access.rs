//! The driver's reads and writes: cut into the registers and memories that they touch, each with its effect.

use std::rc::Rc;

use super::{Moment, Origin, State};
use crate::register::ones;
use crate::sheet::description::{Area, Description, Register, Rest, What};

/// One access by the driver.
#[derive(Clone, Copy)]
pub(crate) struct At {
    /// The machine's clock, ns.
    pub(crate) now: u64,
    /// Which space, 0–5.
    pub(crate) space: u8,
    /// Bytes from its beginning.
    pub(crate) offset: u64,
    /// 1–8.
    pub(crate) bytes: u64,
}

/// Why an access is refused.
pub(crate) type Refused = String;

impl State {
    /// A read by the driver.
    pub(crate) fn read(&mut self, at: &At) -> Result<u64, Refused> {
        self.admit(at)?;
        let sheet = Rc::clone(&self.sheet);
        let mut value = self.read_rest(at, &sheet);
        for area in touched(&sheet.areas, at) {
            let part = Part::of(area, at);
            value |= match area.what {
                What::Memory(memory) => {
                    self.memories[memory].read(part.from, part.bytes) << part.access_shift
                }
                What::Register(register) => {
                    let found = self.read_register(at.now, register, part.lanes());
                    (found & part.lanes()) >> part.register_shift() << part.access_shift
                }
            };
        }
        self.signal();
        Ok(value)
    }

    /// A write by the driver.
    pub(crate) fn write(&mut self, at: &At, value: u64) -> Result<(), Refused> {
        self.admit(at)?;
        let sheet = Rc::clone(&self.sheet);
        self.write_rest(at, &sheet, value);
        for area in touched(&sheet.areas, at) {
            let part = Part::of(area, at);
            let value = value >> part.access_shift;
            match area.what {
                What::Memory(memory) => self.memories[memory].write(part.from, part.bytes, value),
                What::Register(register) => {
                    let written = value << part.register_shift() & part.lanes();
                    self.write_register(at.now, register, written, part.lanes());
                }
            }
        }
        self.signal();
        Ok(())
    }

    /// The name of what lies there.
    pub(crate) fn name(&self, space: u8, offset: u64) -> Option<&str> {
        let at = At { now: 0, space, offset, bytes: 1 };
        let area = touched(&self.sheet.areas, &at).next()?;
        Some(match area.what {
            What::Register(register) => &self.sheet.registers[register].name,
            What::Memory(memory) => &self.sheet.memories[memory].name,
        })
    }

    /// Whether a read can change what it drives.
    pub(crate) fn reads_change(&self) -> bool {
        let changes = |register: &Register| {
            register.pops.is_some()
                || !register.on_read.actions.is_empty()
                || register
                    .fields
                    .iter()
                    .any(|field| field.access.read(0, 1) != 0 || field.access.read(1, 1) != 1)
        };
        self.sheet.registers.iter().any(changes)
    }

    /// Whether the access is one that the sheet has an answer to.
    fn admit(&self, at: &At) -> Result<(), Refused> {
        let (space, sheet) = (usize::from(at.space), &self.sheet);
        let width = sheet.widths[space];
        let is_register = |area: &Area| matches!(area.what, What::Register(_));
        if width != 0
            && (at.bytes != width || !at.offset.is_multiple_of(width))
            && touched(&sheet.areas, at).any(is_register)
        {
            return Err(format!(
                "an access of {} byte(s); its registers are accessed by {width}, aligned",
                at.bytes
            ));
        }
        let known: u64 = touched(&sheet.areas, at).map(|area| Part::of(area, at).bytes).sum();
        if sheet.rests[space] == Rest::Refused && known != at.bytes {
            return Err(
                "the sheet has no register there; `rest=zeros` behind its window lets such accesses pass"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The bytes of an access that no area has.
    fn unknown<'s>(at: &'s At, sheet: &'s Description) -> impl Iterator<Item = u64> + 's {
        let is_known = |offset: u64| touched(&sheet.areas, &At { offset, bytes: 1, ..*at }).next().is_some();
        (0..at.bytes).filter(move |n| !is_known(at.offset.wrapping_add(*n)))
    }

    fn read_rest(&self, at: &At, sheet: &Description) -> u64 {
        let space = usize::from(at.space);
        Self::unknown(at, sheet).fold(0, |value, n| {
            let byte = match sheet.rests[space] {
                Rest::Refused | Rest::Zeros => 0,
                Rest::Ones => 0xFF,
                Rest::Memory => self.rests[space].byte(at.offset.wrapping_add(n)),
            };
            value | u64::from(byte) << (8 * n)
        })
    }

    fn write_rest(&mut self, at: &At, sheet: &Description, value: u64) {
        let space = usize::from(at.space);
        if sheet.rests[space] == Rest::Memory {
            for n in Self::unknown(at, sheet) {
                let byte = (value >> (8 * n)).to_le_bytes()[0];
                self.rests[space].set_byte(at.offset.wrapping_add(n), byte);
            }
        }
    }

    fn read_register(&mut self, now: u64, register: usize, lanes: u64) -> u64 {
        let sheet = Rc::clone(&self.sheet);
        let described = &sheet.registers[register];
        let old = self.registers[register];
        let value = match described.pops {
            Some(fifo) => self.fifos[fifo].words.pop_front().unwrap_or(0),
            None => self.register(register),
        };
        for field in &described.fields {
            let held = self.registers[register];
            self.registers[register] = field.access.read(held, lanes & field.bits.mask());
        }
        self.happens(Origin::Read(register), Moment { now, old, ..Moment::default() });
        value
    }

    fn write_register(&mut self, now: u64, register: usize, written: u64, lanes: u64) {
        let sheet = Rc::clone(&self.sheet);
        let described = &sheet.registers[register];
        let old = self.registers[register];
        for field in &described.fields {
            let held = self.registers[register];
            self.registers[register] = field.access.written(held, written, lanes & field.bits.mask());
        }
        if let Some(fifo) = described.pushes {
            self.push(fifo, written);
        }
        self.happens(Origin::Write(register), Moment { now, old, written, value: 0 });
    }
}

/// The areas that an access touches.
fn touched<'s>(areas: &'s [Area], at: &At) -> impl Iterator<Item = &'s Area> + use<'s> {
    let (space, begin, end) = (at.space, at.offset, at.offset.saturating_add(at.bytes));
    let first = areas.partition_point(|area| (area.space, area.offset + area.bytes) <= (space, begin));
    areas[first..].iter().take_while(move |area| area.space == space && area.offset < end)
}

/// The part of an access that falls into an area.
struct Part {
    /// Bytes from the area's beginning.
    from: u64,
    bytes: u64,
    /// How far up in the access's value it lies, in bits.
    access_shift: u64,
}

impl Part {
    fn of(area: &Area, at: &At) -> Self {
        let begin = area.offset.max(at.offset);
        let end = (area.offset + area.bytes).min(at.offset.saturating_add(at.bytes));
        Self { from: begin - area.offset, bytes: end - begin, access_shift: (begin - at.offset) * 8 }
    }

    const fn register_shift(&self) -> u64 {
        self.from * 8
    }

    /// The bits of the register that the access drives.
    const fn lanes(&self) -> u64 {
        ones(self.bytes) << self.register_shift()
    }
}
