//! What only Driver Verifier stops for, in every command: a finding without its option, and no failure; an error with it.

use std::process::Command;

use super::rig::lost_update::{DIFFERING, UNLOCKED};
use super::rig::{Answer, dirql, driver, folder};

const RULE: &str = "dispatch-status-differs";

/// The wrong half of a pair.
fn script(rule: &str) -> String {
    let rule: String = rule.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!(r"open \\.\DirqlPairs as p; ioctl p 0x222000 in hex:01{rule} expect any")
}

/// A dispatch routine that returns another status than it has completed with.
fn command(name: &str, more: &[&str]) -> Answer {
    broken(RULE, name, more)
}

fn broken(rule: &str, name: &str, more: &[&str]) -> Answer {
    let (driver, script) = (driver("pairs.sys"), script(rule));
    let fixed = [name, driver.to_str().unwrap(), "--do", &script];
    dirql(fixed.iter().chain(more))
}

#[test]
fn a_run_tells_it_and_counts_it_and_ends_with_an_error_only_by_its_option() {
    for options in [&[][..], &["--verifier=pool,irql"]] {
        let answer = command("run", &[&["--quiet"], options].concat());
        assert_eq!(answer.code, Some(0), "{}", answer.said());
        let parts = [
            "dispatch-status-differs (only Driver Verifier would stop here)",
            "verdict: clean",
            "  1 finding is",
        ];
        assert!(parts.iter().all(|part| answer.out.contains(part)), "{}", answer.said());
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
fn what_is_wrong_on_some_computers_only_is_not_looked_at_unless_its_option_is_named() {
    for (rule, option) in
        [("executable-pool", "code-integrity"), ("invariant-buffer-changed", "invariant-mdl")]
    {
        for usual in [&[][..], &["--verifier"], &["--verifier=all,logging"]] {
            let answer = broken(rule, "run", &[&["--quiet"], usual].concat());
            assert!(answer.code == Some(0) && !answer.out.contains(rule), "{usual:?}: {}", answer.said());
        }
        let named = broken(rule, "run", &["--quiet", &format!("--verifier={option}")]);
        assert_eq!(named.code, Some(1), "{}", named.said());
        assert!(named.out.contains(&format!("  rule         {rule}\n")), "{}", named.said());
        let logged = broken(rule, "run", &["--quiet", &format!("--verifier=all,{option},logging")]);
        assert!(logged.code == Some(1) && logged.out.contains(rule), "{}", logged.said());
    }
}

#[test]
fn json_has_the_tier_and_the_option() {
    let answer = command("run", &["--json"]);
    let lines = answer.out.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let found = lines.filter(|line| line["event"] == "finding-in-full").collect::<Vec<_>>();
    let [finding] = &found[..] else { panic!("{}", answer.said()) };
    let finding = &finding["finding"];
    assert_eq!((&finding["rule"], &finding["tier"]), (&RULE.into(), &"verifier".into()), "{finding}");
    assert_eq!(finding["verifier"], "io", "{finding}");
    let ended = command("run", &["--json", "--verifier"]);
    let end: serde_json::Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!((&end["outcome"], &end["verdict"]["tier"]), (&"broken".into(), &"error".into()), "{end}");
}

/// `dirql explore` of a driver that differs only where an update was lost.
fn explore(script: &str, more: &[&str]) -> Answer {
    let sys = driver("lost_update.sys");
    let fixed = ["explore", sys.to_str().unwrap(), "--processors", "2", "--do", script];
    dirql(fixed.iter().chain(more))
}

/// The findings of the line that says what came of all runs.
fn findings(answer: &Answer) -> Vec<serde_json::Value> {
    let line = answer.out.lines().find(|line| !line.contains(r#""event""#));
    let sums: serde_json::Value = serde_json::from_str(line.unwrap_or_default()).unwrap_or_default();
    let found = sums.get("findings").or_else(|| sums["explored"].get("findings"));
    found.and_then(|found| found.as_array()).unwrap_or_else(|| panic!("{}", answer.said())).clone()
}

/// What a shell says to the command of a line `replay`.
fn typed(command: &str) -> Answer {
    let typed = command.strip_prefix("dirql ").expect("it is a command line");
    let typed = format!("{} {typed}", env!("CARGO_BIN_EXE_dirql"));
    Answer::of(Command::new("sh").args(["-c", &typed]).output().expect("there is a shell"))
}

#[test]
fn many_runs_and_a_search_tell_each_finding_once_with_the_command_that_makes_it_again() {
    for (name, more, runs) in [
        ("run", &["--runs", "3", "--policy", "random:7", "--workers", "2"][..], "3 of 3"),
        ("explore", &["--preemptions", "1"], "1 of 1 schedule"),
        ("explore", &["--preemptions", "1", "--in-process"], "1 of 1 schedule"),
        ("explore", &["--preemptions", "1", "--fast"], "1 of 1 schedule"),
    ] {
        let answer = command(name, more);
        assert_eq!(answer.code, Some(0), "{name}: {}", answer.said());
        assert_eq!(answer.out.matches(RULE).count(), 1, "{name}: {}", answer.said());
        for part in [
            "1 finding is",
            "(--verifier=io)\n",
            " returned STATUS_UNSUCCESSFUL",
            &format!("runs         {runs}\n"),
        ] {
            assert!(answer.out.contains(part), "{name}, {part}: {}", answer.said());
        }
        let replay = answer.out.lines().find_map(|line| line.strip_prefix("  replay       "));
        let again = typed(replay.unwrap_or_else(|| panic!("{}", answer.said())));
        assert_eq!(again.code, Some(0), "{}", again.said());
        assert!(
            again.out.contains(&format!("{RULE} (only Driver Verifier would stop here)")),
            "{}",
            again.said()
        );

        let json = command(name, &[more, &["--json"]].concat());
        let [finding] = &findings(&json)[..] else { panic!("{}", json.said()) };
        assert_eq!(
            (&finding["rule"], &finding["tier"], &finding["verifier"]),
            (&RULE.into(), &"verifier".into(), &"io".into())
        );
        assert_eq!(finding["runs"].as_u64(), runs.split(' ').next().and_then(|runs| runs.parse().ok()));
        assert!(typed(finding["replay"].as_str().unwrap()).out.contains(RULE), "{finding}");
    }
}

#[test]
fn a_search_tells_what_only_some_schedules_do_and_the_first_of_these_is_made_again() {
    let usual =
        dirql(["run", driver("lost_update.sys").to_str().unwrap(), "--processors", "2", "--do", DIFFERING]);
    assert!(usual.code == Some(0) && !usual.out.contains(RULE), "{}", usual.said());
    for more in [&["--preemptions", "1"][..], &["--policy", "random:1", "--schedules", "100"]] {
        let with = |workers| explore(DIFFERING, &[more, &["--workers", workers]].concat());
        let (answer, other) = (with("1"), with("3"));
        assert_eq!((answer.code, &answer.out), (Some(0), &other.out), "{}", answer.said());
        let json = explore(DIFFERING, &[more, &["--json"]].concat());
        let [finding] = &findings(&json)[..] else { panic!("{}", json.said()) };
        let line: serde_json::Value = serde_json::from_str(json.out.lines().next().unwrap()).unwrap();
        let all =
            line["explored"]["schedules"].as_array().unwrap().iter().filter_map(serde_json::Value::as_u64);
        let all = all.sum::<u64>() + line["explored"]["repeated"].as_u64().unwrap();
        let some = finding["runs"].as_u64().unwrap();
        assert!(some > 1 && some < all, "{some} of {all}");
        assert!(answer.out.contains(&format!("{some} of {all} schedules\n")), "{}", answer.said());
        let replay = finding["replay"].as_str().unwrap();
        assert!(replay.contains(" '--follow="), "{replay}");
        let again = typed(replay);
        assert!(again.code == Some(0) && again.out.contains(RULE), "{}", again.said());
    }
}

#[test]
fn a_search_that_ends_with_a_broken_schedule_tells_what_was_found_before_it() {
    let script = UNLOCKED.replace("ioctl c 0x222008", "ioctl a 0x222030 expect any\nioctl c 0x222008");
    let answer = explore(&script, &["--quiet"]);
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    let parts =
        ["explored ", "1 finding is", RULE, "The last schedule, from its beginning:", "expectation failed"];
    let mut rest = &answer.out[..];
    for part in parts {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part}: {}", answer.said())).1;
    }
    let json = explore(&script, &["--json"]);
    assert_eq!(findings(&json).len(), 1, "{}", json.said());
}

#[test]
fn choices_that_are_none_of_the_script_are_refused() {
    let answer = explore(DIFFERING, &["--follow=preempt 99 after 3"]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("--follow: "), "{}", answer.said());
    let answer = explore(DIFFERING, &["--follow=nonsense"]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("choice STRAND POINT OCCURRENCE = ANSWER"), "{}", answer.said());
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
