//! Threads that are held up until what is due next has come: what is started before all is ready for it, works until then. A driver that does so
//! (`drivers/c/early.c`) is found by a search, by random policies, and between any two instructions; the same in the right order is right.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use std::cell::RefCell;
use std::rc::Rc;

use dirql::explore::{Bounds, Choice, Choices, Policy, Replay, Searched};
use dirql::record::{Record, Recording};
use dirql::{Bench, Outcome, Play, Report, ScriptText};
use engine::{Chooser, Delay, DelayPlace, Point};

use super::rig::{self, Buffer, driver};

const INTERRUPT: u32 = 0x22_3880;
const CALL: u32 = 0x22_3884;
const TIMER: u32 = 0x22_3888;

fn bench() -> Bench {
    let folder = rig::folder("early");
    let inf = std::fs::read_to_string(driver("posted.inf")).unwrap().replace("posted.sys", "early.sys");
    std::fs::write(folder.join("early.inf"), inf).unwrap();
    Bench::new()
        .driver(driver("early.sys"))
        .inf(folder.join("early.inf"))
        .device("bench,pin=a,delay=10us")
        .processors(1)
}

fn script(code: u32, in_order: bool) -> String {
    let input = u32::from(in_order);
    format!("open \\\\.\\DirqlEarly as f\nioctl f {code:#x} in u32:{input} out 4 expect u32:1\nclose f")
}

fn play(script: &str) -> Play {
    ScriptText::typed(script).play().unwrap()
}

fn broken(report: &Report) -> bool {
    report.outcome() != Outcome::Clean
}

const ONE: Bounds = Bounds {
    preemptions: 1,
    schedules: 100_000,
    faults: false,
    shared: true,
    cuts: true,
    instructions: false,
    policy: None,
};

fn search(code: u32, in_order: bool, bounds: Bounds) -> Searched<Report> {
    bench().unobserved().search(&play(&script(code, in_order)), &bounds, broken).unwrap()
}

/// Recorded with these choices, and replayed from the record: it ends as it was found.
fn replays(code: u32, choices: &Choices, found: &Report) {
    let script = ScriptText::typed(&script(code, false));
    let buffer = Buffer::default();
    let policy = Box::new(Replay::new(choices.clone()));
    let (bench, recording) =
        Recording::start(bench(), policy, "exhaustive:1", Some(&script), buffer.clone()).unwrap();
    let report = bench.run(Some(script.play().unwrap())).unwrap();
    recording.finish(&report).unwrap();
    assert_eq!(report.failure, found.failure);
    let record = Record::parse("found", &buffer.text()).unwrap();
    assert_eq!(&record.choices, choices, "each choice found its question");
    let (bench, play, comparison) = record.bench(None, None, None).unwrap();
    assert_eq!(comparison.difference(&bench.run(play).unwrap()), None);
}

/// A search finds the wrong order by one delay, which replays, and nothing in the right one; so does one between any two instructions. Returns where
/// the thread was held up.
fn found(code: u32) -> DelayPlace {
    bench().run(Some(play(&script(code, false)))).unwrap().expect_clean();
    for instructions in [true, false] {
        let right = search(code, true, Bounds { instructions, ..ONE });
        assert!(
            right.complete && right.found.is_none(),
            "{:?}",
            right.found.map(|found| found.1.to_string())
        );
        let wrong = search(code, false, Bounds { instructions, ..ONE });
        let (choices, report) = wrong.found.as_ref().expect("the store comes too late");
        println!("{code:#x}: schedule {} of {:?}: {choices:?}", wrong.total(), wrong.schedules);
        replays(code, choices, report);
        if !instructions {
            let [Choice::Delay { at, .. }] = choices.iter().collect::<Vec<_>>()[..] else {
                panic!("{choices:?}")
            };
            return at.place;
        }
    }
    unreachable!("the search before visible instructions returns")
}

#[test]
fn what_an_interrupt_routine_is_to_find_comes_too_late_if_its_thread_is_held_up() {
    assert!(matches!(found(INTERRUPT), DelayPlace::Watched(_)), "before the store");
    let visible = search(INTERRUPT, false, Bounds { shared: false, ..ONE });
    assert!(visible.complete && visible.found.is_none(), "nothing visible stands between");
}

#[test]
fn a_thread_is_held_up_before_a_call_that_others_could_see() {
    assert!(matches!(found(CALL), DelayPlace::Call(_)), "before the call");
}

#[test]
fn what_a_timers_dpc_is_to_find_comes_too_late_if_its_thread_is_held_up() {
    assert!(matches!(found(TIMER), DelayPlace::Watched(_)), "before the store");
}

#[test]
fn random_policies_hold_a_thread_up_too() {
    for policy in ["random:1", "pct:1"] {
        let policy: Policy = policy.parse().unwrap();
        let bounds = Bounds { schedules: 2_000, policy: Some(policy), ..ONE };
        let searched = search(CALL, false, bounds);
        let (choices, report) = searched.found.as_ref().expect("one of 2,000 seeds");
        println!("schedule {}: {} choices", searched.total(), choices.len());
        replays(CALL, choices, report);
        let right = search(CALL, true, Bounds { schedules: 500, ..bounds });
        assert!(right.complete && right.found.is_none());
    }
}

/// Notes where it is asked whether a thread is held up, and says no.
#[derive(Clone, Default)]
struct Asked(Rc<RefCell<Vec<Delay>>>);

impl Chooser for Asked {
    fn choose(&mut self, _strand: u32, _point: Point, _n: u32) -> u32 {
        0
    }

    fn slice(&mut self, _strand: u32, _retired: u64) -> u64 {
        u64::MAX
    }

    fn delays(&mut self, _strand: u32, at: Delay) -> bool {
        self.0.borrow_mut().push(at);
        false
    }
}

/// How often threads could be held up in a run of this script.
fn asked(script: &str) -> usize {
    let chooser = Asked::default();
    bench().chooser(chooser.clone()).run(Some(play(script))).unwrap().expect_clean();
    chooser.0.borrow().len()
}

#[test]
fn no_thread_is_held_up_beyond_the_end_of_a_wait() {
    let alone = asked(&script(INTERRUPT, true));
    assert!((1..20).contains(&alone), "while the card's interrupt is due: {alone}");
    let beside = |time: &str| {
        let waits = format!("t: wait {time}\nwait 1us\nioctl");
        asked(&(script(INTERRUPT, true).replace("ioctl", &waits) + "\njoin t"))
    };
    assert_eq!(beside("5us"), 0, "the application's thread wakes first");
    assert_eq!(beside("1ms"), alone, "the interrupt comes first");
}
