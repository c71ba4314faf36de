//! A bus made of what a user would type, and short words for what a driver does to it.

use devices::pci::{Model, PciBus};
use kernel::hal::hardware::{Function, Hardware, Memory, Moment, PciAddress, Refusal, Width, Window};

/// A bus with cards, at a time.
pub(crate) struct Rig {
    pub(crate) bus: PciBus,
    pub(crate) now: u64,
    pub(crate) memory: Ram,
    /// What the last access took beyond what accesses of its kind take, in ns.
    pub(crate) took: u64,
}

/// Memory from address 0 on, behind which there is nothing.
pub(crate) struct Ram(pub(crate) Vec<u8>);

/// Its bytes.
pub(crate) const RAM: usize = 16 << 20;

impl Ram {
    fn range(&mut self, address: u64, bytes: usize) -> Option<&mut [u8]> {
        let address = usize::try_from(address).ok()?;
        self.0.get_mut(address..address.checked_add(bytes)?)
    }
}

impl Memory for Ram {
    fn read(&mut self, _master: &str, address: u64, into: &mut [u8]) -> bool {
        let found = self.range(address, into.len());
        found.map(|found| into.copy_from_slice(found)).is_some()
    }

    fn write(&mut self, _master: &str, address: u64, from: &[u8]) -> bool {
        self.range(address, from.len()).map(|found| found.copy_from_slice(from)).is_some()
    }
}

/// No file exists.
pub(crate) fn no_files(path: &str) -> Result<Vec<u8>, String> {
    Err(format!("{path}: no such file"))
}

/// The card a specification describes.
pub(crate) fn card(spec: &str) -> Box<dyn Model> {
    devices::parse(spec, &no_files).unwrap()
}

/// The card of a specification that names a file with these contents.
pub(crate) fn card_with_file(spec: &str, contents: &[u8]) -> Box<dyn Model> {
    devices::parse(spec, &|_: &str| Ok(contents.to_vec())).unwrap()
}

/// The message for a specification that cannot be used.
pub(crate) fn refused(spec: &str) -> String {
    devices::parse(spec, &no_files).err().expect("must be refused").to_string()
}

impl Rig {
    pub(crate) fn new(specs: &[&str]) -> Self {
        Self::of(specs.iter().map(|spec| card(spec)).collect())
    }

    pub(crate) fn of(cards: Vec<Box<dyn Model>>) -> Self {
        Self { bus: PciBus::new(cards).unwrap(), now: 0, memory: Ram(vec![0; RAM]), took: 0 }
    }

    /// The bus at a time, with the memory that its masters reach.
    fn ask<R>(&mut self, now: u64, ask: impl FnOnce(&mut PciBus, &mut Moment<'_>) -> R) -> R {
        let mut at = Moment::new(now, &mut self.memory);
        let done = ask(&mut self.bus, &mut at);
        self.took = at.takes;
        done
    }

    pub(crate) fn port_read(&mut self, now: u64, port: u16, width: Width) -> Result<u32, Refusal> {
        self.ask(now, |bus, at| bus.port_read(at, port, width))
    }

    pub(crate) fn port_write(
        &mut self,
        now: u64,
        port: u16,
        width: Width,
        value: u32,
    ) -> Result<(), Refusal> {
        self.ask(now, |bus, at| bus.port_write(at, port, width, value))
    }

    pub(crate) fn memory_read(&mut self, now: u64, address: u64, width: Width) -> Result<u64, Refusal> {
        self.ask(now, |bus, at| bus.memory_read(at, address, width))
    }

    pub(crate) fn memory_write(
        &mut self,
        now: u64,
        address: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Refusal> {
        self.ask(now, |bus, at| bus.memory_write(at, address, width, value))
    }

    pub(crate) fn function(&self, name: &str) -> Function {
        self.bus.functions().into_iter().find(|function| function.name == name).expect("the function")
    }

    pub(crate) fn at(&self, name: &str) -> PciAddress {
        self.function(name).address
    }

    pub(crate) fn window(&self, name: &str, bar: u8) -> Window {
        self.function(name).windows.into_iter().find(|window| window.bar == bar).expect("the window")
    }

    pub(crate) fn config(&mut self, name: &str, offset: u8, width: Width) -> u32 {
        let at = self.at(name);
        self.bus.config_read(at, offset.into(), width)
    }

    pub(crate) fn set_config(&mut self, name: &str, offset: u8, width: Width, value: u32) {
        let at = self.at(name);
        self.bus.config_write(at, offset.into(), width, value);
    }

    /// A read of a window, memory or ports.
    pub(crate) fn read(&mut self, name: &str, bar: u8, offset: u64, width: Width) -> u64 {
        self.try_read(name, bar, offset, width).unwrap()
    }

    /// A write to a window, memory or ports.
    pub(crate) fn write(&mut self, name: &str, bar: u8, offset: u64, width: Width, value: u64) {
        self.try_write(name, bar, offset, width, value).unwrap();
    }

    pub(crate) fn try_read(&mut self, name: &str, bar: u8, offset: u64, width: Width) -> Result<u64, String> {
        let window = self.window(name, bar);
        let address = window.base + offset;
        let read = if window.port {
            self.port_read(self.now, u16::try_from(address).unwrap(), width).map(u64::from)
        } else {
            self.memory_read(self.now, address, width)
        };
        read.map_err(|refusal| refusal.to_string())
    }

    pub(crate) fn try_write(
        &mut self,
        name: &str,
        bar: u8,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), String> {
        let window = self.window(name, bar);
        let address = window.base + offset;
        let write = if window.port {
            let value = u32::try_from(value).unwrap();
            self.port_write(self.now, u16::try_from(address).unwrap(), width, value)
        } else {
            self.memory_write(self.now, address, width, value)
        };
        write.map_err(|refusal| refusal.to_string())
    }

    pub(crate) fn poke(&mut self, name: &str, signal: &str, value: &str) {
        self.try_poke(name, signal, value).unwrap();
    }

    pub(crate) fn try_poke(&mut self, name: &str, signal: &str, value: &str) -> Result<(), String> {
        self.ask(self.now, |bus, at| bus.poke(at, name, signal, value))
    }

    pub(crate) fn peek(&mut self, name: &str, register: &str) -> Result<u32, String> {
        self.ask(self.now, |bus, at| bus.peek(at, name, register))
    }

    /// Lets time pass to `now`, stopping at each deadline on the way as a machine does.
    pub(crate) fn pass_to(&mut self, now: u64) {
        while let Some(deadline) = self.bus.deadline().filter(|deadline| *deadline <= now) {
            self.ask(deadline, |bus, at| bus.advance(at));
        }
        self.now = now;
        self.ask(now, |bus, at| bus.advance(at));
    }
}

/// Numbers that a failure's seed replays.
pub(crate) struct Numbers(fastrand::Rng);

impl From<u64> for Numbers {
    fn from(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }
}

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number from 0 to `end`, `end` not included.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }
}
