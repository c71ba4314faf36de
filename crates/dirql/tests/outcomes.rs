//! Small machines (`rig/small_machines.rs`), each searched in several ways that must come to the same set of outcomes: as usual and between any two
//! instructions, taken back and started anew. `docs/exploration.md` has the numbers; `agreeing.rs` of the command compares numbers of workers.
//!
//! The way that reduces nothing, between any two instructions, is what the others are held against. It is made for these machines
//! only: a larger one has too many schedules.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use dirql::Report;
use dirql::explore::{self, Bounds, Choices, Counted, Places, Recorder, Replay, Searched, Subject};
use engine::{Chooser, Tracking};

use super::rig::outcome::{Answers, outcome};
use super::rig::small_machines::{self, MACHINES, NAMES, SmallMachine, each_machine};

// ---- searches ----

impl SmallMachine {
    fn bounds(&self) -> Bounds {
        Bounds { preemptions: self.preemptions, ..Bounds::default() }
    }

    /// All outcomes, and how many schedules have them.
    fn outcomes(&self, bounds: Bounds) -> (BTreeSet<String>, u64) {
        self.outcomes_within(bounds)
            .unwrap_or_else(|made| panic!("{}: {made} schedules are not all", self.name))
    }

    /// The same, if there are not too many schedules.
    fn outcomes_within(&self, bounds: Bounds) -> Result<(BTreeSet<String>, u64), u64> {
        let (answers, mut outcomes) = (Answers::default(), BTreeSet::new());
        let bench = self.bench().unobserved().reader(answers.clone());
        let searched = bench.search(&self.play(), &bounds, |report| {
            outcomes.insert(outcome(report, &answers));
            false
        });
        let searched = searched.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let schedules = searched.schedules.iter().sum();
        if searched.complete { Ok((outcomes, schedules)) } else { Err(schedules) }
    }
}

/// The reductions lose no outcome and add none, and the search that does not learn loses those that it is known to lose.
fn in_each_way(name: &str) {
    let machine = SmallMachine::named(name);
    let (usual, cut) = machine.outcomes(machine.bounds());
    let (uncut, schedules) = machine.outcomes(Bounds { cuts: false, ..machine.bounds() });
    let (every, instructions) = machine.outcomes(Bounds { instructions: true, ..machine.bounds() });
    let (visible, _) = machine.outcomes(Bounds { shared: false, ..machine.bounds() });
    let line = line(machine, schedules, cut, instructions);
    println!("{line}\n{usual:#?}");
    assert_eq!(usual, uncut, "the cut at equal histories loses or makes up an outcome");
    assert_eq!(every.difference(&usual).collect::<Vec<_>>(), [""; 0], "the reductions lose these");
    assert_eq!(usual.difference(&every).collect::<Vec<_>>(), [""; 0], "the reductions make these up");
    assert!(visible.is_subset(&usual), "{visible:#?}");
    assert_eq!((usual.len(), visible.len()), (machine.outcomes, machine.visible));
    assert!(table().any(|written| written == line), "docs/exploration.md lacks\n{line}");
}

/// What the table of `docs/exploration.md` says of a machine.
fn line(machine: &SmallMachine, schedules: u64, cut: u64, instructions: u64) -> String {
    let SmallMachine { name, story, preemptions, outcomes, visible, .. } = machine;
    format!(
        "| `{name}` | {story} | {preemptions} | {outcomes} | {schedules} | {cut} | {instructions} | {visible} |"
    )
}

/// With a preemption more than the table has, as far as that is done within seconds.
fn one_more(name: &str) {
    let machine = SmallMachine::named(name);
    let bounds = Bounds { preemptions: machine.preemptions + 1, schedules: ONE_MORE, ..machine.bounds() };
    let Ok((uncut, schedules)) = machine.outcomes_within(Bounds { cuts: false, ..bounds }) else { return };
    let (usual, cut) = machine.outcomes(bounds);
    let line = format!("| `{name}` | {} | {schedules} | {cut} |", bounds.preemptions);
    println!("{line}");
    assert_eq!(usual, uncut, "the cut at equal histories loses or makes up an outcome");
    assert!(cut <= schedules);
    assert!(DOCUMENT.contains(&line), "docs/exploration.md lacks\n{line}");
}

