//! Stories of a machine with a card that is taken back to choice points in the middle of kernel calls, by both ways of
//! finding out what was written.
//!
//! `DIRQL_ROUNDS` says how often (`cargo xtask rewind`: 10,000 times for each story).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may stop where its ground gives way")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use dirql::explore::Rng;
use dirql::{Bench, Error, Exploration, Machine, Mark, Play, Report, script};
use engine::{Chooser, Point, Question, Tracking, Turn};

use super::rig::kmdf::{OPEN_ECHO, stand_in};
use super::rig::{driver, start};

const TWO_WRITERS: &str = r#"open \\.\PciLine0 as a overlapped
open \\.\PciLine0 as b overlapped
thread one { write a text:aaaa at 0; read a 4 at 0 expect text:aaaa }
thread two { write b text:bbbb at 8; read b 4 at 8 expect text:bbbb }
join one; join two"#;

fn machine() -> Machine {
    start(|| Bench::new().driver(driver("pciline.sys")).inf(driver("pciline.inf")).device("pci9052"))
}

fn script(text: &str) -> Play {
    Play::new(script::parse("test", text).unwrap(), Path::new("")).unwrap()
}

/// Explores the two writers; a host that lacks a way of tracking says so, and the story is over.
fn explored<R>(tracking: Tracking, story: impl FnOnce(&mut Exploration<'_>) -> R) -> Option<R> {
    explored_on(machine(), TWO_WRITERS, tracking, story)
}

/// As [`explored`], of another machine and script.
fn explored_on<R>(
    machine: Machine,
    text: &str,
    tracking: Tracking,
    story: impl FnOnce(&mut Exploration<'_>) -> R,
) -> Option<R> {
    let result = match machine.explore(&script(text), tracking, story) {
        Err(Error::Host(why)) if tracking == Tracking::Userfault => {
            eprintln!("left out here: {why}");
            None
        }
        Err(error) => panic!("{error}\n{}", machine.finish()),
        Ok(result) => Some(result),
    };
    machine.finish().expect_clean();
    result
}

/// Small, fast, and the same everywhere.
#[derive(Clone)]
struct Random(Rng);

impl Chooser for Random {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        if point.0.starts_with("fault.") {
            return 0; // nothing fails that could succeed
        }
        u32::try_from(self.0.below(n.into())).unwrap()
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        1 + self.0.below(3000)
    }
}

fn rounds(default: u64) -> u64 {
    std::env::var("DIRQL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// What must be equal for two runs to be the same.
fn seen(report: &Report) -> (u128, u128, Vec<String>, u64) {
    report.expect_clean();
    (report.trace_hash, report.memory_hash, report.prints.clone(), report.sums.time)
}

fn the_same_answers_lead_to_the_same_run(machine: impl Fn() -> Machine, text: &str, tracking: Tracking) {
    let runs = explored_on(machine(), text, tracking, |exploration| {
        let mut runs = BTreeMap::new();
        for round in 0..rounds(60) {
            let seed = round % 12 + 1;
            let report = exploration.run(Box::new(Random(Rng::new(seed))));
            let first = runs.entry(seed).or_insert_with(|| seen(&report));
            assert_eq!(*first, seen(&report), "seed {seed}, round {round}");
        }
        runs
    });
    let Some(runs) = runs else { return };
    assert!(
        runs.values().map(|run| run.0).collect::<BTreeSet<_>>().len() > 6,
        "the policy makes a difference"
    );
    // A machine that was never taken back does the same.
    for (seed, run) in runs.iter().take(3) {
        let policy = Random(Rng::new(*seed));
        let alone = |exploration: &mut Exploration<'_>| seen(&exploration.run(Box::new(policy.clone())));
        assert_eq!(explored_on(machine(), text, tracking, alone).as_ref(), Some(run), "seed {seed}");
    }
}

#[test]
fn the_same_answers_lead_to_the_same_run_by_faults() {
    the_same_answers_lead_to_the_same_run(machine, TWO_WRITERS, Tracking::Faults);
}

#[test]
fn the_same_answers_lead_to_the_same_run_by_userfaultfd() {
    the_same_answers_lead_to_the_same_run(machine, TWO_WRITERS, Tracking::Userfault);
}

/// Of a client and its framework one is unloaded before the other, which has work to do then.
fn a_framework_and_its_client(tracking: Tracking) {
    let machine = || {
        let bench = || Bench::new().driver(driver("kmdf_echo.sys")).inf(driver("kmdf_echo.inf"));
        start(|| bench().framework(stand_in()))
    };
    let text = format!(
        "{OPEN_ECHO}
        thread one {{ ioctl e 0x222000 in u32:7 out 4 expect u32:7 }}
        thread two {{ ioctl e 0x222010 in u32:9 out 4 expect u32:9 }}
        join one; join two"
    );
    the_same_answers_lead_to_the_same_run(machine, &text, tracking);
}

#[test]
fn drivers_that_go_one_after_the_other_are_there_in_the_next_run_by_faults() {
    a_framework_and_its_client(Tracking::Faults);
}

#[test]
fn drivers_that_go_one_after_the_other_are_there_in_the_next_run_by_userfaultfd() {
    a_framework_and_its_client(Tracking::Userfault);
}

/// Marks in the middle of the run, one on the other; from each the machine goes on to the end at random and is taken
/// back, and there it is as it was, to the last byte.
fn a_tree_of_choices(tracking: Tracking) {
    let ends = explored(tracking, |exploration| {
        let mut random = Random(Rng::new(1));
        let mut ends = BTreeSet::new();
        let mut marks: Vec<(Mark, Question, u64)> = Vec::new();
        let mut turn = exploration.go();
        for step in 0..rounds(400) {
            let open = match turn {
                Turn::Ended(ref report) => {
                    ends.insert(seen(report).0);
                    None
                }
                Turn::Asked(question) => Some(question),
            };
            match open {
                Some(question) if marks.len() < 12 && random.0.below(6) == 0 => {
                    marks.push((exploration.mark().unwrap(), question, exploration.fingerprint()));
                    turn = exploration.answer(dirql::put(&question, &mut random));
                }
                Some(question) if random.0.below(40) != 0 => {
                    turn = exploration.answer(dirql::put(&question, &mut random));
                }
                _ if marks.is_empty() => {
                    exploration.restart();
                    turn = exploration.go();
                }
                _ => {
                    let length = marks.len() as u64;
                    marks.truncate(usize::try_from(1 + random.0.below(length)).unwrap());
                    let (mark, question, print) = marks.last().unwrap();
                    exploration.back(mark);
                    assert_eq!(exploration.fingerprint(), *print, "step {step}");
                    turn = Turn::Asked(*question);
                }
            }
        }
        for (mark, ..) in marks {
            exploration.forget(mark);
        }
        ends
    });
    assert!(ends.is_none_or(|ends| ends.len() > 3), "the ways on differ");
}

#[test]
fn a_tree_of_choices_is_walked_up_and_down_by_faults() {
    a_tree_of_choices(Tracking::Faults);
}

#[test]
fn a_tree_of_choices_is_walked_up_and_down_by_userfaultfd() {
    a_tree_of_choices(Tracking::Userfault);
}

#[test]
fn after_an_exploration_the_machine_is_as_it_was() {
    let machine = machine();
    let before = machine.now();
    machine
        .explore(&script(TWO_WRITERS), Tracking::Faults, |exploration| {
            exploration.run(Box::new(Random(Rng::new(5)))).expect_clean();
        })
        .unwrap();
    assert_eq!(machine.now(), before);
    assert!(machine.is_ready());
    machine.play(script(TWO_WRITERS)).unwrap();
    machine.finish().expect_clean();
}

/// Answers 0 to every question but one.
#[derive(Clone)]
struct Departing {
    at: usize,
    answer: u32,
    /// How many answers each question had so far.
    asked: Rc<RefCell<Vec<u32>>>,
}

impl Departing {
    fn new(at: usize, answer: u32) -> Self {
        Self { at, answer, asked: Rc::default() }
    }
}

impl Chooser for Departing {
    fn choose(&mut self, _strand: u32, point: Point, n: u32) -> u32 {
        if point.0.starts_with("fault.") {
            return 0;
        }
        let mut asked = self.asked.borrow_mut();
        asked.push(n);
        if asked.len() - 1 == self.at { self.answer.min(n - 1) } else { 0 }
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }
}

/// Every run that departs once from the default: the number of the question, the answer, and what came of it.
type Outcomes = BTreeMap<(usize, u32), (u128, u128, Vec<String>, u64)>;

/// Each from the beginning of the script.
fn by_restarting(exploration: &mut Exploration<'_>) -> Outcomes {
    let defaults = Departing::new(usize::MAX, 0);
    exploration.run(Box::new(defaults.clone())).expect_clean();
    let mut outcomes = Outcomes::new();
    for (at, n) in defaults.asked.take().into_iter().enumerate() {
        for answer in 1..n {
            let report = exploration.run(Box::new(Departing::new(at, answer)));
            outcomes.insert((at, answer), seen(&report));
        }
    }
    outcomes
}

/// Each from the question where it departs.
fn by_going_back(exploration: &mut Exploration<'_>) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let defaults = Departing::new(usize::MAX, 0);
    exploration.restart();
    let mut turn = exploration.go();
    while let Turn::Asked(question) = turn {
        let before = defaults.asked.borrow().len();
        let default = dirql::put(&question, &mut defaults.clone());
        let n = defaults.asked.borrow().get(before).copied().unwrap_or(1);
        if n > 1 {
            let mark = exploration.mark().unwrap();
            for answer in 1..n {
                let mut policy = Departing::new(usize::MAX, 0);
                let mut turn = exploration.answer(answer.into());
                while let Turn::Asked(question) = turn {
                    turn = exploration.answer(dirql::put(&question, &mut policy));
                }
                let Turn::Ended(report) = turn else { unreachable!() };
                outcomes.insert((before, answer), seen(&report));
                exploration.back(&mark);
            }
            exploration.forget(mark);
        }
        turn = exploration.answer(default);
    }
    outcomes
}

fn all_ways_to_explore_find_the_same(tracking: Tracking) {
    let Some(back) = explored(tracking, by_going_back) else { return };
    let restarted = explored(tracking, by_restarting).unwrap();
    assert!(back == restarted, "{} and {} outcomes", back.len(), restarted.len());
    let different = back.values().collect::<BTreeSet<_>>().len();
    assert!(different > 5, "{different} different outcomes of {} runs", back.len());
    // And a new machine for every run.
    for ((at, answer), expected) in back.iter().step_by(3) {
        let policy = Departing::new(*at, *answer);
        let run = explored(tracking, |exploration| seen(&exploration.run(Box::new(policy.clone()))));
        assert_eq!(run.as_ref(), Some(expected), "departing at {at} with {answer}");
    }
}

#[test]
fn by_going_back_or_by_starting_again_the_same_outcomes_are_found_by_faults() {
    all_ways_to_explore_find_the_same(Tracking::Faults);
}

#[test]
fn by_going_back_or_by_starting_again_the_same_outcomes_are_found_by_userfaultfd() {
    all_ways_to_explore_find_the_same(Tracking::Userfault);
}
