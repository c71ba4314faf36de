//! The files of `dirql check`: each form of the report has what was found, where, and what was tried. And that what is reported was shown from a machine's start.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::rig::{self, Answer};

/// The bug of an exhibit: two locks, each acquired while the other one is held.
const EXHIBIT: &str = "target/museum/barter.sys";
const SOURCE: &str = "museum/blind/barter.c";
const RULE: &str = "lock-order-inversion";

/// A check of the exhibit, from the workspace's folder, as its user would name it.
fn check(more: &[String]) -> Answer {
    check_by(more, |command| command)
}

fn check_by(more: &[String], by: impl FnOnce(&mut Command) -> &mut Command) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command.current_dir(rig::root()).args(["check", EXHIBIT, "--budget", "1"]).args(more);
    Answer::of(by(&mut command).output().expect("the command was built with this test"))
}

/// The file that a check writes for this option, and what it prints.
fn written(option: &str, more: &[&str]) -> (String, Answer) {
    let file = rig::folder("check_reports").join("report");
    let to_file = format!("--{option}={}", file.display());
    let answer = check(
        &[&[to_file], more.iter().map(|&more| more.to_owned()).collect::<Vec<_>>().as_slice()].concat(),
    );
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    (fs::read_to_string(&file).expect("it is written"), answer)
}

/// The number of the first line of the exhibit that has these words.
fn line_of(words: &str) -> u64 {
    let text = fs::read_to_string(rig::root().join(SOURCE)).unwrap();
    let at = text.lines().position(|line| line.contains(words)).expect("it is there");
    u64::try_from(at + 1).unwrap()
}

#[test]
fn sarif_names_the_rule_its_line_and_the_lines_of_its_moments_from_the_sources_root() {
    for (root, file) in [(None, SOURCE), (Some("--source-root=museum/blind"), "barter.c")] {
        let (text, answer) = written("sarif", root.as_slice());
        let log: Value = serde_json::from_str(&text).unwrap();
        let run = &log["runs"][0];
        assert_eq!(run["results"].as_array().unwrap().len(), 1, "{}", answer.said());
        let result = &run["results"][0];
        assert_eq!((result["ruleId"].as_str(), result["level"].as_str()), (Some(RULE), Some("error")));
        assert!(result["message"]["text"].as_str().unwrap().contains("fast mutex"), "{result:#}");
        assert_eq!(run["tool"]["driver"]["rules"][0]["id"], RULE);
        let line = |location: &Value| {
            let place = &location["physicalLocation"];
            assert_eq!(place["artifactLocation"]["uri"], file, "{location:#}");
            assert_eq!(place["artifactLocation"]["uriBaseId"], "%SRCROOT%");
            place["region"]["startLine"].as_u64().unwrap()
        };
        assert_eq!(
            line(&result["locations"][0]),
            line_of("ExAcquireFastMutex(&x->Stores[a < b ? a"),
            "{result:#}"
        );
        let related = result["relatedLocations"].as_array().unwrap().iter();
        let moments: BTreeMap<&str, u64> =
            related.map(|moment| (moment["message"]["text"].as_str().unwrap(), line(moment))).collect();
        let said: Vec<&str> = moments.keys().copied().collect();
        assert_eq!(said, ["acquired first", "elsewhere acquired first", "elsewhere acquired second"]);
        assert_ne!(moments["acquired first"], moments["elsewhere acquired second"]);
    }
}

/// The tags of a text in XML, each closed by its like; what of them is empty is there, too.
fn tags(text: &str) -> Vec<&str> {
    let (mut tags, mut open) = (Vec::new(), Vec::new());
    for tag in text.split('<').skip(1) {
        let tag = &tag[..tag.find('>').expect("a tag ends")];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('?') {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "tags are closed as they were opened");
            continue;
        }
        if !tag.ends_with('/') {
            open.push(name);
        }
        tags.push(tag);
    }
    assert_eq!(open, [""; 0], "all tags are closed");
    tags
}

#[test]
fn junit_has_a_case_for_each_exercise_and_a_failure_in_the_one_that_was_the_first_to_show_it() {
    let (text, answer) = written("junit", &[]);
    let tags = tags(&text);
    let of = |name: &str| {
        tags.iter().filter(|tag| tag.split(' ').next() == Some(name)).copied().collect::<Vec<_>>()
    };
    let cases = of("testcase");
    assert!(cases.len() > 200, "{} cases", cases.len());
    assert!(
        of("testsuite")[0].ends_with(&format!("tests=\"{}\" failures=\"1\" errors=\"0\"", cases.len())),
        "{text}"
    );
    let failures = of("failure");
    assert_eq!(failures.len(), 1, "{text}");
    assert!(
        failures[0].starts_with(&format!("failure type=\"{RULE}\" message=\"fast mutex")),
        "{failures:?}"
    );
    // The case before it is the exercise that the report names.
    let at = text.find("<failure").unwrap();
    let case = text[..at].rfind("<testcase").map(|from| &text[from..at]).unwrap();
    let shown_by = answer.out.lines().find_map(|line| line.strip_prefix("  shown by     ")).unwrap();
    assert!(case.contains(&format!("name=\"{shown_by}\"")), "{case}: {shown_by}");
}

