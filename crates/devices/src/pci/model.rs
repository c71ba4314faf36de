//! What a card must do: the trait that every model implements, and nothing about any card.
//!
//! A model knows its registers and its outside signals. It does not know its slot, its bases, its line or its
//! configuration registers: those are the bus's.

use kernel::hal::hardware::{Memory, Question, Refusal, Width};

use super::header::Header;
use crate::isa_dma::{Data, IsaDma, Moved};

/// One access to a window, aligned or not, wholly inside the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// The machine's clock, ns.
    pub now: u64,
    /// Which base address register, 0–5.
    pub bar: u8,
    /// Bytes from the window's base.
    pub offset: u64,
    /// The bus address, `base + offset`; for chips whose errata depend on it.
    pub address: u64,
    /// Bytes moved.
    pub width: Width,
}

impl Access {
    /// Bytes moved, 1–8.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.width as u64
    }

    /// Whether the offset is a multiple of the width.
    #[must_use]
    pub const fn is_aligned(&self) -> bool {
        self.offset.is_multiple_of(self.bytes())
    }
}

/// A function's way to memory. It leads nowhere while software has not made the function a bus master (bit 2 of the command
/// register), or the card is out of its slot. A card that is wired to a channel of the system's DMA controllers needs not be one.
pub struct Master<'m> {
    memory: &'m mut dyn Memory,
    channels: &'m mut IsaDma,
    name: &'m str,
    enabled: bool,
}

impl<'m> Master<'m> {
    pub(super) fn new(
        memory: &'m mut dyn Memory,
        channels: &'m mut IsaDma,
        name: &'m str,
        enabled: bool,
    ) -> Self {
        Self { memory, channels, name, enabled }
    }

    /// Whether software lets it.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Reads from a bus address. False if the address is not claimed, or the function may not be bus master.
    pub fn read(&mut self, address: u64, into: &mut [u8]) -> bool {
        self.enabled && self.memory.read(self.name, address, into)
    }

    /// Writes to a bus address. False if the address is not claimed, or the function may not be bus master.
    pub fn write(&mut self, address: u64, from: &[u8]) -> bool {
        self.enabled && self.memory.write(self.name, address, from)
    }

    /// Asks for a channel of the system's DMA controllers, with bytes for memory.
    pub fn give(&mut self, channel: u8, from: &[u8]) -> Moved {
        self.channels.run(self.memory, self.name, channel, Data::Given(from))
    }

    /// Asks for a channel of the system's DMA controllers, for bytes from memory.
    pub fn take(&mut self, channel: u8, into: &mut [u8]) -> Moved {
        self.channels.run(self.memory, self.name, channel, Data::Taken(into))
    }
}

/// What a user asks of the firmware for one card; what is not asked is chosen by rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// Device number, 1–31.
    pub slot: Option<u8>,
    /// Interrupt line, 16–23. Two cards may ask for the same.
    pub line: Option<u32>,
    /// Bus addresses of the windows.
    pub bases: [Option<u64>; 6],
}