/// At most so many schedules are compared with a preemption more.
const ONE_MORE: u64 = 2_500;

const DOCUMENT: &str = include_str!("../../../docs/exploration.md");

/// The lines of the machines at their own bounds.
fn table() -> impl Iterator<Item = &'static str> {
    let (_, section) = DOCUMENT.split_once("## Small machines whose outcomes are known").unwrap();
    let (section, _) = section.split_once("\nWith a preemption more").unwrap();
    section.lines().filter(|line| line.starts_with("| `"))
}

// ---- a new machine for each schedule ----

/// What a run is known by.
type Seen = (String, u128, u128);

/// Makes each run in a machine of its own, of which nothing was taken back before.
struct Afresh<'m> {
    machine: &'m SmallMachine,
    learns: bool,
    watched: Places,
    learned: BTreeSet<u64>,
    /// Of each run.
    seen: Vec<Seen>,
    /// Of the first run with each outcome.
    choices: BTreeMap<String, (Choices, Seen)>,
}

impl Subject for Afresh<'_> {
    type Outcome = ();

    fn run(&mut self, policy: Box<dyn Chooser>) {
        let (answers, start, log) =
            (Answers::default(), Counted::default(), Rc::<RefCell<Choices>>::default());
        let bench = self.machine.bench().chooser(start.clone()).reader(answers.clone());
        let machine = bench.start().unwrap();
        let noted = Rc::clone(&log);
        let recorder = Recorder::new(policy, move |choice| {
            noted.borrow_mut().insert(choice);
        });
        let recorder = recorder.after(start.asked());
        let explored = machine.explore(&self.machine.play(), Tracking::Faults, |exploration| {
            if self.learns {
                exploration.learn();
                exploration.watch(&self.watched.iter().collect::<Vec<_>>());
            }
            let report = exploration.run(Box::new(recorder));
            let seen = seen(&report, &answers);
            if self.learns && exploration.must_learn_again() {
                exploration.run(Box::new(Replay::new(log.borrow().clone())));
            }
            self.learned.extend(exploration.learned());
            seen
        });
        drop(machine);
        let seen = explored.unwrap();
        self.choices.entry(seen.0.clone()).or_insert_with(|| (log.borrow().clone(), seen.clone()));
        self.seen.push(seen);
    }

    fn learned(&mut self) -> Places {
        self.learned.iter().copied().collect()
    }

    fn watch(&mut self, places: &Places) {
        self.watched = places.clone();
    }
}

fn seen(report: &Report, answers: &Answers) -> Seen {
    (outcome(report, answers), report.trace_hash, report.memory_hash)
}

/// At most so many schedules, for those machines that have more.
const STARTS: u64 = 150;

/// Run by run, with the same events and memory; and so are whole runs by the choices of those that end differently.
fn back_and_afresh(name: &str) {
    let machine = SmallMachine::named(name);
    // What a run of a new machine teaches is known only when another one has made it again, and its states are those of the first.
    let bounds = Bounds { schedules: STARTS, cuts: false, ..machine.bounds() };
    let (answers, mut back) = (Answers::default(), Vec::new());
    let rewound = machine.bench().reader(answers.clone()).search(&machine.play(), &bounds, |report| {
        back.push(seen(report, &answers));
        false
    });
    let mut subject = Afresh {
        machine,
        learns: bounds.learns(),
        watched: Places::default(),
        learned: BTreeSet::new(),
        seen: Vec::new(),
        choices: BTreeMap::new(),
    };
    let afresh = explore::search(&mut subject, &bounds, |()| false);
    assert_eq!(counts(&rewound.unwrap()), counts(&afresh));
    assert!(
        back == subject.seen,
        "every schedule, in the same order, with the same outcome, events and memory"
    );
    for (choices, of_search) in subject.choices.values() {
        let answers = Answers::default();
        let bench = machine.bench().chooser(Replay::new(choices.clone())).reader(answers.clone());
        let report = bench.run(Some(machine.play())).unwrap();
        assert_eq!(&seen(&report, &answers), of_search, "{choices:?}");
    }
    println!("{} schedules, {} outcomes", back.len(), subject.choices.len());
}

