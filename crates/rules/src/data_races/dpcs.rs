//! DPCs that do not overlap, though no lock keeps them apart: those that run on one processor only, and those that one flow of control has queued on a
//! processor one behind the other, which drains its queue in order.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::Slot;

/// A DPC that is queued.
#[derive(Clone, Copy)]
struct Queued {
    by: Slot,
    processor: u32,
    /// The number of the event.
    number: u64,
}

/// A DPC that has run.
#[derive(Clone, Copy)]
struct Ran {
    dpc: u64,
    by: Slot,
    /// The number of the event with which it began.
    number: u64,
}

/// What is known of them.
#[derive(Clone, Default)]
pub(super) struct Dpcs {
    targeted: BTreeSet<u64>,
    queued: BTreeMap<u64, Queued>,
    /// The last one, by processor.
    ran: BTreeMap<u32, Ran>,
}

impl Dpcs {
    /// It runs on one processor from now on.
    pub(super) fn target(&mut self, dpc: u64) {
        self.targeted.insert(dpc);
    }

    pub(super) fn is_targeted(&self, dpc: u64) -> bool {
        self.targeted.contains(&dpc)
    }

    /// A flow queues it on its processor.
    pub(super) fn queue(&mut self, dpc: u64, by: Slot, processor: u32, number: u64) {
        self.queued.insert(dpc, Queued { by, processor, number });
    }

    /// It begins. The one that has run before it on this processor, if the same flow had queued this one before that one began.
    pub(super) fn begin(&mut self, dpc: u64, processor: u32, number: u64) -> Option<u64> {
        let before = self.ran.remove(&processor);
        let queued = self.queued.remove(&dpc).filter(|queued| queued.processor == processor)?;
        self.ran.insert(processor, Ran { dpc, by: queued.by, number });
        before
            .filter(|before| before.by == queued.by && queued.number < before.number)
            .map(|before| before.dpc)
    }

    /// What lay in this memory is gone.
    pub(super) fn forget(&mut self, address: u64, bytes: u64) {
        let is_gone = |dpc: &u64| (address..address.saturating_add(bytes)).contains(dpc);
        self.targeted.retain(|dpc| !is_gone(dpc));
        self.queued.retain(|dpc, _| !is_gone(dpc));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_wait_in_one_queue_run_one_behind_the_other() {
        let mut dpcs = Dpcs::default();
        dpcs.queue(0xA, 1, 0, 10);
        dpcs.queue(0xB, 1, 0, 11);
        assert_eq!(dpcs.begin(0xA, 0, 12), None);
        assert_eq!(dpcs.begin(0xB, 0, 13), Some(0xA));
    }

    #[test]
    fn what_is_queued_later_by_another_or_elsewhere_need_not_wait() {
        for (by, processor, number) in [(1, 0, 13), (2, 0, 11), (1, 1, 11)] {
            let mut dpcs = Dpcs::default();
            dpcs.queue(0xA, 1, 0, 10);
            dpcs.queue(0xB, by, processor, number);
            dpcs.begin(0xA, 0, 12);
            assert_eq!(dpcs.begin(0xB, processor, 14), None);
        }
    }
}
