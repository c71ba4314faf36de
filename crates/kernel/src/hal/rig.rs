//! For tests: a machine with one PCI card in slot 3, whose registers a test can see and whose doings it can read.

use std::cell::RefCell;
use std::rc::Rc;

use engine::Defaults;

use super::hardware::{Function, Hardware, Moment, PciAddress, Refusal, Width, Window};
use crate::{Cx, Nt, Settings, rig};

/// The card's place.
pub(crate) const AT: PciAddress = PciAddress { bus: 0, device: 3, function: 0 };
/// Its memory window: 128 bytes.
pub(crate) const MEMORY: u64 = 0xE000_0000;
/// Its ports: 128 of them.
pub(crate) const PORTS: u16 = 0xC000;
/// Its line.
pub(crate) const LINE: u32 = 17;

/// The card as the test sees it.
pub(crate) struct Card {
    pub(crate) config: [u8; 0x100],
    pub(crate) registers: [u8; 0x80],
    pub(crate) present: bool,
    pub(crate) asserted: bool,
    /// Accesses to its windows: `r4 +4c`.
    pub(crate) accesses: Vec<String>,
}

impl Default for Card {
    fn default() -> Self {
        let mut config = [0; 0x100];
        for (at, bytes) in [
            (0x00, &[0xB5, 0x10, 0x50, 0x90, 3, 0, 0, 0, 2, 0, 0x80, 6][..]),
            (0x10, &[0, 0, 0, 0xE0, 1, 0xC0, 0, 0][..]),
            (0x2C, &[0xB5, 0x10, 0x73, 0x22][..]),
            (0x3C, &[10, 1][..]),
        ] {
            config[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Self { config, registers: [0; 0x80], present: true, asserted: false, accesses: Vec::new() }
    }
}

impl Card {
    fn decodes(&self, bit: u8) -> bool {
        self.present && self.config[4] & bit != 0
    }

    fn slot(&mut self, port: bool, address: u64) -> Option<usize> {
        let (base, bit) = if port { (u64::from(PORTS), 1) } else { (MEMORY, 2) };
        let offset = address.checked_sub(base).filter(|offset| *offset < 0x80)?;
        self.decodes(bit).then_some(())?;
        usize::try_from(offset).ok()
    }

    fn access(&mut self, port: bool, address: u64, width: Width, value: Option<u64>) -> Result<u64, Refusal> {
        let Some(at) = self.slot(port, address) else { return Ok(u64::MAX) };
        let bytes = width as usize;
        if at % bytes != 0 {
            return Err(Refusal::new(format!("card#0 +{at:x}h"), "accepts aligned accesses".to_owned()));
        }
        let kind = if value.is_some() { "w" } else { "r" };
        self.accesses.push(format!("{kind}{bytes} +{at:x}"));
        let mut result = [0; 8];
        match value {
            Some(value) => self.registers[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]),
            None => result[..bytes].copy_from_slice(&self.registers[at..at + bytes]),
        }
        Ok(u64::from_le_bytes(result))
    }
}

/// The hardware of the machine.
struct OneCard(Rc<RefCell<Card>>);

impl Hardware for OneCard {
    fn port_read(&mut self, _at: &mut Moment<'_>, port: u16, width: Width) -> Result<u32, Refusal> {
        let value = self.0.borrow_mut().access(true, port.into(), width, None)?;
        Ok(u32::try_from(value & 0xFFFF_FFFF).unwrap())
    }
    fn port_write(
        &mut self,
        _at: &mut Moment<'_>,
        port: u16,
        width: Width,
        value: u32,
    ) -> Result<(), Refusal> {
        self.0.borrow_mut().access(true, port.into(), width, Some(value.into())).map(|_| ())
    }
    fn memory_read(&mut self, _at: &mut Moment<'_>, address: u64, width: Width) -> Result<u64, Refusal> {
        self.0.borrow_mut().access(false, address, width, None)
    }
    fn memory_write(
        &mut self,
        _at: &mut Moment<'_>,
        address: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Refusal> {
        self.0.borrow_mut().access(false, address, width, Some(value)).map(|_| ())
    }
    fn config_read(&mut self, at: PciAddress, offset: u16, width: Width) -> u32 {
        let card = self.0.borrow();
        if at != AT || !card.present {
            return u32::MAX >> (32 - 8 * (width as u32).min(4));
        }
        let offset = usize::from(offset);
        let mut bytes = [0; 4];
        bytes[..width as usize].copy_from_slice(&card.config[offset..offset + width as usize]);
        u32::from_le_bytes(bytes)
    }
    fn config_write(&mut self, at: PciAddress, offset: u16, width: Width, value: u32) {
        let mut card = self.0.borrow_mut();
        for (offset, byte) in (usize::from(offset)..).zip(value.to_le_bytes()).take(width as usize) {
            // The command register, the interrupt line and what is the device's own can be written.
            if at == AT && card.present && matches!(offset, 4 | 5 | 0x3C | 0x40..) {
                card.config[offset] = byte;
            }
        }
    }
    fn functions(&self) -> Vec<Function> {
        let window = |bar, port, base| Window { bar, port, base, length: 0x80, prefetchable: false };
        let windows = vec![window(0, false, MEMORY), window(1, true, PORTS.into())];
        vec![Function { address: AT, name: "card#0".to_owned(), windows, line: Some(LINE) }]
    }
    fn set_present(&mut self, at: PciAddress, present: bool) {
        assert_eq!(at, AT);
        self.0.borrow_mut().present = present;
    }
    fn describe(&self, port: bool, address: u64) -> Option<String> {
        let base = if port { u64::from(PORTS) } else { MEMORY };
        address.checked_sub(base).filter(|offset| *offset < 0x80).map(|offset| format!("card#0 +{offset:x}h"))
    }
    fn lines(&self) -> u64 {
        let card = self.0.borrow();
        u64::from(card.asserted && card.present) << LINE
    }
    fn asserting(&self, line: u32) -> Vec<String> {
        if self.lines() & 1 << line != 0 { vec!["card#0".to_owned()] } else { Vec::new() }
    }
}

/// Runs `test` on the scheduler's stack of a machine with the card; waits until no other test has a machine.
pub(crate) fn machine(test: impl FnOnce(&mut Cx<'_>, &Rc<RefCell<Card>>)) {
    let make = |engine| {
        let card: Rc<RefCell<Card>> = Rc::default();
        let hardware = Box::new(OneCard(card.clone()));
        (Nt::new(engine, &Settings::default(), hardware, Box::new(Defaults)), card)
    };
    rig::run_booted(make, test);
}
