//! A card of our own for tests: sources that a driver raises itself and that interrupt by a line or by messages, a FIFO, two bus
//! masters that work side by side, and faults on demand.
//!
//! BAR0 has the registers of [`registers::TABLE`], 32 bits each; BAR1 the MSI-X table and pending bits, BAR2 the card's memory, if
//! it has them. Source n has bit n of RAISE, STATUS and ENABLE, and signals message n when status and enable come together; the
//! line is asserted while any source has both. It is one function, with one pin.

mod faults;
mod fifo;
mod keys;
mod registers;
mod transfer;

use kernel::hal::hardware::{Question, Refusal};

pub use keys::ENTRY;

use crate::pci::{Access, Header, Master, Model, Placement, level};
use crate::plan::{BUSY, Freedom};
use crate::ram::SparseRam;
use crate::register::{at, low32, parts};
use faults::Faults;
use fifo::Fifo;
use registers::{Dma, IDENTIFICATION, Register, TABLE};
use transfer::Transfer;

/// The card.
pub struct BenchCard {
    settings: Settings,
    status: u32,
    enable: u32,
    /// Nanoseconds from a write to RAISE until it takes effect.
    delay: u32,
    /// What was raised and waits: when, and which sources.
    raised: Vec<(u64, u32)>,
    /// Sources with status and enable as they were seen last.
    seen: u32,
    /// Messages signaled that the bus has not taken.
    signaled: Vec<u16>,
    /// How many messages were signaled since reset.
    count: u32,
    fifo: Fifo,
    transfers: [Transfer; 2],
    ram: SparseRam,
    faults: Faults,
    /// Its pin, as the fault `stuck` keeps it.
    asserted: bool,
    changed: bool,
}

/// What the user chose; never changes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    placement: Placement,
    header: Header,
    /// Sources: bits of the registers that exist, 1–32.
    sources: u32,
    /// What DELAY and DMA_DELAY are after reset.
    delay: u32,
    transfer: u32,
    /// What is wrong with it after reset.
    faults: Faults,
    /// How a transfer may come.
    freedom: Freedom,
}

impl BenchCard {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut card = Self {
            settings,
            status: 0,
            enable: 0,
            delay: 0,
            raised: Vec::new(),
            seen: 0,
            signaled: Vec::new(),
            count: 0,
            fifo: Fifo::default(),
            transfers: Default::default(),
            ram: SparseRam::default(),
            faults: Faults::default(),
            asserted: false,
            changed: true,
        };
        card.reset();
        card
    }

    /// Bits of the sources that exist.
    fn existing(&self) -> u32 {
        u32::MAX >> (32 - self.settings.sources)
    }

    fn signal(&mut self, number: u16) {
        if !self.faults.never {
            self.signaled.push(number);
            self.count = self.count.wrapping_add(1);
        }
    }

    /// After status or enable changed: sources that have both now signal their messages.
    fn refresh(&mut self) {
        self.changed = true;
        let active = self.status & if self.faults.early { self.existing() } else { self.enable };
        let new = active & !self.seen;
        self.seen = active;
        self.asserted = active != 0 || self.asserted && self.faults.stuck;
        (0..32_u16).filter(|number| new & 1 << number != 0).for_each(|number| self.signal(number));
    }

    fn raise(&mut self, now: u64, sources: u32) {
        if self.delay == 0 {
            self.status |= sources;
        } else {
            self.raised.push((now + u64::from(self.delay), sources));
        }
    }

    /// The side effects of STATUS_AND_CLEAR and FIFO are here, and no other.
    fn read_register(&mut self, register: Register) -> u32 {
        match register {
            Register::Identification => IDENTIFICATION,
            Register::Sources => self.settings.sources,
            Register::Status => self.status,
            Register::StatusAndClear => {
                let status = std::mem::take(&mut self.status);
                self.refresh();
                status
            }
            Register::Enable => self.enable,
            Register::Count => self.count,
            Register::Delay => self.delay,
            Register::Fifo => self.fifo.pop(),
            Register::FifoStatus => self.fifo.status(),
            Register::Dma(which, register) => self.read_transfer(which, register),
            Register::Raise | Register::Signal => 0,
        }
    }

    fn read_transfer(&self, which: usize, register: Dma) -> u32 {
        let transfer = &self.transfers[which];
        match register {
            Dma::AddressLow => low32(transfer.address),
            Dma::AddressHigh => low32(transfer.address >> 32),
            Dma::Length => transfer.length,
            Dma::Offset => transfer.offset,
            Dma::Command => transfer.command.0,
            Dma::Status => transfer.status.0,
            Dma::Moved => transfer.moved,
            Dma::Delay => transfer.delay,
        }
    }

    fn write_register(&mut self, now: u64, register: Register, value: u32) {
        match register {
            Register::Raise => self.raise(now, value & self.existing()),
            Register::Status => self.status &= !value,
            Register::Enable => self.enable = value & self.existing(),
            Register::Signal => self.signal((value & 0xFFFF) as u16),
            Register::Delay => self.delay = value,
            Register::Fifo => self.fifo.push(value),
            Register::FifoStatus => self.fifo.clear(value),
            Register::Dma(which, register) => self.write_transfer(now, (which, register), value),
            Register::Identification | Register::Sources | Register::StatusAndClear | Register::Count => {}
        }
        self.refresh();
    }

    fn write_transfer(&mut self, now: u64, (which, register): (usize, Dma), value: u32) {
        let freedom = self.settings.freedom;
        let transfer = &mut self.transfers[which];
        let halves = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        match register {
            Dma::AddressLow => transfer.address = halves(value, low32(transfer.address >> 32)),
            Dma::AddressHigh => transfer.address = halves(low32(transfer.address), value),
            Dma::Length => transfer.length = value,
            Dma::Offset => transfer.offset = value,
            Dma::Command => transfer.start(now, transfer::Command(value), freedom),
            Dma::Status => transfer.status = transfer::Status(transfer.status.0 & !value),
            Dma::Delay => transfer.delay = value,
            Dma::Moved => {}
        }
    }
}

