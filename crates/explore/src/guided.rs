//! The policy of one run of a search: departures from the default at given questions, and a note of every question.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use engine::{Chooser, Delay, Point, SLICE_END, mixed};

use crate::schedule::{Departures, Questions};

/// A question that was asked, and what departing from the default would cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    /// Answers are `0..n`.
    pub(crate) n: u32,
    /// Whether every answer but 0 counts towards the bound.
    pub(crate) counts: bool,
}

/// A question, and in which state it was asked, where the machine says so.
type Stated = (Question, Option<u64>);

/// All questions of a run that have more than one answer to try. A clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Asked(Rc<RefCell<Vec<Stated>>>);

impl Asked {
    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Those from this number on.
    pub(crate) fn questions(&self, from: usize) -> Questions {
        let mut questions = Questions::default();
        for (question, state) in self.0.borrow().get(from..).unwrap_or_default() {
            questions.add(*question, *state);
        }
        questions
    }
}

/// Departs from the default at the questions of its departures, and nowhere else.
#[derive(Clone)]
pub(crate) struct Guided {
    departures: std::vec::IntoIter<(usize, u32)>,
    next: Option<(usize, u32)>,
    asked: Asked,
    /// Whether things may fail that could succeed.
    faults: bool,
    /// Whether strands may give way between any two instructions.
    instructions: bool,
    repeated: Repeated,
    /// What has led to the next question.
    state: Option<u64>,
}

/// So often a strand is asked before the same watched instruction while nothing new comes: a loop that polls goes round
/// thousands of times.
const REPEATED: u32 = 16;

/// How often each strand was asked before each watched instruction since the last question of another kind.
///
/// If a strand is asked at an instruction where it was not asked since then, all are counted from there again. So the instructions of
/// one loop, or of two strands that wait for each other, do not keep each other going, and a strand that waits is asked again once
/// another has come further.
#[derive(Clone, Default)]
struct Repeated(BTreeMap<(u32, u64), u32>);

impl Repeated {
    /// Whether it was asked often enough.
    fn is_enough(&self, strand: u32, instruction: u64) -> bool {
        self.0.get(&(strand, instruction)).is_some_and(|times| *times == REPEATED)
    }

    /// All of it as one number.
    fn number(&self) -> u64 {
        let of = |hash, ((strand, instruction), times): (&(u32, u64), &u32)| {
            mixed(mixed(hash, *instruction), u64::from(*strand) << 32 | u64::from(*times))
        };
        self.0.iter().fold(0, of)
    }

    fn asked(&mut self, strand: u32, instruction: u64) {
        if let Some(times) = self.0.get_mut(&(strand, instruction)) {
            *times += 1;
            return;
        }
        self.0.values_mut().for_each(|times| *times = 0);
        self.0.insert((strand, instruction), 1);
    }
}

impl Guided {
    pub(crate) fn new(departures: Departures, asked: Asked, faults: bool, instructions: bool) -> Self {
        let mut departures = departures.into_iter();
        let next = departures.next();
        Self { departures, next, asked, faults, instructions, repeated: Repeated::default(), state: None }
    }

    /// Another that has been asked the same so far, and from here on departs as given.
    pub(crate) fn then(&self, departures: Departures) -> (Self, Asked) {
        let asked = Asked(Rc::new(RefCell::new(self.asked.0.borrow().clone())));
        let mut departures = departures.into_iter();
        let next = departures.next();
        (Self { departures, next, asked: asked.clone(), ..self.clone() }, asked)
    }

    /// Whether a question may be one of those that are numbered.
    pub(crate) fn may_number(&self, question: &engine::Question) -> bool {
        match question {
            engine::Question::Choice { point, n, .. } => {
                *n > 1 && (self.faults || !point.0.starts_with("fault."))
            }
            engine::Question::NextStrand { n, .. } => *n > 1,
            engine::Question::GiveWay { point, .. } => self.instructions || *point != SLICE_END,
            engine::Question::Slice { .. } => false,
        }
    }

    fn ask(&mut self, n: u32, counts: bool) -> u32 {
        if n < 2 {
            return 0;
        }
        self.repeated.0.clear();
        self.number(n, counts)
    }

    fn number(&mut self, n: u32, counts: bool) -> u32 {
        let number = {
            let mut asked = self.asked.0.borrow_mut();
            let state = self.state.take().map(|state| mixed(state, self.repeated.number()));
            asked.push((Question { n, counts }, state));
            asked.len() - 1
        };
        match self.next {
            Some((at, answer)) if at == number => {
                self.next = self.departures.next();
                // The same departures lead to the same question again; if they do not, the subject is not deterministic.
                assert!(answer < n, "question {number} has {n} answers and had more in the run before");
                answer
            }
            _ => 0,
        }
    }
}

impl Chooser for Guided {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        if point.0.starts_with("fault.") && !self.faults {
            return 0;
        }
        self.ask(n, true)
    }

    fn comes_to(&mut self, state: u64) {
        self.state = Some(state);
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        if self.instructions { 1 } else { u64::MAX }
    }

    fn next_strand(&mut self, _strand: u32, _point: Point, strands: &[u32]) -> u32 {
        // The strand that ran has given way or cannot go on: choosing the next one is no further preemption.
        self.ask(u32::try_from(strands.len()).unwrap_or(u32::MAX), false)
    }

    fn give_way(&mut self, _strand: u32, point: Point, _others: &[u32]) -> bool {
        if point == SLICE_END && !self.instructions {
            return false;
        }
        self.ask(2, true) == 1
    }

    fn give_way_before(&mut self, strand: u32, _retired: u64, instruction: u64, _others: &[u32]) -> bool {
        if self.repeated.is_enough(strand, instruction) {
            return false;
        }
        self.repeated.asked(strand, instruction);
        self.number(2, true) == 1
    }

    fn delays(&mut self, _strand: u32, _at: Delay) -> bool {
        self.number(2, true) == 1
    }
}
