//! Stories of exhaustive search over real machines: a bug that needs the right preemption is found, with its record, and code
//! that is right is right in every schedule within the bound.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use std::cell::RefCell;
use std::rc::Rc;

use dirql::explore::{self, Bounds, Choice, Choices, Counted, Replay, Searched, Subject};
use dirql::record::{Record, Recording};
use dirql::{Bench, Failure, Outcome, Play, Report, ScriptText};
use engine::{Chooser, Point};

use super::rig::lost_update::{BITS, BYTES, LOCKED, QUIET, QUIET_DPC, UNLOCKED};
use super::rig::{self, Buffer, driver, start};

fn bench() -> Bench {
    Bench::new().driver(driver("lost_update.sys")).processors(2)
}

fn play(script: &str) -> Play {
    ScriptText::typed(script).play().unwrap()
}

fn broken(report: &Report) -> bool {
    report.outcome() != Outcome::Clean
}

fn search(script: &str, bounds: &Bounds) -> Searched<Report> {
    search_on(|| bench().unobserved(), script, bounds)
}

fn search_on(bench: impl Fn() -> Bench, script: &str, bounds: &Bounds) -> Searched<Report> {
    search_for(broken, bench, script, bounds)
}

fn search_for(
    wanted: fn(&Report) -> bool,
    bench: impl Fn() -> Bench,
    script: &str,
    bounds: &Bounds,
) -> Searched<Report> {
    let searched = bench().search(&play(script), bounds, wanted).unwrap_or_else(|error| panic!("{error}"));
    let Searched { schedules, repeated, learned, complete, .. } = &searched;
    println!("{schedules:?} + {repeated} schedules, {learned} learned, complete: {complete}");
    searched
}

/// A whole run in which these choices are made; and again from its record, which must be the same.
fn recorded(script: &str, choices: &Choices) -> Report {
    let script = ScriptText::typed(script);
    let buffer = Buffer::default();
    let policy = Box::new(Replay::new(choices.clone()));
    let (bench, recording) =
        Recording::start(bench(), policy, "exhaustive:2", Some(&script), buffer.clone()).unwrap();
    let report = bench.run(Some(script.play().unwrap())).unwrap();
    recording.finish(&report).unwrap();
    let record = Record::parse("found", &buffer.text()).unwrap();
    assert_eq!(&record.choices, choices, "each choice found its question");
    let (bench, play, comparison) = record.bench(None, None, None).unwrap();
    let again = bench.run(play).unwrap();
    assert_eq!(comparison.difference(&again), None);
    report
}

#[test]
fn a_lost_update_is_found_with_two_preemptions_and_replays_from_its_record() {
    start(bench).finish().expect_clean();
    let usual = recorded(UNLOCKED, &Choices::default());
    usual.expect_clean();
    let searched = search(UNLOCKED, &Bounds::default());
    let (choices, report) = searched.found.as_ref().expect("a schedule loses an update");
    println!("found as schedule {}:\n{choices:#?}", searched.total());
    assert!(report.failure.is_some(), "{report}");
    let replayed = recorded(UNLOCKED, choices);
    assert_eq!(replayed.failure, report.failure);
}

#[test]
fn without_a_preemption_no_schedule_loses_an_update() {
    let searched = search(UNLOCKED, &Bounds { preemptions: 0, ..Bounds::default() });
    assert!(searched.complete && searched.found.is_none());
}

#[test]
fn increments_under_the_lock_are_right_in_every_schedule_with_one_preemption() {
    let searched = search(LOCKED, &Bounds { preemptions: 1, ..Bounds::default() });
    assert!(
        searched.complete && searched.found.is_none(),
        "{:?}",
        searched.found.map(|found| found.1.to_string())
    );
    assert!(searched.total() > 20, "{} schedules", searched.total());
}

const ONE: Bounds = Bounds {
    preemptions: 1,
    schedules: 100_000,
    faults: false,
    shared: true,
    cuts: false,
    instructions: false,
    policy: None,
};

/// What a run is known by.
fn seen(report: &Report) -> (Option<Failure>, u128, u128) {
    (report.failure.clone(), report.trace_hash, report.memory_hash)
}

/// Found with one preemption before a plain instruction, and replayed; and by how many runs: with what was learned, and between
/// any two instructions; to the first that loses an update, and all there are.
fn found_plainly(script: &str) -> [u64; 4] {
    let visible = search(script, &Bounds { shared: false, ..ONE });
    assert!(visible.complete && visible.found.is_none(), "no visible point stands between load and store");
    let shared = search_on(bench, script, &ONE);
    let (choices, report) = shared.found.as_ref().expect("a schedule loses an update");
    assert!(report.failure.is_some() && choices.len() == 1, "{choices:?}");
    assert!(choices.iter().all(|choice| matches!(choice, Choice::Before { .. })));
    assert_eq!(seen(&recorded(script, choices)), seen(report));
    let instructions = Bounds { instructions: true, ..ONE };
    let every = search(script, &instructions);
    assert!(every.found.is_some());
    let all = |bounds| search_for(|_| false, || bench().unobserved(), script, bounds).total();
    [shared.total(), every.total(), all(&ONE), all(&instructions)]
}

