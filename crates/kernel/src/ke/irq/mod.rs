//! What interrupts: lines and messages, their service routines, DPCs, and routines on all processors at once.
//!
//! The highest room: it may use all the others. `levels::settle` calls it when the level lets something in.
//!
//! An access to a device may change a line, so each ends in a look at the lines; where nothing has changed and nothing waits, it is two
//! comparisons (`interrupt_delivery`). An interrupt's own lock is taken and given back without the general path of `sched::spinlock` when
//! it is free. A DPC queued below DISPATCH_LEVEL where nothing else waits runs in place (`dpc_drain::run_here`), with the events, stack,
//! level and time that a queue of one would have. `ke/tests/short_ways.rs` compares both with the general paths.

pub(crate) mod dpc;
pub(in crate::ke) mod dpc_drain;
pub mod interrupt;
pub(crate) mod interrupt_delivery;
pub(crate) mod ipi;
mod kernel_worker;
pub(crate) mod message;
pub(crate) mod passive_isr;
pub(crate) mod stall;
pub(in crate::ke) mod threaded_dpc;
pub(crate) mod vectors;
pub(crate) mod watchdog;

use super::levels::irql::PASSIVE_LEVEL;
use crate::sorted_map::SortedMap;
use interrupt_delivery::Interrupts;
use ipi::Broadcast;

/// What this room keeps.
#[derive(Default)]
pub(crate) struct State {
    /// What is in a DPC queue, and where, by address.
    queued: SortedMap<u64, dpc::QueueOf>,
    /// Whether threaded DPCs run on threads; not known before the first is queued.
    threaded_dpcs: Option<bool>,
    /// The routine that runs on all processors at once.
    broadcast: Option<Broadcast>,
    /// Connected interrupts and the lines' levels.
    interrupts: Interrupts,
}

impl State {
    /// Whether any vector may want service.
    #[inline]
    pub(super) fn is_any_wanted(&self) -> bool {
        self.interrupts.is_any_wanted()
    }

    /// The highest vector that wants service and may have it by a processor of `mask`, above `level`.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as what it calls")]
    pub(super) fn highest(&self, mask: u64, level: u8) -> Option<u32> {
        self.interrupts.highest(mask, level)
    }

    /// The highest level of a vector that wants service by a processor of `mask`.
    #[inline]
    pub(super) fn highest_level(&self, mask: u64) -> u8 {
        self.interrupts.highest(mask, PASSIVE_LEVEL).map_or(PASSIVE_LEVEL, vectors::irql_of_vector)
    }

    /// Whether the service routine of this interrupt object runs, or a processor waits for its lock to run it.
    pub(super) fn runs_isr(&self, object: u64) -> bool {
        self.interrupts.running.contains(&object)
    }

    /// The routine that runs on all processors at once.
    pub(super) fn broadcast(&self) -> Option<Broadcast> {
        self.broadcast
    }

    /// Whether no DPC is queued.
    #[inline]
    pub(super) fn is_nothing_queued(&self) -> bool {
        self.queued.is_empty()
    }

    /// Whether no threaded DPC runs on a thread.
    #[inline]
    pub(super) fn has_no_threaded_dpcs(&self) -> bool {
        self.threaded_dpcs != Some(true)
    }
}
