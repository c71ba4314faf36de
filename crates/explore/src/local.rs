//! The runs of a search, made where it is called, one after the other.
//!
//! Runs of a subtree often begin alike, for long: then what they have in common is run once, and each begins behind it.

use std::cell::RefCell;
use std::rc::Rc;

use engine::Chooser;

use crate::choice::Choices;
use crate::guided::{Asked, Guided};
use crate::places::Places;
use crate::recorder::{Notes, Recorder};
use crate::remarks::Remark;
use crate::schedule::{Departures, Schedule};
use crate::search::{Bounds, Ran, Runner, Subject};
use crate::shared::Shared;
use crate::subtree::Subtree;

/// Makes runs where it is called.
pub struct Local<'s, S, W> {
    subject: &'s mut S,
    bounds: Bounds,
    wanted: W,
    subtrees: Vec<Beginning>,
    /// What runs have returned of places so far.
    seen: Places,
    /// The subtree whose runs are made now.
    subtree: Option<usize>,
    checkpoint: Option<PrefixCheckpoint>,
    /// What the last run has said.
    remarks: Vec<(Remark, Choices)>,
}

/// How the runs of a subtree begin.
struct Beginning {
    /// With what, if that is known.
    stem: Option<(Departures, usize)>,
    /// Where they are asked.
    places: Places,
    /// Whether the states in which they are asked are needed.
    compared: bool,
}

/// What was answered before the question where runs begin.
struct PrefixCheckpoint {
    /// How many of a run's departures lie before it.
    departures: usize,
    guided: Guided,
    notes: Notes,
    choices: Choices,
}

/// The choices of a run, while it is made.
type Log = Rc<RefCell<Choices>>;

fn recorder(policy: Box<dyn Chooser>, log: &Log) -> Recorder {
    let log = Rc::clone(log);
    Recorder::new(policy, move |choice| {
        log.borrow_mut().insert(choice);
    })
}

impl<'s, S: Subject, W: FnMut(&S::Outcome) -> bool> Local<'s, S, W> {
    /// Runs `subject`, as a search within `bounds` does; `wanted` says of a run whether it was looked for.
    pub fn new(subject: &'s mut S, bounds: Bounds, wanted: W) -> Self {
        let (subtrees, seen) = (Vec::new(), Places::default());
        Self { subject, bounds, wanted, subtrees, seen, subtree: None, checkpoint: None, remarks: Vec::new() }
    }

    /// Goes to where the runs of this subtree begin.
    fn stand(&mut self, subtree: usize) {
        self.subject.begin_anew();
        (self.subtree, self.checkpoint) = (Some(subtree), None);
        let Some(Beginning { stem, places, compared }) = self.subtrees.get_mut(subtree) else { return };
        self.subject.compare(*compared);
        self.subject.watch(places);
        let Some((departures, first)) = stem.take() else { return };
        let (length, asked, log) = (departures.len(), Asked::default(), Log::default());
        let Bounds { faults, instructions, .. } = self.bounds;
        let guided = Shared::new(Guided::new(departures, asked.clone(), faults, instructions));
        let recorder = recorder(Box::new(guided.clone()), &log).after(self.subject.asked_before());
        let recorder = Shared::new(recorder);
        let mut here = |question: &_| asked.count() == first && guided.borrow().may_number(question);
        if self.subject.begin_at(Box::new(recorder.clone()), &mut here) {
            let (guided, _) = guided.borrow().then(Departures::new());
            let notes = recorder.borrow().notes();
            self.checkpoint =
                Some(PrefixCheckpoint { departures: length, guided, notes, choices: log.take() });
        }
    }

    /// What was learned of places and not returned yet.
    fn new_places(&mut self) -> Places {
        if !self.bounds.learns() {
            return Places::default();
        }
        let new = self.subject.learned().without(&self.seen);
        self.seen.add(&new);
        new
    }

    fn run_once(&mut self, schedule: &Schedule) -> (Log, Asked, S::Outcome) {
        let log = Log::default();
        let (recorder, asked) = self.policy(schedule, &log);
        let outcome = self.subject.run(Box::new(recorder));
        (log, asked, outcome)
    }

    fn policy(&self, schedule: &Schedule, log: &Log) -> (Recorder, Asked) {
        match (schedule, &self.checkpoint) {
            (Schedule::Departing(departures), Some(checkpoint)) => {
                log.replace(checkpoint.choices.clone());
                let (guided, asked) = checkpoint.guided.then(departures[checkpoint.departures..].to_vec());
                (recorder(Box::new(guided), log).going_on(checkpoint.notes.clone()), asked)
            }
            (Schedule::Departing(departures), None) => {
                let asked = Asked::default();
                let Bounds { faults, instructions, .. } = self.bounds;
                let guided = Guided::new(departures.clone(), asked.clone(), faults, instructions);
                (recorder(Box::new(guided), log).after(self.subject.asked_before()), asked)
            }
            // A policy with too few seeds is refused before a search begins; here its first one serves.
            (Schedule::Seed(n), _) => {
                let first = self.bounds.policy.unwrap_or_default();
                let policy = first.later(*n).unwrap_or(first).at_script().chooser();
                (recorder(policy, log).after(self.subject.asked_before()), Asked::default())
            }
        }
    }
}

impl<S: Subject, W: FnMut(&S::Outcome) -> bool> Runner for Local<'_, S, W> {
    type Outcome = S::Outcome;

    fn begin(&mut self, subtrees: &[Subtree]) {
        let beginning = |subtree: &Subtree| Beginning {
            stem: subtree.stem(),
            places: subtree.places().clone(),
            compared: subtree.compared(),
        };
        self.subtrees = subtrees.iter().map(beginning).collect();
        self.subtree = None;
    }

    fn run(&mut self, subtree: usize, schedule: &Schedule) -> Ran<S::Outcome> {
        if self.subtree != Some(subtree) {
            self.stand(subtree);
        }
        let mut ran = self.run_once(schedule);
        if self.bounds.learns() && self.subject.must_learn_again() {
            self.stand(subtree); // what led there has taught too little, too: begins at the beginning
            ran = self.run_once(schedule);
        }
        let (log, asked, outcome) = ran;
        let choices =
            |remark: &Remark| if remark.text.is_some() { log.borrow().clone() } else { Choices::default() };
        let remarks = self.subject.remarks(&outcome).into_iter();
        self.remarks = remarks
            .map(|remark| (choices(&remark), remark))
            .map(|(choices, remark)| (remark, choices))
            .collect();
        if (self.wanted)(&outcome) {
            return Ran::Wanted(log.take(), outcome);
        }
        Ran::Usual(asked.questions(schedule.open_from()), self.new_places())
    }

    fn remarks(&mut self) -> Vec<(Remark, Choices)> {
        std::mem::take(&mut self.remarks)
    }
}
