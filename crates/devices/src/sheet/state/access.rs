//! The driver's reads and writes: cut into the registers and memories that they touch, each with its effect.

use std::rc::Rc;

use super::{Moment, Origin, State};
use crate::register::ones;
use crate::sheet::description::{Area, Rest, What};

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
        let unknown = self.admit(at)?;
        let sheet = Rc::clone(&self.sheet);
        let mut value = self.read_rest(at, unknown);
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
        let unknown = self.admit(at)?;
        let sheet = Rc::clone(&self.sheet);
        self.write_rest(at, unknown, value);
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

    /// How much longer than another such access it takes, ns.
    pub(crate) fn takes(&self, at: &At) -> u64 {
        let takes = |area: &Area| match area.what {
            What::Register(register) => self.sheet.registers[register].takes,
            What::Memory(_) => 0,
        };
        touched(&self.sheet.areas, at).map(takes).sum()
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

    /// Refuses an access that the sheet has no answer to; else says which of its bytes no area has.
    fn admit(&self, at: &At) -> Result<Unknown, Refused> {
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
        let unknown = touched(&sheet.areas, at)
            .map(|area| Part::of(area, at))
            .fold(Unknown(ones(at.bytes)), |Unknown(lanes), part| {
                Unknown(lanes & !(ones(part.bytes) << part.access_shift))
            });
        if sheet.rests[space] == Rest::Refused && unknown != Unknown(0) {
            return Err(
                "the sheet has no register there; `rest=zeros` behind its window lets such accesses pass"
                    .to_owned(),
            );
        }
        Ok(unknown)
    }

    fn read_rest(&self, at: &At, Unknown(lanes): Unknown) -> u64 {
        if lanes == 0 {
            return 0;
        }
        let space = usize::from(at.space);
        lanes
            & match self.sheet.rests[space] {
                Rest::Refused | Rest::Zeros => 0,
                Rest::Ones => u64::MAX,
                Rest::Memory => self.rests[space].read(at.offset, at.bytes),
            }
    }

    fn write_rest(&mut self, at: &At, Unknown(lanes): Unknown, value: u64) {
        let space = usize::from(at.space);
        if lanes == 0 || self.sheet.rests[space] != Rest::Memory {
            return;
        }
        let kept = self.rests[space].read(at.offset, at.bytes) & !lanes;
        self.rests[space].write(at.offset, at.bytes, kept | value & lanes);
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

/// The bits of an access's value that no area has.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Unknown(u64);

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
