//! The policy in which calls fail that could succeed: everything else goes its usual way.
//!
//! Questions whose point begins with `fault.` are counted from the machine's start and across threads. So a number names one call of a run, and a
//! campaign tries each number up to the count of the run in which none fails.

use std::cell::Cell;
use std::rc::Rc;

use engine::{Chooser, Point};

use crate::policy::{Entry, Parameter, Policy};
use crate::rng::Rng;

/// Its row in the table of policies.
pub(crate) static ENTRY: Entry = Entry {
    name: "fail",
    summary: "the usual way, and the CALLth call that could fail does, with COUNT of them in a row (1)",
    parameters: &[
        Parameter { name: "CALL", range: 1..=u64::MAX, default: None },
        Parameter { name: "COUNT", range: 1..=u64::MAX, default: Some(1) },
    ],
    make: |numbers| Box::new(Failing::new(numbers[0], numbers[1])),
};

/// The row of two calls.
pub(crate) static TWO: Entry = Entry {
    name: "pair",
    summary: "the usual way, and the CALLth and the OTHERth call that could fail do",
    parameters: &[
        Parameter { name: "CALL", range: 1..=u64::MAX, default: None },
        Parameter { name: "OTHER", range: 1..=u64::MAX, default: None },
    ],
    make: |numbers| Box::new(Failing::two(numbers[0], numbers[1])),
};

/// More calls than a run makes.
const ALL: u64 = 1_000_000;

/// Has calls fail. Clones share the count of the calls that could have failed.
#[derive(Clone, Debug)]
pub struct Failing {
    which: Which,
    asked: Rc<Cell<u64>>,
}

/// Which calls fail, from the one of number `first` on.
#[derive(Clone, Debug)]
enum Which {
    /// So many in a row.
    Row {
        first: u64,
        count: u64,
    },
    Two(u64, u64),
    /// So many in a hundred.
    AtRandom {
        first: u64,
        percent: u64,
        random: Rng,
    },
}

impl Which {
    fn fails(&mut self, number: u64) -> bool {
        match self {
            Self::Row { first, count } => number >= *first && number - *first < *count,
            Self::Two(one, other) => number == *one || number == *other,
            Self::AtRandom { first, percent, random } => number >= *first && random.below(100) < *percent,
        }
    }
}

impl Failing {
    /// The call of this number fails, from 1, and those that follow it, `count` in all. With 0 none does.
    #[must_use]
    pub fn new(first: u64, count: u64) -> Self {
        let count = if first == 0 { 0 } else { count };
        Self { which: Which::Row { first, count }, asked: Rc::default() }
    }

    /// The calls of these numbers fail.
    fn two(one: u64, other: u64) -> Self {
        Self { which: Which::Two(one, other), asked: Rc::default() }
    }

    /// From the call of this number on so many in a hundred fail; the seed says which.
    pub(crate) fn at_random(seed: u64, first: u64, percent: u64) -> Self {
        let which = Which::AtRandom { first, percent, random: Rng::new(seed) };
        Self { which, asked: Rc::default() }
    }

    /// How many calls could have failed so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.get()
    }
}

impl Policy {
    /// `fail:CALL`.
    #[must_use]
    pub fn failing(call: u64) -> Self {
        Self::failing_in_row(call, 1)
    }

    /// `fail:CALL,COUNT`.
    #[must_use]
    pub fn failing_in_row(call: u64, count: u64) -> Self {
        ENTRY.with(&[call, count])
    }

    /// `pair:CALL,OTHER`.
    #[must_use]
    pub fn failing_two(call: u64, other: u64) -> Self {
        TWO.with(&[call, other])
    }

    /// The number of the first call that fails, and of how many in a row, if it is such a policy.
    #[must_use]
    pub fn failing_calls(self) -> Option<(u64, u64)> {
        self.numbers_of(&ENTRY).map(|numbers| (numbers[0], numbers[1]))
    }

    /// The same with another first call that fails. None if it is no such policy.
    #[must_use]
    pub fn with_call(self, call: u64) -> Option<Self> {
        self.failing_calls().map(|_| self.with_number(0, call))
    }

    /// `fail:CALL,COUNT` with so large a count that all further calls fail.
    #[must_use]
    pub fn failing_from(call: u64) -> Self {
        Self::failing_in_row(call, ALL)
    }
}

impl Chooser for Failing {
    fn choose(&mut self, _strand: u32, point: Point, _n: u32) -> u32 {
        if !point.0.starts_with("fault.") {
            return 0;
        }
        let number = self.asked.get() + 1;
        self.asked.set(number);
        self.which.fails(number).into()
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }

    fn sees_interlocked(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(mut policy: Failing) -> Vec<u32> {
        let points = ["fault.pool", "ke.turn", "fault.map", "fault.pool", "fault.call"];
        points.iter().map(|point| policy.choose(1, Point(point), 2)).collect()
    }

    #[test]
    fn the_call_of_its_number_fails_and_nothing_else_departs_from_the_usual() {
        assert_eq!(answers(Failing::new(2, 1)), [0, 0, 1, 0, 0]);
        assert_eq!(answers(Failing::new(2, 2)), [0, 0, 1, 1, 0]);
        assert_eq!(answers(Failing::new(1, u64::MAX)), [1, 0, 1, 1, 1]);
        assert_eq!(answers(Failing::new(9, 1)), [0; 5]);
        assert_eq!(answers(Failing::two(1, 4)), [1, 0, 0, 0, 1]);
    }

    #[test]
    fn the_calls_that_could_fail_are_counted_though_none_does() {
        let policy = Failing::new(0, 1);
        assert_eq!(answers(policy.clone()), [0; 5]);
        assert_eq!(policy.asked(), 4);
    }
}
