//! `--rules` and `--events`: readers that judge, and details, where a user asks for them.

use super::rig::{Answer, dirql, driver, folder};

/// A DPC that stalls for too long, in several calls.
const STALLS: &str = r"open \\.\DirqlClocks as f; ioctl f 0x223ff8 in text:StallsTooOften out 8";

fn command(name: &str, more: &[&str]) -> Answer {
    let driver = driver("clocks.sys");
    dirql([name, driver.to_str().unwrap(), "--do", STALLS].iter().chain(more))
}

#[test]
fn a_reader_that_judges_tells_its_finding_where_it_is_asked_for() {
    for options in [&["--rules", "dpc-stalls"][..], &["--rules=all"], &["--rules=all", "--fast", "--quiet"]] {
        let answer = command("run", options);
        assert_eq!(answer.code, Some(0), "{}", answer.said());
        assert!(answer.out.contains("dpc-stalls"), "{options:?}: {}", answer.said());
    }
    let without = command("run", &[]);
    assert!(without.code == Some(0) && !without.out.contains("dpc-stalls"), "{}", without.said());
    let wrong = command("run", &["--rules", "dpc-stall"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("dpc-stalls, guarantees"), "{}", wrong.said());
    let list = dirql(["rules"]);
    assert!(list.out.contains("\nguarantees "), "{}", list.said());
}

#[test]
fn a_search_has_the_readers_that_are_asked_for_and_a_replay_those_of_its_record() {
    let searched = command("explore", &["--schedules", "3", "--rules", "all"]);
    assert_eq!(searched.code, Some(0), "an advice is no broken rule: {}", searched.said());
    assert_eq!(command("explore", &["--rules", "dpc-stall"]).code, Some(2));
    let record = folder("judging").join("run.record");
    let record = record.to_str().unwrap();
    let recorded = command("run", &["--rules", "dpc-stalls", "--record", record]);
    assert_eq!(recorded.code, Some(0), "{}", recorded.said());
    let replayed = dirql(["replay", record]);
    assert!(replayed.code == Some(0) && replayed.out.contains("dpc-stalls"), "{}", replayed.said());
}

#[test]
fn kinds_that_are_named_are_shown_to_people_by_their_fields() {
    let shown = command("run", &["--events", "access,irp-freed"]);
    assert_eq!(shown.code, Some(0), "{}", shown.said());
    let line = shown.out.lines().find(|line| line.contains("  access address 0x20")).unwrap();
    assert!(
        line.contains(", bytes ") && line.contains(", kind ") && line.contains(", code clocks!"),
        "{line}"
    );
    assert!(shown.out.contains("  irp-freed irp 0x") && !shown.out.contains("CreateFile"), "{}", shown.out);
    assert_eq!(command("run", &["--quiet", "--events", "access"]).code, Some(2));
}

#[test]
fn details_are_in_the_json_where_their_kinds_are_named() {
    let kinds = |events: &[&str]| -> Vec<String> {
        let answer = command("run", &[&["--json"], events].concat());
        assert_eq!(answer.code, Some(0), "{}", answer.said());
        let kind = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["event"].as_str().unwrap_or_default().to_owned()
        };
        answer.out.lines().map(kind).collect()
    };
    let has = |kinds: &[String], name: &str| kinds.iter().any(|kind| kind == name);
    let two = kinds(&["--events", "signalled,irp-freed"]);
    assert!(has(&two, "irp-freed") && has(&two, "end"), "{two:?}");
    assert!(!has(&two, "irp-allocated") && !has(&two, "call"), "{two:?}");
    let all = kinds(&["--events", "all"]);
    assert!(["irp-freed", "call", "irql"].iter().all(|name| has(&all, name)), "{all:?}");
    assert!(!has(&kinds(&[]), "irp-freed"));
    assert!(!has(&all, "access"), "too many for one who has not named them");
    let accesses = kinds(&["--events", "access,call"]);
    assert!(has(&accesses, "access") && has(&accesses, "call") && !has(&accesses, "irql"), "{accesses:?}");
    let wrong = command("run", &["--json", "--events", "locks"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("`locks`"), "{}", wrong.said());
}

#[test]
fn data_races_are_looked_for_where_that_is_asked_and_told_of_one_run_and_of_many() {
    let driver = driver("races.sys");
    let story = r"open \\.\DirqlRaces as f; ioctl f 0x223ff8 in text:WrongCount out 8";
    let tell =
        |name: &str, more: &[&str]| dirql([name, driver.to_str().unwrap(), "--do", story].iter().chain(more));
    for options in [&["--races"][..], &["--rules", "data-race"], &["--races", "--fast"]] {
        let answer = tell("run", options);
        assert_eq!(answer.code, Some(0), "it is a warning: {}", answer.said());
        assert!(answer.out.contains("data-race (warning)"), "{options:?}: {}", answer.said());
        assert!(answer.out.contains("verdict: clean, but for 1 warning"), "{options:?}: {}", answer.said());
        assert!(answer.out.contains("updated at event"), "{options:?}: {}", answer.said());
    }
    assert!(!tell("run", &["--rules=all"]).out.contains("data-race"), "they are slow");
    let searched = tell("explore", &["--races", "--schedules", "3"]);
    assert_eq!(searched.code, Some(0), "{}", searched.said());
    assert!(searched.out.contains("1 finding is of data races"), "{}", searched.said());
}
