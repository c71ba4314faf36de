//! The instruction clock: original driver instructions retired, plus declared costs.
//!
//! Translated blocks subtract their length from one countdown in the scratch page; the clock is derived from it, so
//! it is exact wherever driver code has been left. It never looks at the host.

use std::cell::Cell;

use crate::translate::scratch;

/// Time is what was charged, plus what the slice began with, less what is left of it.
#[derive(Default)]
pub(crate) struct Clock {
    /// Time at which the countdown will reach zero.
    end_of_slice: Cell<u64>,
}

/// The longest slice: so that a countdown can be told from a negative one.
const LONGEST: u64 = 1 << 62;

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.end_of_slice.get().wrapping_sub(scratch().countdown.get().cast_unsigned())
    }

    pub(crate) fn charge(&self, instructions: u64) {
        self.end_of_slice.set(self.end_of_slice.get() + instructions);
    }

    pub(crate) fn set_slice(&self, instructions: u64) {
        let now = self.now();
        let slice = instructions.clamp(1, LONGEST);
        scratch().countdown.set(slice.cast_signed());
        self.end_of_slice.set(now + slice);
    }

    pub(crate) fn reset(&self) {
        scratch().countdown.set(0);
        self.end_of_slice.set(0);
        self.set_slice(LONGEST);
    }
}
