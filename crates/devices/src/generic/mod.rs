//! Any card, without a model of its own: windows that answer by one rule, an interrupt pin that a script pulls.
//!
//! `pci,id=VVVV:DDDD,bar0=mem:128,irq` or `pci,config=FILE` from `lspci -xxxx` text. Its registers are those that the user knows of
//! ([`registers`]): without any, nothing a driver writes raises or drops the pin, but of a cause that is shown in all registers ([`guess`]).

mod guess;
mod keys;
mod lspci;
mod registers;

use kernel::hal::hardware::Refusal;

pub use keys::ENTRY;
pub use registers::{Causes, Known, Place, Rule};

use self::guess::Guess;
use crate::pci::{Access, Header, Master, Messages, Model, Placement};
use crate::ram::SparseRam;
use crate::register::ones;

/// The longest pulse of the interrupt pin, in ns: a driver that makes no access is not called for ever.
const PULSE: u64 = 20_000;
/// How long the pin is raised of a card that interrupts by itself, in ns: its line is looked at once or twice.
const OWN_PULSE: u64 = 300;

/// How a window answers reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reads {
    /// As memory: what was last written at that offset, 0 before.
    #[default]
    Ram,
    /// All ones, as a card that does not answer.
    Ones,
    /// What was last written anywhere in that window, 0 before.
    Last,
}

/// How the interrupt pin behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pin {
    /// Low until a script raises it.
    #[default]
    Poked,
    /// High from power-on for ever: only interrupt disable, or pulling the card, silences it.
    Stuck,
    /// Raised by itself for a moment once in so many ns, which is more than [`OWN_PULSE`].
    Every(u64),
}

/// A card made of a header and one rule.
pub struct Generic {
    header: Header,
    placement: Placement,
    reads: Reads,
    pin: Pin,
    known: Known,
    /// It is served by another driver, whose routine is the last one of the line: it raises the pin whenever another card of the line does, and drops it
    /// when all routines have said that the interrupt is not their card's.
    foreign: bool,
    /// It is, and the pin is raised for that routine.
    waits: bool,
    /// What a script said last about the pin. It is the outside world's, so a reset does not change it.
    raised: bool,
    /// The pin is raised until the driver has made so many accesses, or until this moment.
    pulse: Option<(u32, u64)>,
    /// A cause of its interrupt that a script has raised, and of which it is not known which register shows it.
    cause: Option<Guess>,
    /// When a card that interrupts by itself raises the pin next.
    next: u64,
    windows: [Contents; 6],
    /// The pin may have changed since the bus asked.
    changed: bool,
    /// Messages that it has signaled and the bus has not taken.
    signaled: Vec<u16>,
}

/// What one window holds.
#[derive(Default)]
pub(crate) struct Contents {
    ram: SparseRam,
    last: u64,
}

impl Generic {
    /// A card with this header, of which nothing else is known.
    #[must_use]
    pub fn new(header: Header, placement: Placement, reads: Reads, pin: Pin) -> Self {
        Self {
            header,
            placement,
            reads,
            pin,
            known: Known::default(),
            foreign: false,
            waits: false,
            raised: false,
            pulse: None,
            cause: None,
            next: 0,
            windows: Default::default(),
            changed: true,
            signaled: Vec::new(),
        }
    }

    /// The same, with registers.
    #[must_use]
    pub fn with(mut self, known: Known) -> Self {
        self.known = known;
        self.reset();
        self
    }

    /// The same, as a card that another driver serves.
    #[must_use]
    pub fn of_another(self) -> Self {
        Self { foreign: true, ..self }
    }

    /// What was written to its registers is gone.
    fn forget(&mut self) {
        for Contents { ram, last } in &mut self.windows {
            ram.clear();
            *last = 0;
        }
        self.known.reset(&mut self.windows);
    }

    /// One access, and what it makes of a pulse.
    fn was_accessed(&mut self) {
        if let Some((accesses, until)) = self.pulse {
            self.pulse = (accesses > 1).then_some((accesses - 1, until));
            self.changed = true;
        }
    }

    /// Where messages stand for the pin, the first one comes as the pin is raised; the bus drops it where the pin is its own.
    fn signal_first(&mut self, raised: bool) {
        if raised && self.header.messages.is_some() {
            self.signaled.push(0);
        }
    }

    /// What a script names `barN+OFFSET`, hexadecimal: a register in one of its windows.
    fn register(&self, name: &str) -> Result<Place, String> {
        let Some(place) = keys::register(name) else {
            return Err(format!(
                "no signal `{name}`; it has: irq, pulse, cause, done, and registers as bar0+4c (hexadecimal, 32 bits)"
            ));
        };
        match self.header.bars[usize::from(place.bar)] {
            Some(bar) if place.offset + 4 <= bar.length() => Ok(place),
            Some(bar) => Err(format!("`{name}`: the window has only {:X}h bytes", bar.length())),
            None => Err(format!("`{name}`: it has no BAR {}", place.bar)),
        }
    }
}

