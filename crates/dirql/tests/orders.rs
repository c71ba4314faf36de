//! Stories of locks that are acquired in orders which could end in a deadlock, and never do here (`drivers/c/orders.c`): one thread does one
//! thing after another, and dirql reports the inversion all the same, with the moments of both orders.

use std::path::Path;

use dirql::{Bench, Moments, Play, Report, explain, script};
use kernel::verdict::{Tier, Verdict};
use kernel::verifier::{Verifier, VerifierOption};

use super::rig::{self, driver, start};

const RULE: &str = "lock-order-inversion";
const DEVICE: &str = r"\\.\DirqlOrders";

fn bench() -> Bench {
    Bench::new().driver(driver("orders.sys")).processors(1)
}

fn text(story: &str) -> String {
    format!(r"open {DEVICE} as o; {}", rig::command("o", story))
}

fn carry_out(bench: fn() -> Bench, story: &str) -> Report {
    let machine = start(bench);
    // What stops the machine stands in the report.
    let _ = rig::try_play(&machine, &text(story));
    machine.finish()
}

fn only_finding(report: &Report) -> &Verdict {
    assert!(report.verdict.is_none() && report.failure.is_none(), "{report}");
    assert_eq!(report.findings.len(), 1, "{report}");
    assert_eq!(report.findings[0].rule, RULE, "{report}");
    &report.findings[0]
}

/// Each order that is inverted, and whether Driver Verifier would stop for it.
const INVERSIONS: [(&str, bool); 15] = [
    ("SpinLocks", true),
    ("ThreeSpinLocks", true),
    ("QueuedSpinLocks", true),
    ("SpinLocksAtDispatch", true),
    ("SpinLocksInDpc", true),
    ("CancelSpinLock", true),
    ("AfterTrying", true),
    ("ReaderWriterSpinLocks", false),
    ("FastMutexes", true),
    ("GuardedMutexes", true),
    ("Mutexes", true),
    ("MutexAndFastMutex", true),
    ("PushLocks", false),
    ("Resources", false),
    ("ResourceAndMutex", false),
];

#[test]
fn an_order_that_is_inverted_is_reported_though_nothing_waits() {
    for (story, verifiers) in INVERSIONS {
        let report = carry_out(bench, story);
        let found = only_finding(&report);
        let tier = if verifiers { Tier::Verifier } else { Tier::Warning };
        assert_eq!(found.tier, tier, "{story}\n{report}");
        assert_eq!(found.bug_check.map(|check| check.parameters[0]), verifiers.then_some(0x1001), "{report}");
        let moments = if story == "ThreeSpinLocks" { 5 } else { 3 };
        assert_eq!(found.related.len(), moments, "{story}\n{report}");
    }
}

#[test]
fn with_deadlock_detection_it_stops_the_machine() {
    let verified = || bench().verifier(Verifier::NONE.with(VerifierOption::Deadlock));
    let report = carry_out(verified, "FastMutexes");
    let verdict = report.expect_verdict();
    assert_eq!((verdict.rule, verdict.tier), (RULE, Tier::Error), "{report}");
    let report = carry_out(verified, "Resources");
    assert_eq!(only_finding(&report).tier, Tier::Warning, "Verifier does not know resources\n{report}");
}

/// Not: lock-order-inversion
#[test]
fn what_cannot_end_in_a_deadlock_is_no_inversion() {
    let stories = ["OneOrder", "TriedLast", "UnderAGate", "OnlyShared", "OtherLocks", "HandOverHand"];
    for processors in [1, 4] {
        for story in stories {
            let machine = start(|| bench().processors(processors));
            rig::tell(machine, DEVICE, story, 1, &format!("on {processors} processors"));
        }
    }
}

#[test]
fn the_same_in_a_checked_machine_and_one_with_a_reader_of_everything() {
    let checked = || bench().checked(true);
    for (story, _) in INVERSIONS {
        only_finding(&carry_out(checked, story));
    }
}

#[test]
fn both_orders_come_with_their_stacks() {
    let source = include_str!("../../../drivers/c/orders.c");
    let play = || Play::new(script::parse("test", &text("FastMutexes")).unwrap(), Path::new("")).unwrap();
    let report = bench().run(Some(play())).unwrap();
    let message = &only_finding(&report).message;
    assert!(message.contains("orders.sys!FastA") && message.contains("orders.sys!FastB"), "{message}");
    let moments = Moments::of(&report).unwrap_or_else(|| panic!("no moments\n{report}"));
    let text_of_both = explain(bench(), Some(play()), &moments).unwrap().unwrap().to_string();
    let line = |nth: usize| {
        let mut lines =
            source.lines().enumerate().filter(|(_, line)| line.contains("ExAcquireFastMutex(&Fast"));
        let (index, _) = lines.nth(nth).unwrap();
        format!("orders.c:{})", index + 1)
    };
    // The two of the first order, and the lock that is held now; where the other one is acquired is the finding's own stack.
    for nth in 0..3 {
        assert!(text_of_both.contains(&line(nth)), "{nth}\n{text_of_both}");
    }
    assert!(text_of_both.contains("elsewhere acquired first at (event "), "{text_of_both}");
}
