//! Subjects whose runs are paths of a tree that a function says: which question comes behind which answers.
#![allow(dead_code, reason = "each test file uses its part of it")]

use explore::{Chooser, Places, Point, Remark, Subject};

const FREE: Point = Point("tree.free");
const COUNTS: Point = Point("tree.counts");
const PLACE: u64 = 0x1000;

/// What comes behind some answers.
#[derive(Clone, Copy)]
pub(crate) enum Ask {
    /// Any of so many answers is free.
    Free(u32),
    /// All but the first of so many count.
    Counts(u32),
}

/// Such a subject.
#[derive(Clone)]
pub(crate) struct Tree {
    /// The question behind these answers; none at the end. Also gets whether the place is watched that runs teach.
    pub(crate) ask: fn(&[u32], bool) -> Option<Ask>,
    /// Which runs teach of that place.
    pub(crate) teaches: fn(&[u32]) -> bool,
    watched: bool,
    learned: bool,
    said: bool,
    /// How many runs it has made.
    pub(crate) runs: u64,
}

impl Tree {
    pub(crate) fn new(ask: fn(&[u32], bool) -> Option<Ask>, teaches: fn(&[u32]) -> bool) -> Self {
        Self { ask, teaches, watched: false, learned: false, said: false, runs: 0 }
    }
}

impl Subject for Tree {
    type Outcome = Vec<u32>;

    fn run(&mut self, mut policy: Box<dyn Chooser>) -> Vec<u32> {
        let mut answers = Vec::new();
        policy.script_begins();
        while let Some(ask) = (self.ask)(&answers, self.watched) {
            answers.push(match ask {
                Ask::Free(n) => policy.next_strand(0, FREE, &(0..n).collect::<Vec<_>>()),
                Ask::Counts(n) => policy.choose(0, COUNTS, n),
            });
        }
        self.learned |= (self.teaches)(&answers);
        self.runs += 1;
        answers
    }

    fn learned(&mut self) -> Places {
        self.learned.then_some(PLACE).into_iter().collect()
    }

    fn watch(&mut self, places: &Places) {
        self.watched = places.iter().any(|place| place == PLACE);
    }

    /// Of each run whose answers have a sum that five divides, the same.
    fn remarks(&mut self, answers: &Vec<u32>) -> Vec<Remark> {
        if answers.iter().sum::<u32>() % 5 != 3 {
            return Vec::new();
        }
        let text = (!std::mem::replace(&mut self.said, true)).then(|| "three".to_owned());
        vec![Remark { key: "3".to_owned(), text }]
    }
}
