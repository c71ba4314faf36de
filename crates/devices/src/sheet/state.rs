//! A card that behaves as a sheet describes: what its registers, FIFOs, memories and timers hold, and what happens to them.
//!
//! An access, a timer's end or a poke does its actions at once, unless they reach memory: those wait for [`State::advance`], which the bus
//! calls before anything else happens. Actions set registers without the side effects of a driver's accesses.

use std::collections::VecDeque;
use std::rc::Rc;

use super::description::{
    Access, Act, Action, Area, Block, Description, Register, Rest, SPACES, Target, Transfer, What,
};
use super::expression::{Answers, Expression, Quality};
use crate::pci::Master;
use crate::ram::SparseRam;
use crate::register::{low32, ones};
use crate::spec::{nearest, number};

/// The shortest period of a timer, ns.
const SHORTEST_PERIOD: u64 = 1_000;
/// Bytes of one transfer at most.
const LONGEST_TRANSFER: u64 = 16 << 20;

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

/// A sheet at work.
pub(crate) struct State {
    sheet: Rc<Description>,
    registers: Vec<u64>,
    fifos: Vec<Fifo>,
    memories: Vec<SparseRam>,
    /// Of the spaces where there is nothing else.
    rests: [SparseRam; SPACES],
    timers: Vec<Option<Timer>>,
    /// Actions that wait for the bus.
    waiting: VecDeque<(Origin, Moment)>,
    /// The last transfer was answered.
    answered: bool,
    /// The values behind messages that were other than 0 when they were looked at last.
    signaled: Vec<bool>,
    /// Messages that the bus has not taken.
    messages: Vec<u16>,
}

#[derive(Default)]
struct Fifo {
    words: VecDeque<u64>,
    lost: u64,
}

#[derive(Clone, Copy)]
struct Timer {
    ends: u64,
    period: Option<u64>,
}

/// Whose actions they are.
#[derive(Clone, Copy)]
enum Origin {
    Reset,
    Read(usize),
    Write(usize),
    Poke(usize),
    Timer(usize),
}

/// What actions may ask of what led to them.
#[derive(Clone, Copy, Default)]
struct Moment {
    now: u64,
    old: u64,
    written: u64,
    value: u64,
}

/// The state, asked at a moment.
struct Asked<'a, 'm> {
    state: &'a mut State,
    moment: Moment,
    master: Option<&'a mut Master<'m>>,
}

impl State {
    pub(super) fn new(sheet: Description) -> Self {
        let mut state = Self {
            registers: Vec::new(),
            fifos: Vec::new(),
            memories: sheet.memories.iter().map(|_| SparseRam::default()).collect(),
            rests: Default::default(),
            timers: Vec::new(),
            waiting: VecDeque::new(),
            answered: false,
            signaled: Vec::new(),
            messages: Vec::new(),
            sheet: Rc::new(sheet),
        };
        state.reset();
        state
    }

    /// Power-on or RST#.
    pub(crate) fn reset(&mut self) {
        self.memories.iter_mut().chain(&mut self.rests).for_each(SparseRam::clear);
        self.restart();
    }

    /// A reset that memory survives.
    pub(crate) fn restart(&mut self) {
        let Self {
            sheet,
            registers,
            fifos,
            memories: _,
            rests: _,
            timers,
            waiting,
            answered,
            signaled,
            messages,
        } = self;
        *registers = sheet.registers.iter().map(|register| register.reset).collect();
        *fifos = sheet.fifos.iter().map(|_| Fifo::default()).collect();
        *timers = vec![None; sheet.timers.len()];
        waiting.clear();
        *answered = false;
        *signaled = vec![false; sheet.messages.len()];
        messages.clear();
        self.happens(Origin::Reset, Moment::default());
        self.signal();
    }

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

    /// The level of an output.
    pub(crate) fn line(&self, output: u8) -> bool {
        self.sheet.lines.iter().any(|(line, value)| *line == output && self.value(value) != 0)
    }

