//! Probabilistic concurrency testing (Burckhardt, Kothari, Musuvathi, Nagarakatte: *A Randomized Scheduler with
//! Probabilistic Guarantees of Finding Bugs*, ASPLOS 2010).
//!
//! Each strand gets a random priority when it is first seen; the highest one that could go on does. At d − 1 random steps
//! the strand that runs falls below all others. A bug that needs d ordered events among n strands and k steps is found with
//! probability of at least 1 / (n·kᵈ⁻¹). A step is a question whether a strand gives way: before each visible instruction,
//! and at the ends of slices, whose lengths are random, 1 to 64. Other questions are answered at random, whether a strand is held up as by
//! [`crate::Random`]; nothing fails that could succeed.

use std::collections::BTreeMap;

use engine::{Chooser, DELAY, Delay, Point};

use crate::policy::{Entry, Parameter, Policy, SEED};
use crate::random::DELAY_ONE_IN;
use crate::rng::Rng;

/// Its row in the table of policies.
pub(crate) static ENTRY: Entry = Entry {
    name: "pct",
    summary: "random priorities, for bugs of DEPTH ordered events in runs of about STEPS steps",
    parameters: &[
        SEED,
        Parameter { name: "DEPTH", range: 1..=100, default: None },
        Parameter { name: "STEPS", range: 1..=u64::MAX, default: Some(1000) },
    ],
    make: |numbers| Box::new(Pct::new(numbers[0], u32::try_from(numbers[1]).unwrap_or(u32::MAX), numbers[2])),
};

/// The longest slice.
const SLICE: u64 = 64;

/// Schedules by random priorities.
#[derive(Clone, Debug)]
pub struct Pct {
    rng: Rng,
    /// At which steps the running strand falls, and to which priority; in the order of steps.
    changes: Vec<(u64, u64)>,
    step: u64,
    priorities: BTreeMap<u32, u64>,
    depth: u64,
}

impl Pct {
    /// The policy of this seed, for bugs of `depth` ordered events (1 and up) in runs of about `steps` steps.
    #[must_use]
    pub fn new(seed: u64, depth: u32, steps: u64) -> Self {
        let mut rng = Rng::new(seed);
        let depth = u64::from(depth.max(1));
        let mut changes: Vec<(u64, u64)> = (1..depth).map(|low| (1 + rng.below(steps.max(1)), low)).collect();
        changes.sort_unstable();
        Self { rng, changes, step: 0, priorities: BTreeMap::new(), depth }
    }

    /// All first priorities are above those that strands fall to, and no two are equal.
    fn priority(&mut self, strand: u32) -> u64 {
        let Self { rng, priorities, depth, .. } = self;
        *priorities.entry(strand).or_insert_with(|| {
            let high = *depth + rng.below(1 << 24);
            high << 32 | u64::from(strand)
        })
    }
}

impl Policy {
    /// `pct:SEED,DEPTH,STEPS`. A depth or a number of steps that cannot be becomes the nearest that can.
    #[must_use]
    pub fn pct(seed: u64, depth: u32, steps: u64) -> Self {
        ENTRY.with(&[seed, depth.into(), steps])
    }
}

impl Chooser for Pct {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        if point.0.starts_with("fault.") {
            return 0;
        }
        if point == DELAY {
            return self.rng.one_in(DELAY_ONE_IN).into();
        }
        u32::try_from(self.rng.below(n.into())).unwrap_or(0)
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        1 + self.rng.below(SLICE)
    }

    fn next_strand(&mut self, _strand: u32, _point: Point, strands: &[u32]) -> u32 {
        let best = (0_u32..).zip(strands).max_by_key(|(_, strand)| self.priority(**strand));
        best.map_or(0, |(index, _)| index)
    }

    fn give_way(&mut self, strand: u32, _point: Point, others: &[u32]) -> bool {
        self.step += 1;
        let mut own = self.priority(strand);
        for (at, low) in &self.changes {
            if *at == self.step {
                own = *low;
                self.priorities.insert(strand, own);
            }
        }
        others.iter().any(|other| self.priority(*other) > own)
    }
    fn delays(&mut self, _strand: u32, _at: Delay) -> bool {
        self.rng.one_in(DELAY_ONE_IN)
    }
}
