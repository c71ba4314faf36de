//! The card's hardware, from start to stop: its registers, its interrupt and what the service routine does.
//!
//! Names and offsets are those of QEMU's documentation. A card that is gone reads all ones.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use wdm::{
    Block, BusMaster, Caching, Claim, CommonBuffers, Configuration, Device, Dirql, DmaAdapter, Line,
    LogicalAddress, MemoryWindow, MessageService, Messages, NtStatus, Passive, Register, Resources, Result,
    Service, Shared,
};

use crate::TAG;
use crate::card::Card;

/// BAR0, as far as it is used.
pub(crate) struct Registers;

impl Block for Registers {
    const LENGTH: u32 = 0xA0;
}

const IDENTIFICATION: Register<Registers, u32> = Register::at(0x00);
const FACTORIAL: Register<Registers, u32> = Register::at(0x08);
const STATUS: Register<Registers, u32> = Register::at(0x20);
const INTERRUPT_STATUS: Register<Registers, u32> = Register::at(0x24);
const INTERRUPT_ACKNOWLEDGE: Register<Registers, u32> = Register::at(0x64);
const DMA_SOURCE: Register<Registers, u64> = Register::at(0x80);
const DMA_DESTINATION: Register<Registers, u64> = Register::at(0x88);
const DMA_COUNT: Register<Registers, u64> = Register::at(0x90);
const DMA_COMMAND: Register<Registers, u64> = Register::at(0x98);

/// Where the card's buffer is, for its bus master alone.
const BUFFER: u64 = 0x4_0000;
/// Bytes of it.
pub(crate) const BUFFER_LENGTH: u32 = 4096;
/// The most bytes that are mapped at once.
pub(crate) const LONGEST: u32 = 0x4000;

/// STATUS: a factorial is being computed.
const COMPUTING: u32 = 1;
/// STATUS: its end shall be an interrupt.
const INTERRUPT: u32 = 0x80;
/// INTERRUPT_STATUS: it was the end of a factorial.
const COMPUTED: u32 = 1;
/// INTERRUPT_STATUS: it was the end of a transfer.
const TRANSFERRED: u32 = 0x100;
/// DMA_COMMAND: start, and an interrupt at the end.
const TRANSFER: u64 = 1 | 4;
/// DMA_COMMAND: from the card to memory.
const TO_MEMORY: u64 = 2;
/// What a card that is gone reads. No factorial is odd, but 1.
const GONE: u32 = u32::MAX;

/// What the service routine shares with the rest of the driver.
pub(crate) struct Chip {
    registers: MemoryWindow<Registers>,
    /// The bit of INTERRUPT_STATUS that ends what the card was asked for; 0: nothing.
    awaited: AtomicU32,
    /// That end has been seen. It is no part of the routine's own state, so that a DPC may ask for it also where the line's
    /// level is PASSIVE_LEVEL.
    ended: AtomicBool,
}

impl Chip {
    /// Has a factorial computed.
    pub(crate) fn compute(&self, number: u32) {
        self.expect(COMPUTED);
        self.registers.write(STATUS, INTERRUPT);
        self.registers.write(FACTORIAL, number);
    }

    /// What was computed; an error if the card is gone meanwhile.
    pub(crate) fn product(&self) -> Result<u32> {
        let product = self.registers.read(FACTORIAL);
        if product == GONE { Err(NtStatus::DEVICE_NOT_CONNECTED) } else { Ok(product) }
    }

    /// Has bytes moved between memory and the card's buffer.
    pub(crate) fn transfer(&self, memory: LogicalAddress, offset: u32, length: u32, to_memory: bool) {
        let card = BUFFER + u64::from(offset);
        let (source, destination, way) =
            if to_memory { (card, memory.bits(), TO_MEMORY) } else { (memory.bits(), card, 0) };
        self.expect(TRANSFERRED);
        self.registers.write(DMA_SOURCE, source);
        self.registers.write(DMA_DESTINATION, destination);
        self.registers.write(DMA_COUNT, length.into());
        self.registers.write(DMA_COMMAND, TRANSFER | way);
    }

    /// The next interrupt of this kind ends what the card is asked for.
    fn expect(&self, end: u32) {
        self.ended.store(false, Ordering::Relaxed);
        self.awaited.store(end, Ordering::Release);
    }

