//! Numbers that are the same in each run and on every machine, for tests that generate what they try.
#![allow(dead_code, reason = "each test file uses its part")]

/// A sequence of numbers, by its seed.
pub(crate) struct Random(fastrand::Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0.u64(..n)
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *self.0.choice(of).expect("there is one")
    }

    pub(crate) fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}
