//! All runs within a bound: each departs from the default at other questions, those with fewer preemptions first.
//!
//! A run is made again from its beginning for every schedule; what a beginning is, and how it is got back to, is the
//! subject's business. Nothing is taken back to the question where a schedule departs, and states that were seen before are
//! not recognised.

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
    /// Whether a strand may give way between any two instructions, and not before visible ones only.
    pub instructions: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { preemptions: 2, schedules: 100_000, faults: false, instructions: false }
    }
}

/// What a search has done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Searched<O> {
    /// How many runs were made with 0, 1, … preemptions.
    pub schedules: Vec<u64>,
    /// Whether there is no other run within the preemption bound.
    pub complete: bool,
    /// The first run that was looked for: its choices, and what came of it.
    pub found: Option<(Choices, O)>,
}

impl<O> Searched<O> {
    /// How many runs were made.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.schedules.iter().sum()
    }
}

/// Runs `subject` in every way within `bounds`, until `wanted` says of a run that it is the one.
pub fn search<S: Subject>(
    subject: &mut S,
    bounds: &Bounds,
    mut wanted: impl FnMut(&S::Outcome) -> bool,
) -> Searched<S::Outcome> {
    let mut waiting: Vec<VecDeque<Departures>> = vec![VecDeque::new(); bounds.preemptions + 1];
    waiting[0].push_back(Departures::new());
    let mut searched = Searched { schedules: vec![0; bounds.preemptions + 1], complete: false, found: None };
    while let Some(cost) = waiting.iter().position(|queue| !queue.is_empty()) {
        if searched.total() >= bounds.schedules {
            return searched;
        }
        let Some(departures) = waiting[cost].pop_front() else { break };
        let (outcome, choices, questions) = run(subject, bounds, &departures);
        searched.schedules[cost] += 1;
        if wanted(&outcome) {
            searched.found = Some((choices, outcome));
            return searched;
        }
        depart_further(&mut waiting, cost, &departures, &questions);
    }
    searched.complete = true;
    searched
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
