//! A card that behaves as a sheet describes: what its registers, FIFOs, memories and timers hold, and what happens to them.
//!
//! An access, a timer's end or a poke does its actions at once, unless they reach memory: those wait for [`State::advance`], which the bus
//! calls before anything else happens. Actions set registers without the side effects of a driver's accesses.

mod access;
mod act;

use std::collections::VecDeque;
use std::rc::Rc;

pub(crate) use access::At;

use super::description::{Access, Action, Block, Description, Register, SPACES};
use super::expression::{Answers, Expression, Quality};
use crate::pci::Master;
use crate::ram::SparseRam;
use crate::register::low32;
use crate::spec::{hint, number};
use act::Asked;

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
    /// Whether a driver's read can change its lines, its messages or its deadline,
    reads_change: bool,
    /// and whether accesses to some of its registers take longer than others.
    timed: bool,
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
            reads_change: sheet.registers.iter().any(Register::changes_when_read),
            timed: sheet.registers.iter().any(|register| register.takes != 0),
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
            reads_change: _,
            timed: _,
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

    /// Whether a driver's read can change what it drives.
    pub(crate) const fn reads_change(&self) -> bool {
        self.reads_change
    }

    /// Whether accesses to some of its registers take longer than others.
    pub(crate) const fn is_timed(&self) -> bool {
        self.timed
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
            format!("no register `{name}`{}", hint(name, known))
        })?;
        Ok(low32(self.register(register)))
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
