//! All runs within a bound: each departs from the default at other questions, those with fewer preemptions first.
//!
//! A run is made again from its beginning for every schedule; what a beginning is, and how it is got back to, is the
//! subject's business. Nothing is taken back to the question where a schedule departs, and states that were seen before are
//! not recognised. Where runs teach of more places in which strands could give way, the search begins again with those.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use engine::Chooser;

use crate::choice::{Choices, Occurrences};
use crate::guided::{Asked, Departures, Guided, Question};
use crate::recorder::Recorder;

/// Something that runs the same way each time the same questions get the same answers.
pub trait Subject {
    /// What comes of a run.
    type Outcome;

    /// Runs once, from the beginning.
    fn run(&mut self, policy: Box<dyn Chooser>) -> Self::Outcome;

    /// What was asked before that beginning, of somebody else, and is the same in every run. A record counts it in.
    fn asked_before(&self) -> Occurrences {
        Occurrences::default()
    }

    /// Takes up what the runs so far have taught of places in which strands could give way: how many are new. From now on
    /// runs are asked there too.
    fn learn(&mut self) -> usize {
        0
    }
}

/// How far a search goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// At most so many departures from the default in a run: a strand gives way though it could go on, or a question with
    /// several answers gets another one. Who goes on when a strand cannot is free.
    pub preemptions: usize,
    /// At most so many runs.
    pub schedules: u64,
    /// Whether things may fail that could succeed (points `fault.…`).
    pub faults: bool,
    /// Whether the subject learns in which further places strands see each other's work ([`Subject::learn`]).
    pub shared: bool,
    /// Whether a strand may give way between any two instructions, and not before visible ones only.
    pub instructions: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { preemptions: 2, schedules: 100_000, faults: false, shared: true, instructions: false }
    }
}

/// What a search has done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Searched<O> {
    /// How many runs were made with 0, 1, … preemptions, once all places were known.
    pub schedules: Vec<u64>,
    /// How many were made before.
    pub repeated: u64,
    /// How many places were learned.
    pub learned: usize,
    /// Whether there is no other run within the preemption bound.
    pub complete: bool,
    /// The first run that was looked for: its choices, and what came of it.
    pub found: Option<(Choices, O)>,
}

impl<O> Searched<O> {
    /// How many runs were made.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.repeated + self.schedules.iter().sum::<u64>()
    }
}

/// Runs `subject` in every way within `bounds`, until `wanted` says of a run that it is the one.
pub fn search<S: Subject>(
    subject: &mut S,
    bounds: &Bounds,
    mut wanted: impl FnMut(&S::Outcome) -> bool,
) -> Searched<S::Outcome> {
    let mut searched = Searched {
        schedules: vec![0; bounds.preemptions + 1],
        repeated: 0,
        learned: 0,
        complete: false,
        found: None,
    };
    while !pass(subject, bounds, &mut wanted, &mut searched) {
        searched.repeated = searched.total();
        searched.schedules.fill(0);
    }
    searched
}

/// All runs, those with fewer preemptions first; false if those with the same number have taught something, so that each is to
/// be made again with more questions.
fn pass<S: Subject>(
    subject: &mut S,
    bounds: &Bounds,
    wanted: &mut impl FnMut(&S::Outcome) -> bool,
    searched: &mut Searched<S::Outcome>,
) -> bool {
    let mut waiting: Vec<VecDeque<Departures>> = vec![VecDeque::new(); bounds.preemptions + 1];
    waiting[0].push_back(Departures::new());
    let mut level = 0;
    loop {
        let next = waiting.iter().position(|queue| !queue.is_empty());
        if next != Some(level) && bounds.shared {
            let new = subject.learn();
            searched.learned += new;
            if new > 0 {
                return false;
            }
        }
        let Some(departures) = next.and_then(|cost| waiting[cost].pop_front()) else {
            searched.complete = true;
            return true;
        };
        level = next.unwrap_or(level);
        if searched.total() >= bounds.schedules {
            return true;
        }
        let (outcome, choices, questions) = run(subject, bounds, &departures);
        searched.schedules[level] += 1;
        if wanted(&outcome) {
            searched.found = Some((choices, outcome));
            return true;
        }
        depart_further(&mut waiting, level, &departures, &questions);
    }
}

fn run<S: Subject>(
    subject: &mut S,
    bounds: &Bounds,
    departures: &Departures,
) -> (S::Outcome, Choices, Vec<Question>) {
    let asked = Asked::default();
    let guided = Guided::new(departures.clone(), asked.clone(), bounds.faults, bounds.instructions);
    let choices = Rc::new(RefCell::new(Choices::default()));
    let log = Rc::clone(&choices);
    let recorder = Recorder::new(Box::new(guided), move |choice| {
        log.borrow_mut().insert(choice);
    });
    let recorder = recorder.after(subject.asked_before());
    let outcome = subject.run(Box::new(recorder));
    (outcome, choices.take(), asked.questions())
}

/// Each run that departs once more, after all its departures so far: so none is made twice.
fn depart_further(
    waiting: &mut [VecDeque<Departures>],
    cost: usize,
    departures: &Departures,
    questions: &[Question],
) {
    let first = departures.last().map_or(0, |(number, _)| number + 1);
    for (number, question) in questions.iter().enumerate().skip(first) {
        let Some(queue) = waiting.get_mut(cost + usize::from(question.counts)) else { continue };
        for answer in 1..question.n {
            let mut further = departures.clone();
            further.push((number, answer));
            queue.push_back(further);
        }
    }
}
