//! All runs within a bound: each departs from the default at other questions, those with fewer preemptions first. Or, by a
//! policy's seeds, so many runs of that policy.
//!
//! Where runs are made is a [`Runner`]'s business: one after the other here ([`Local`]), or some at a time in other processes. The
//! search takes what comes of them in an order that the runs alone decide, so it is the same. What a beginning is, and how it
//! is got back to, is the subject's business. A state that an earlier run came to is recognised where the subject says states ([`Bounds::cuts`]).
//!
//! Runs may teach of more places in which strands could give way. That is taken up when all runs of one cost are made, from
//! all of them together, and the search begins again with those: in which order they were made, and where, does not matter.

use engine::{Chooser, Question};

use crate::choice::{Choices, Occurrences};
use crate::local::Local;
use crate::places::Places;
use crate::policy::Policy;
use crate::remarks::{Remark, Remarks};
use crate::rounds::Search;
use crate::schedule::{Questions, Schedule};
use crate::subtree::Subtree;

/// Something that runs the same way each time the same questions get the same answers.
pub trait Subject {
    /// What comes of a run.
    type Outcome;

    /// Runs once, from the beginning, where it calls [`Chooser::script_begins`].
    fn run(&mut self, policy: Box<dyn Chooser>) -> Self::Outcome;

    /// Runs from the beginning, with `policy` answering, up to the first question of which `here` says so: from now on runs
    /// begin there, before the answer. False if it does not come to that: then they begin where runs begin.
    fn begin_at(&mut self, policy: Box<dyn Chooser>, here: &mut dyn FnMut(&Question) -> bool) -> bool {
        let _ = (policy, here);
        false
    }

    /// From now on runs begin at the beginning again.
    fn begin_anew(&mut self) {}

    /// What was asked before that beginning, of another policy, and is the same in every run. A record counts it in.
    fn asked_before(&self) -> Occurrences {
        Occurrences::default()
    }

    /// What the runs so far have taught of places in which strands could give way: it depends on these runs alone, and not on
    /// where they were asked.
    fn learned(&mut self) -> Places {
        Places::default()
    }

    /// From now on runs are asked in these places, of those that can be learned, and in no others.
    fn watch(&mut self, places: &Places) {
        let _ = places;
    }

    /// Whether the policies of runs hear, from now on, in which states they are asked ([`Chooser::comes_to`]), where the subject knows that.
    fn compare(&mut self, on: bool) {
        let _ = on;
    }

    /// Whether the last run has taught too little of places, and is to be made again from where runs begin: the same answers lead to the same
    /// outcome, and teach all.
    fn must_learn_again(&mut self) -> bool {
        false
    }

    /// What the run of this outcome says beside it: each remark once, and in full where none of this subject's runs has said it before.
    fn remarks(&mut self, outcome: &Self::Outcome) -> Vec<Remark> {
        let _ = outcome;
        Vec::new()
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
    /// Whether the subject learns in which further places strands see each other's work ([`Subject::learned`]), and is asked there. With
    /// [`Bounds::instructions`] it is anyway, and a policy is not.
    pub shared: bool,
    /// Whether a run is departed from no further where it comes to a state that an earlier one came to, by the same operations in another order of what does
    /// not conflict. Only where runs teach of places ([`Bounds::learns`]).
    pub cuts: bool,
    /// Whether a strand may give way between any two instructions, and not before visible ones only.
    pub instructions: bool,
    /// Not all runs, but those of this policy, by its seed and as many that follow it as there may be runs. The bounds
    /// above but [`Bounds::schedules`] do not matter then.
    pub policy: Option<Policy>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            preemptions: 2,
            schedules: 100_000,
            faults: false,
            shared: true,
            cuts: true,
            instructions: false,
            policy: None,
        }
    }
}

impl Bounds {
    /// Whether runs teach of places.
    #[must_use]
    pub fn learns(&self) -> bool {
        self.shared && !self.instructions && self.policy.is_none()
    }

    /// Whether runs are compared by the states that they come to.
    #[must_use]
    pub fn compares(&self) -> bool {
        self.cuts && self.learns()
    }
}

/// What a search has done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Searched<O> {
    /// How many runs were made with 0, 1, … preemptions, once all places were known.
    pub schedules: Vec<u64>,
    /// How many were made before, and are made again with more questions.
    pub repeated: u64,
    /// How many places were learned.
    pub learned: usize,
    /// Whether there is no other run within the preemption bound, or of the policy.
    pub complete: bool,
    /// The first run that was looked for: its choices, and what came of it.
    pub found: Option<(Choices, O)>,
    /// Runs of which nothing came, in their order. They are not counted above, and nothing below them was searched.
    pub lost: Vec<Lost>,
    /// What runs said besides, whatever came of them; that of [`Searched::repeated`] ones counts, too.
    pub remarks: Remarks<Choices>,
    /// What is known to be left, where the search has ended before it was complete.
    pub not_tried: NotTried,
}

