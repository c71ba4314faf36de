//! Whether requests are taken: those inside are waited for when that ends.

use core::sync::atomic::{AtomicU32, Ordering};

use wdm::{NtStatus, Passive, Result, delay_milliseconds};

const CLOSED: u32 = 0;
const OPEN: u32 = 1;

/// A gate, closed at first.
pub(crate) struct Gate {
    state: AtomicU32,
    inside: AtomicU32,
}

impl Gate {
    pub(crate) const fn new() -> Self {
        Self { state: AtomicU32::new(CLOSED), inside: AtomicU32::new(0) }
    }

    pub(crate) fn open(&self) {
        self.state.swap(OPEN, Ordering::AcqRel);
    }

    /// No one is inside when it returns.
    pub(crate) fn close(&self, passive: &mut Passive) {
        self.state.swap(CLOSED, Ordering::AcqRel);
        while self.inside.load(Ordering::Acquire) != 0 {
            delay_milliseconds(1, passive);
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// Comes in, for as long as what it returns lives.
    ///
    /// # Errors
    /// `DEVICE_NOT_READY` if it is closed.
    pub(crate) fn enter(&self) -> Result<Inside<'_>> {
        self.inside.fetch_add(1, Ordering::AcqRel);
        let inside = Inside(self);
        if self.is_open() { Ok(inside) } else { Err(NtStatus::DEVICE_NOT_READY) }
    }
}

/// One that is inside.
pub(crate) struct Inside<'g>(&'g Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::AcqRel);
    }
}
