//! What a search concludes from equal histories, held against what happens: of all schedules of some small machines, any two runs that are asked in equal
//! states, behind their last departures, are asked the same from there on and end alike. And the check can fail: it does where conflicts are left out.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use dirql::Exploration;
use dirql::explore::{self, Bounds, Places, Subject};
use engine::{Chooser, Delay, Point, SLICE_END, Tracking};

use super::rig::outcome::{Answers, outcome};
use super::rig::small_machines::{SmallMachine, each_machine};

/// How the history of a question is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// As the machine says.
    Exactly,
    /// Wrongly: as if nothing conflicted, by how often each strand was asked.
    WithoutConflicts,
}

/// A question: by what its history is known, and what was asked.
#[derive(Clone, Copy)]
struct Asked {
    state: u64,
    what: u64,
}

/// What a run was asked, and how many questions there were up to its last departure.
#[derive(Clone, Default)]
struct Log {
    asked: Vec<Asked>,
    departed: usize,
    state: u64,
    times: BTreeMap<u32, u32>,
}

/// Asks its policy, and hears it.
struct Hears {
    policy: Box<dyn Chooser>,
    known: Known,
    log: Rc<RefCell<Log>>,
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

impl Hears {
    fn hear(&mut self, strand: u32, what: impl Hash, answer: u32) {
        let mut log = self.log.borrow_mut();
        let what = hash((strand, what));
        let state = match self.known {
            Known::Exactly => log.state,
            Known::WithoutConflicts => hash((&log.times, what)),
        };
        log.asked.push(Asked { state, what });
        *log.times.entry(strand).or_default() += 1;
        if answer > 0 {
            log.departed = log.asked.len();
        }
    }
}

impl Chooser for Hears {
    fn comes_to(&mut self, state: u64) {
        self.log.borrow_mut().state = state;
        self.policy.comes_to(state);
    }

    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        let answer = self.policy.choose(strand, point, n);
        if n > 1 && !point.0.starts_with("fault.") {
            self.hear(strand, (point.0, n), answer);
        }
        answer
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        self.policy.slice(strand, retired)
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        let answer = self.policy.next_strand(strand, point, strands);
        if strands.len() > 1 {
            self.hear(strand, (point.0, strands), answer);
        }
        answer
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        let yes = self.policy.give_way(strand, point, others);
        if point != SLICE_END {
            self.hear(strand, (point.0, others), yes.into());
        }
        yes
    }

    fn give_way_before(&mut self, strand: u32, retired: u64, instruction: u64, others: &[u32]) -> bool {
        let yes = self.policy.give_way_before(strand, retired, instruction, others);
        self.hear(strand, (instruction, others), yes.into());
        yes
    }

    fn delays(&mut self, strand: u32, at: Delay) -> bool {
        let yes = self.policy.delays(strand, at);
        self.hear(strand, format!("{:?}", at.place), yes.into());
        yes
    }
}

/// Each run from the script's beginning.
struct Compared<'e, 'm> {
    exploration: &'e mut Exploration<'m>,
    answers: Answers,
    known: Known,
    /// What came of the runs so far, since places were learned.
    runs: Vec<(Log, String)>,
}

impl Subject for Compared<'_, '_> {
    type Outcome = ();

    fn run(&mut self, policy: Box<dyn Chooser>) {
        let log = Rc::<RefCell<Log>>::default();
        let hears = Hears { policy, known: self.known, log: Rc::clone(&log) };
        let report = self.exploration.run(Box::new(hears));
        self.runs.push((log.take(), outcome(&report, &self.answers)));
    }

    fn must_learn_again(&mut self) -> bool {
        let again = self.exploration.must_learn_again();
        if again {
            self.runs.pop();
        }
        again
    }

    fn learned(&mut self) -> Places {
        self.exploration.learned().into_iter().collect()
    }

    fn watch(&mut self, places: &Places) {
        self.exploration.watch(&places.iter().collect::<Vec<_>>());
    }
}

/// Of a machine's schedules: how many states were come to again, and how many of those times it went on otherwise or ended otherwise.
fn compared(name: &str, preemptions: usize, known: Known) -> (u64, u64) {
    let machine = SmallMachine::named(name);
    let answers = Answers::default();
    let bench = machine.bench().unobserved().reader(answers.clone());
    let started = bench.start().unwrap();
    let bounds = Bounds { preemptions, schedules: 3_000, cuts: false, ..Bounds::default() };
    let runs = started.explore(&machine.play(), Tracking::Faults, |exploration| {
        exploration.learn();
        exploration.keep_history(true);
        let mut subject = Compared { exploration, answers, known, runs: Vec::new() };
        let searched = explore::search(&mut subject, &bounds, |()| false);
        assert!(searched.complete, "{name}: {:?}", searched.schedules);
        let repeated = usize::try_from(searched.repeated).unwrap();
        subject.runs.split_off(repeated)
    });
    let (mut first, mut again, mut differ) = (BTreeMap::new(), 0, 0);
    for (log, outcome) in runs.unwrap() {
        let mut rest = hash(&outcome);
        let mut ends = Vec::new();
        for asked in log.asked.iter().rev() {
            rest = hash((rest, asked.what));
            ends.push((asked.state, rest));
        }
        ends.reverse();
        let mut own = BTreeMap::new();
        for (state, rest) in &ends[log.departed..] {
            match first.get(state) {
                Some(of_first) => {
                    again += 1;
                    differ += u64::from(of_first != rest);
                }
                // A run may come to a state twice by itself.
                None => drop(own.entry(*state).or_insert(*rest)),
            }
        }
        first.extend(own);
    }
    println!("{name}: {again} times in a known state, {differ} times it went on otherwise");
    (again, differ)
}

fn holds(name: &str) {
    let preemptions = SmallMachine::named(name).preemptions;
    let (again, differ) = compared(name, preemptions, Known::Exactly);
    assert_eq!(differ, 0, "of {again} go on otherwise");
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*
    };
}

each_machine! { tests }

#[test]
fn with_a_preemption_more_it_holds_too() {
    for name in [
        "two_increments",
        "spin_lock",
        "local_variable",
        "double_fetch",
        "interrupt_routine",
        "cancel_queued",
        "tick_elsewhere",
        "interrupt_elsewhere",
    ] {
        let (again, differ) = compared(name, SmallMachine::named(name).preemptions + 1, Known::Exactly);
        assert!(again > 0 && differ == 0, "{name}: {differ} of {again} go on otherwise");
    }
}

#[test]
fn without_conflicts_it_does_not_hold() {
    for name in ["two_increments", "spin_lock", "cancel_race"] {
        let (again, differ) = compared(name, 1, Known::WithoutConflicts);
        assert!(again > 0 && differ > 0, "{name}: {differ} of {again} go on otherwise");
    }
}