impl Model for BenchCard {
    fn kind(&self) -> &'static str {
        ENTRY.name
    }

    fn header(&self) -> &Header {
        &self.settings.header
    }

    fn placement(&self) -> Placement {
        self.settings.placement
    }

    fn reset(&mut self) {
        let Self {
            settings,
            status,
            enable,
            delay,
            raised,
            seen,
            signaled,
            count,
            fifo,
            transfers,
            ram,
            faults,
            asserted,
            changed,
        } = self;
        (*status, *enable, *delay, *seen, *count) = (0, 0, settings.delay, 0, 0);
        raised.clear();
        signaled.clear();
        fifo.reset();
        transfers.iter_mut().for_each(|transfer| transfer.reset(settings.transfer));
        ram.clear();
        *faults = settings.faults;
        (*asserted, *changed) = (false, true);
        self.begin_early();
    }

    fn read(&mut self, access: &Access) -> Result<u64, Refusal> {
        if access.bar != 0 {
            return Ok(self.ram.read(access.offset, access.bytes()));
        }
        self.check(access)?;
        let mut value = 0;
        for part in parts(TABLE, access.offset, access.bytes()) {
            value |= part.read(self.read_register(part.register));
        }
        Ok(value)
    }

    fn write(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        if access.bar != 0 {
            self.ram.write(access.offset, access.bytes(), value);
            return Ok(());
        }
        self.check(access)?;
        if self.is_ignored(access, value) {
            return Err(Refusal::ignoring(self.place(access), BUSY.to_owned()));
        }
        for part in parts(TABLE, access.offset, access.bytes()) {
            self.write_register(access.now, part.register, low32(value));
        }
        Ok(())
    }

    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn asserts(&self) -> bool {
        self.settings.header.pin != 0 && self.asserted && !self.faults.never
    }

    fn is_pulled(&self) -> bool {
        self.faults.pulled
    }

    fn take_messages(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.signaled)
    }

    fn deadline(&self) -> Option<u64> {
        let transfers = self.transfers.iter().filter_map(|transfer| transfer.plan.as_ref()?.deadline());
        self.raised.iter().map(|(at, _)| *at).chain(transfers).min()
    }

    fn advance(&mut self, now: u64, master: &mut Master<'_>) {
        let existing = self.existing();
        for transfer in &mut self.transfers {
            while let Some((part, is_last)) = transfer.plan.as_mut().and_then(|plan| plan.due(now)) {
                let raised = transfer.carry_out(part, is_last, &mut self.ram, master);
                self.status |= raised.map_or(0, |source| 1 << source) & existing;
            }
        }
        let due = |(at, _): &(u64, u32)| *at <= now;
        self.status |=
            self.raised.iter().filter(|raised| due(raised)).fold(0, |all, (_, sources)| all | sources);
        self.raised.retain(|raised| !due(raised));
        self.refresh();
    }

    fn question(&self) -> Option<Question> {
        self.transfers.iter().find_map(|transfer| transfer.plan.as_ref()?.question())
    }

    fn answer(&mut self, answer: u32) {
        let plans = self.transfers.iter_mut().filter_map(|transfer| transfer.plan.as_mut());
        plans.filter(|plan| plan.question().is_some()).take(1).for_each(|plan| plan.answer(answer));
    }

    fn poke(&mut self, _now: u64, signal: &str, value: &str) -> Result<(), String> {
        if let Some(fault) = self.faults.named(signal) {
            *fault = level(value)?;
            if signal == "early" {
                self.begin_early();
            }
            self.refresh();
            return Ok(());
        }
        if signal == "push" {
            self.fifo.push(value.parse().map_err(|_| format!("`{value}` is no number of 32 bits"))?);
            return Ok(());
        }
        if signal != "raise" {
            let faults = Faults::NAMES.join(", ");
            return Err(format!("no signal `{signal}`; it has: raise, push, {faults}"));
        }
        let source = value.parse::<u32>().ok().filter(|source| *source < self.settings.sources);
        let Some(source) = source else {
            return Err(format!("`{value}` is no source; it has 0 to {}", self.settings.sources - 1));
        };
        self.status |= 1 << source;
        self.refresh();
        Ok(())
    }

    fn describe(&self, bar: u8, offset: u64) -> Option<String> {
        (bar == 0).then(|| at(TABLE, offset).map_or("reserved", |row| row.name).to_owned())
    }
}

impl BenchCard {
    /// The fault `early` begins with a source that was not raised.
    fn begin_early(&mut self) {
        if self.faults.early {
            self.status |= 1;
            self.refresh();
        }
    }

    /// Registers are accessed as a whole.
    fn check(&self, access: &Access) -> Result<(), Refusal> {
        if access.bytes() == 4 && access.is_aligned() {
            return Ok(());
        }
        Err(Refusal::new(self.place(access), "accepts 4 bytes, aligned".to_owned()))
    }

    /// What is accessed, in words.
    fn place(&self, access: &Access) -> String {
        let name = self.describe(access.bar, access.offset).unwrap_or_default();
        format!("BAR0+{:02X}h {name}", access.offset)
    }

    /// Whether it is the start of a transfer while one runs.
    fn is_ignored(&self, access: &Access, value: u64) -> bool {
        let row = at(TABLE, access.offset);
        row.is_some_and(|row| match row.register {
            Register::Dma(which, Dma::Command) => self.transfers[which].is_busy_for(low32(value)),
            _ => false,
        })
    }
}
