//! The card's hardware, from start to stop: its registers, its memory, its interrupt, its way to memory.
//!
//! Names and offsets of registers are those of the card. A card that is gone reads all ones.

use core::sync::atomic::{AtomicU32, Ordering};

use wdm::{
    Block, BusMaster, Caching, Claim, CommonBuffers, Device, Dirql, DmaAdapter, LogicalAddress, MemoryWindow,
    MessageService, Messages, NtStatus, Passive, Register, Resource, Resources, Result, Service, Shared,
};

use crate::TAG;
use crate::card::Card;

/// BAR0, as far as it is used.
pub(crate) struct Registers;

impl Block for Registers {
    const LENGTH: u32 = 0x50;
}

/// BAR2: the card's memory.
pub(crate) struct Memory;

impl Block for Memory {
    const LENGTH: u32 = 0x1_0000;
}

const IDENTIFICATION: Register<Registers, u32> = Register::at(0x00);
const STATUS: Register<Registers, u32> = Register::at(0x0C);
const ENABLE: Register<Registers, u32> = Register::at(0x14);
const DMA_ADDRESS_LOW: Register<Registers, u32> = Register::at(0x30);
const DMA_ADDRESS_HIGH: Register<Registers, u32> = Register::at(0x34);
const DMA_LENGTH: Register<Registers, u32> = Register::at(0x38);
const DMA_OFFSET: Register<Registers, u32> = Register::at(0x3C);
const DMA_COMMAND: Register<Registers, u32> = Register::at(0x40);
const DMA_STATUS: Register<Registers, u32> = Register::at(0x44);
const DMA_MOVED: Register<Registers, u32> = Register::at(0x48);

/// What IDENTIFICATION reads: "Benc".
const BENCH: u32 = 0x636E_6542;
const GONE: u32 = u32::MAX;
/// The source that a transfer's end raises.
pub(crate) const TRANSFER_SOURCE: u32 = 5;
/// DMA_COMMAND: start, and raise that source at the end.
const START: u32 = 1 | 8 | TRANSFER_SOURCE << 8;
/// DMA_COMMAND: from the card to memory.
const TO_MEMORY: u32 = 2;
/// DMA_COMMAND: the address is that of a list of pieces.
const PIECES: u32 = 4;
/// DMA_STATUS.
const DONE: u32 = 1;

/// A transfer, as the card gets it.
pub(crate) struct Order {
    /// Of the bytes, or of the list of pieces.
    pub(crate) memory: LogicalAddress,
    pub(crate) is_list: bool,
    /// In the card's memory.
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) to_memory: bool,
}

/// What the service routine shares with the rest of the driver.
pub(crate) struct Chip {
    registers: MemoryWindow<Registers>,
    /// Sources served that the DPC has not seen.
    fired: AtomicU32,
    pub(crate) interrupts: AtomicU32,
}

impl Chip {
    /// Transfers end with interrupts: at a start, and after the card has lost its registers.
    pub(crate) fn enable(&self) {
        self.registers.write(ENABLE, 1 << TRANSFER_SOURCE);
    }

    /// No interrupts come any more. Not for a card that is gone.
    pub(crate) fn quiet(&self) {
        self.registers.write(ENABLE, 0);
        self.registers.write(STATUS, u32::MAX);
    }

    /// The sources served since the last call.
    pub(crate) fn take_fired(&self) -> u32 {
        self.fired.swap(0, Ordering::AcqRel)
    }

    /// Has bytes moved.
    pub(crate) fn transfer(&self, order: &Order) {
        let Order { memory, is_list, offset, length, to_memory } = *order;
        self.registers.write(DMA_ADDRESS_LOW, memory.low());
        self.registers.write(DMA_ADDRESS_HIGH, memory.high());
        self.registers.write(DMA_LENGTH, length);
        self.registers.write(DMA_OFFSET, offset);
        let (pieces, way) = (if is_list { PIECES } else { 0 }, if to_memory { TO_MEMORY } else { 0 });
        self.registers.write(DMA_COMMAND, START | pieces | way);
    }

    /// The bytes that a transfer which has ended moved.
    pub(crate) fn moved(&self) -> Result<u32> {
        match self.registers.read(DMA_STATUS) {
            GONE => Err(NtStatus::DEVICE_NOT_CONNECTED),
            status if status & DONE == 0 => Err(NtStatus::IO_DEVICE_ERROR),
            _ => Ok(self.registers.read(DMA_MOVED)),
        }
    }
}

/// What the service routine has for itself.
pub(crate) struct Isr(Shared<Chip>);

impl Service for Isr {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        let Self(chip) = self;
        let raised = chip.registers.read(STATUS);
        if raised == 0 || raised == GONE {
            return Claim::Other;
        }
        chip.registers.write(STATUS, raised);
        // a read makes sure that the write has arrived, and with it that the line is released
        chip.registers.read(STATUS);
        chip.interrupts.fetch_add(1, Ordering::Relaxed);
        chip.fired.fetch_or(raised, Ordering::AcqRel);
        Claim::MineAndDpc
    }
}

impl MessageService for Isr {
    fn message(&mut self, _message: u32, dirql: &mut Dirql) -> Claim {
        self.service(dirql)
    }
}

/// A card in use. The interrupt goes first when it is dropped.
pub(crate) struct Hardware {
    pub(crate) interrupt: Messages<Isr>,
    pub(crate) chip: Shared<Chip>,
    pub(crate) memory: MemoryWindow<Memory>,
    /// The adapter, and the page where the card finds its list of pieces.
    pub(crate) dma: CommonBuffers<1>,
}

impl Hardware {
    /// Takes the card into use.
    ///
    /// # Errors
    /// `STATUS_DEVICE_CONFIGURATION_ERROR` if it is no such card, and what mapping, connecting and the adapter say.
    pub(crate) fn start(
        device: &Device<Card>,
        resources: &Resources<'_>,
        passive: &mut Passive,
    ) -> Result<Self> {
        const CARD: BusMaster = BusMaster::new(64, Memory::LENGTH);
        let missing = NtStatus::DEVICE_CONFIGURATION_ERROR;
        let mut windows = resources.iter().filter_map(|resource| match resource {
            Resource::Memory(range) => Some(range),
            _ => None,
        });
        let registers = MemoryWindow::map(&windows.next().ok_or(missing)?, passive)?;
        let memory = windows.find(|range| range.length() == Memory::LENGTH).ok_or(missing)?;
        let memory = MemoryWindow::map(&memory, passive)?;
        if registers.read(IDENTIFICATION) != BENCH {
            return Err(missing);
        }
        let dma = DmaAdapter::get(device, &CARD, passive)?;
        let dma = dma.with_common_buffers([4096], Caching::Cached, passive)?;
        let chip = Chip { registers, fired: AtomicU32::new(0), interrupts: AtomicU32::new(0) };
        let chip = Shared::new(chip, TAG, passive)?;
        chip.quiet();
        let line = resources.line();
        let interrupt = Messages::connect(device, line.as_ref(), Isr(chip.clone()), TAG, passive)?;
        chip.enable();
        Ok(Self { interrupt, chip, memory, dma })
    }
}
