//! The policy in which all that is due of the hardware and of drivers' timers comes as early as it can: a thread is held up for it wherever it may
//! be. Everything else goes its usual way.
//!
//! One run of it shows what an interrupt or a timer meets that comes behind each of a driver's calls and device accesses, which the seeds of other
//! policies come to by chance. It does so a few thousand times: a driver that works as long as its timer's routine finds work for it would else never be done, as the
//! next one is due whenever it looks.

use engine::{Chooser, DELAY, Point};

use crate::policy::{Entry, Policy};

/// Its row in the table of policies.
pub(crate) static ENTRY: Entry = Entry {
    name: "early",
    summary: "a thread runs until it waits, and what is due of the hardware and of timers comes before its next call or device access",
    parameters: &[],
    make: |_| Box::new(Early { left: MOST }),
};

/// So often a thread is held up.
const MOST: u32 = 4_000;

#[derive(Clone, Copy, Debug)]
struct Early {
    /// How often one still is.
    left: u32,
}

impl Policy {
    /// `early`.
    #[must_use]
    pub fn early() -> Self {
        ENTRY.with(&[])
    }
}

impl Chooser for Early {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        let holds_up = point == DELAY && self.left > 0;
        self.left -= u32::from(holds_up);
        holds_up.into()
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_typed_by_its_name_and_departs_where_something_is_due_alone() {
        let policy: Policy = "early".parse().unwrap();
        assert_eq!(policy, Policy::early());
        let mut chooser = policy.chooser();
        let answers = ["fault.pool", "ke.turn", DELAY.0].map(|point| chooser.choose(1, Point(point), 2));
        assert_eq!((answers, chooser.slice(1, 5)), ([0, 0, 1], u64::MAX));
        let held_up: u32 = (0..2 * MOST).map(|_| chooser.choose(1, DELAY, 2)).sum();
        assert_eq!(held_up, MOST - 1, "and no more");
    }
}