/// A card.
pub trait Model {
    /// The model's name, e.g. `pci9052`: the bus numbers its functions by it.
    fn kind(&self) -> &'static str;
    /// The read-only side of its configuration space as it is now.
    fn header(&self) -> &Header;
    /// What the user asked of the firmware.
    fn placement(&self) -> Placement;
    /// Whether it may end an interrupt by itself, whatever its driver does.
    fn ends_by_itself(&self) -> bool {
        false
    }
    /// Whether another driver serves it: a card that is on the line of one that is looked at.
    fn is_of_another(&self) -> bool {
        false
    }
    /// Of such a card: another one of its line interrupts from now on.
    fn join(&mut self) {}
    /// Of such a card: the routines of its line have left the interrupt to its driver's, which comes behind them.
    fn left_unclaimed(&mut self) {}
    /// Power-on or RST#, and what a function does by itself on its way from D3hot to D0: registers have their first values, those of an
    /// EEPROM are loaded again. Memory that survives that on the real card survives it here.
    fn reset(&mut self);
    /// A read. Its value is in the lowest `access.bytes()` bytes.
    ///
    /// # Errors
    /// What was accessed (without the card's name, which the bus puts in front) and what it accepts.
    fn read(&mut self, access: &Access) -> Result<u64, Refusal>;
    /// A write.
    ///
    /// # Errors
    /// As for [`Model::read`].
    fn write(&mut self, access: &Access, value: u64) -> Result<(), Refusal>;
    /// Whether its header, its interrupt pin, its messages or its deadline may have changed since this was asked last: asked after each
    /// access, so that a card which keeps count is spared the questions below.
    fn is_changed(&mut self) -> bool {
        true
    }
    /// Whether a read may be such a change; asked once. A card that says no is not asked [`Model::is_changed`] after reads.
    fn reads_change(&self) -> bool {
        true
    }
    /// Whether [`Model::takes`] may ever answer anything but 0; asked once.
    fn is_timed(&self) -> bool {
        false
    }
    /// How long the access that has just been made keeps the processor waiting, in ns, beyond what an access of its kind takes; asked
    /// once after each, if the card [is timed](Model::is_timed). Nothing else happens meanwhile: what was read is what was there when
    /// it began.
    fn takes(&mut self, access: &Access, write: bool) -> u64 {
        let _ = (access, write);
        0
    }
    /// Whether it drives its interrupt pin now. The bus disregards it while messages are enabled.
    fn asserts(&self) -> bool;
    /// Whether it has gone from its slot by itself, and that was not detected: it answers nothing then. It may come back.
    fn is_pulled(&self) -> bool {
        false
    }
    /// The messages it has signaled since this was asked last, in their order, by their numbers; asked after
    /// [`Model::is_changed`] says so. The bus drops them while messages are not enabled.
    fn take_messages(&mut self) -> Vec<u16> {
        Vec::new()
    }
    /// When, in ns of the machine's clock, it next does something by itself.
    fn deadline(&self) -> Option<u64> {
        None
    }
    /// What it leaves open that comes next, asked after [`Model::is_changed`] says so; it has no deadline by what is not answered.
    fn question(&self) -> Option<Question> {
        None
    }
    /// The answer to it.
    fn answer(&mut self, answer: u32) {
        let _ = answer;
    }
    /// Time is now `now`, at or after the deadline; the bus calls it before an access, too, and after one that made the
    /// deadline `now`. Only here does a card reach memory.
    fn advance(&mut self, now: u64, master: &mut Master<'_>) {
        let _ = (now, master);
    }
    /// The system's DMA controllers were programmed: a card that waits for its channel may have it now.
    fn channels_changed(&mut self, now: u64) {
        let _ = now;
    }
    /// The outside world acts on a signal of the card.
    ///
    /// # Errors
    /// What it does not know, and what it does know.
    fn poke(&mut self, now: u64, signal: &str, value: &str) -> Result<(), String>;
    /// What a register holds that a script names, as its driver would read it, without the side effects of a read.
    ///
    /// # Errors
    /// There is no such register, or the model shows none.
    fn peek(&self, register: &str) -> Result<u32, String> {
        Err(format!("a `{}` does not show its registers; have the driver read `{register}`", self.kind()))
    }
    /// The register at an offset of a window, e.g. `LCR+4Ch INTCSR`.
    fn describe(&self, bar: u8, offset: u64) -> Option<String>;
}

/// The level of a signal, as a script writes it.
///
/// # Errors
/// What would be right.
pub(crate) fn level(value: &str) -> Result<bool, String> {
    match value {
        "1" | "high" => Ok(true),
        "0" | "low" => Ok(false),
        _ => Err(format!("`{value}` is no level; say 1 or 0")),
    }
}