    /// Whether the card has ended what it was asked for: once.
    pub(crate) fn take_end(&self) -> bool {
        self.ended.swap(false, Ordering::Acquire)
    }

    /// Whether the card is still there.
    pub(crate) fn is_there(&self) -> bool {
        self.registers.read(IDENTIFICATION) != GONE
    }

    /// No interrupts come any more. Not for a card that is gone.
    pub(crate) fn quiet(&self) {
        self.registers.write(STATUS, 0);
        self.registers.write(INTERRUPT_ACKNOWLEDGE, u32::MAX);
    }
}

/// What came since the device was started.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Interrupts of the card.
    pub(crate) interrupts: u32,
    /// Interrupts left to others on the line.
    pub(crate) passed: u32,
}

/// What the service routine has for itself.
pub(crate) struct Isr {
    chip: Shared<Chip>,
    pub(crate) counts: Counts,
}

impl Service for Isr {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        let status = self.chip.registers.read(INTERRUPT_STATUS);
        if status == 0 || status == GONE {
            self.counts.passed += 1;
            return Claim::Other;
        }
        self.chip.registers.write(INTERRUPT_ACKNOWLEDGE, status);
        // a read makes sure that the write has arrived, and with it that the line is released
        self.chip.registers.read(INTERRUPT_STATUS);
        self.counts.interrupts += 1;
        // not one that no request asked for
        if self.chip.awaited.fetch_and(!status, Ordering::AcqRel) & status == 0 {
            return Claim::Mine;
        }
        self.chip.ended.store(true, Ordering::Release);
        Claim::MineAndDpc
    }
}

impl MessageService for Isr {
    fn message(&mut self, _only: u32, dirql: &mut Dirql) -> Claim {
        self.service(dirql)
    }
}

/// A card in use. The interrupt goes first when it is dropped.
pub(crate) struct Hardware {
    pub(crate) interrupt: Messages<Isr>,
    /// The level of its service routine.
    pub(crate) level: u8,
    pub(crate) chip: Shared<Chip>,
    pub(crate) configuration: Configuration,
    /// The adapter, and a common buffer as long as the card's own.
    pub(crate) dma: CommonBuffers<1>,
}

impl Hardware {
    /// Takes the card into use, quiet.
    ///
    /// # Errors
    /// `STATUS_DEVICE_CONFIGURATION_ERROR` if it is no such card, `STATUS_DEVICE_NOT_READY` if it still computes what was
    /// asked before, and what mapping and connecting say.
    pub(crate) fn start(
        device: &Device<Card>,
        resources: &Resources<'_>,
        passive: &mut Passive,
    ) -> Result<Self> {
        let window = resources.memory().ok_or(NtStatus::DEVICE_CONFIGURATION_ERROR)?;
        let line = resources.line();
        let registers = MemoryWindow::map(&window, passive)?;
        if registers.read(IDENTIFICATION) & 0xFFFF != 0x00ED {
            return Err(NtStatus::DEVICE_CONFIGURATION_ERROR);
        }
        let chip = Chip { registers, awaited: AtomicU32::new(0), ended: AtomicBool::new(false) };
        let chip = Shared::new(chip, TAG, passive)?;
        chip.quiet();
        if chip.registers.read(STATUS) & COMPUTING != 0 {
            return Err(NtStatus::DEVICE_NOT_READY);
        }
        let card = BusMaster::new(device.address_bits, LONGEST);
        let dma = DmaAdapter::get(device, &card, passive)?;
        let dma = dma.with_common_buffers([BUFFER_LENGTH], Caching::Cached, passive)?;
        let configuration = Configuration::open(device, passive)?;
        let isr = Isr { chip: chip.clone(), counts: Counts::default() };
        let interrupt = Messages::connect(device, line.as_ref(), isr, TAG, passive)?;
        let of_line = line.map_or(0, |line| line.irql());
        let level = interrupt.table().map_or(of_line, |messages| messages.irql);
        Line::new("edu_rust: started, interrupt connected by version ")
            .decimal(interrupt.version())
            .text(" at IRQL ")
            .decimal(level.into())
            .print();
        Ok(Self { interrupt, level, chip, configuration, dma })
    }
}