#[test]
fn the_page_draws_the_run_and_needs_nothing_else() {
    let (page, answer) = written("html", &[]);
    for part in [RULE, "fast mutex", "elsewhere acquired first", "<svg", "</svg>", "What was tried", "<code>"]
    {
        assert!(page.contains(part), "{part} is not there");
    }
    let replay = answer.out.lines().find_map(|line| line.strip_prefix("  replay       ")).unwrap();
    assert!(
        page.contains(&replay.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")),
        "{replay}"
    );
    // Each moment leads to its event, in the lane of the thread that did it, and the verdict stands behind them.
    let links: Vec<_> =
        page.split("<a href=\"#").skip(1).map(|link| link.split('"').next().unwrap()).collect();
    assert_eq!(links.len(), 3, "{links:?}");
    let row = |id: &str| {
        let id = format!(" id=\"{id}\"");
        let mut found = page.match_indices(&*id);
        let at = found.next().unwrap_or_else(|| panic!("{id} is not there")).0;
        assert!(found.next().is_none(), "{id} is there twice");
        at
    };
    let verdict = page.find("<tr class=\"finding\"").expect("the verdict is drawn");
    assert!(links.iter().all(|link| row(link) < verdict), "{links:?}");
    assert!(page.contains("<th>thread main</th>"), "a lane for each thread");
    // What the drawing names of itself stands behind a `#`.
    let page = page.replace("url(#", "").replace("href=\"#", "");
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}: the page is whole by itself");
    }
    // Each function has its part.
    assert!(page.contains("<code>barter!Unload</code>") || page.contains("<code>Unload</code>"), "{page}");
}

#[test]
fn lcov_has_the_lines_that_were_reached_and_those_that_were_not() {
    let (text, _) = written("lcov", &[]);
    let own = text.split("end_of_record").find(|record| record.contains(&format!("SF:{SOURCE}\n"))).unwrap();
    let numbers = |kind: &str| -> BTreeMap<u64, u64> {
        let pairs = own.lines().filter_map(|line| line.strip_prefix(kind)?.split_once(','));
        pairs.map(|(line, count)| (line.parse().unwrap(), count.parse().unwrap())).collect()
    };
    let lines = numbers("DA:");
    assert!(lines[&line_of("ExAcquireFastMutex(&x->Stores[a < b ? a")] > 0, "{own}");
    let reached = lines.values().filter(|count| **count > 0).count();
    assert!(reached < lines.len(), "no line was left out: {own}");
    assert!(own.contains(&format!("LF:{}\nLH:{reached}\n", lines.len())), "{own}");
    assert!(own.lines().any(|line| line.starts_with("FNDA:") && line.ends_with(",Unload")), "{own}");
}

#[test]
fn of_a_function_that_was_never_come_to_it_is_said_who_names_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command.current_dir(rig::root()).args([
        "check",
        "target/museum/cardram.sys",
        "--budget",
        "1",
        "--until",
        "any",
    ]);
    let answer = Answer::of(command.output().unwrap());
    let line = answer.out.lines().find(|line| line.starts_with("  QueuedCancelled: "));
    let line = line.unwrap_or_else(|| panic!("{}", answer.said()));
    assert!(line.contains("its address is taken by OnRead at museum/"), "{line}");
    assert!(line.ends_with(", and nothing called it"), "{line}");
}

#[test]
fn what_a_line_does_not_show_from_a_machines_start_is_no_finding() {
    let shown = check(&["--json".to_owned()]);
    let report: Value = serde_json::from_str(&shown.out).unwrap();
    let stack = &report["findings"][0]["moments"][0]["stack"][0];
    assert!(stack["source"].as_str().unwrap().starts_with(SOURCE), "it says whose doing it was: {stack:#}");
    // The machines of the attempts live; one that is started anew for a line does not.
    let lost = check_by(&["--json".to_owned()], |command| command.env("DIRQL_FAIL", "exit"));
    let report: Value = serde_json::from_str(&lost.out).unwrap_or_else(|_| panic!("{}", lost.said()));
    assert_eq!(report["findings"], serde_json::json!([]), "{}", lost.said());
    let why = report["no_answers"][0].as_str().unwrap();
    assert!(why.starts_with(RULE) && why.contains("a fault of dirql's"), "{why}");
    assert_eq!(lost.code, Some(3), "{}", lost.said());
}