/// Schedules that a search has not tried.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NotTried {
    /// How many are known with 0, 1, … preemptions. From each of them others depart, which are known when it is made.
    pub known: Vec<u64>,
    /// How many there are about, those included that are known; none where that cannot be said: too few were tried, or the search begins again first.
    /// `docs/exploration.md` says what is assumed.
    pub estimated: Option<Vec<u64>>,
    /// Whether places were learned that no run was asked in: the search begins again with them.
    pub begins_again: bool,
}

impl NotTried {
    /// Whether anything is left.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.begins_again || self.known.iter().any(|count| *count > 0)
    }
}

/// How far a search has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SoFar {
    /// How many runs were tried, those included of which nothing came.
    pub tried: u64,
    /// How many preemptions those have that are tried now.
    pub cost: usize,
    /// How many remarks there are.
    pub remarks: usize,
    /// What is left.
    pub not_tried: NotTried,
}

/// A run of which nothing came: where it was made died of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The how many-th run of the search it was, from 1.
    pub number: u64,
    /// How it should have gone.
    pub schedule: Schedule,
    /// What is known.
    pub why: String,
}

impl<O> Searched<O> {
    /// How many runs were made.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.repeated + self.schedules.iter().sum::<u64>()
    }

    /// The same, with the outcome that was found converted.
    #[must_use]
    pub fn map<T>(self, tell: impl FnOnce(O) -> T) -> Searched<T> {
        let Self { schedules, repeated, learned, complete, found, lost, remarks, not_tried } = self;
        let found = found.map(|(choices, outcome)| (choices, tell(outcome)));
        Searched { schedules, repeated, learned, complete, found, lost, remarks, not_tried }
    }

    /// How many runs were tried, those included of which nothing came.
    #[must_use]
    pub fn tried(&self) -> u64 {
        self.total() + u64::try_from(self.lost.len()).unwrap_or(u64::MAX)
    }
}

/// What came of one run of a search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ran<O> {
    /// Nothing that was looked for: these are the questions behind its last departure, and what it has taught that no run
    /// before it did, where it was made.
    Usual(Questions, Places),
    /// What was looked for.
    Wanted(Choices, O),
    /// Nothing: where it was made died of it, and this is known.
    Lost(String),
    /// No run can be made.
    Refused,
}

/// Where the runs of a search are made.
pub trait Runner {
    /// What comes of a run that was looked for.
    type Outcome;

    /// All these subtrees are to be made, and are asked for one by one from now on. A search that ends does not ask for the rest.
    fn begin(&mut self, subtrees: &[Subtree]) {
        let _ = subtrees;
    }

    /// What came of the next run of the `subtree`th of them, which is of this schedule.
    fn run(&mut self, subtree: usize, schedule: &Schedule) -> Ran<Self::Outcome>;

    /// What that run has said besides; the choices are the run's, where it says it in full.
    fn remarks(&mut self) -> Vec<(Remark, Choices)> {
        Vec::new()
    }

    /// After each run: how far the search has come, for those who look at it. It changes nothing of it.
    fn came_to(&mut self, so_far: &dyn Fn() -> SoFar) {
        let _ = so_far;
    }
}

/// Searches `subject` here, one run after the other, until `wanted` says of a run that it is the one.
pub fn search<S: Subject>(
    subject: &mut S,
    bounds: &Bounds,
    wanted: impl FnMut(&S::Outcome) -> bool,
) -> Searched<S::Outcome> {
    search_by(&mut Local::new(subject, *bounds, wanted), bounds)
}

/// Searches where `runner` makes the runs, until it says of one that it was looked for.
pub fn search_by<R: Runner + ?Sized>(runner: &mut R, bounds: &Bounds) -> Searched<R::Outcome> {
    Search::new(runner, bounds).made()
}

/// Makes the runs of a subtree, here, and tells what came of each, and what it has said besides. A run that was looked for is the last.
pub fn make_part<R: Runner + ?Sized>(
    mut subtree: Subtree,
    runner: &mut R,
    mut tell: impl FnMut(&Ran<R::Outcome>, Vec<(Remark, Choices)>),
) {
    runner.begin(std::slice::from_ref(&subtree));
    while let Some(schedule) = subtree.schedule() {
        let ran = runner.run(0, schedule);
        tell(&ran, runner.remarks());
        let Ran::Usual(questions, _) = ran else { return };
        subtree.made(&questions);
    }
}
