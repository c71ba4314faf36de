//! A card that answers late, in parts, in another order: choices of the policy, where the card's keys `late` and `pieces` let it. A compiled driver
//! (`drivers/c/late.c`) that waits for the card is right whatever is chosen; one that does not is right by default, and found by a search.

use dirql::explore::{Bounds, Choices, Policy, Replay, Searched};
use dirql::record::{Record, Recording};
use dirql::{Bench, Outcome, Play, Report, ScriptText};

use super::rig::{self, Buffer, driver, start};

/// Kinds of `late.c`.
const PUT_EARLY: u32 = 1;
const FREE_EARLY: u32 = 2;
const READ_EARLY: u32 = 3;

const LATE: &str = "bench,dma=10us,late=6,pieces=3";
const IN_TIME: &str = "bench,dma=10us";

/// A write and a read are under way at once, of two pages each.
const BOTH: &str = r"open \\.\DirqlLate as f overlapped
    async w write f hex:11_22_33_44 + zero:8000
    async r read f 8004
    join w
    join r
    async w write f hex:55_66_77_88 + zero:8000
    join w
    async r read f 8004
    join r expect prefix hex:55_66_77_88 and bytes 8004
    close f";

fn bench(card: &str) -> Bench {
    Bench::new().driver(driver("late.sys")).inf(driver("late.inf")).device(card)
}

fn play(script: &str) -> Play {
    ScriptText::typed(script).play().unwrap()
}

/// A read that makes a mistake of this kind.
fn misusing(kind: u32) -> String {
    format!(
        r"open \\.\DirqlLate as f overlapped
        async w write f hex:11_22_33_44 + zero:8000
        join w
        ioctl f 0x223800 in u32:{kind}
        async r read f 8004
        join r
        close f"
    )
}

#[test]
fn a_driver_that_waits_for_the_card_is_right_however_late_and_in_whatever_order_it_answers() {
    for card in [IN_TIME, LATE] {
        for checked in [false, true] {
            let machine = start(|| bench(card).checked(checked));
            rig::play(&machine, BOTH);
            rig::finish(machine);
        }
    }
    for seed in rig::seeds(30) {
        let machine = start(|| bench(LATE).checked(seed % 4 == 0).policy(Policy::random(seed)));
        rig::play(&machine, BOTH);
        rig::finish(machine);
    }
}

#[test]
fn either_of_two_transfers_that_are_under_way_may_be_over_first() {
    let first = |policy: Policy| {
        let machine = start(|| bench("bench,dma=10us,late=6").policy(policy));
        rig::play(
            &machine,
            r"open \\.\DirqlLate as f overlapped
            async w write f zero:4096
            async r read f 4096
            join w
            join r
            close f",
        );
        let first = machine.prints().into_iter().find(|line| line.starts_with("late: ")).unwrap();
        rig::finish(machine);
        first
    };
    assert_eq!(first(Policy::default()), "late: written");
    let firsts: std::collections::BTreeSet<String> =
        (1..=20).map(|seed| first(Policy::random(seed))).collect();
    assert_eq!(firsts.into_iter().collect::<Vec<_>>(), ["late: read", "late: written"]);
}

fn broken(report: &Report) -> bool {
    report.outcome() != Outcome::Clean
}

const ONE: Bounds = Bounds {
    preemptions: 1,
    schedules: 10_000,
    faults: false,
    shared: false,
    cuts: true,
    instructions: false,
    policy: None,
};

fn search(card: &str, script: &str, bounds: &Bounds) -> Searched<Report> {
    bench(card).unobserved().search(&play(script), bounds, broken).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_driver_that_waits_is_right_in_every_schedule_with_one_departure() {
    let searched = search(LATE, BOTH, &ONE);
    let found = searched.found.as_ref().map(|found| found.1.to_string());
    assert!(searched.complete && found.is_none(), "{found:?}");
}

/// A whole run in which these choices are made; and again from its record, which must be the same.
fn recorded(script: &str, choices: &Choices) -> Report {
    let script = ScriptText::typed(script);
    let buffer = Buffer::default();
    let policy = Box::new(Replay::new(choices.clone()));
    let (bench, recording) =
        Recording::start(bench(LATE), policy, "exhaustive:2", Some(&script), buffer.clone()).unwrap();
    let report = bench.run(Some(script.play().unwrap())).unwrap();
    recording.finish(&report).unwrap();
    let record = Record::parse("found", &buffer.text()).unwrap();
    assert!(buffer.text().contains("device."), "{}", buffer.text());
    assert_eq!(&record.choices, choices, "each choice found its question");
    let (bench, play, comparison) = record.bench(None, None, None).unwrap();
    let again = bench.run(play).unwrap();
    assert_eq!(comparison.difference(&again), None);
    report
}

#[test]
fn a_driver_that_does_not_wait_is_right_by_default_and_is_found_by_a_search_with_both_sides() {
    for (kind, departures, unmapped) in [
        (PUT_EARLY, 1, "PutScatterGatherList"),
        (FREE_EARLY, 1, "FreeCommonBuffer"),
        // Parts, and their order.
        (READ_EARLY, 2, "PutScatterGatherList"),
    ] {
        let script = misusing(kind);
        for card in [IN_TIME, LATE] {
            let machine = start(|| bench(card));
            rig::play(&machine, &script);
            rig::finish(machine);
        }
        let none = search(IN_TIME, &script, &ONE);
        assert!(none.complete && none.found.is_none(), "kind {kind}: a card in time is never hurried");
        let searched = search(LATE, &script, &Bounds { preemptions: departures, ..ONE });
        let (choices, report) = searched.found.as_ref().unwrap_or_else(|| panic!("kind {kind} is not found"));
        let verdict = report.verdict.as_ref().unwrap_or_else(|| panic!("kind {kind}: {report}"));
        assert_eq!(verdict.rule, "dma-after-unmap", "kind {kind}: {report}");
        assert!(verdict.message.contains(unmapped) && verdict.message.contains("late.sys!"), "{report}");
        let related: Vec<_> = verdict.related.iter().map(|moment| moment.what).collect();
        assert_eq!(related, ["mapped", "unmapped"]);
        let replayed = recorded(&script, choices);
        assert_eq!(replayed.failure, report.failure);
    }
}
