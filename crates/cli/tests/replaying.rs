//! `dirql run --record` and `dirql replay`, each in a process of its own: the same run again, or the first event that
//! differs.

use std::fs;
use std::path::{Path, PathBuf};

use super::rig::{Answer, dirql, driver, folder};

const TWO_WRITERS: &str = r#"open \\.\DirqlLegacy as one
open \\.\DirqlLegacy as two
a: write one text:"aaaa" at 0
b: write two text:"bbbb" at 8
join a; join b
read one 4 at 0 expect text:"aaaa""#;

/// Runs a driver recorded to a file in a folder of the test's own.
fn record(test: &str, sys: &str, more: &[&str]) -> (PathBuf, Answer) {
    let file = folder(test).join("run.dirql");
    let sys = driver(sys);
    let fixed = ["run", sys.to_str().unwrap(), "--record", file.to_str().unwrap()];
    let answer = dirql(fixed.iter().chain(more));
    (file, answer)
}

fn replay(file: &Path, more: &[&str]) -> Answer {
    dirql(["replay", file.to_str().unwrap()].iter().chain(more))
}

/// A record is changed so that only its events tell: its checksum is made to fit again.
fn rewritten(file: &Path, change: impl Fn(String) -> String) {
    let text = fs::read_to_string(file).unwrap();
    let body = text[..text.rfind("sha256 ").unwrap()].to_owned();
    let body = change(body);
    let sum: String = hmac_sha256::Hash::hash(body.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    fs::write(file, format!("{body}sha256 {sum}\n")).unwrap();
}

#[test]
fn a_random_run_is_made_again_event_by_event_in_another_process() {
    let more = ["--policy", "random:5", "--processors", "2", "--json", "--do", TWO_WRITERS];
    let (file, first) = record("random_run", "legacy.sys", &more);
    assert_eq!(first.code, Some(0), "{}", first.said());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\npreempt ") && text.contains("\nchoice "), "there is something to replay");
    let again = replay(&file, &["--json"]);
    assert_eq!(again.code, Some(0), "{}", again.said());
    assert_eq!(first.out, again.out, "every event, address and hash is the same");
    assert!(again.err.contains("replay: the same run, "), "{}", again.said());
}

#[test]
fn a_replay_can_be_watched_in_any_way() {
    let more = ["--policy", "pct:5,3", "--processors", "2", "--quiet", "--do", TWO_WRITERS];
    let (file, first) = record("any_way", "legacy.sys", &more);
    assert_eq!(first.code, Some(0), "{}", first.said());
    for way in [&["--quiet"] as &[&str], &["--json"], &["--in-process"], &[]] {
        let again = replay(&file, way);
        assert_eq!(again.code, Some(0), "{}", again.said());
        let all = again.out + &again.err;
        assert!(all.contains("replay: the same run, "), "{way:?}: {all}");
    }
}

#[test]
fn who_traces_is_in_the_record() {
    let story = r"open \\.\DirqlTracing as t; ioctl t 0x223ff8 in text:Filtered out 8 expect bytes 8";
    let who = ["--trace-providers", "all,level=4,flags=0x30", "--do", story];
    let (file, first) = record("who_traces", "tracing.sys", &who);
    assert_eq!(first.code, Some(0), "{}", first.said());
    assert!(
        first.out.contains("trace {D1B0C0DE-0000-4000-8000-0000000000E1} event 5, level 2"),
        "{}",
        first.out
    );
    let again = replay(&file, &[]);
    assert_eq!(again.code, Some(0), "{}", again.said());
    assert!((again.out.clone() + &again.err).contains("replay: the same run, "), "{}", again.said());
    let wrong = dirql(["run", "x.sys", "--trace-providers", "level=4"]);
    assert!(
        wrong.code == Some(2) && wrong.err.contains("says of no provider that it is traced"),
        "{}",
        wrong.said()
    );
}

#[test]
fn a_card_its_inf_and_its_interrupts_replay_from_the_record_alone() {
    let inf = driver("pciline.inf");
    let script =
        r"open \\.\PciLine0 as a; t: write a text:hello at 0; write a hex:07 at 9; join t; surprise-remove";
    let more = [
        "--policy",
        "random:9",
        "--device",
        "pci9052,latency=5us",
        "--inf",
        inf.to_str().unwrap(),
        "--processors",
        "3",
        "--windows",
        "10-22h2",
        "--do",
        script,
    ];
    let (file, first) = record("card", "pciline.sys", &more);
    assert_eq!(first.code, Some(0), "{}", first.said());
    let again = replay(&file, &[]);
    assert_eq!(again.code, Some(0), "{}", again.said());
    assert!(again.out.starts_with(first.out.trim_end()), "it is shown as it was");
}

#[test]
fn a_failure_that_was_recorded_says_how_to_see_it_again() {
    let script = r"open \\.\DirqlFaults as f; ioctl f 0x222804";
    let (file, first) = record("failure", "faults.sys", &["--quiet", "--do", script]);
    assert_eq!(first.code, Some(1), "{}", first.said());
    let hint = format!("replay: dirql replay {}", file.display());
    assert!(first.out.lines().any(|line| line == hint), "{}", first.said());
    let again = replay(&file, &["--quiet"]);
    assert_eq!(again.code, Some(1), "the exit code is the run's\n{}", again.said());
    assert!(again.out.contains("wild-write"), "{}", again.said());
}

#[test]
fn a_suspicious_run_is_made_again_checked_and_so_can_be_its_replay() {
    let script = r"open \\.\DirqlFaults as f; ioctl f 0x222880"; // 32: a byte behind a block, seen when it is freed
    let (file, first) = record("suspicious", "faults.sys", &["--quiet", "--fast", "--do", script]);
    assert_eq!(first.code, Some(1), "{}", first.said());
    let (fast, checked) = first.out.split_once("The same run again, with every access checked").unwrap();
    assert!(fast.contains("BAD_POOL_HEADER (0x19)"), "{}", first.said());
    let source = include_str!("../../../drivers/c/faulty/faults.c");
    let line = source.lines().position(|line| line.contains("Block[48 + Zero] = 0x55")).unwrap() + 1;
    let write = format!("PoolOverrun+0x30 (faults.c:{line}) wrote a byte");
    assert!(checked.contains(&write), "{}", first.said());
    let hint = first.out.lines().last().unwrap();
    assert_eq!(hint, format!("replay: dirql replay {} --checked", file.display()));

    assert_eq!(replay(&file, &["--quiet"]).code, Some(1));
    let again = replay(&file, &["--quiet", "--checked"]);
    assert_eq!(again.code, Some(1), "{}", again.said());
    assert!(again.out.contains("the checked run tells here"), "{}", again.said());
    assert!(again.out.contains(&write), "{}", again.said());

    let (_, json) = record("suspicious_json", "faults.sys", &["--json", "--fast", "--do", script]);
    let end = json.out.lines().rfind(|line| line.contains(r#""event":"end""#)).unwrap();
    assert!(end.contains("broken"), "the checked run's end is the last one: {}", json.said());
    let (_, once) = record("not_twice", "faults.sys", &["--quiet", "--do", script]);
    assert!(!once.out.contains("The same run again"), "{}", once.said());
}

#[test]
fn the_first_event_that_differs_is_named() {
    let (file, _) = record("differs", "legacy.sys", &["--quiet", "--do", TWO_WRITERS]);
    rewritten(&file, |body| body.replacen(" request ", " answer ", 1));
    let text = fs::read_to_string(&file).unwrap();
    let mut events = text.lines().filter_map(|line| line.strip_prefix("event ")).enumerate();
    let (number, event) = events.find(|(_, event)| event.contains(" answer ")).unwrap();
    let strand = event.split(' ').nth(1).unwrap();
    let again = replay(&file, &["--quiet"]);
    assert_eq!(again.code, Some(4), "{}", again.said());
    let message =
        format!("event {number} is the first that differs: recorded was `answer` of strand {strand} at ");
    assert!(again.err.contains(&message), "`{message}` is missing\n{}", again.said());
    assert!(again.err.contains(r#""event":"request","name":"CreateFile""#), "{}", again.said());
}

#[test]
fn a_choice_that_does_not_fit_is_named() {
    let (file, _) = record("unfit", "legacy.sys", &["--quiet", "--do", TWO_WRITERS]);
    let add = |line: &'static str| {
        move |body: String| {
            let (above, end) = body.split_once("\nend ").unwrap();
            let end = end.replace("\"choices\":0", "\"choices\":1");
            format!("{above}\n{line}\nend {end}")
        }
    };
    rewritten(&file, add("choice 99 ke.nowhere 7 = 1"));
    let again = replay(&file, &["--quiet"]);
    assert_eq!(again.code, Some(4), "{}", again.said());
    let message = "`choice 99 ke.nowhere 7 = 1`: this question never came";
    assert!(again.err.contains(message), "{}", again.said());
}

#[test]
fn a_run_whose_end_differs_says_in_what() {
    let (file, _) = record("end_differs", "legacy.sys", &["--quiet", "--do", TWO_WRITERS]);
    rewritten(&file, |body| body.replace("\"outcome\":\"clean\"", "\"outcome\":\"broken\""));
    let again = replay(&file, &["--quiet"]);
    assert_eq!(again.code, Some(4), "{}", again.said());
    assert!(again.err.contains("the outcome was broken, now it is clean"), "{}", again.said());
}

#[test]
fn a_driver_that_moved_is_found_beside_the_record_or_where_it_is_said_to_be() {
    let home = folder("moved");
    let (sys, file) = (home.join("mine.sys"), home.join("run.dirql"));
    fs::copy(driver("legacy.sys"), &sys).unwrap();
    let there = [&"run".into(), &sys, &"--quiet".into(), &"--record".into(), &file];
    assert_eq!(dirql(there).code, Some(0));
    let away = folder("moved_away");
    fs::rename(&file, away.join("run.dirql")).unwrap();
    fs::rename(&sys, away.join("mine.sys")).unwrap();
    assert_eq!(replay(&away.join("run.dirql"), &[]).code, Some(0), "beside the record");
    fs::create_dir(away.join("deeper")).unwrap();
    fs::rename(away.join("mine.sys"), away.join("deeper/mine.sys")).unwrap();
    let said = away.join("deeper/mine.sys");
    let answer = replay(&away.join("run.dirql"), &["--driver", said.to_str().unwrap()]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
}

#[test]
fn a_fast_run_replays_under_checked_translation_and_a_checked_one_says_so() {
    let more = [
        "--policy",
        "random:4",
        "--processors",
        "4",
        "--group-size",
        "2",
        "--fast",
        "--json",
        "--do",
        TWO_WRITERS,
    ];
    let (file, first) = record("checked_replay", "legacy.sys", &more);
    assert_eq!(first.code, Some(0), "{}", first.said());
    let header = fs::read_to_string(&file).unwrap();
    assert!(header.contains(r#""group_size":2"#) && header.contains(r#""translation":"fast""#));
    let again = replay(&file, &["--json", "--checked"]);
    assert_eq!(again.code, Some(0), "{}", again.said());
    let confirmed = first
        .out
        .replace(r#""outcome":"unconfirmed","checked":false"#, r#""outcome":"clean","checked":true"#);
    assert_eq!(
        confirmed, again.out,
        "every event, address and hash is the same; clean is only a checked run"
    );

    let (file, first) = record("checked_run", "legacy.sys", &["--do", TWO_WRITERS]);
    assert_eq!(first.code, Some(0), "{}", first.said());
    assert!(fs::read_to_string(&file).unwrap().contains(r#""translation":"checked""#));
    assert_eq!(replay(&file, &["--quiet"]).code, Some(0));

    rewritten(&file, |text| text.replace(r#""translation":"checked""#, r#""translation":"wishful""#));
    let refused = replay(&file, &[]);
    assert_eq!(refused.code, Some(2), "{}", refused.said());
    assert!(refused.err.contains("translation wishful"), "{}", refused.said());
}
