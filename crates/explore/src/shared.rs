//! A policy that its owner can look at while the machine asks it.

use std::cell::{Ref, RefCell};
use std::rc::Rc;

use engine::{Chooser, Delay, Point};

/// A clone is the same.
pub(crate) struct Shared<C>(Rc<RefCell<C>>);

impl<C> Clone for Shared<C> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<C> Shared<C> {
    pub(crate) fn new(policy: C) -> Self {
        Self(Rc::new(RefCell::new(policy)))
    }

    pub(crate) fn borrow(&self) -> Ref<'_, C> {
        self.0.borrow()
    }
}

/// Every method, those with a default too: the policy may answer otherwise.
impl<C: Chooser> Chooser for Shared<C> {
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        self.0.borrow_mut().choose(strand, point, n)
    }

    fn comes_to(&mut self, state: u64) {
        self.0.borrow_mut().comes_to(state);
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        self.0.borrow_mut().slice(strand, retired)
    }

    fn sees_interlocked(&self) -> bool {
        self.0.borrow().sees_interlocked()
    }

    fn watches(&self) -> Vec<u64> {
        self.0.borrow().watches()
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        self.0.borrow_mut().next_strand(strand, point, strands)
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        self.0.borrow_mut().give_way(strand, point, others)
    }

    fn give_way_before(&mut self, strand: u32, retired: u64, instruction: u64, others: &[u32]) -> bool {
        self.0.borrow_mut().give_way_before(strand, retired, instruction, others)
    }

    fn delays(&mut self, strand: u32, at: Delay) -> bool {
        self.0.borrow_mut().delays(strand, at)
    }
}
