//! The policy of whatever comes before the subtree of a run that is searched: the default answers, counted.

use std::cell::RefCell;
use std::rc::Rc;

use engine::{Chooser, Delay, Point, SLICE_END};

use crate::choice::Occurrences;

/// Gives the default answers, and counts the questions, so that a record can go on from there. A clone is the same.
#[derive(Clone, Default)]
pub struct Counted(Rc<RefCell<Occurrences>>);

impl Counted {
    /// The questions so far.
    #[must_use]
    pub fn asked(&self) -> Occurrences {
        self.0.borrow().clone()
    }
}

impl Chooser for Counted {
    fn choose(&mut self, strand: u32, point: Point, _n: u32) -> u32 {
        // The ends of slices have no numbers: a preemption is known by its place.
        if point != SLICE_END {
            self.0.borrow_mut().next(strand, point.0);
        }
        0
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }

    fn delays(&mut self, _strand: u32, _at: Delay) -> bool {
        false // known by its place, as a preemption is
    }
}
