//! `dirql run --runs`: many runs in worker processes, with the same output however many these are; the first that is not clean is
//! shown and recorded as if it had been asked for alone.

use super::rig::{Answer, dirql, driver, folder};

/// Who writes last is a matter of who goes first.
const RACE: &str = r#"open \\.\DirqlLegacy as one
open \\.\DirqlLegacy as two
a: write one text:"aaaa" at 0
b: write two text:"bbbb" at 0
join a; join b
read one 4 at 0 expect text:"bbbb""#;

/// Neither is in the other's way.
const PEACE: &str = r#"open \\.\DirqlLegacy as one
a: write one text:"aaaa" at 0
join a
read one 4 at 0 expect text:"aaaa""#;

fn many(script: &str, more: &[&str]) -> Answer {
    let sys = driver("legacy.sys");
    let fixed = ["run", sys.to_str().unwrap(), "--processors", "2", "--do", script];
    dirql(fixed.iter().chain(more))
}

/// The policy that is named behind "the first of these".
fn shown(answer: &Answer) -> &str {
    let line = answer.out.lines().find_map(|line| line.strip_prefix("the first of these, --policy "));
    line.unwrap_or_else(|| panic!("{}", answer.said())).strip_suffix(':').unwrap()
}

#[test]
fn one_worker_and_three_tell_the_same() {
    let with = |workers| many(RACE, &["--policy", "random:1", "--runs", "12", "--workers", workers]);
    let (one, three) = (with("1"), with("3"));
    assert_eq!(one.code, Some(1), "{}", one.said());
    assert_eq!((one.code, &one.out, &one.err), (three.code, &three.out, &three.err));
    assert!(one.out.starts_with("12 runs, random:1 to random:12: "), "{}", one.said());
    assert!(!one.out.contains(" 0 clean, "), "some orders are right: {}", one.said());
}

#[test]
fn the_run_that_is_shown_is_the_run_of_that_policy_alone() {
    for first in ["pct:1,3", "pct:1,3@script"] {
        let found = many(RACE, &["--policy", first, "--runs", "12"]);
        let alone = many(RACE, &["--policy", shown(&found)]);
        assert_eq!(found.code, alone.code);
        let (_, report) = found.out.split_once(":\n\n").unwrap();
        assert_eq!(report, alone.out);
    }
}

#[test]
fn only_the_first_run_that_is_not_clean_is_recorded_and_its_record_replays() {
    let file = folder("many_recorded").join("run.dirql");
    let path = file.to_str().unwrap();
    let found = many(RACE, &["--policy", "random:1", "--runs", "12", "--record", path]);
    assert_eq!(found.code, Some(1), "{}", found.said());
    assert!(std::fs::read_to_string(&file).unwrap().contains(shown(&found)));
    let again = dirql(["replay", path, "--quiet"]);
    assert!((again.out + &again.err).contains("replay: the same run, "));
}

#[test]
fn where_all_runs_are_clean_nothing_is_shown_or_recorded() {
    let file = folder("many_clean").join("run.dirql");
    let more = ["--policy", "random:1", "--runs", "4", "--record", file.to_str().unwrap()];
    let clean = many(PEACE, &more);
    assert_eq!(clean.code, Some(0), "{}", clean.said());
    assert_eq!(clean.out.lines().count(), 2, "{}", clean.said());
    assert!(clean.out.contains("4 clean, 0 with") && !file.exists());
    let json = many(PEACE, &["--policy", "random:1", "--runs", "4", "--json"]);
    let expected = r#"{"broken":0,"checked":true,"clean":4,"findings":[],"first":"random:1","last":"random:4","no_answer":0,"runs":4,"shown":null}"#;
    assert_eq!(json.out.trim_end(), expected);
}

#[test]
fn a_policy_without_seeds_and_a_script_that_cannot_be_read_are_told_once() {
    let error = many(PEACE, &["--runs", "3"]);
    assert_eq!(error.code, Some(2));
    assert!(error.err.contains("use random:SEED") && error.out.is_empty(), "{}", error.said());
    let error = many("no such verb", &["--policy", "random:1", "--runs", "3", "--workers", "2"]);
    assert_eq!(error.code, Some(2));
    assert!(error.out.is_empty() && error.err.matches("dirql: ").count() == 1, "{}", error.said());
}
