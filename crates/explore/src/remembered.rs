//! A search that goes on where another has ended: what came of runs that were made before is remembered, and only the others are made.
//!
//! A search is a function of what comes of its runs. So nothing else is needed to continue it: it takes what is remembered instead of making
//! those runs, and comes to where it was. Runs are remembered by the places in which they were asked and by their schedules: how they were
//! divided then, and by how many workers they were made, does not matter. A run that was looked for ends a search, and is not remembered.

use std::collections::{BTreeMap, VecDeque};

use crate::choice::Choices;
use crate::places::Places;
use crate::remarks::Remark;
use crate::schedule::{Questions, Schedule};
use crate::search::{Ran, Runner, SoFar};
use crate::subtree::Subtree;

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    /// As [`Ran::Usual`].
    Usual(Questions, Places),
    /// As [`Ran::Lost`].
    Lost(String),
}

/// What a run has said besides.
type Said = Vec<(Remark, Choices)>;

/// What came of runs, and what they have said besides.
#[derive(Default)]
pub struct Memory(BTreeMap<String, BTreeMap<String, (Known, Said)>>);

impl Memory {
    /// This came of the run of that schedule, asked in these places. What was known of it is forgotten.
    pub fn add(&mut self, places: &Places, schedule: &Schedule, result: Known, said: Said) {
        self.0.entry(places.to_string()).or_default().insert(schedule.to_string(), (result, said));
    }

    /// How many runs are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the runs that a subtree begins with: it is over, or at one that is not known.
    fn take(&mut self, subtree: &mut Subtree) -> VecDeque<(Known, Said)> {
        let mut taken = VecDeque::new();
        let Some(known) = self.0.get_mut(&subtree.places().to_string()) else { return taken };
        while let Some(schedule) = subtree.schedule()
            && let Some((result, said)) = known.remove(&schedule.to_string())
        {
            // A search with fewer preemptions has not needed all states of its last runs.
            if matches!(&result, Known::Usual(questions, _) if !questions.suffice(subtree.compared())) {
                break;
            }
            match &result {
                Known::Usual(questions, _) => subtree.made(questions),
                Known::Lost(_) => subtree.pass(),
            };
            taken.push_back((result, said));
        }
        taken
    }
}

/// Makes those runs that are not remembered.
pub struct Remembering<'r, R: Runner + ?Sized> {
    runner: &'r mut R,
    memory: Memory,
    subtrees: Vec<Part>,
    /// What the last run has said, if it was remembered.
    said: Option<Said>,
}

/// A subtree: what is remembered of it, and which of the runner's subtrees makes what follows.
struct Part {
    remembered: VecDeque<(Known, Said)>,
    follows: usize,
}

impl<'r, R: Runner + ?Sized> Remembering<'r, R> {
    /// Makes what `memory` has not by `runner`.
    pub fn new(runner: &'r mut R, memory: Memory) -> Self {
        Self { runner, memory, subtrees: Vec::new(), said: None }
    }
}

impl<R: Runner + ?Sized> Runner for Remembering<'_, R> {
    type Outcome = R::Outcome;

    fn begin(&mut self, subtrees: &[Subtree]) {
        let mut rest = Vec::new();
        self.subtrees.clear();
        for subtree in subtrees {
            let mut subtree = subtree.clone();
            let remembered = self.memory.take(&mut subtree);
            self.subtrees.push(Part { remembered, follows: rest.len() });
            if subtree.schedule().is_some() {
                rest.push(subtree);
            }
        }
        if !rest.is_empty() {
            self.runner.begin(&rest);
        }
    }

    fn run(&mut self, subtree: usize, schedule: &Schedule) -> Ran<R::Outcome> {
        let Part { remembered, follows } = &mut self.subtrees[subtree];
        let Some((result, said)) = remembered.pop_front() else {
            self.said = None;
            return self.runner.run(*follows, schedule);
        };
        self.said = Some(said);
        match result {
            Known::Usual(questions, places) => Ran::Usual(questions, places),
            Known::Lost(why) => Ran::Lost(why),
        }
    }

    fn remarks(&mut self) -> Said {
        self.said.take().unwrap_or_else(|| self.runner.remarks())
    }

    fn came_to(&mut self, so_far: &dyn Fn() -> SoFar) {
        self.runner.came_to(so_far);
    }
}
