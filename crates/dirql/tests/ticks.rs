//! A tick, or a card's interrupt, that another processor takes while a thread goes on: a timer that is cancelled, whose DPC runs there. A driver that does not
//! wait for it (`drivers/c/ticks.c`) is found by a search of two departures and by random policies; the same with the wait is right.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop where its ground gives way")]

use dirql::explore::{Bounds, Choice, Choices, Policy, Replay, Searched};
use dirql::record::{Record, Recording};
use dirql::{Bench, Outcome, Play, Report, ScriptText};

use super::rig::{Buffer, changed_inf, driver};

fn bench(processors: u32) -> Bench {
    let inf = changed_inf("ticks", "posted.inf", |text| text.replace("posted.sys", "ticks.sys"));
    let inf = Bench::new().driver(driver("ticks.sys")).inf(inf);
    inf.device("bench,pin=a,delay=10us").processors(processors)
}

/// The driver watches its card until its device is stopped, and waits for the DPC then, or does not.
fn script(waits: bool) -> String {
    let input = u32::from(waits);
    format!("open \\\\.\\DirqlTicks as f\nioctl f 0x2238a8 in u32:{input}\nclose f")
}

fn play(waits: bool) -> Play {
    ScriptText::typed(&script(waits)).play().unwrap()
}

fn broken(report: &Report) -> bool {
    report.outcome() != Outcome::Clean
}

fn search(processors: u32, waits: bool, bounds: Bounds) -> Searched<Report> {
    bench(processors).unobserved().search(&play(waits), &bounds, broken).unwrap()
}

fn within(preemptions: usize) -> Bounds {
    Bounds { preemptions, ..Bounds::default() }
}

fn by(policy: &str, schedules: u64) -> Bounds {
    let policy: Policy = policy.parse().unwrap();
    Bounds { schedules, policy: Some(policy), ..Bounds::default() }
}

fn all_are_clean(searched: &Searched<Report>) {
    let found = searched.found.as_ref().map(|(_, report)| report.to_string());
    assert!(searched.complete && found.is_none(), "{found:?}");
}

/// Recorded with these choices, and replayed from the record: it ends as it was found.
fn replays(choices: &Choices, found: &Report) {
    let script = ScriptText::typed(&script(false));
    let buffer = Buffer::default();
    let policy = Box::new(Replay::new(choices.clone()));
    let (bench, recording) =
        Recording::start(bench(2), policy, "exhaustive:2", Some(&script), buffer.clone()).unwrap();
    let report = bench.run(Some(script.play().unwrap())).unwrap();
    recording.finish(&report).unwrap();
    assert_eq!(report.failure, found.failure);
    let record = Record::parse("found", &buffer.text()).unwrap();
    assert_eq!(&record.choices, choices, "each choice found its question");
    let (bench, play, comparison) = record.bench(None, None, None).unwrap();
    assert_eq!(comparison.difference(&bench.run(play).unwrap()), None);
}

fn is_taken_elsewhere(choice: &Choice) -> bool {
    matches!(choice, Choice::Answer { point, .. } if point == "ke.taker")
}

#[test]
fn a_timer_is_cancelled_while_its_dpc_runs_on_another_processor() {
    bench(2).run(Some(play(false))).unwrap().expect_clean();
    let found = search(2, false, within(2));
    let (choices, report) = found.found.as_ref().expect("the DPC looks at registers that are unmapped");
    println!("schedule {} of {:?}: {choices:?}", found.total(), found.schedules);
    assert_eq!(report.verdict.as_ref().map(|verdict| verdict.rule), Some("device-memory-not-mapped"));
    assert!(choices.iter().any(|choice| is_taken_elsewhere(&choice)));
    replays(choices, report);
}

#[test]
fn it_takes_two_departures_and_two_processors() {
    all_are_clean(&search(2, false, within(1)));
    all_are_clean(&search(1, false, within(2)));
}

#[test]
fn who_waits_for_the_dpc_is_right_in_every_schedule() {
    all_are_clean(&search(2, true, within(2)));
}

#[test]
fn random_policies_have_another_processor_take_it_too() {
    for policy in ["random:1", "pct:1"] {
        let searched = search(2, false, by(policy, 3_000));
        let (choices, report) = searched.found.as_ref().expect("one of 3,000 seeds");
        println!("{policy}: schedule {}, {} choices", searched.total(), choices.len());
        replays(choices, report);
        all_are_clean(&search(2, true, by(policy, 500)));
    }
}
