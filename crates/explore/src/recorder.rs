//! Any policy, with every answer of it that is not the default passed to a callback that keeps the record.

use std::collections::BTreeMap;

use engine::{Chooser, Delay, Point, SLICE_END};

use crate::choice::{Choice, Occurrences};

/// Answers as its policy does, and passes on what was answered.
pub struct Recorder {
    policy: Box<dyn Chooser>,
    tell: Box<dyn FnMut(Choice)>,
    notes: Notes,
}

/// What names the next choices.
#[derive(Clone, Default)]
pub(crate) struct Notes {
    asked: Occurrences,
    /// Where each strand's slice ends.
    slices: BTreeMap<u32, u64>,
}

impl Recorder {
    /// Records `policy`; each answer that is not the default goes to `tell`, in the order of the questions.
    #[must_use]
    pub fn new(policy: Box<dyn Chooser>, tell: impl FnMut(Choice) + 'static) -> Self {
        Self { policy, tell: Box::new(tell), notes: Notes::default() }
    }

    /// As [`Recorder::new`], for the rest of a run in which `asked` was asked before.
    #[must_use]
    pub fn after(mut self, asked: Occurrences) -> Self {
        self.notes.asked = asked;
        self
    }

    /// As [`Recorder::new`], for the rest of a run whose first subtree another one has recorded.
    pub(crate) fn going_on(self, notes: Notes) -> Self {
        Self { notes, ..self }
    }

    pub(crate) fn notes(&self) -> Notes {
        self.notes.clone()
    }

    fn note(&mut self, strand: u32, point: Point, answer: u32) {
        let occurrence = self.notes.asked.next(strand, point.0);
        if answer != 0 {
            (self.tell)(Choice::Answer { strand, point: point.0.to_owned(), occurrence, answer });
        }
    }
}

impl Chooser for Recorder {
    fn script_begins(&mut self) -> bool {
        self.policy.script_begins()
    }

    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        let answer = self.policy.choose(strand, point, n);
        self.note(strand, point, answer);
        answer
    }

    fn comes_to(&mut self, state: u64) {
        self.policy.comes_to(state);
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        let distance = self.policy.slice(strand, retired).max(1);
        self.notes.slices.insert(strand, retired.saturating_add(distance));
        distance
    }

    fn sees_interlocked(&self) -> bool {
        self.policy.sees_interlocked()
    }

    fn watches(&self) -> Vec<u64> {
        self.policy.watches()
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        let answer = self.policy.next_strand(strand, point, strands);
        self.note(strand, point, answer);
        answer
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        let yes = self.policy.give_way(strand, point, others);
        match (point, self.notes.slices.get(&strand)) {
            // A preemption is identified by its time: slices in which the strand did not give way need no line.
            (SLICE_END, Some(retired)) => {
                if yes {
                    (self.tell)(Choice::Preemption { strand, retired: *retired });
                }
            }
            _ => self.note(strand, point, yes.into()),
        }
        yes
    }

    fn give_way_before(&mut self, strand: u32, retired: u64, instruction: u64, others: &[u32]) -> bool {
        let yes = self.policy.give_way_before(strand, retired, instruction, others);
        if yes {
            // Known by its place, too: which other instructions were watched changes nothing.
            (self.tell)(Choice::Before { strand, retired, instruction });
        }
        yes
    }

    fn delays(&mut self, strand: u32, at: Delay) -> bool {
        let yes = self.policy.delays(strand, at);
        if yes {
            (self.tell)(Choice::Delay { strand, at });
        }
        yes
    }
}