fn counts<O>(searched: &Searched<O>) -> (&[u64], u64, usize, bool) {
    (&searched.schedules, searched.repeated, searched.learned, searched.complete)
}

// ---- the machines ----

macro_rules! tests {
    ($($name:ident)*) => {
        $(mod $name {
            #[test]
            fn has_the_same_outcomes_in_each_way() {
                super::in_each_way(stringify!($name));
            }

            #[test]
            fn has_the_same_outcomes_with_the_cut_and_without_with_a_preemption_more() {
                super::one_more(stringify!($name));
            }

            #[test]
            fn is_the_same_taken_back_and_started_anew() {
                super::back_and_afresh(stringify!($name));
            }
        })*
    };
}

each_machine! { tests }

#[test]
fn each_machine_has_its_tests_and_its_line_and_would_show_that_an_outcome_is_lost() {
    let named = || MACHINES.iter().map(|machine| machine.name);
    assert!(named().eq(NAMES.iter().copied()));
    assert!(table().map(|line| line.split('`').nth(1).unwrap()).eq(named()));
    assert!(MACHINES.iter().all(|machine| machine.outcomes > 1));
    // Without what is learned, outcomes of these are lost: so the comparison can fail.
    assert!(MACHINES.iter().filter(|machine| machine.visible < machine.outcomes).count() >= 5);
}

/// What was seen where the script expects another answer, of all outcomes; `` of those that are as it expects.
fn seen_instead(name: &str) -> Vec<String> {
    seen_instead_by(SmallMachine::named(name))
}

fn seen_instead_by(machine: &SmallMachine) -> Vec<String> {
    let (outcomes, _) = machine.outcomes(machine.bounds());
    let bytes = |outcome: &String| {
        let after = outcome.split("saw hex:").nth(1).unwrap_or_default();
        after.split(';').next().unwrap_or_default().to_owned()
    };
    outcomes.iter().map(bytes).collect::<BTreeSet<_>>().into_iter().collect()
}

/// As many are lost, or these bits are there: what the comments in `rig/small_machines.rs` derive.
#[test]
fn increments_and_bits_end_as_is_derived_by_hand() {
    assert_eq!(seen_instead("two_increments"), ["", "01000000"]);
    assert_eq!(seen_instead("three_increments"), ["", "01000000", "02000000"]);
    assert_eq!(seen_instead("two_bits"), ["", "01000000", "02000000"]);
    assert_eq!(seen_instead("spin_lock"), ["", "01000000", "ffffffff"]);
}

/// Bit 0: the one that raises the first flag has seen the second; bit 1: the other way round.
#[test]
fn none_of_two_that_raise_flags_sees_the_other_only_where_stores_are_late_and_no_barrier_stands_between() {
    let late = SmallMachine::named("late_flags");
    assert_eq!(seen_instead_by(late), ["", "01000000", "02000000"]);
    assert_eq!(
        seen_instead_by(&SmallMachine { platform: None, ..*late }),
        ["01000000", "02000000", "03000000"]
    );
    assert_eq!(seen_instead("firm_flags"), ["01000000", "02000000", "03000000"]);
    // What is checked is marked, as paged pool is: its stores are seen, too.
    for checked in [false, true] {
        let published = SmallMachine { checked, ..*SmallMachine::named("published_late") };
        assert_eq!(seen_instead_by(&published), ["", "02000000", "03000000"]);
    }
}

/// What has failed by the machine's end is not freed by one of the runs that begin there and used by the next.
#[test]
fn runs_that_begin_behind_a_failed_expectation_have_it_to_themselves() {
    let machine = SmallMachine {
        driver: "edu.sys",
        inf: Some("edu.inf"),
        card: Some("edu"),
        processors: 1,
        script: r"open \\.\Edu as e
t: ioctl e 0x223000 in u32:5 out 4
surprise-remove
join t; close e",
        ..small_machines::PLAIN
    };
    let (usual, _) = machine.outcomes(machine.bounds());
    assert!(usual.iter().any(|outcome| outcome.contains("STATUS_DEVICE_NOT_READY")), "{usual:#?}");
}
