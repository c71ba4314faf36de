//! The policy in which deferred procedure calls come as late as they can: before each, all other processors run until they wait. Everything else goes
//! its usual way.
//!
//! So a processor's DPC queue is emptied where other drivers' DPCs stand before it. One run of it shows what a DPC meets that was queued before its
//! device was stopped, its timer cancelled or its request ended, which the seeds of other policies come to by chance.

use engine::{BEFORE_DPC, Chooser, Point};

use crate::policy::{Entry, Policy};

/// Its row in the table of policies.
pub(crate) static ENTRY: Entry = Entry {
    name: "late",
    summary: "a thread runs until it waits, and before a DPC begins all other processors do",
    parameters: &[],
    make: |_| Box::new(Late),
};

#[derive(Clone, Copy, Debug)]
struct Late;

impl Policy {
    /// `late`.
    #[must_use]
    pub fn late() -> Self {
        ENTRY.with(&[])
    }
}

impl Chooser for Late {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        (point == BEFORE_DPC).into()
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::DELAY;

    #[test]
    fn it_is_typed_by_its_name_and_gives_way_before_dpcs_alone() {
        let policy: Policy = "late".parse().unwrap();
        assert_eq!(policy, Policy::late());
        let mut chooser = policy.chooser();
        let answers =
            ["fault.pool", "ke.turn", DELAY.0, BEFORE_DPC.0].map(|point| chooser.choose(1, Point(point), 2));
        assert_eq!((answers, chooser.slice(1, 5)), ([0, 0, 0, 1], u64::MAX));
    }
}
