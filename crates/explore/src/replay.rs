//! The policy that answers what a record says, and the default to everything else.
//!
//! What does not fit the run is remembered by name: an answer that its question does not have, a question never asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use engine::{Chooser, Delay, Point, SLICE_END};

use crate::choice::{Choice, Choices, Occurrences};

/// What in a record did not fit the run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Complaint {
    /// The question had fewer answers than the recorded one needs; it got the default.
    TooFewAnswers {
        /// The record's.
        choice: Choice,
        /// Answers were `0..n`.
        n: u32,
    },
    /// The question never came.
    NeverAsked(Choice),
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewAnswers { choice, n } => {
                write!(f, "`{choice}`: the question has only the answers 0 to {}", n.saturating_sub(1))
            }
            Self::NeverAsked(choice) => write!(f, "`{choice}`: this question never came"),
        }
    }
}

/// Answers from a record. A clone is the same replay.
#[derive(Clone)]
pub struct Replay(Rc<RefCell<State>>);

struct State {
    /// What has not been asked for yet.
    left: Choices,
    asked: Occurrences,
    /// Where each strand's slice ends.
    slices: BTreeMap<u32, u64>,
    complaints: Vec<Complaint>,
}

impl Replay {
    /// Answers `choices`.
    #[must_use]
    pub fn new(choices: Choices) -> Self {
        Self(Rc::new(RefCell::new(State {
            left: choices,
            asked: Occurrences::default(),
            slices: BTreeMap::new(),
            complaints: Vec::new(),
        })))
    }

    /// What did not fit, in the order in which it was noticed; what was never asked comes last. Once the run is over.
    #[must_use]
    pub fn complaints(&self) -> Vec<Complaint> {
        let state = self.0.borrow();
        let unasked = state.left.iter().map(Complaint::NeverAsked);
        state.complaints.iter().cloned().chain(unasked).collect()
    }
}

impl State {
    fn answer(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        let occurrence = self.asked.next(strand, point.0);
        let Some(answer) = self.left.take_answer(strand, point.0, occurrence) else { return 0 };
        if answer < n {
            return answer;
        }
        let choice = Choice::Answer { strand, point: point.0.to_owned(), occurrence, answer };
        self.complaints.push(Complaint::TooFewAnswers { choice, n });
        0
    }
}

impl Chooser for Replay {
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        self.0.borrow_mut().answer(strand, point, n)
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        let mut state = self.0.borrow_mut();
        let Some(end) = state.left.next_slice_end(strand, retired) else { return u64::MAX };
        state.slices.insert(strand, end);
        end - retired
    }

    fn watches(&self) -> Vec<u64> {
        self.0.borrow().left.watched().into_iter().collect()
    }

    fn give_way_before(&mut self, strand: u32, retired: u64, instruction: u64, _others: &[u32]) -> bool {
        self.0.borrow_mut().left.take_before(strand, retired, instruction)
    }

    fn delays(&mut self, strand: u32, at: Delay) -> bool {
        self.0.borrow_mut().left.take_delay(strand, at)
    }

    fn give_way(&mut self, strand: u32, point: Point, _others: &[u32]) -> bool {
        let mut state = self.0.borrow_mut();
        if point != SLICE_END {
            return state.answer(strand, point, 2) == 1;
        }
        let end = state.slices.get(&strand).copied();
        end.is_some_and(|end| state.left.take_preemption(strand, end))
    }
}