#[test]
fn an_update_that_two_threads_lose_between_plain_instructions_is_found_by_learning_where_they_meet() {
    assert_eq!(found_plainly(QUIET), [15, 55, 76, 502]);
}

#[test]
fn an_update_that_a_thread_and_a_dpc_lose_is_found_so() {
    assert_eq!(found_plainly(QUIET_DPC), [7, 105, 18, 208]);
}

/// A stack is spared until another flow reaches into it: the search that sees that makes the schedule again.
#[test]
fn an_update_of_a_threads_local_variable_that_a_dpc_reaches_is_found_so() {
    let bench = || Bench::new().driver(driver("lost_local.sys")).processors(2);
    let script = r"open \\.\DirqlLostLocal as a; ioctl a 0x222000 out 4 expect u32:0";
    let visible = search_on(bench, script, &Bounds { shared: false, ..ONE });
    assert!(visible.complete && visible.found.is_none(), "no visible point stands between load and store");
    found_at_a_plain_instruction(bench, script);
    let searched = search_for(|_| false, bench, script, &ONE);
    assert!(searched.complete && searched.learned >= 4, "each has a load and a store: {}", searched.learned);
}

#[test]
fn bits_of_one_byte_are_shared() {
    assert_eq!(found_plainly(BITS), [14, 21, 60, 470]);
}

#[test]
fn bytes_beside_each_other_are_not_shared_and_give_no_further_schedules() {
    let counts = |bounds| {
        let searched = search(BYTES, &bounds);
        assert!(searched.complete && searched.found.is_none());
        (searched.learned, searched.repeated, searched.schedules)
    };
    assert_eq!(counts(ONE), counts(Bounds { shared: false, ..ONE }));
}

#[test]
fn an_update_that_a_thread_and_an_interrupt_routine_lose_is_found_so() {
    let inf = rig::changed_inf("lost", "pciline.inf", |text| text.replace("pciline.sys", "pciline_lost.sys"));
    let bench = || Bench::new().driver(driver("pciline_lost.sys")).inf(&inf).device("pci9052").processors(2);
    let script = r"open \\.\PciLine0 as a overlapped
        open \\.\PciLine0 as b overlapped
        t: write a text:aaaa at 0
        u: write b text:bbbb at 8
        join t; join u
        ioctl a 0x226404 out 16 expect prefix u32:2 + u32:4";
    let shared = found_at_a_plain_instruction(bench, script);
    let every = search_on(bench, script, &Bounds { instructions: true, ..ONE });
    assert!(every.found.is_some());
    assert_eq!([shared, every.total()], [20, 43]);
}

/// Gives the usual answers until the machine has started; then those of this chooser.
#[derive(Clone)]
struct Later(Rc<RefCell<Box<dyn Chooser>>>);

impl Later {
    fn new() -> Self {
        Self(Rc::new(RefCell::new(Box::new(Counted::default()))))
    }
}

impl Chooser for Later {
    fn choose(&mut self, strand: u32, point: Point, n: u32) -> u32 {
        self.0.borrow_mut().choose(strand, point, n)
    }

    fn slice(&mut self, strand: u32, retired: u64) -> u64 {
        self.0.borrow_mut().slice(strand, retired)
    }

    fn next_strand(&mut self, strand: u32, point: Point, strands: &[u32]) -> u32 {
        self.0.borrow_mut().next_strand(strand, point, strands)
    }

    fn give_way(&mut self, strand: u32, point: Point, others: &[u32]) -> bool {
        self.0.borrow_mut().give_way(strand, point, others)
    }
}

