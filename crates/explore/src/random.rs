//! The random policy: any answer may come, and its seed says which.
//!
//! Questions with n answers: each as likely. Before a visible instruction a strand gives way once in four times, at the
//! end of a slice always; it is held up once in sixteen times. Slices: a power of two from 1 to 2¹⁴, each as likely, and then any length from it to its double;
//! so every scale is tried equally often. Nothing fails that could succeed: that is for fault plans.
//!
//! So the strands are about equally fast, and it is rare that one does much between two steps of another. A strand therefore stalls at times, as a processor
//! does that is busy elsewhere: at a step where it is asked whether it gives way, and for a number of such steps that is a power of two from 1 to 2¹⁴. Each
//! seed draws how often, another power of two. While a strand stalls others go on, if they can.

use std::collections::BTreeMap;

use engine::{Chooser, DELAY, Delay, Point, SLICE_END, TAKER};

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

/// A strand stalls once in 2ⁿ steps; of these n each is as likely.
const STALL_ONE_IN: std::ops::RangeInclusive<u64> = 3..=10;
/// The power of two of the longest stall, in steps.
const LONGEST_STALL: u64 = 14;

/// Answers at random.
#[derive(Clone, Debug)]
pub struct Random {
    rng: Rng,
    step: u64,
    /// None: never.
    stall_one_in: Option<u64>,
    /// Which strands stall, and until which step.
    stalled: BTreeMap<u32, u64>,
}

impl Random {
    /// The policy of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let stall_one_in =
            1 << (STALL_ONE_IN.start() + rng.below(1 + STALL_ONE_IN.end() - STALL_ONE_IN.start()));
        Self { rng, step: 0, stall_one_in: Some(stall_one_in), stalled: BTreeMap::new() }
    }

    /// One of this seed by which no strand stalls.
    #[must_use]
    pub fn steady(seed: u64) -> Self {
        Self { rng: Rng::new(seed), step: 0, stall_one_in: None, stalled: BTreeMap::new() }
    }

    fn is_stalled(&self, strand: u32) -> bool {
        self.stalled.get(&strand).is_some_and(|until| *until > self.step)
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
            return self.rng.one_in(DELAY_ONE_IN).into();
        }
        u32::try_from(self.rng.below(n.into())).unwrap_or(0)
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        let least = 1 << self.rng.below(LONGEST_SLICE + 1);
        least + self.rng.below(least)
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        let going: Vec<u32> = (0..)
            .zip(strands)
            .filter(|(_, strand)| !self.is_stalled(**strand))
            .map(|(index, _)| index)
            .collect();
        // Hardware decides who takes an interrupt, and does not look how fast a processor is.
        if point == TAKER || going.is_empty() {
            return self.choose(strand, point, u32::try_from(strands.len()).unwrap_or(u32::MAX));
        }
        let index = self.choose(strand, point, u32::try_from(going.len()).unwrap_or(u32::MAX));
        going.get(index as usize).copied().unwrap_or(0)
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        self.step += 1;
        if others.iter().all(|other| self.is_stalled(*other)) {
            return false;
        }
        if self.stall_one_in.is_some_and(|steps| self.rng.one_in(steps)) {
            let steps = 1 << self.rng.below(LONGEST_STALL + 1);
            self.stalled.insert(strand, self.step + steps);
        }
        self.is_stalled(strand) || point == SLICE_END || self.rng.one_in(GIVE_WAY_ONE_IN)
    }

    fn delays(&mut self, _strand: u32, _at: Delay) -> bool {
        self.rng.one_in(DELAY_ONE_IN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two strands that could always go on, the longest time that one does without the other, in steps.
    fn longest_turn(seed: u64) -> u64 {
        let mut random = Random::new(seed);
        let (mut now, mut turn, mut longest) = (1, 0, 0);
        for _ in 0..500 {
            turn += 1;
            longest = longest.max(turn);
            if random.give_way(now, Point("p"), &[3 - now]) {
                let next = random.next_strand(now, Point("p"), &[3 - now, now]);
                turn = if next == 0 { 0 } else { turn };
                now = if next == 0 { 3 - now } else { now };
            }
        }
        longest
    }

    #[test]
    fn some_seeds_let_a_strand_stall_and_some_do_not() {
        let turns: Vec<u64> = (1..=200).map(longest_turn).collect();
        let long = turns.iter().filter(|turn| **turn > 200).count();
        let short = turns.iter().filter(|turn| **turn < 50).count();
        assert!(long > 20 && short > 20, "{long} {short}");
    }

    #[test]
    fn a_strand_that_stalls_goes_on_where_no_other_can() {
        let mut random = Random::new(1);
        let stalls = (0..100_000).find(|_| random.give_way(1, Point("p"), &[2]) && random.is_stalled(1));
        assert!(stalls.is_some());
        assert_eq!(random.next_strand(0, Point("p"), &[1]), 0);
        assert_eq!(random.next_strand(0, Point("p"), &[1, 2]), 1);
        random.stalled.insert(2, u64::MAX);
        assert!(!random.give_way(1, Point("p"), &[2]));
    }
}
