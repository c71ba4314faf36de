//! Any policy, from where the script begins: up to there everything goes its usual way.
//!
//! So many runs by such policies have their beginning in common, and a machine that has come there once can be taken back to there.

use engine::{Chooser, Defaults, Delay, Point};

/// Gives the default answers until the script begins, and then those of its policy, which was asked nothing before.
pub(crate) struct AtScript {
    policy: Box<dyn Chooser>,
    /// Up to there.
    usual: Defaults,
    begun: bool,
}

impl AtScript {
    pub(crate) fn new(policy: Box<dyn Chooser>) -> Self {
        Self { policy, usual: Defaults, begun: false }
    }

    fn now(&mut self) -> &mut dyn Chooser {
        if self.begun { &mut *self.policy } else { &mut self.usual }
    }
}

impl Chooser for AtScript {
    fn script_begins(&mut self) -> bool {
        self.policy.script_begins();
        !std::mem::replace(&mut self.begun, true)
    }

    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        self.now().choose(strand, point, n)
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        self.now().slice(strand, retired)
    }

    fn sees_interlocked(&self) -> bool {
        self.policy.sees_interlocked()
    }

    fn watches(&self) -> Vec<u64> {
        self.policy.watches()
    }

    fn comes_to(&mut self, state: u64) {
        self.now().comes_to(state);
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        self.now().next_strand(strand, point, strands)
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        self.now().give_way(strand, point, others)
    }

    fn give_way_before(&mut self, strand: u32, retired: u64, instruction: u64, others: &[u32]) -> bool {
        self.now().give_way_before(strand, retired, instruction, others)
    }

    fn delays(&mut self, strand: u32, at: Delay) -> bool {
        self.now().delays(strand, at)
    }
}

#[cfg(test)]
mod tests {
    use engine::{Chooser, Point};

    use crate::policy::Policy;

    #[test]
    fn what_is_asked_before_the_script_is_answered_as_usual_and_not_counted() {
        let mut policy = Policy::failing(2).at_script().chooser();
        let ask = |policy: &mut dyn Chooser| [(); 3].map(|()| policy.choose(1, Point("fault.pool"), 2));
        assert_eq!(ask(&mut *policy), [0, 0, 0]);
        assert!(policy.script_begins(), "it says other slices from now on");
        assert_eq!(ask(&mut *policy), [0, 1, 0]);
    }
}
