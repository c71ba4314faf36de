//! Probabilistic concurrency testing (Burckhardt, Kothari, Musuvathi, Nagarakatte: *A Randomized Scheduler with
//! Probabilistic Guarantees of Finding Bugs*, ASPLOS 2010).
//!
//! Each strand gets a random priority when it is first seen; the highest one that could go on does. At d − 1 random steps
//! the strand that runs falls below all others. A bug that needs d ordered events among n strands and k steps is found with
//! probability of at least 1 / (n·kᵈ⁻¹). A step is a question whether a strand gives way: before each visible instruction,
//! and at the ends of slices, whose lengths are random, 1 to 64. Other questions are answered at random (which processor takes an
//! interrupt, too), whether a strand is held up as by [`crate::Random`]; nothing fails that could succeed.
//!
//! The depth of a bug, and how many steps its runs have, are not known before. So each seed draws what is not given: depth 1 half of the time, 2
//! a quarter, 3 an eighth and so on, since deeper ones need ever more schedules and are ever rarer; and steps as a power of two from 2⁴ to 2¹⁴, each
//! as likely. Of any number of schedules a bug of depth d in runs of k steps so gets one in 11 · 2ᵈ that are made for it.

use std::collections::BTreeMap;

use engine::{Chooser, DELAY, Delay, Point, TAKER};

use crate::policy::{Entry, Parameter, Policy, SEED};
use crate::random::DELAY_ONE_IN;
use crate::rng::Rng;

/// Its row in the table of policies.
pub(crate) static ENTRY: Entry = Entry {
    name: "pct",
    summary: "random priorities, for bugs of DEPTH ordered events in runs of about STEPS steps; without them, or with 0, each seed draws its own",
    parameters: &[
        SEED,
        Parameter { name: "DEPTH", range: 0..=100, default: Some(0) },
        Parameter { name: "STEPS", range: 0..=u64::MAX, default: Some(0) },
    ],
    make: |numbers| Box::new(Pct::new(numbers[0], u32::try_from(numbers[1]).unwrap_or(u32::MAX), numbers[2])),
};

/// The longest slice.
const SLICE: u64 = 64;
/// The deepest bug that a seed draws.
const DEEPEST: u32 = 8;
/// The powers of two that it draws for a run's steps.
const SCALES: std::ops::RangeInclusive<u64> = 4..=14;

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
    /// The policy of this seed, for bugs of `depth` ordered events in runs of about `steps` steps; it draws what is 0.
    #[must_use]
    pub fn new(seed: u64, depth: u32, steps: u64) -> Self {
        let mut rng = Rng::new(seed);
        let depth = match depth {
            0 => 1 + u64::from(rng.roll().trailing_zeros()).min(u64::from(DEEPEST) - 1),
            depth => depth.into(),
        };
        let steps = match steps {
            0 => 1 << (SCALES.start() + rng.below(SCALES.end() - SCALES.start() + 1)),
            steps => steps,
        };
        let mut changes: Vec<(u64, u64)> = (1..depth).map(|low| (1 + rng.below(steps), low)).collect();
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
    /// `pct:SEED,DEPTH,STEPS`. A depth that cannot be becomes the nearest that can; with 0 each seed draws its own.
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

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        if point == TAKER {
            // Hardware decides that, and no priority: what is taken elsewhere may then give way at its first step.
            return self.choose(strand, point, u32::try_from(strands.len()).unwrap_or(u32::MAX));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_shallow_depths_more_often_and_every_scale_of_steps() {
        let all: Vec<Pct> = (0..8_000).map(|seed| Pct::new(seed, 0, 0)).collect();
        let of_depth = |depth| all.iter().filter(|pct| pct.depth == depth).count();
        assert!((3_700..4_300).contains(&of_depth(1)) && (1_800..2_200).contains(&of_depth(2)));
        assert!(of_depth(DEEPEST.into()) > 20 && all.iter().all(|pct| pct.depth <= DEEPEST.into()));
        let latest = |scale: u64| {
            let steps = all.iter().flat_map(|pct| &pct.changes).map(|(at, _)| *at);
            steps.filter(|at| (1 << (scale - 1)..1 << scale).contains(at)).count()
        };
        assert!(SCALES.clone().all(|scale| latest(scale) > 200), "changes come at every scale");
    }
}
