//! What the kernel asks of the hardware below it: ports, device memory, configuration space, interrupt lines,
//! messages, time; and what the hardware asks of the kernel: the memory that its bus masters reach.
//!
//! The `devices` crate implements it with PCI models; `links` will with hardware that lives elsewhere. It knows no
//! driver and no IRQL: what a line or a message means to a processor is the business of
//! `ke::interrupt_delivery` and `ke::message`.

use std::fmt;

/// Bytes moved by one access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Width {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Dword = 4,
    /// 8 bytes; memory only.
    Qword = 8,
}

/// Bus, device and function number of a PCI function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PciAddress {
    /// 0–255.
    pub bus: u8,
    /// 0–31.
    pub device: u8,
    /// 0–7.
    pub function: u8,
}

/// A window that a function decodes, as its base address register was assigned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Which base address register, 0–5.
    pub bar: u8,
    /// I/O space if true, else memory.
    pub port: bool,
    /// Bus address.
    pub base: u64,
    /// Bytes, a power of two.
    pub length: u64,
    /// Memory only.
    pub prefetchable: bool,
}

impl Window {
    /// Whether this port, or else this bus address of memory, lies in it.
    #[must_use]
    pub(crate) const fn has(&self, port: bool, address: u64) -> bool {
        self.port == port && address.wrapping_sub(self.base) < self.length
    }
}

/// A function found on the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// Where it sits.
    pub address: PciAddress,
    /// The model's name and number on this bus, e.g. `pci9052#0`; names it to people.
    pub name: String,
    /// Its windows, in the order of their base address registers.
    pub windows: Vec<Window>,
    /// The interrupt line (a global system interrupt number) its pin is routed to, if it has a pin.
    pub line: Option<u32>,
}

/// A message-signaled interrupt on its way: a memory write with the address and the data that software programmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Bus address; the processors' is FEExxxxxh.
    pub address: u64,
    /// What is written there.
    pub data: u32,
}

/// Why a device would not answer an access, in words for the verdict: what was accessed and what it accepts; or why a write has no effect.
///
/// One word: what a device answers comes up to the driver in registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal(Box<Words>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Words {
    what: String,
    why: String,
    is_ignored: bool,
}

impl Refusal {
    /// `what` is the device or register, e.g. `LCR+4Ch INTCSR`; `why` e.g. `accepts 1, 2 and 4 bytes, aligned`.
    #[cold]
    #[must_use]
    pub fn new(what: String, why: String) -> Self {
        Self(Box::new(Words { what, why, is_ignored: false }))
    }

    /// A write that the device takes and that has no effect, as a command has none while the device is busy; `why` e.g. `starts no transfer while one runs`.
    #[cold]
    #[must_use]
    pub fn ignoring(what: String, why: String) -> Self {
        Self(Box::new(Words { what, why, is_ignored: true }))
    }

    /// Whether it is only that.
    #[must_use]
    pub fn is_ignored(&self) -> bool {
        self.0.is_ignored
    }

    /// The same with the device's name in front: `pci9052#0 LCR+4Ch INTCSR`.
    #[must_use]
    pub fn by(mut self, device: &str) -> Self {
        self.0.what = format!("{device} {}", self.0.what);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.what, self.0.why)
    }
}

/// What a device leaves open: the name of a point (`engine::Point`), and how many answers there are, at least 2. The first is the default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// It stays the same between versions, e.g. `device.late`.
    pub point: &'static str,
    /// Answers are numbers below this.
    pub answers: u32,
}

/// Memory, as a bus master reaches it: by logical addresses that were mapped for it (`hal::dma`), else by physical ones.
pub trait Memory {
    /// The function named `master` reads. False if not all of it was answered: then `into` holds what was read before.
    fn read(&mut self, master: &str, address: u64, into: &mut [u8]) -> bool;
    /// The function named `master` writes. False if not all of it was answered.
    fn write(&mut self, master: &str, address: u64, from: &[u8]) -> bool;
}

/// When something reaches the hardware, and the memory that its bus masters reach then.
pub struct Moment<'m> {
    /// The machine's clock, ns.
    pub now: u64,
    /// Physical memory.
    pub memory: &'m mut dyn Memory,
    /// What an access takes beyond what accesses of its kind take, in ns: a device adds the time for which it keeps the processor waiting.
    pub takes: u64,
}

impl<'m> Moment<'m> {
    /// At this time, with this memory; no device has taken extra time yet.
    pub fn new(now: u64, memory: &'m mut dyn Memory) -> Self {
        Self { now, memory, takes: 0 }
    }
}

