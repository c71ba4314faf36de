//! The service routines: of all messages at their level, of all at `PASSIVE_LEVEL`, of one vector.
//!
//! They do the same; only the one at `PASSIVE_LEVEL` waits. Names and offsets of registers are those of the card.

use core::sync::atomic::{AtomicU32, Ordering::AcqRel};

use wdm::{
    Block, Claim, Dirql, MemoryWindow, MessageService, Passive, PassiveMessageService, PassiveService,
    Register, Service, Shared, delay_milliseconds,
};

use crate::MESSAGES;
use crate::counts::Counts;

/// BAR0, as far as it is used.
pub(crate) struct Registers;

impl Block for Registers {
    const LENGTH: u32 = 0x18;
}

pub(crate) const IDENTIFICATION: Register<Registers, u32> = Register::at(0x00);
pub(crate) const RAISE: Register<Registers, u32> = Register::at(0x08);
pub(crate) const STATUS: Register<Registers, u32> = Register::at(0x0C);
pub(crate) const ENABLE: Register<Registers, u32> = Register::at(0x14);

/// What the routines share with the rest of the driver.
pub(crate) struct Chip {
    pub(crate) registers: MemoryWindow<Registers>,
    pub(crate) counts: Counts,
    /// Sources served that the DPC has not seen.
    fired: AtomicU32,
}

impl Chip {
    pub(crate) fn new(registers: MemoryWindow<Registers>) -> Self {
        Self { registers, counts: Counts::default(), fired: AtomicU32::new(0) }
    }

    /// Interrupts come: from a start on, and after the card has lost its registers.
    pub(crate) fn enable(&self) {
        self.registers.write(ENABLE, (1 << MESSAGES) - 1);
    }

    /// No interrupts come any more. Not for a card that is gone.
    pub(crate) fn quiet(&self) {
        self.registers.write(ENABLE, 0);
        self.registers.write(STATUS, u32::MAX);
    }

    /// The sources served since the last call.
    pub(crate) fn take_fired(&self) -> u32 {
        self.fired.swap(0, AcqRel)
    }
}

/// A routine's own state.
pub(crate) struct Isr {
    chip: Shared<Chip>,
    /// Calls that served something. No other routine uses this state, so it is a plain number.
    own: u32,
}

impl Isr {
    pub(crate) fn new(chip: &Shared<Chip>) -> Self {
        Self { chip: chip.clone(), own: 0 }
    }

    pub(crate) fn own(&self) -> u32 {
        self.own
    }

    /// Serves those of the sources that are raised. `wait` comes in between.
    fn serve(&mut self, sources: u32, wait: impl FnOnce()) -> Claim {
        self.chip.counts.begin();
        let before = self.own;
        let raised = self.chip.registers.read(STATUS) & sources;
        wait();
        self.chip.registers.write(STATUS, raised);
        // a read makes sure that the write has arrived, and with it that the line is released
        self.chip.registers.read(STATUS);
        self.own = before + u32::from(raised != 0);
        self.chip.counts.end(raised);
        if raised == 0 {
            return Claim::Other;
        }
        self.chip.fired.fetch_or(raised, AcqRel);
        Claim::MineAndDpc
    }
}

impl Service for Isr {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        self.serve(u32::MAX, || ())
    }
}

impl MessageService for Isr {
    fn message(&mut self, message: u32, _dirql: &mut Dirql) -> Claim {
        self.serve(source(message), || ())
    }
}

/// The state of the routines at `PASSIVE_LEVEL`.
pub(crate) struct Waiting(pub(crate) Isr);

impl PassiveService for Waiting {
    fn service(&mut self, passive: &mut Passive) -> Claim {
        self.0.serve(u32::MAX, || delay_milliseconds(1, passive))
    }
}

impl PassiveMessageService for Waiting {
    fn message(&mut self, message: u32, passive: &mut Passive) -> Claim {
        self.0.serve(source(message), || delay_milliseconds(1, passive))
    }
}

/// The state of one vector's routine.
pub(crate) struct OfVector {
    pub(crate) isr: Isr,
    pub(crate) message: u32,
}

impl Service for OfVector {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        self.isr.serve(source(self.message), || ())
    }
}

/// The source that sends this message.
fn source(message: u32) -> u32 {
    1_u32.checked_shl(message).unwrap_or(0)
}
