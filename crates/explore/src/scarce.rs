//! The policy in which resources are short at random: of the calls that could succeed or fail, some fail. Everything else goes its usual way.
//!
//! Driver Verifier does so by its option *Low Resources Simulation*, to 6 % of the allocations if nothing else is set, and not in the first minutes. Here a run is short, so a
//! call of each ten fails if nothing else is said, and from which call on is said by its number (as `fail:CALL` counts them).

use crate::failing::Failing;
use crate::policy::{Entry, Parameter, Policy, SEED};

/// Its row in the table of policies.
pub(crate) static ENTRY: Entry = Entry {
    name: "scarce",
    summary: "the usual way, and of the calls that could fail PERCENT (10) do, at random, from the CALLth on (1)",
    parameters: &[
        SEED,
        Parameter { name: "CALL", range: 1..=u64::MAX, default: Some(1) },
        Parameter { name: "PERCENT", range: 1..=100, default: Some(10) },
    ],
    make: |numbers| Box::new(Failing::at_random(numbers[0], numbers[1], numbers[2])),
};

impl Policy {
    /// `scarce:SEED,CALL,PERCENT`.
    #[must_use]
    pub fn scarce(seed: u64, call: u64, percent: u64) -> Self {
        ENTRY.with(&[seed, call, percent])
    }
}

#[cfg(test)]
mod tests {
    use engine::Point;

    use super::*;

    fn failed(policy: Policy, calls: u32) -> Vec<u32> {
        let mut chooser = policy.chooser();
        (1..=calls).filter(|_| chooser.choose(1, Point("fault.pool"), 2) == 1).collect()
    }

    #[test]
    fn calls_fail_at_random_from_the_first_on_and_nothing_else_departs_from_the_usual() {
        let some = failed(Policy::scarce(1, 1, 10), 1000);
        assert!((50..=150).contains(&some.len()), "{}", some.len());
        assert_ne!(some, failed(Policy::scarce(2, 1, 10), 1000));
        assert_eq!(some, failed(Policy::scarce(1, 1, 10), 1000));
        assert_eq!(failed(Policy::scarce(7, 4, 100), 6), [4, 5, 6]);
        let mut chooser = Policy::scarce(7, 1, 100).chooser();
        assert_eq!(["ke.turn", "ke.delay"].map(|point| chooser.choose(1, Point(point), 2)), [0, 0]);
        assert_eq!(Policy::scarce(7, 1, 10).to_string(), "scarce:7");
        assert_eq!("scarce:7,4".parse::<Policy>().unwrap(), Policy::scarce(7, 4, 10));
    }
}
