//! What driver code compares with what, noted while that is wanted: which values it asks of what it was given.
//!
//! It lies outside the machine and is not taken back: who reads it has it emptied.

use std::cell::{Cell, RefCell};

use crate::heap;

/// So many are kept.
const MOST: usize = 1 << 14;

/// What is asked of a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asked {
    /// Whether it is less than, equal to or greater than another (`cmp`, `sub`).
    Order,
    /// Bits of it that another names (`test`).
    Bits,
    /// When it is, as a due time: a timer was set by it, or a wait limited. It is the first; there is no second.
    DueTime,
    /// What object it is a handle of. It is the first; there is no second.
    Handle,
    /// What an application has there. It is the first; there is no second.
    Address,
}

/// A comparison that driver code has made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Compare {
    /// The instruction's address; 0 if that is not known.
    pub rip: u64,
    /// How many bytes were compared: 1, 2, 4 or 8.
    pub bytes: u32,
    /// By what.
    pub asked: Asked,
    /// Its operands, without sign.
    pub left: u64,
    /// The second.
    pub right: u64,
}

/// The live machine's.
#[derive(Default)]
pub(crate) struct Compares {
    on: Cell<bool>,
    all: RefCell<Vec<Compare>>,
}

impl Compares {
    /// Whether they are noted.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.get()
    }

    /// From now on they are, or no more. True if that is a change.
    pub(crate) fn switch(&self, on: bool) -> bool {
        drop(self.take());
        self.on.replace(on) != on
    }

    pub(crate) fn note(&self, compare: Compare) {
        heap::outside(|| {
            let mut all = self.all.borrow_mut();
            if all.len() < MOST {
                all.push(compare);
            }
        });
    }

    /// All since the last time, in their order.
    pub(crate) fn take(&self) -> Vec<Compare> {
        self.all.take()
    }
}
