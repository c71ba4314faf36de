//! The interrupt service routine: is it ours, and what was it? The rest is the DPC's.
//!
//! LINTi1 is level-triggered and may be driven by others than our peripheral. What cannot be taken back by clearing DONE is
//! masked, until a request waits for an interrupt again or a transfer starts: else it would never end. While it is masked the
//! end of a transfer is found by looking, each millisecond.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use wdm::{Claim, Dirql, Service, Shared};

use crate::registers::{
    DONE, INTCSR, INTCSR_RESERVED, INTCSR_WORKING, LINTI1_ENABLE, LINTI1_STATUS, PCI_INTERRUPT_ENABLE,
    Windows,
};

/// What happened on the card since it was added.
#[derive(Default)]
pub(crate) struct Counters {
    /// Transfers that ended well.
    pub(crate) transfers: AtomicU32,
    /// Bytes that were read by them.
    pub(crate) read: AtomicU64,
    /// Bytes that were written by them.
    pub(crate) written: AtomicU64,
    /// How often the card has not ended what it had when it was to be stopped.
    pub(crate) time_outs: AtomicU32,
    /// Interrupts claimed.
    pub(crate) interrupts: AtomicU32,
    /// Interrupts left to others on the line.
    pub(crate) passed: AtomicU32,
}

/// What the service routine has for itself.
pub(crate) struct Isr {
    windows: Shared<Windows>,
    counters: Shared<Counters>,
    seen: Seen,
    /// The card has power, and is to interrupt: a request that began before it was sent to sleep may come to enable interrupts after that.
    is_awake: bool,
}

/// What it saw since the DPC last asked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    /// The line was active without the peripheral's doing.
    pub(crate) outside: bool,
    /// The peripheral ended an operation.
    pub(crate) done: bool,
}

impl Isr {
    pub(crate) fn new(windows: Shared<Windows>, counters: Shared<Counters>) -> Self {
        Self { windows, counters, seen: Seen::default(), is_awake: false }
    }

    /// The card is in use from now on: interrupts may come.
    pub(crate) fn wake(&mut self) {
        self.is_awake = true;
        self.unmask();
    }

    /// A masked LINTi1 interrupts again.
    pub(crate) fn unmask(&mut self) {
        if self.is_awake {
            self.windows.lcr.write(INTCSR, INTCSR_WORKING);
        }
    }

    /// No interrupts come any more.
    pub(crate) fn quiet(&mut self) {
        self.is_awake = false;
        self.windows.lcr.write(INTCSR, 0);
    }

    /// Looks whether the peripheral has ended, for when others hold its line active.
    pub(crate) fn look(&mut self) -> bool {
        let status = self.windows.status();
        if status != u32::MAX && status & DONE != 0 {
            self.windows.clear_status();
            self.seen.done = true;
        }
        self.seen.done
    }

    /// What was seen, once.
    pub(crate) fn take_seen(&mut self) -> Seen {
        core::mem::take(&mut self.seen)
    }
}

impl Service for Isr {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        const OURS: u32 = PCI_INTERRUPT_ENABLE | LINTI1_ENABLE | LINTI1_STATUS;
        let intcsr = self.windows.lcr.read(INTCSR);
        // a card that is gone reads all ones: what is reserved, too
        if intcsr & (OURS | INTCSR_RESERVED) != OURS {
            self.counters.passed.fetch_add(1, Ordering::Relaxed);
            return Claim::Other;
        }
        if self.windows.status() & DONE != 0 {
            self.windows.clear_status();
            self.seen.done = true;
        } else {
            self.windows.lcr.write(INTCSR, INTCSR_WORKING & !LINTI1_ENABLE);
            self.seen.outside = true;
        }
        self.counters.interrupts.fetch_add(1, Ordering::Relaxed);
        Claim::MineAndDpc
    }
}
