//! A PCI card that a sheet makes whole.

use kernel::hal::hardware::Refusal;

use super::{At, Ports, Rest, Sheet, State};
use crate::pci::{Access, Header, Master, Model, Placement};

/// The one line of a card's sheet: its interrupt pin.
const PIN: u8 = 0;

/// What a sheet of a card can have.
pub(crate) const PORTS: Ports = Ports {
    spaces: &["bar0", "bar1", "bar2", "bar3", "bar4", "bar5"],
    rest: Rest::Refused,
    lines: &["irq"],
    is_card: true,
};

/// A card with a header and a sheet.
pub(crate) struct SheetCard {
    kind: &'static str,
    header: Header,
    placement: Placement,
    state: State,
    /// Its pin, its messages or its deadline may have changed since the bus asked.
    changed: bool,
}

impl SheetCard {
    pub(crate) fn new(kind: &'static str, header: Header, placement: Placement, sheet: Sheet) -> Self {
        Self { kind, header, placement, state: sheet.state, changed: true }
    }

    fn refuse(&self, access: &Access, why: String) -> Refusal {
        Refusal::new(self.describe(access.bar, access.offset).unwrap_or_default(), why)
    }
}

const fn at(access: &Access) -> At {
    At { now: access.now, space: access.bar, offset: access.offset, bytes: access.bytes() }
}

impl Model for SheetCard {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn header(&self) -> &Header {
        &self.header
    }

    fn placement(&self) -> Placement {
        self.placement
    }

    fn reset(&mut self) {
        let Self { kind: _, header: _, placement: _, state, changed } = self;
        state.reset();
        *changed = true;
    }

    fn read(&mut self, access: &Access) -> Result<u64, Refusal> {
        self.changed |= self.state.reads_change();
        self.state.read(&at(access)).map_err(|why| self.refuse(access, why))
    }

    fn write(&mut self, access: &Access, value: u64) -> Result<(), Refusal> {
        self.changed = true;
        self.state.write(&at(access), value).map_err(|why| self.refuse(access, why))
    }

    fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn reads_change(&self) -> bool {
        self.state.reads_change()
    }

    fn is_timed(&self) -> bool {
        self.state.is_timed()
    }

    fn takes(&mut self, access: &Access, _write: bool) -> u64 {
        self.state.takes(&at(access))
    }

    fn asserts(&self) -> bool {
        self.header.pin != 0 && self.state.line(PIN)
    }

    fn take_messages(&mut self) -> Vec<u16> {
        self.state.take_messages()
    }

    fn deadline(&self) -> Option<u64> {
        self.state.deadline()
    }

    fn advance(&mut self, now: u64, master: &mut Master<'_>) {
        self.changed = true;
        self.state.advance(now, master);
    }

    fn poke(&mut self, now: u64, signal: &str, value: &str) -> Result<(), String> {
        self.changed = true;
        self.state.poked(now, signal, value, &[])
    }

    fn peek(&self, register: &str) -> Result<u32, String> {
        self.state.peeked(register)
    }

    fn describe(&self, bar: u8, offset: u64) -> Option<String> {
        let name = self.state.name(bar, offset).map(|name| format!(" {name}")).unwrap_or_default();
        Some(format!("BAR{bar}+{offset:X}h{name}"))
    }
}
