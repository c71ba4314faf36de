//! Whose doing it was: the driver's stack at the few moments that a second run of the same machine asks for.
//!
//! A verdict names moments (a block's allocation, a lock's acquisition) by event numbers, which cost nothing to keep. To get the
//! stacks, make the same run again with these numbers in [`crate::nt::Settings::witness`]; the moments are the same then.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::num::NonZeroU64;

use abi::{Code, DriverPtr};

use crate::cx::Cx;
use crate::event::Kind;
use crate::ldr;
use crate::verdict::StackLine;

/// The moments that are asked for, and what was seen of them.
pub(crate) struct Witness {
    /// The least of `wanted`, or `u64::MAX`.
    next: Cell<u64>,
    /// In ascending order.
    wanted: RefCell<VecDeque<u64>>,
    seen: RefCell<Vec<(u64, Vec<StackLine>)>>,
}

impl Witness {
    /// Of the moments with these numbers.
    pub(crate) fn new(wanted: &[u64]) -> Self {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let next = Cell::new(wanted.first().copied().unwrap_or(u64::MAX));
        Self { next, wanted: RefCell::new(wanted.into()), seen: RefCell::default() }
    }

    /// The stacks by the number of their moment; of those that have not come yet, none.
    pub(crate) fn seen(&self) -> Vec<(u64, Vec<StackLine>)> {
        self.seen.borrow().clone()
    }

    fn take(&self, number: u64) -> bool {
        let mut wanted = self.wanted.borrow_mut();
        while wanted.front().is_some_and(|front| *front < number) {
            wanted.pop_front(); // it had no moment
        }
        let is_wanted = wanted.front() == Some(&number);
        if is_wanted {
            wanted.pop_front();
        }
        self.next.set(wanted.front().copied().unwrap_or(u64::MAX));
        is_wanted
    }
}

/// The number of an event, or none, where there are many of them: in 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Noted(Option<NonZeroU64>);

impl Noted {
    /// None.
    pub(crate) const NONE: Self = Self(None);

    /// The event's number.
    #[inline]
    pub(crate) const fn number(self) -> Option<u64> {
        match self.0 {
            Some(above) => Some(above.get() - 1),
            None => None,
        }
    }
}

impl From<Option<u64>> for Noted {
    #[inline]
    fn from(number: Option<u64>) -> Self {
        number.map_or(Self::NONE, Self::from)
    }
}

impl From<u64> for Noted {
    #[inline]
    fn from(number: u64) -> Self {
        Self(NonZeroU64::new(number.wrapping_add(1)))
    }
}

/// Something happens now that a verdict may refer to later: the number of the event that comes next, which stands for it.
#[inline]
pub(crate) fn moment(cx: &mut Cx<'_>) -> u64 {
    let number = cx.next_event();
    if number >= cx.nt().witness.next.get() {
        note(cx, number, None);
    }
    number
}

/// As [`moment`], if this one's stack was not asked for, and no reader wants locks.
#[inline]
pub(crate) fn plain_moment(cx: &Cx<'_>) -> Option<u64> {
    let number = cx.next_event();
    (number < cx.nt().witness.next.get() && !cx.nt().wants(Kind::LockAcquired)).then_some(number)
}

/// The same, of what a driver's `routine` did that has just returned: it is shown as the innermost line.
#[inline]
pub(crate) fn moment_of(cx: &mut Cx<'_>, routine: DriverPtr<Code>) -> u64 {
    let number = cx.next_event();
    if number >= cx.nt().witness.next.get() {
        note(cx, number, Some(routine.address));
    }
    number
}

#[cold]
fn note(cx: &mut Cx<'_>, number: u64, routine: Option<u64>) {
    let witness = &cx.nt().witness;
    if witness.take(number) {
        let line = |address| StackLine {
            address,
            is_return: false,
            interrupted: false,
            ddi: None,
            symbol: ldr::symbols::describe(&mut cx.nt().cx(), address),
        };
        let mut stack: Vec<_> = routine.map(line).into_iter().collect();
        stack.extend(ldr::stack::lines(cx));
        witness.seen.borrow_mut().push((number, stack));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_noted_comes_back_the_first_too() {
        for number in [None, Some(0), Some(7), Some(u64::MAX - 1)] {
            assert_eq!(Noted::from(number).number(), number);
        }
        assert_eq!(size_of::<Noted>(), 8);
    }

    #[test]
    fn moments_are_taken_in_their_order_and_each_once() {
        let witness = Witness::new(&[7, 3, 7, 5]);
        assert_eq!(witness.next.get(), 3);
        assert!(witness.take(3) && witness.next.get() == 5);
        assert!(!witness.take(6), "5 went by without a moment");
        assert!(witness.take(7) && !witness.take(7));
        assert_eq!(witness.next.get(), u64::MAX);
    }
}