impl Model for Generic {
    fn kind(&self) -> &'static str {
        ENTRY.name
    }

    fn header(&self) -> &Header {
        &self.header
    }

    fn placement(&self) -> Placement {
        self.placement
    }

    fn reset(&mut self) {
        let Self {
            header: _,
            placement: _,
            reads: _,
            pin: _,
            known: _,
            foreign: _,
            waits,
            raised: _,
            pulse,
            cause,
            next: _,
            windows: _,
            changed,
            signaled,
        } = self;
        *changed = true;
        *waits = false;
        *pulse = None;
        *cause = None;
        signaled.clear();
        self.forget();
    }

    fn read(&mut self, access: &Access) -> Result<u64, Refusal> {
        let window = &self.windows[usize::from(access.bar)];
        let value = match self.reads {
            Reads::Ram => window.ram.read(access.offset, access.bytes()),
            Reads::Ones => ones(access.bytes()),
            Reads::Last => window.last & ones(access.bytes()),
        };
        self.changed |= self.known.was_read(&mut self.windows, (access.bar, access.offset, access.bytes()));
        self.was_accessed();
        let cause = self.cause.as_mut();
        Ok(cause.map_or(value, |cause| cause.read(access, value)))
    }

    fn write(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        // What is written may be the enable register.
        self.changed |= self.known.causes.is_some();
        let before = self.known.before_write(&self.windows);
        let value = self.cause.as_mut().map_or(value, |cause| cause.write(access, value));
        self.changed |= self.cause.is_some();
        let window = &mut self.windows[usize::from(access.bar)];
        match self.reads {
            Reads::Ram => window.ram.write(access.offset, access.bytes(), value),
            Reads::Ones => {}
            Reads::Last => window.last = value,
        }
        self.known.was_written(&mut self.windows, (access.bar, access.offset, access.bytes()), value, before);
        self.was_accessed();
        Ok(())
    }

    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn ends_by_itself(&self) -> bool {
        true
    }

    fn is_of_another(&self) -> bool {
        self.foreign
    }

    fn join(&mut self) {
        self.waits = true;
    }

    fn left_unclaimed(&mut self) {
        self.waits = false;
    }

    fn reads_change(&self) -> bool {
        self.header.pin != 0 || self.known.causes.is_some_and(|causes| causes.rule == Rule::Read)
    }

    fn asserts(&self) -> bool {
        let raised = self.raised
            || self.waits
            || self.pulse.is_some()
            || self.cause.as_ref().is_some_and(Guess::asserts)
            || self.pin == Pin::Stuck
            || self.known.active(&self.windows) != 0;
        self.header.pin != 0 && raised
    }

    fn take_messages(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.signaled)
    }

    fn deadline(&self) -> Option<u64> {
        let own = matches!(self.pin, Pin::Every(_)).then_some(self.next);
        let pulse = self.pulse.map(|(_, until)| until);
        let cause = self.cause.as_ref().map(Guess::ends);
        pulse.into_iter().chain(cause).chain(own).min()
    }

    fn advance(&mut self, now: u64, _master: &mut Master<'_>) {
        if let Pin::Every(period) = self.pin
            && self.next <= now
        {
            self.next = now + period;
            if self.foreign {
                self.waits = true;
            } else {
                self.pulse = Some((u32::MAX, now + OWN_PULSE));
            }
            self.changed = true;
        }
        if self.pulse.is_some_and(|(_, until)| until <= now) {
            self.pulse = None;
            self.changed = true;
        }
        if self.cause.as_ref().is_some_and(|cause| cause.ends() <= now) {
            self.cause = None;
            self.changed = true;
        }
    }

    fn poke(&mut self, now: u64, signal: &str, value: &str) -> Result<(), String> {
        let word = || value.parse::<u32>().map_err(|_| format!("`{value}` is no number of 32 bits"));
        if signal == keys::MESSAGE {
            let count = self.header.messages.map_or(0, Messages::count);
            let number = word()?;
            if number >= count.into() {
                return Err(format!("it has {count} messages, counted from 0; give it msi= or msix="));
            }
            self.signaled.push(u16::try_from(number).unwrap_or(u16::MAX));
            self.changed = true;
            return Ok(());
        }
        if signal == keys::PULSE && self.header.pin != 0 {
            self.pulse =
                Some(word()?).filter(|accesses| *accesses > 0).map(|accesses| (accesses, now + PULSE));
            self.signal_first(self.pulse.is_some());
            self.changed = true;
            return Ok(());
        }
        let is_cause = [keys::CAUSE, keys::DONE].contains(&signal);
        if is_cause && self.known.causes.is_some() {
            return Err("its keys say which register shows causes: raise them by `irq`".to_owned());
        }
        if is_cause && self.header.pin != 0 {
            let raised = Some(word()?).filter(|bits| *bits != 0);
            let is_done = signal == keys::DONE;
            if is_done && raised.is_some() {
                self.forget();
            }
            let guess = if is_done { Guess::done } else { Guess::new };
            self.cause = raised.map(|bits| guess(bits, now + PULSE));
            self.signal_first(self.cause.is_some());
            self.changed = true;
            return Ok(());
        }
        if !["irq", keys::PULSE, keys::CAUSE, keys::DONE].contains(&signal) {
            let place = self.register(signal)?;
            place.set(&mut self.windows, word()?);
            self.changed = true;
            return Ok(());
        }
        if self.header.pin == 0 {
            return Err("it has no interrupt pin; add `irq` to the device".to_owned());
        }
        if self.known.causes.is_some() {
            self.known.raise(&mut self.windows, word()?);
        } else {
            self.raised = crate::pci::level(value)?;
        }
        self.changed = true;
        Ok(())
    }

    fn peek(&self, register: &str) -> Result<u32, String> {
        if !keys::is_register(register) {
            return Err(format!(
                "`{register}` is no register's name; write the window and the offset, hexadecimal: bar0+4c"
            ));
        }
        Ok(self.register(register)?.read(&self.windows))
    }

    fn describe(&self, bar: u8, offset: u64) -> Option<String> {
        let name = self.known.name(bar, offset).map(|name| format!(" ({name})")).unwrap_or_default();
        Some(format!("BAR{bar}+{offset:X}h{name}"))
    }
}