/// The hardware of one machine. Times are the machine's clock in nanoseconds.
///
/// After every call the kernel asks [`Hardware::lines`] for the levels, and [`Hardware::has_messages`]: an access may have
/// changed them. What an implementation does not say of its own is true of a bus with nothing on it.
pub trait Hardware {
    /// An `in` from I/O space. Without a device it reads as all ones.
    fn port_read(&mut self, at: &mut Moment<'_>, port: u16, width: Width) -> Result<u32, Refusal> {
        let _ = (at, port, width);
        Ok(u32::MAX)
    }
    /// An `out` to I/O space. Without a device it is lost.
    fn port_write(
        &mut self,
        at: &mut Moment<'_>,
        port: u16,
        width: Width,
        value: u32,
    ) -> Result<(), Refusal> {
        let _ = (at, port, width, value);
        Ok(())
    }
    /// A read from device memory at a bus address. Without a device it reads as all ones.
    fn memory_read(&mut self, at: &mut Moment<'_>, address: u64, width: Width) -> Result<u64, Refusal> {
        let _ = (at, address, width);
        Ok(u64::MAX)
    }
    /// A write to device memory at a bus address. Without a device it is lost.
    fn memory_write(
        &mut self,
        at: &mut Moment<'_>,
        address: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Refusal> {
        let _ = (at, address, width, value);
        Ok(())
    }
    /// A write of bytes that a processor has combined from several stores: the device decides how wide it takes them.
    fn memory_combined(
        &mut self,
        at: &mut Moment<'_>,
        address: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Refusal> {
        let refusal = match self.memory_write(at, address, width, value) {
            Err(refusal) => refusal,
            written => return written,
        };
        let half = match width {
            Width::Byte => return Err(refusal),
            Width::Word => Width::Byte,
            Width::Dword => Width::Word,
            Width::Qword => Width::Dword,
        };
        let bits = 8 * half as u32;
        let halves = [(0, value & u64::MAX >> (64 - bits)), (half as u64, value >> bits)];
        let mut all = halves.into_iter();
        // The reason against the whole access helps more than the one against a part.
        all.try_for_each(|(offset, part)| self.memory_combined(at, address + offset, half, part))
            .map_err(|_| refusal)
    }
    /// A configuration read of `width` bytes (1, 2 or 4) at `offset` (0–4095; from 100h on of PCI Express functions only). No
    /// function there reads as all ones.
    fn config_read(&mut self, at: PciAddress, offset: u16, width: Width) -> u32 {
        let _ = (at, offset, width);
        u32::MAX
    }
    /// A configuration write.
    fn config_write(&mut self, at: PciAddress, offset: u16, width: Width, value: u32) {
        let _ = (at, offset, width, value);
    }
    /// Whether a function has extended configuration space, 4 KiB of it, as PCI Express has.
    fn is_extended(&self, at: PciAddress) -> bool {
        let _ = at;
        false
    }
    /// The functions, sorted by address, with their windows as assigned last; one that was pulled out, or has no power, still counts.
    fn functions(&self) -> Vec<Function> {
        Vec::new()
    }
    /// The names of the register at a bus address or port, for traces: `pci9052#0 LCR+4Ch INTCSR`.
    fn describe(&self, port: bool, address: u64) -> Option<String> {
        let _ = (port, address);
        None
    }
    /// The interrupt router connects a function's pin to another line (a global system interrupt number).
    fn route(&mut self, at: PciAddress, line: u32) {
        let _ = (at, line);
    }
    /// A card is pulled out of its slot, or put back: while out it answers nothing (reads give ones) and drives no line.
    fn set_present(&mut self, at: PciAddress, present: bool) {
        let _ = (at, present);
    }
    /// The slot of a function gets its power, or loses it. Without power a card answers nothing, not even to configuration accesses, drives
    /// no line, and holds nothing: with power again it is as at power-on.
    fn set_powered(&mut self, at: PciAddress, powered: bool) {
        let _ = (at, powered);
    }
    /// The functions that have asserted PME# since this was asked last.
    fn take_wakes(&mut self) -> Vec<PciAddress> {
        Vec::new()
    }
    /// The levels of all interrupt lines now, bit n for line n (0–63).
    fn lines(&self) -> u64 {
        0
    }
    /// Whether there are messages to be taken.
    fn has_messages(&self) -> bool {
        false
    }
    /// The messages that functions have sent since this was asked last, in the order in which they were sent.
    fn take_messages(&mut self) -> Vec<Message> {
        Vec::new()
    }
    /// The functions that assert `line` now, by name: for the verdict on a storm.
    fn asserting(&self, line: u32) -> Vec<String> {
        let _ = line;
        Vec::new()
    }
    /// Whether a card on `line` may end its interrupt by itself, whatever its driver does.
    fn ends_by_itself(&self, line: u32) -> bool {
        let _ = line;
        false
    }
    /// No routine of `line` claims its interrupt now: it is that of a card whose own would come behind them.
    fn left_unclaimed(&mut self, line: u32) {
        let _ = line;
    }
    /// Whether only cards that other drivers serve assert `line` now.
    fn is_only_of_others(&self, line: u32) -> bool {
        let _ = line;
        false
    }
    /// What a device leaves open that comes next. The kernel has it answered before anything else is asked; while there is one, the
    /// hardware is not quiet.
    fn question(&self) -> Option<Question> {
        None
    }
    /// The answer to it.
    fn answer(&mut self, answer: u32) {
        let _ = answer;
    }
    /// When the hardware next does something by itself.
    fn deadline(&self) -> Option<u64> {
        None
    }
    /// Whether the lines are `lines`, no message has come and nothing happens by itself before `until`: asked after each access of
    /// a driver's.
    fn is_quiet(&self, lines: u64, until: u64) -> bool {
        self.lines() == lines
            && !self.has_messages()
            && self.question().is_none()
            && self.deadline().is_none_or(|deadline| deadline >= until)
    }
    /// Let time pass up to this moment.
    fn advance(&mut self, at: &mut Moment<'_>) {
        let _ = at;
    }
    /// What is on its way to a device arrives: before an access to configuration space.
    fn settle(&mut self, at: &mut Moment<'_>) {
        let _ = at;
    }
    /// The outside world acts on a device, as a script says: e.g. `("pci9052#0", "linti1", "1")`.
    ///
    /// # Errors
    /// What the device does not know, and what it does know.
    fn poke(&mut self, at: &mut Moment<'_>, device: &str, signal: &str, value: &str) -> Result<(), String> {
        let _ = (at, signal, value);
        Err(format!("there is no {device}"))
    }
    /// What a register of a device holds, as a script names it, without the side effects of a read: `("pci#0", "bar0+4c")`.
    ///
    /// # Errors
    /// There is no such register, or the device shows none.
    fn peek(&mut self, at: &mut Moment<'_>, device: &str, register: &str) -> Result<u32, String> {
        let _ = at;
        Err(format!("{device} does not show `{register}`"))
    }
}