/// A new machine for every run.
struct Afresh(&'static str);

impl Subject for Afresh {
    type Outcome = Report;

    fn run(&mut self, policy: Box<dyn Chooser>) -> Report {
        let later = Later::new();
        let machine = start(|| bench().chooser(later.clone()));
        later.0.replace(policy);
        machine.carry_out(Some(play(self.0)))
    }
}

#[test]
fn starting_again_finds_what_going_back_finds_event_by_event() {
    let bounds = Bounds { preemptions: 1, shared: false, ..Bounds::default() };
    let seen = |report: &Report| (report.trace_hash, report.memory_hash, report.outcome());
    let mut afresh = Vec::new();
    let counts = explore::search(&mut Afresh(UNLOCKED), &bounds, |report| {
        afresh.push(seen(report));
        false
    });
    let mut back = Vec::new();
    let searched = bench().search(&play(UNLOCKED), &bounds, |report| {
        back.push(seen(report));
        false
    });
    let searched = searched.unwrap();
    assert_eq!(searched.schedules, counts.schedules);
    assert!(counts.complete && searched.complete);
    // The first machine of each run has an empty cache, the one that is taken back a warm one.
    assert_eq!(afresh, back, "every schedule, in the same order, with the same events and memory");
    let lost = back.iter().filter(|(.., outcome)| *outcome == Outcome::Unexpected).count();
    assert!(lost > 0 && lost < back.len(), "{lost} of {} lose an update", back.len());
}

#[test]
fn a_checked_machine_is_searched_with_the_same_runs() {
    for (script, bounds) in
        [(UNLOCKED, Bounds { preemptions: 1, ..Bounds::default() }), (QUIET, ONE), (LOCKED, ONE)]
    {
        let runs = |checked| {
            let mut runs = Vec::new();
            let searched = bench().checked(checked).search(&play(script), &bounds, |report| {
                runs.push(seen(report));
                false
            });
            let Searched { schedules, repeated, learned, complete, .. } = searched.unwrap();
            (runs, schedules, repeated, learned, complete)
        };
        let fast = runs(false);
        assert!(fast.0.len() > 20);
        assert!(
            fast == runs(true),
            "the same schedules, in the same order, each with the same events and memory"
        );
        let found = |checked| {
            search_on(|| bench().checked(checked), script, &bounds)
                .found
                .map(|(choices, report)| (choices, seen(&report)))
        };
        assert_eq!(found(true), found(false));
    }
}

// ---- places where flows meet that are hard to see: `drivers/c/faulty/meetings.c` ----

fn meetings() -> Bench {
    Bench::new().driver(driver("meetings.sys")).processors(2)
}

/// Two requests at once, and one afterwards that must answer 0.
fn meeting(one: u32, other: u32, torn: u32) -> String {
    let code = |function: u32| 0x0022_2000 + 4 * function;
    format!(
        r"open \\.\DirqlMeetings as a
        open \\.\DirqlMeetings as b
        t: ioctl a {:#x}
        u: ioctl b {:#x}
        join t; join u
        ioctl a {:#x} out 4 expect u32:0",
        code(one),
        code(other),
        code(torn)
    )
}

const TELL_LOST: u32 = 0;
const ADD: u32 = 1;
const ADD_OFTEN: u32 = 2;
const WAIT_AND_ADD: u32 = 3;
const SAY_AND_ADD: u32 = 4;
const RENAME: u32 = 5;
const LOOK_UP: u32 = 6;
const TELL_TORN: u32 = 7;
const REPLACE: u32 = 8;
const USE: u32 = 9;

/// How many schedules there are with one preemption.
fn all(script: &str) -> u64 {
    let searched = search_for(|_| false, || meetings().unobserved(), script, &ONE);
    assert!(searched.complete);
    searched.total()
}

/// Clean when each runs until it blocks, found with one preemption before a plain instruction, and replayed. How many schedules that took.
fn found_at_a_plain_instruction(bench: impl Fn() -> Bench, script: &str) -> u64 {
    start(&bench).carry_out(Some(play(script))).expect_clean();
    let searched = search_on(&bench, script, &ONE);
    let (choices, report) = searched.found.as_ref().expect("a schedule shows it");
    assert!(choices.iter().any(|choice| matches!(choice, Choice::Before { .. })), "{choices:?}");
    let again = bench().chooser(Replay::new(choices.clone())).run(Some(play(script))).unwrap();
    assert_eq!(seen(&again), seen(report));
    searched.total()
}

#[test]
fn a_loop_that_goes_through_a_shared_place_thousands_of_times_does_not_keep_a_search_from_its_end() {
    let script = meeting(ADD_OFTEN, ADD, TELL_LOST);
    found_at_a_plain_instruction(meetings, &script);
    // 2,000 rounds with a load and a store each.
    let all = all(&script);
    assert!(all < 1000, "{all} schedules");
}

#[test]
fn a_thread_that_spins_on_two_shared_places_does_not_keep_a_search_from_its_end() {
    let script = meeting(WAIT_AND_ADD, SAY_AND_ADD, TELL_LOST);
    found_at_a_plain_instruction(meetings, &script);
    let all = all(&script);
    assert!(all < 1000, "{all} schedules");
}

#[test]
fn a_plain_load_is_shared_with_an_export_that_stores_there() {
    found_at_a_plain_instruction(meetings, &meeting(LOOK_UP, RENAME, TELL_TORN));
}

#[test]
fn a_use_after_free_of_one_schedule_is_found_by_a_checked_search_and_by_no_other() {
    let script = meeting(USE, REPLACE, TELL_LOST);
    start(|| meetings().checked(true)).carry_out(Some(play(&script))).expect_clean();
    let fast = search_on(meetings, &script, &ONE);
    assert!(fast.complete && fast.found.is_none(), "{:?}", fast.found.map(|found| found.1.to_string()));
    let checked = search_on(|| meetings().checked(true), &script, &ONE);
    let (choices, report) = checked.found.as_ref().expect("a schedule uses what is freed");
    assert_eq!(report.expect_verdict().rule, "use-after-free", "{report}");
    let again =
        meetings().checked(true).chooser(Replay::new(choices.clone())).run(Some(play(&script))).unwrap();
    assert_eq!(seen(&again), seen(report));
}
