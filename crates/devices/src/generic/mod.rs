//! Any card, without a model of its own: windows that answer by one rule, an interrupt pin that a script pulls.
//!
//! `pci,id=VVVV:DDDD,bar0=mem:128,irq` or `pci,config=FILE` from `lspci -xxxx` text. It has no registers of its own, so
//! nothing a driver writes raises or drops the pin.

mod keys;
mod lspci;

use kernel::hal::hardware::Refusal;

pub use keys::ENTRY;

use crate::pci::{Access, Header, Model, Placement};
use crate::ram::SparseRam;
use crate::register::ones;

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
}

/// A card made of a header and one rule.
pub struct Generic {
    header: Header,
    placement: Placement,
    reads: Reads,
    pin: Pin,
    /// What a script said last about the pin. It is the outside world's, so a reset does not change it.
    raised: bool,
    windows: [Contents; 6],
    /// The pin may have changed since the bus asked.
    changed: bool,
}

/// What one window holds.
#[derive(Default)]
struct Contents {
    ram: SparseRam,
    last: u64,
}

impl Generic {
    /// A card with this header.
    #[must_use]
    pub fn new(header: Header, placement: Placement, reads: Reads, pin: Pin) -> Self {
        Self { header, placement, reads, pin, raised: false, windows: Default::default(), changed: true }
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
        let Self { header: _, placement: _, reads: _, pin: _, raised: _, windows, changed } = self;
        *changed = true;
        for Contents { ram, last } in windows {
            ram.clear();
            *last = 0;
        }
    }

    fn read(&mut self, access: &Access) -> Result<u64, Refusal> {
        let window = &self.windows[usize::from(access.bar)];
        Ok(match self.reads {
            Reads::Ram => window.ram.read(access.offset, access.bytes()),
            Reads::Ones => ones(access.bytes()),
            Reads::Last => window.last & ones(access.bytes()),
        })
    }

    fn write(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        let window = &mut self.windows[usize::from(access.bar)];
        match self.reads {
            Reads::Ram => window.ram.write(access.offset, access.bytes(), value),
            Reads::Ones => {}
            Reads::Last => window.last = value,
        }
        Ok(())
    }

    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn reads_change(&self) -> bool {
        false
    }

    fn asserts(&self) -> bool {
        self.header.pin != 0 && (self.raised || self.pin == Pin::Stuck)
    }

    fn poke(&mut self, _now: u64, signal: &str, value: &str) -> Result<(), String> {
        if signal != "irq" {
            return Err(format!("no signal `{signal}`; it has: irq"));
        }
        if self.header.pin == 0 {
            return Err("it has no interrupt pin; add `irq` to the device".to_owned());
        }
        self.changed = true;
        self.raised = crate::pci::level(value)?;
        Ok(())
    }

    fn describe(&self, bar: u8, offset: u64) -> Option<String> {
        Some(format!("BAR{bar}+{offset:X}h"))
    }
}
