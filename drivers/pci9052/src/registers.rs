//! The card's registers: the chip's local configuration registers, and the peripheral on its local bus.
//!
//! Names and offsets are PLX's. Base address registers 0 and 1 both lead to the local configuration registers, 2 to local
//! memory, 3 to the last 256 bytes of it as ports.

use wdm::{Block, MemoryWindow, PortWindow, Register, Window};

/// The local configuration registers, BAR0 and BAR1.
pub(crate) struct Lcr;

impl Block for Lcr {
    const LENGTH: u32 = 0x80;
}

/// Interrupt control and status.
pub(crate) const INTCSR: Register<Lcr, u32> = Register::at(0x4C);
/// User I/O, EEPROM, reset.
pub(crate) const CNTRL: Register<Lcr, u32> = Register::at(0x50);

/// INTCSR: LINTi1 passes.
pub(crate) const LINTI1_ENABLE: u32 = 1;
/// INTCSR: LINTi1 is active. Read only.
pub(crate) const LINTI1_STATUS: u32 = 1 << 2;
/// INTCSR: interrupts reach PCI.
pub(crate) const PCI_INTERRUPT_ENABLE: u32 = 1 << 6;
/// INTCSR: reads 0.
pub(crate) const INTCSR_RESERVED: u32 = 1 << 31;
/// INTCSR while the card works: LINTi1 enabled, both inputs active high, interrupts to PCI.
pub(crate) const INTCSR_WORKING: u32 = 0x53;

/// Local memory, BAR2: the built-in board has 64 KiB.
pub(crate) struct Local;

impl Block for Local {
    const LENGTH: u32 = 0x1_0000;
}

/// The end of what may be read and written: the peripheral's registers lie above.
pub(crate) const LOCAL_MEMORY: u32 = 0xFFF8;

const LOCAL_STATUS: Register<Local, u32> = Register::at(LOCAL_MEMORY);
const LOCAL_DOORBELL: Register<Local, u32> = Register::at(0xFFFC);

/// The last 256 bytes of local memory as ports, BAR3.
pub(crate) struct LocalPorts;

impl Block for LocalPorts {
    const LENGTH: u32 = 0x100;
}

const PORT_STATUS: Register<LocalPorts, u32> = Register::at(0xF8);
const PORT_DOORBELL: Register<LocalPorts, u32> = Register::at(0xFC);

/// STATUS: an operation has ended; drives LINTi1. Cleared by writing 1.
pub(crate) const DONE: u32 = 1;
/// STATUS: the doorbell was rung while busy. Cleared by writing 1.
const OVERRUN: u32 = 1 << 2;

/// All windows to a card.
pub(crate) struct Windows {
    pub(crate) lcr: Window<Lcr>,
    pub(crate) local: MemoryWindow<Local>,
    /// Where STATUS and DOORBELL are reached, if not in local memory.
    pub(crate) ports: Option<PortWindow<LocalPorts>>,
}

impl Windows {
    /// The peripheral's STATUS.
    pub(crate) fn status(&self) -> u32 {
        match &self.ports {
            Some(ports) => ports.read(PORT_STATUS),
            None => self.local.read(LOCAL_STATUS),
        }
    }

    /// Takes back DONE, and with it LINTi1. The read makes sure that the write has arrived.
    pub(crate) fn clear_status(&self) {
        match &self.ports {
            Some(ports) => ports.write(PORT_STATUS, DONE | OVERRUN),
            None => self.local.write(LOCAL_STATUS, DONE | OVERRUN),
        }
        self.status();
    }

    /// Starts an operation.
    pub(crate) fn ring(&self) {
        match &self.ports {
            Some(ports) => ports.write(PORT_DOORBELL, 1),
            None => self.local.write(LOCAL_DOORBELL, 1),
        }
    }
}
