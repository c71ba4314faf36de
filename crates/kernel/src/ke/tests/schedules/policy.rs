//! Policies for searching small machines: one that follows a plan and notes what it was asked, and a random one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine::{Chooser, Delay, Point, SLICE_END};

/// What deviates from the defaults.
#[derive(Clone, Default, Debug)]
pub(super) struct Plan {
    /// Answers that are not 0, by the number of the question.
    pub(super) answers: BTreeMap<usize, u32>,
    /// This strand gives way after so many instructions of its own.
    pub(super) preempt: Option<(u32, u64)>,
    /// So long after the start the device asserts its line.
    pub(super) rise: Option<u64>,
}

#[derive(Clone)]
enum Mind {
    Plan(Plan),
    /// The state of a generator, and the longest slice.
    Random(u64, u64),
}

struct State {
    mind: Mind,
    /// Before the scenario begins it answers 0.
    active: bool,
    asked: Vec<u32>,
    /// Who was asked for a slice.
    strands: BTreeSet<u32>,
    /// The strand has come to the instruction before which it was to give way.
    reached: bool,
}

/// A policy of which the test keeps a hold.
#[derive(Clone)]
pub(super) struct Policy(Rc<RefCell<State>>);

impl Policy {
    pub(super) fn plan(plan: Plan) -> Self {
        Self::new(Mind::Plan(plan))
    }

    pub(super) fn random(seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let longest = [1, 3, 10, 40, 200, 100_000][(next(&mut state) % 6) as usize];
        Self::new(Mind::Random(state, longest))
    }

    fn new(mind: Mind) -> Self {
        Self(Rc::new(RefCell::new(State {
            mind,
            active: false,
            asked: Vec::new(),
            strands: BTreeSet::new(),
            reached: false,
        })))
    }

    pub(super) fn activate(&self) {
        self.0.borrow_mut().active = true;
    }

    /// How many answers there were to each question, in order.
    pub(super) fn asked(&self) -> Vec<u32> {
        self.0.borrow().asked.clone()
    }

    /// The strands that run driver code.
    pub(super) fn strands(&self) -> BTreeSet<u32> {
        self.0.borrow().strands.clone()
    }

    /// Whether the strand that was to give way has come so far.
    pub(super) fn reached(&self) -> bool {
        self.0.borrow().reached
    }
}

/// Xorshift.
pub(super) fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

impl Chooser for Policy {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        let mut state = self.0.borrow_mut();
        // What fails is no question of the schedule.
        if !state.active || !point.0.starts_with("ke.") {
            return 0;
        }
        if point == SLICE_END && matches!(state.mind, Mind::Plan(_)) {
            return 1;
        }
        state.asked.push(n);
        let number = state.asked.len() - 1;
        match &mut state.mind {
            Mind::Plan(plan) => plan.answers.get(&number).copied().unwrap_or(0),
            Mind::Random(seed, _) => u32::try_from(next(seed) % u64::from(n)).expect("less than n"),
        }
    }

    /// What a device does is varied by [`super::Scenario`], and a timer's tick comes when it is due.
    fn delays(&mut self, _strand: u32, _at: Delay) -> bool {
        false
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        let mut state = self.0.borrow_mut();
        if !state.active {
            return u64::MAX;
        }
        state.strands.insert(strand);
        match &mut state.mind {
            Mind::Plan(Plan { preempt: Some((whose, at)), .. }) if *whose == strand => {
                let left = at.saturating_sub(retired);
                state.reached |= left == 0;
                if left == 0 { u64::MAX } else { left }
            }
            Mind::Plan(_) => u64::MAX,
            Mind::Random(seed, longest) => 1 + next(seed) % *longest,
        }
    }
}
