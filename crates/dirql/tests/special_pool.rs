//! Stories of special pool that a compiled driver tells (`drivers/c/memory/special.h`): blocks on pages of their own, and accesses beyond them,
//! reported where they happen though no access is tested.

use dirql::explore::Policy;
use dirql::record::{Record, Recording};
use dirql::{Bench, Report, ScriptText, SpecialPool, Verifier, VerifierOption};

use super::rig::{self, driver, start};

const DEVICE: &str = r"\\.\DirqlMemory";

fn bench(whose: &str) -> Bench {
    Bench::new().driver(driver("memory.sys")).special_pool(whose.parse::<SpecialPool>().unwrap())
}

/// What comes of one of the driver's mistakes.
fn mistake(bench: impl Fn() -> Bench, number: u32) -> Report {
    let machine = start(bench);
    let made = rig::checks_made(&machine, DEVICE, "SpecialMistake", &number.to_le_bytes());
    let report = machine.finish();
    assert!(made.is_err() || report.verdict.is_none(), "mistake {number}: {report}");
    report
}

/// The rule that ends a run, and the code of its bug check.
type End = Option<(&'static str, u32)>;

fn end(report: &Report) -> End {
    report.verdict.as_ref().map(|verdict| (verdict.rule, verdict.bug_check.unwrap().code))
}

#[test]
fn correct_drivers_find_their_blocks_at_the_end_of_a_page_or_at_its_start_and_hear_nothing() {
    for (whose, how) in
        [("all", 0u32), ("start", 1), ("none", 2), ("M?m*", 0), ("Memy,start", 1), ("Oth*", 2), ("memy", 2)]
    {
        for checked in [false, true] {
            let machine = start(|| bench(whose).checked(checked));
            let made = rig::checks_made(&machine, DEVICE, "SpecialBlocks", &how.to_le_bytes());
            assert_eq!(made, Ok(10 * 3 + 2 + 2 + 1 + 2), "{whose}");
            rig::finish(machine);
        }
    }
}

/// Mistakes, and what ends them where blocks end with their page and where they begin with it.
const MISTAKES: [(u32, End, End); 9] = [
    (0, Some(("pool-overrun", 0xD6)), Some(("pool-overrun", 0xC1))),
    (1, Some(("pool-overrun", 0xD6)), None),
    (2, Some(("pool-overrun", 0xC1)), Some(("pool-overrun", 0xC1))),
    (3, Some(("pool-underrun", 0xC1)), Some(("pool-underrun", 0xD6))),
    (4, Some(("use-after-free", 0xD5)), Some(("use-after-free", 0xD5))),
    (5, Some(("use-after-free", 0xD5)), Some(("use-after-free", 0xD5))),
    (6, Some(("use-after-free", 0xCC)), Some(("use-after-free", 0xCC))),
    (7, Some(("pool-overrun", 0xD6)), Some(("pool-overrun", 0xD6))),
    (8, Some(("use-after-free", 0xD5)), Some(("use-after-free", 0xD5))),
];

#[test]
fn an_access_beyond_a_block_or_to_a_freed_one_is_told_where_it_happens() {
    for (number, at_end, at_start) in MISTAKES {
        for (whose, expected) in [("all", at_end), ("start", at_start)] {
            let report = mistake(|| bench(whose), number);
            assert_eq!(end(&report), expected, "mistake {number}, {whose}: {report}");
            let Some(verdict) = &report.verdict else { continue };
            assert!(verdict.message.contains("'Memy'"), "{report}");
            let at_once = verdict.bug_check.unwrap().code != 0xC1;
            let routine = verdict.stack.first().and_then(|line| report.symbols.name(line.address)).unwrap();
            let stands = ["Put", "Get", "SpecialMistake"].iter().any(|name| routine.contains(name));
            assert!(!at_once || stands, "mistake {number} stops in {routine}: {report}");
            let freed = verdict.rule == "use-after-free";
            let moments: Vec<&str> = verdict.related.iter().map(|related| related.what).collect();
            let expected: &[&str] = if freed { &["allocated", "freed"] } else { &["allocated"] };
            assert_eq!(moments, expected, "mistake {number}: {report}");
        }
    }
}

#[test]
fn without_special_pool_what_goes_beyond_a_block_is_seen_late_or_not_at_all() {
    let ends = [0, 1, 2, 3, 4].map(|number| end(&mistake(|| bench("none"), number)));
    let late = Some(("pool-overrun", 0x19));
    assert_eq!(ends, [late, None, late, Some(("pool-underrun", 0xC1)), None]);
}

/// More blocks than the host has areas for pages of their own (`drivers/c/memory/limits.h`).
#[test]
fn blocks_that_there_is_no_room_for_in_special_pool_lie_in_ordinary_pool() {
    let machine = start(|| bench("all").memory(64 << 20));
    let made = rig::checks_made(&machine, DEVICE, "MostPool", &[]);
    let report = machine.finish();
    assert_eq!(made, Ok(3), "{report}");
    report.expect_clean();
    let blocks = report.sums.tags.values().map(|sum| sum.allocated).max().unwrap();
    assert!(blocks > (64 << 20) / 4096, "{blocks} are more than there are pages\n{report}");
}

#[test]
fn verifiers_special_pool_is_the_same() {
    let verified = |option| move || bench("none").verifier(Verifier::NONE.with(option));
    assert_eq!(end(&mistake(verified(VerifierOption::SpecialPool), 1)), Some(("pool-overrun", 0xD6)));
    assert_eq!(end(&mistake(verified(VerifierOption::Io), 1)), None);
}

#[test]
fn a_checked_machine_tells_the_same_and_within_the_page_too() {
    for (number, at_end, _) in MISTAKES {
        let report = mistake(|| bench("all").checked(true), number);
        let expected = match number {
            2 => Some(("pool-overrun", 0xD6)),
            3 => Some(("pool-underrun", 0xC1)),
            _ => at_end,
        };
        assert_eq!(end(&report), expected, "mistake {number}: {report}");
    }
}

#[test]
fn a_machine_with_special_pool_is_made_again_from_its_record_and_from_its_boot() {
    let text = r"open \\.\DirqlMemory as m; ioctl m 0x223ff8 in text:SpecialBlocks + hex:00 + u32:0 out 8 expect u32:0 + u32:37";
    let script = ScriptText::typed(text);
    let play = script.play().unwrap();
    let file = rig::Buffer::default();
    let started =
        Recording::start(bench("all"), Policy::default().chooser(), "default", Some(&script), file.clone());
    let (recorded, recording) = started.unwrap();
    let report = recorded.run(Some(play.clone())).unwrap();
    report.expect_clean();
    recording.finish(&report).unwrap();
    let record = Record::parse("run.dirql", &file.text()).unwrap();
    assert_eq!(record.header.special_pool, "all");
    let (again, same, comparison) = record.bench(None, None, None).unwrap();
    assert_eq!(comparison.difference(&again.run(same).unwrap()), None);

    let mut boots = rig::boots(bench("all"));
    for _ in 0..3 {
        let run = boots.boot(Policy::default().chooser(), |machine| machine.perform(Some(play.clone())));
        let ((), booted) = run.unwrap();
        assert_eq!((booted.trace_hash, booted.memory_hash), (report.trace_hash, report.memory_hash));
    }
}
