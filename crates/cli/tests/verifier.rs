//! What only Driver Verifier stops for, in every command: told without its option, and no failure; an error with it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may stop where its ground gives way")]

mod rig;

use rig::{Answer, dirql, driver, folder};

const RULE: &str = "dispatch-status-differs";

/// A dispatch routine that returns another status than it has completed with.
fn script() -> String {
    let rule: String = RULE.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!(r"open \\.\DirqlPairs as p; ioctl p 0x222000 in hex:01{rule} expect any")
}

fn command(name: &str, more: &[&str]) -> Answer {
    let (driver, script) = (driver("pairs.sys"), script());
    let fixed = [name, driver.to_str().unwrap(), "--do", &script];
    dirql(fixed.iter().chain(more))
}

#[test]
fn a_run_tells_it_and_counts_it_and_ends_with_an_error_only_by_its_option() {
    for options in [&[][..], &["--verifier=pool,irql"]] {
        let told = command("run", &[&["--quiet"], options].concat());
        assert_eq!(told.code, Some(0), "{}", told.said());
        let parts = [
            "dispatch-status-differs (only Driver Verifier would stop here)",
            "verdict: clean",
            "  1 finding is",
        ];
        assert!(parts.iter().all(|part| told.out.contains(part)), "{}", told.said());
    }
    for options in ["--verifier", "--verifier=io", "--verifier=pool,io"] {
        let ended = command("run", &["--quiet", options]);
        assert_eq!(ended.code, Some(1), "{}", ended.said());
        assert!(
            ended.out.contains("verdict: the driver broke a rule\n  rule         dispatch-status-differs\n"),
            "{}",
            ended.said()
        );
    }
}

#[test]
fn json_has_the_tier_and_the_option() {
    let told = command("run", &["--json"]);
    let lines = told.out.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let found = lines.filter(|line| line["event"] == "finding-in-full").collect::<Vec<_>>();
    let [finding] = &found[..] else { panic!("{}", told.said()) };
    let finding = &finding["finding"];
    assert_eq!((&finding["rule"], &finding["tier"]), (&RULE.into(), &"verifier".into()), "{finding}");
    assert_eq!(finding["verifier"], "io", "{finding}");
    let ended = command("run", &["--json", "--verifier"]);
    let end: serde_json::Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!((&end["outcome"], &end["verdict"]["tier"]), (&"broken".into(), &"error".into()), "{end}");
}

#[test]
fn many_runs_and_a_search_fail_for_it_by_its_option_alone() {
    for (name, more) in [
        ("run", &["--runs", "2", "--policy", "random:1"]),
        ("explore", &["--preemptions", "1", "--processors", "1"]),
    ] {
        let passed = command(name, more);
        assert_eq!(passed.code, Some(0), "{name}: {}", passed.said());
        let failed = command(name, &[&more[..], &["--verifier"]].concat());
        assert_eq!(failed.code, Some(1), "{name}: {}", failed.said());
        assert!(failed.out.contains(RULE), "{name}: {}", failed.said());
    }
}

#[test]
fn a_replay_keeps_the_option_of_its_record() {
    for (options, code) in [(&[][..], 0), (&["--verifier"], 1)] {
        let record = folder("verifier").join("run.rec");
        let name = record.to_str().unwrap();
        assert_eq!(command("run", &[&["--record", name], options].concat()).code, Some(code));
        let again = dirql(["replay", name]);
        assert_eq!(again.code, Some(code), "{}", again.said());
        assert!(again.out.contains(RULE), "{}", again.said());
    }
}
