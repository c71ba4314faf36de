//! The instruction clock: original driver instructions retired, plus declared costs.
//!
//! Translated blocks subtract their length from one countdown in the scratch page; the clock is derived from it, so
//! it is exact wherever driver code has been left. It never looks at the host.

use std::cell::Cell;

use crate::translate::scratch;

/// Time is what was charged, plus what the slice began with, less what is left of it.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Clock {
    /// Time at which the countdown will reach zero.
    end_of_slice: Cell<u64>,
    /// Side by side the two would be loaded in one piece, which waits for the store of either.
    apart: [u64; 3],
    /// What of the time was charged.
    charged: Cell<u64>,
}

/// The longest slice: a longer countdown could not be distinguished from a negative one.
const LONGEST: u64 = 1 << 62;

/// The machine's clock.
#[inline]
pub(crate) fn clock() -> &'static Clock {
    &scratch().clock
}

impl Clock {
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.at(scratch().countdown.get())
    }

    /// What time it was in this slice when so much of it was left.
    #[inline]
    pub(crate) fn at(&self, countdown: i64) -> u64 {
        self.end_of_slice.get().wrapping_sub(countdown.cast_unsigned())
    }

    /// Driver instructions alone.
    #[inline]
    pub(crate) fn retired(&self) -> u64 {
        self.now() - self.charged.get()
    }

    #[inline]
    pub(crate) fn charge(&self, instructions: u64) {
        self.charged.set(self.charged.get() + instructions);
        self.end_of_slice.set(self.end_of_slice.get() + instructions);
    }

    /// Charges, and shortens the slice: it ends at time `until` or when so many instructions have retired. False if that has
    /// come; then the slice is as long as it was.
    #[inline]
    pub(crate) fn charge_within(&self, instructions: u64, until: u64, retired: u64) -> bool {
        let now = self.now() + instructions;
        let charged = self.charged.get() + instructions;
        self.charged.set(charged);
        let left = until.saturating_sub(now).min(retired.saturating_sub(now - charged)).min(LONGEST);
        if left == 0 {
            self.end_of_slice.set(self.end_of_slice.get() + instructions);
            return false;
        }
        scratch().countdown.set(left.cast_signed());
        self.end_of_slice.set(now + left);
        true
    }

    #[inline]
    pub(crate) fn set_slice(&self, instructions: u64) {
        let now = self.now();
        let slice = instructions.clamp(1, LONGEST);
        scratch().countdown.set(slice.cast_signed());
        self.end_of_slice.set(now + slice);
    }

    pub(crate) fn reset(&self) {
        scratch().countdown.set(0);
        self.end_of_slice.set(0);
        self.charged.set(0);
        self.set_slice(LONGEST);
    }
}
