//! Stories of memory that an application changes, or takes away, while a driver uses it (`drivers/c/fetch.c`): a length that the driver reads twice is found by a
//! search, and by hand; the same driver that takes it over first stays clean.

use dirql::explore::{Bounds, Choice, Choices};
use dirql::{Bench, Outcome, Play, Report, ScriptText};

use super::rig::{driver, start};

const TWICE: &str = "0x222003 in memory m";
const ONCE: &str = "0x222007 in memory m";
const PAUSE_TWICE: &str = "0x22200b in memory m";
const PAUSE_ONCE: &str = "0x22200f in memory m";
const UNGUARDED: &str = "0x222013 in memory m";
const DIRECT_TWICE: &str = "0x222015 out memory m";
const DIRECT_ONCE: &str = "0x222019 out memory m";
const PAUSE_DIRECT_TWICE: &str = "0x22201d out memory m";
const PAUSE_DIRECT_ONCE: &str = "0x222021 out memory m";

fn bench() -> Bench {
    Bench::new().driver(driver("fetch.sys")).checked(true)
}

/// A request with a message of 8 bytes, and what the application does meanwhile.
fn script(request: &str, meanwhile: &str, expect: &str) -> Play {
    let text = format!(
        r"open \\.\DirqlFetch as f
        memory m u32:8 + zero:60
        t: ioctl f {request} expect {expect}
        {meanwhile}
        join t"
    );
    ScriptText::typed(&text).play().unwrap()
}

fn run(request: &str, meanwhile: &str, expect: &str) -> Report {
    start(bench).carry_out(Some(script(request, meanwhile, expect)))
}

/// The application has the length changed by another thread, at any time.
fn race(request: &str) -> Play {
    script(request, "u: store m u32:60", "any")
}

fn searched(request: &str) -> Option<(Choices, Report)> {
    let bounds = Bounds { preemptions: 1, ..Bounds::default() };
    let searched = bench()
        .unobserved()
        .search(&race(request), &bounds, |report| report.outcome() != Outcome::Clean)
        .unwrap();
    assert!(searched.found.is_some() || searched.complete);
    searched.found
}

/// Runs clean as it usually goes; a search with one preemption shows the bug.
#[track_caller]
fn is_found(request: &str) {
    start(bench).carry_out(Some(race(request))).expect_clean();
    let (choices, report) = searched(request).expect("a schedule shows it");
    assert!(choices.iter().any(|choice| matches!(choice, Choice::Before { .. })), "{choices:?}");
    assert_eq!(report.expect_verdict().rule, "pool-overrun", "{report}");
}

#[track_caller]
fn stays_clean(request: &str) {
    start(bench).carry_out(Some(race(request))).expect_clean();
    let found = searched(request).map(|(choices, report)| format!("{choices:#?}\n{report}"));
    assert!(found.is_none(), "{}", found.unwrap_or_default());
}

#[test]
fn a_length_that_is_read_twice_by_an_applications_address_is_found_by_a_search() {
    is_found(TWICE);
}

/// Not: pool-overrun
#[test]
fn a_length_that_is_taken_over_first_stays_clean_in_every_schedule_with_one_preemption() {
    stays_clean(ONCE);
}

#[test]
fn a_length_that_is_read_twice_from_locked_pages_is_found_by_a_search() {
    is_found(DIRECT_TWICE);
}

#[test]
fn a_length_that_is_taken_over_first_from_locked_pages_stays_clean() {
    stays_clean(DIRECT_ONCE);
}

/// Not: user-memory-unguarded
#[test]
fn a_routine_that_copies_is_guarded_by_whatever_function_waits_for_it() {
    let text =
        "open \\\\.\\DirqlFetch as f\nmemory m u32:8 + zero:60\nioctl f 0x22202b in memory m expect bytes 1";
    let report = start(bench).carry_out(Some(ScriptText::typed(text).play().unwrap()));
    report.expect_clean();
    assert!(report.findings.is_empty(), "{report}");
    let gone = run("0x22202b in memory m", "unmap m", "any");
    gone.expect_clean();
}

/// What lies where the application says that data lies is data, though it has been looked at as something else before.
///
/// Not: double-fetch
#[test]
fn data_may_lie_over_the_offset_that_says_where_it_lies() {
    for offset in [0, 1, 2, 3, 8] {
        let text = format!(
            "open \\\\.\\DirqlFetch as f\nmemory m u32:{offset} + zero:60\nioctl f 0x222027 in memory m expect any"
        );
        let report = start(bench).carry_out(Some(ScriptText::typed(&text).play().unwrap()));
        report.expect_clean();
        assert!(report.findings.is_empty(), "{offset}: {report}");
    }
    let twice = run(TWICE, "", "bytes 8");
    assert!(twice.findings.iter().any(|finding| finding.rule == "double-fetch"), "{twice}");
}

#[test]
fn a_script_can_change_the_length_by_hand() {
    let change = "wait 1ms; store m u32:60";
    for twice in [PAUSE_TWICE, PAUSE_DIRECT_TWICE] {
        let report = run(twice, change, "any");
        assert_eq!(report.expect_verdict().rule, "pool-overrun", "{report}");
    }
    for once in [PAUSE_ONCE, PAUSE_DIRECT_ONCE] {
        run(once, change, "bytes 8").expect_clean();
    }
}

#[test]
fn memory_that_goes_away_is_an_exception_for_a_driver_that_expects_it_and_a_bug_check_for_one_that_does_not()
{
    let unmap = "wait 1ms; unmap m";
    run(PAUSE_ONCE, unmap, "STATUS_ACCESS_VIOLATION").expect_clean();
    let report = run(UNGUARDED, unmap, "any");
    assert_eq!(report.outcome(), Outcome::Broken, "{report}");
    assert_eq!(report.expect_verdict().bug_check.unwrap().parameters[0], 0xC000_0005, "{report}");
}

#[test]
fn pages_that_a_driver_has_locked_are_nobody_elses_when_the_application_takes_their_memory_away() {
    // What the application gets next does not lie in them.
    let unmap = "wait 1ms; unmap m; memory n u32:60 + zero:60";
    let report = run(PAUSE_DIRECT_ONCE, unmap, "bytes 8");
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    let report = run(PAUSE_DIRECT_TWICE, unmap, "bytes 8");
    report.expect_clean();
}

#[test]
fn a_test_in_rust_changes_and_unmaps_memory_too() {
    let machine = start(bench);
    let file = machine.open_overlapped(r"\\.\DirqlFetch").unwrap();
    let message = machine.memory(&[8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]).unwrap();
    let end = file.begin_device_control_in(0x0022_2007, (message, 64), (0, 0)).unwrap().wait().unwrap();
    assert_eq!((end.status, end.information), (0, 8));
    machine.store(message, &[12, 0, 0, 0]).unwrap();
    let end = file.begin_device_control_in(0x0022_2007, (message, 64), (0, 0)).unwrap().wait().unwrap();
    assert_eq!((end.status, end.information), (0, 12));
    assert!(machine.unmap(message).unwrap() && !machine.unmap(message).unwrap());
    let end = file.begin_device_control_in(0x0022_2007, (message, 64), (0, 0)).unwrap().wait().unwrap();
    assert_eq!(end.status, abi::NtStatus::ACCESS_VIOLATION.0);
    machine.finish().expect_clean();
}
