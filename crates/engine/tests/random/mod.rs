//! Numbers that are the same in each run and on every machine, for tests that generate what they try: Marsaglia's xorshift, 64 bits.
#![allow(dead_code, reason = "each test file uses its part")]

/// A sequence of numbers, by its seed, which is not 0.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.next() as usize % of.len()]
    }

    pub(crate) fn chance(&mut self, of: u64) -> bool {
        self.next().is_multiple_of(of)
    }
}
