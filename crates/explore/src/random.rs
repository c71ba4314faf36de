//! The random policy: any answer may come, and its seed says which.
//!
//! Questions with n answers: each as likely. Before a visible instruction a strand gives way once in four times, at the
//! end of a slice always; it is held up once in sixteen times. Slices: a power of two from 1 to 2¹⁴, each as likely, and then any length from it to its double;
//! so every scale is tried equally often. Nothing fails that could succeed: that is for fault plans.

use engine::{Chooser, DELAY, Delay, Point, SLICE_END};

use crate::policy::{Entry, Policy, SEED};
use crate::rng::Rng;

/// Its row in the table of policies.
pub(crate) static ENTRY: Entry = Entry {
    name: "random",
    summary: "any answer may come",
    parameters: &[SEED],
    make: |numbers| Box::new(Random::new(numbers[0])),
};

/// How often a strand goes on before a visible instruction, for each time that it gives way.
const GIVE_WAY_ONE_IN: u64 = 4;
/// The same, for each time that it is held up until what is due has come. A run has many such questions while something is due.
pub(crate) const DELAY_ONE_IN: u64 = 16;
/// The longest slice's power of two.
const LONGEST_SLICE: u64 = 14;

/// Answers at random.
#[derive(Clone, Debug)]
pub struct Random(Rng);

impl Random {
    /// The policy of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }
}

impl Policy {
    /// `random:SEED`.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        ENTRY.with(&[seed])
    }
}

impl Chooser for Random {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        if point.0.starts_with("fault.") {
            return 0;
        }
        if point == DELAY {
            return self.0.one_in(DELAY_ONE_IN).into();
        }
        u32::try_from(self.0.below(n.into())).unwrap_or(0)
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        let least = 1 << self.0.below(LONGEST_SLICE + 1);
        least + self.0.below(least)
    }

    fn give_way(&mut self, _strand: u32, point: Point, _others: &[u32]) -> bool {
        point == SLICE_END || self.0.one_in(GIVE_WAY_ONE_IN)
    }

    fn delays(&mut self, _strand: u32, _at: Delay) -> bool {
        self.0.one_in(DELAY_ONE_IN)
    }
}
