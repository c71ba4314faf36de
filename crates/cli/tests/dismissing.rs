//! Findings that do not count (`--dismiss FILE`, `--rules -NAME`), on an exhibit of the museum that is unloaded while its timer is set; and advice.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::rig::{Answer, dirql, folder, root};

const RULE: &str = "unload-still-called";
const SCRIPT: &str = r"open \\.\Beeper as h; ioctl h 0x1200c";

fn sys() -> String {
    let path = root().join("target/museum/timer_left_at_unload.sys");
    assert!(path.is_file(), "{} is not there: run `cargo xtask museum --build` first", path.display());
    path.to_str().unwrap().to_owned()
}

/// A file with this text, and the option that names it.
fn known(text: &str) -> (PathBuf, String) {
    let file = folder("dismissing").join("known.txt");
    fs::write(&file, text).unwrap();
    let option = format!("--dismiss={}", file.display());
    (file, option)
}

fn run(more: &[&str]) -> Answer {
    let sys = sys();
    dirql(["run", &sys, "--quiet", "--do", SCRIPT].iter().chain(more))
}

fn check(more: &[&str]) -> Answer {
    let sys = sys();
    dirql(["check", &sys, "--budget", "1"].iter().chain(more))
}

#[test]
fn what_is_dismissed_is_told_with_its_reason_and_makes_no_run_fail() {
    assert_eq!(run(&[]).code, Some(1));
    let (file, option) = known("unload-still-called Timer # beeps on purpose\n");
    let answer = run(&[&option]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let reason = format!("beeps on purpose  ({}:1)", file.display());
    assert!(answer.out.contains("dismissed\n") && answer.out.contains(&reason), "{}", answer.said());
    assert!(answer.out.contains("verdict: clean"), "{}", answer.said());
    for list in ["-unload-still-called", "all,-unload-still-called"] {
        let answer = run(&["--rules", list]);
        assert_eq!(answer.code, Some(0), "{}", answer.said());
        assert!(answer.out.contains("(--rules -unload-still-called)"), "{}", answer.said());
    }
    for other in ["pool-leak # another rule", "unload-still-called Beep # another place"] {
        assert_eq!(run(&[&known(other).1]).code, Some(1), "{other}");
    }
}

#[test]
fn a_run_that_ends_at_what_is_dismissed_says_so_and_is_replayed_as_it_was() {
    let (file, option) = known("unload-still-called # known");
    let record = file.with_extension("dirql");
    let recorded = format!("--record={}", record.display());
    let sys = sys();
    let answer = dirql(["run", &sys, "--json", "--do", SCRIPT, &option, &recorded]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let end: Value = serde_json::from_str(answer.out.lines().last().unwrap()).unwrap();
    assert_eq!(end["outcome"], "clean");
    assert_eq!(end["verdict"], Value::Null);
    assert_eq!(end["dismissed"][0]["reason"], "known");
    assert_eq!(end["dismissed"][0]["finding"]["rule"], RULE);
    let notes = end["notes"].as_array().unwrap();
    assert!(
        notes.iter().any(|note| note.as_str().unwrap().contains("ended at what is dismissed")),
        "{notes:?}"
    );
    let answer = dirql(["replay", record.to_str().unwrap()]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
}

#[test]
fn a_check_tells_what_is_dismissed_and_what_dismisses_nothing() {
    let (file, option) = known("unload-still-called # known\nwild-read beeper.c:7 # was there once\n");
    let sarif = file.with_extension("sarif");
    let to_sarif = format!("--sarif={}", sarif.display());
    let answer = check(&[&option, &to_sarif]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let place = file.display();
    for line in [
        format!("dismissed: {RULE}: known  ({place}:1)"),
        format!("note: {place}:2: nothing was found that this dismisses"),
    ] {
        assert!(answer.out.contains(&line), "{line}\n{}", answer.said());
    }
    assert!(answer.out.contains("nothing is wrong by these"), "{}", answer.said());
    let log: Value = serde_json::from_str(&fs::read_to_string(&sarif).unwrap()).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 1, "{results:?}");
    assert!(
        results.iter().all(|result| result["suppressions"][0]["justification"] == "known"),
        "{results:?}"
    );

    let report: Value =
        serde_json::from_str(&check(&["--json", "--rules", "-unload-still-called"]).out).unwrap();
    assert_eq!(report["findings"], serde_json::json!([]));
    assert_eq!(report["dismissed"][0]["finding"]["rule"], RULE);
    let replay = report["dismissed"][0]["replay"].as_str().unwrap();
    assert!(replay.contains("--rules=all,-unload-still-called"), "{replay}");
    let report: Value = serde_json::from_str(&check(&["--json"]).out).unwrap();
    assert_eq!(report["findings"][0]["rule"], RULE);
    assert_eq!(report["dismissed"], serde_json::json!([]));
}

#[test]
fn a_check_tells_advice_by_its_rule_and_nothing_fails_by_it() {
    let sys = root().join("target/museum/plotter_fixed.sys");
    let sarif = folder("dismissing").join("advice.sarif");
    let (_, option) = known("card-without-power PlotIsr # the line is shared\n");
    let own = ["check", sys.to_str().unwrap(), "--budget", "1"];
    let checked = |more: &[&str]| dirql(own.iter().chain(more));
    let answer = checked(&[&format!("--sarif={}", sarif.display())]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let line = "advice: card-without-power at plotter_fixed!PlotIsr";
    assert_eq!(answer.out.matches(line).count(), 1, "{}", answer.said());
    assert!(answer.out.contains("nothing is wrong by these"), "{}", answer.said());
    let log: Value = serde_json::from_str(&fs::read_to_string(&sarif).unwrap()).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert!(results.iter().any(|result| result["ruleId"] == "card-without-power"), "{results:?}");
    assert!(results.iter().all(|result| result["level"] == "note"), "{results:?}");

    let report: Value = serde_json::from_str(&checked(&["--json", &option]).out).unwrap();
    assert_eq!(report["findings"], serde_json::json!([]));
    assert!(report["advice"].as_array().unwrap().iter().all(|one| one["rule"] != "card-without-power"));
    assert_eq!(report["dismissed"][0]["finding"]["rule"], "card-without-power");
    assert_eq!(report["dismisses_nothing"], serde_json::json!([]));
}

#[test]
fn a_file_that_dismisses_without_a_reason_is_refused() {
    let (file, option) = known("# known\nunload-still-called Timer\n");
    for answer in [run(&[&option]), check(&[&option])] {
        assert_eq!(answer.code, Some(2), "{}", answer.said());
        let what = format!("{}:2: `unload-still-called Timer` gives no reason", file.display());
        assert!(answer.err.contains(&what), "{}", answer.said());
    }
    let answer = run(&["--dismiss=/nowhere/known.txt"]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    let answer = run(&["--rules=-unload-stil-called"]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("did you mean `unload-still-called`?"), "{}", answer.said());
}
