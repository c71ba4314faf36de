//! Where driver memory has become another's, kept for a guest that wants to know: what was there is gone, and who accesses it from now on accesses
//! something else. It lies outside the machine, and is empty whenever the machine is taken back.

use std::cell::{Cell, RefCell};

use crate::heap;

/// What is kept.
#[derive(Default)]
pub(crate) struct Fresh {
    on: Cell<bool>,
    any: Cell<bool>,
    /// Addresses and lengths.
    all: RefCell<Vec<(u64, u64)>>,
}

impl Fresh {
    pub(crate) fn switch(&self, on: bool) {
        self.on.set(on);
        self.clear();
    }

    #[inline]
    pub(crate) fn has_any(&self) -> bool {
        self.any.get()
    }

    #[inline]
    pub(crate) fn add(&self, address: u64, length: u64) {
        if self.on.get() {
            self.any.set(true);
            heap::outside(|| self.all.borrow_mut().push((address, length)));
        }
    }

    /// Hands them over, in their order.
    pub(crate) fn take(&self, mut each: impl FnMut(u64, u64)) {
        self.any.set(false);
        self.all.borrow_mut().drain(..).for_each(|(address, length)| each(address, length));
    }

    /// None is kept.
    pub(crate) fn clear(&self) {
        self.any.set(false);
        self.all.borrow_mut().clear();
    }
}