    /// The messages signaled since this was asked last.
    pub(crate) fn take_messages(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.messages)
    }

    /// When it next does something by itself.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let waiting = self.waiting.iter().map(|(_, moment)| moment.now);
        self.timers.iter().flatten().map(|timer| timer.ends).chain(waiting).min()
    }

    /// Time is now `now`.
    pub(crate) fn advance(&mut self, now: u64, master: &mut Master<'_>) {
        loop {
            while let Some((origin, moment)) = self.waiting.pop_front() {
                self.carry_out(origin, moment, Some(&mut *master));
            }
            let ends =
                self.timers.iter().enumerate().filter_map(|(n, timer)| Some((timer.as_ref()?.ends, n)));
            let Some((ends, timer)) = ends.min().filter(|(ends, _)| *ends <= now) else { break };
            let period = self.timers[timer].and_then(|timer| timer.period);
            self.timers[timer] =
                period.map(|period| Timer { ends: ends.saturating_add(period), period: Some(period) });
            self.carry_out(
                Origin::Timer(timer),
                Moment { now: ends, ..Moment::default() },
                Some(&mut *master),
            );
        }
        self.signal();
    }

    /// A script pokes one of its signals; `others` are signals that it has besides.
    pub(crate) fn poked(
        &mut self,
        now: u64,
        signal: &str,
        value: &str,
        others: &[&str],
    ) -> Result<(), String> {
        let Some(poke) = self.sheet.pokes.iter().position(|(known, _)| known == signal) else {
            let names: Vec<&str> = others
                .iter()
                .copied()
                .chain(self.sheet.pokes.iter().map(|(name, _)| name.as_str()))
                .collect();
            let names = if names.is_empty() {
                "none (`on poke NAME` in the sheet makes one)".to_owned()
            } else {
                names.join(", ")
            };
            return Err(format!("no signal `{signal}`; it has: {names}"));
        };
        let value = number(value).ok_or_else(|| format!("`{value}` is no number"))?;
        self.happens(Origin::Poke(poke), Moment { now, value, ..Moment::default() });
        self.signal();
        Ok(())
    }

    /// What the register of this name reads as, without a read's side effects; the lower 32 bits.
    pub(crate) fn peeked(&self, name: &str) -> Result<u32, String> {
        let register = self.sheet.registers.iter().position(|register| register.name == name);
        let register = register.ok_or_else(|| {
            let known = self.sheet.registers.iter().map(|register| register.name.as_str());
            let hint =
                nearest(name, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            format!("no register `{name}`{hint}")
        })?;
        Ok(low32(self.register(register)))
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

    fn push(&mut self, fifo: usize, word: u64) {
        let depth = self.sheet.fifos[fifo].depth;
        let Fifo { words, lost } = &mut self.fifos[fifo];
        if words.len() < depth {
            words.push_back(word);
        } else {
            *lost += 1;
        }
    }

    /// What a register reads as, without side effects.
    fn register(&self, register: usize) -> u64 {
        let described = &self.sheet.registers[register];
        if let Some(fifo) = described.pops {
            return self.fifos[fifo].words.front().copied().unwrap_or(0);
        }
        let held = self.registers[register];
        described.fields.iter().fold(0, |value, field| {
            let bits = match &field.reads {
                Some(reads) => self.value(reads),
                None if field.access == Access::Wo => 0,
                None => field.bits.of(held),
            };
            field.bits.put(value, bits)
        })
    }

    /// The value of an expression that asks for the card's state only.
    fn value(&self, expression: &Expression) -> u64 {
        expression.value(&mut &*self)
    }

    fn leaf(&self, leaf: &Expression, offset: u64) -> u64 {
        match leaf {
            Expression::Register(register, bits) => bits.of(self.card_sees(*register)),
            Expression::Fifo(fifo, quality) => {
                let Fifo { words, lost } = &self.fifos[*fifo];
                match quality {
                    Quality::Count => words.len() as u64,
                    Quality::Empty => words.is_empty().into(),
                    Quality::Full => (words.len() >= self.sheet.fifos[*fifo].depth).into(),
                    Quality::Lost => *lost,
                }
            }
            Expression::Running(timer) => self.timers[*timer].is_some().into(),
            Expression::Memory(memory, _) if offset < self.sheet.memories[*memory].bytes => {
                self.memories[*memory].read(offset, 4)
            }
            _ => 0,
        }
    }

    /// What a register holds for the card itself: bits that are written only are there.
    fn card_sees(&self, register: usize) -> u64 {
        let described = &self.sheet.registers[register];
        if described.pops.is_some() {
            return self.register(register);
        }
        let held = self.registers[register];
        described.fields.iter().fold(held, |value, field| match &field.reads {
            Some(reads) => field.bits.put(value, self.value(reads)),
            None => value,
        })
    }

    /// Something happens that may have actions.
    fn happens(&mut self, origin: Origin, moment: Moment) {
        let sheet = Rc::clone(&self.sheet);
        let block = block(&sheet, origin);
        if block.actions.is_empty() {
            return;
        }
        if block.masters || !self.waiting.is_empty() {
            self.waiting.push_back((origin, moment));
        } else {
            self.carry_out(origin, moment, None);
        }
    }

    fn carry_out(&mut self, origin: Origin, moment: Moment, master: Option<&mut Master<'_>>) {
        let sheet = Rc::clone(&self.sheet);
        let mut asked = Asked { state: self, moment, master };
        for Action { act, condition } in &block(&sheet, origin).actions {
            if condition.as_ref().is_none_or(|condition| condition.value(&mut asked) != 0) {
                asked.act(act);
            }
        }
    }

    /// Messages whose reason is new are signaled.
    fn signal(&mut self) {
        let sheet = Rc::clone(&self.sheet);
        for (n, (message, value)) in sheet.messages.iter().enumerate() {
            let is = self.value(value) != 0;
            if is && !self.signaled[n] {
                self.messages.push(*message);
            }
            self.signaled[n] = is;
        }
    }
}

impl Answers for &State {
    fn answer(&mut self, leaf: &Expression, offset: u64) -> u64 {
        self.leaf(leaf, offset)
    }
}

impl Answers for Asked<'_, '_> {
    fn answer(&mut self, leaf: &Expression, offset: u64) -> u64 {
        match leaf {
            Expression::Old(bits) => bits.of(self.moment.old),
            Expression::Written(bits) => bits.of(self.moment.written),
            Expression::Value => self.moment.value,
            Expression::Answered => self.state.answered.into(),
            Expression::Bus(_) => {
                let mut word = [0; 4];
                self.state.answered =
                    self.master.as_mut().is_some_and(|master| master.read(offset, &mut word));
                u32::from_le_bytes(word).into()
            }
            leaf => self.state.leaf(leaf, offset),
        }
    }
}

impl Asked<'_, '_> {
    fn act(&mut self, act: &Act) {
        match act {
            Act::Set(target, value) => {
                let value = value.value(self);
                self.set(target, value);
            }
            Act::Push(fifo, word) => {
                let word = word.value(self);
                self.state.push(*fifo, word);
            }
            Act::Pop(fifo) => {
                self.state.fifos[*fifo].words.pop_front();
            }
            Act::Clear(fifo) => self.state.fifos[*fifo] = Fifo::default(),
            Act::Start { timer, count, unit, again } => {
                let time = count.value(self).saturating_mul(*unit);
                let period = again.then_some(time.max(SHORTEST_PERIOD));
                let ends = self.moment.now.saturating_add(period.unwrap_or(time.max(1)));
                self.state.timers[*timer] = Some(Timer { ends, period });
            }
            Act::Stop(timer) => self.state.timers[*timer] = None,
            Act::Transfer(transfer) => self.transfer(transfer),
        }
    }

    fn set(&mut self, target: &Target, value: u64) {
        match target {
            Target::Register(register, bits) => {
                let held = &mut self.state.registers[*register];
                *held = bits.put(*held, value);
            }
            Target::Memory(memory, offset) => {
                let offset = offset.value(self);
                if offset < self.state.sheet.memories[*memory].bytes {
                    self.state.memories[*memory].write(offset, 4, value);
                }
            }
            Target::Bus(address) => {
                let address = address.value(self);
                let word = low32(value).to_le_bytes();
                self.state.answered = self.master.as_mut().is_some_and(|master| master.write(address, &word));
            }
        }
    }

    fn transfer(&mut self, transfer: &Transfer) {
        let [offset, address, length] =
            [&transfer.offset, &transfer.address, &transfer.length].map(|value| value.value(self));
        let end = self.state.sheet.memories[transfer.memory].bytes;
        let fits =
            offset.checked_add(length).is_some_and(|behind| behind <= end) && length <= LONGEST_TRANSFER;
        let (Some(master), true) = (self.master.as_mut(), fits) else {
            self.state.answered = false;
            return;
        };
        let memory = &mut self.state.memories[transfer.memory];
        let mut bytes: Vec<u8> = (offset..offset + length).map(|at| memory.byte(at)).collect();
        self.state.answered = if transfer.stores {
            master.write(address, &bytes)
        } else {
            let answered = master.read(address, &mut bytes);
            if answered {
                (offset..).zip(&bytes).for_each(|(at, byte)| memory.set_byte(at, *byte));
            }
            answered
        };
    }
}

/// Whose actions these are.
fn block(sheet: &Description, origin: Origin) -> &Block {
    match origin {
        Origin::Reset => &sheet.on_reset,
        Origin::Read(register) => &sheet.registers[register].on_read,
        Origin::Write(register) => &sheet.registers[register].on_write,
        Origin::Poke(poke) => &sheet.pokes[poke].1,
        Origin::Timer(timer) => &sheet.timers[timer],
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
