//! `--registry`, `--registry-value` and `--registry-save`: registry files that a run is given, in the jailed process that cannot open them any more, and that it leaves.

use std::fs;
use std::path::{Path, PathBuf};

use super::rig::{Answer, dirql, driver, folder};

const KEY: &str = r"HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\settings\Parameters";

/// A file of a folder of the test's own.
fn given(test: &str, lines: &str) -> PathBuf {
    let path = folder(test).join("my.reg");
    fs::write(&path, format!("Windows Registry Editor Version 5.00\r\n\r\n[{KEY}]\r\n{lines}\r\n")).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(more: &[&str]) -> Answer {
    let sys = driver("settings.sys");
    dirql(["run", text(&sys), "--quiet"].iter().chain(more))
}

#[test]
fn a_run_begins_with_what_is_given_and_what_it_leaves_is_given_to_the_next() {
    let one = given("saved", "\"Greeting\"=\"hello\"");
    let saved = one.with_file_name("left.reg");
    let answer = run(&["--registry", text(&one), "--registry-save", text(&saved)]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(
        answer.out.contains("settings: run 1\n") && answer.out.contains("settings: hello\n"),
        "{}",
        answer.said()
    );
    let bytes = fs::read(&saved).unwrap();
    assert!(bytes.starts_with(b"\xff\xfeW\0i\0n\0d\0o\0w\0s\0"), "UTF-16, with its mark");

    // Each file adds to those before it.
    let two = given("two", "\"Greeting\"=\"again\"");
    let next = one.with_file_name("next.reg");
    let files = ["--registry", text(&saved), "--registry", text(&two), "--registry-save", text(&next)];
    let answer = run(&files);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(
        answer.out.contains("settings: run 2\n") && answer.out.contains("settings: again\n"),
        "{}",
        answer.said()
    );
    assert!(next.is_file());
}

#[test]
fn the_same_file_makes_the_same_run_whatever_it_is_called() {
    let one = given("same", "\"Greeting\"=\"hello\"");
    let other = one.with_file_name("other.reg");
    fs::copy(&one, &other).unwrap();
    let ran = |path: &Path| dirql(["run", text(&driver("settings.sys")), "--json", "--registry", text(path)]);
    let (first, second) = (ran(&one), ran(&other));
    assert_eq!((first.code, &first.out), (Some(0), &second.out), "{}", first.said());
}

#[test]
fn a_record_holds_what_was_given_and_is_replayed_without_the_file() {
    let file = given("record", "\"Greeting\"=\"hello\"");
    let record = file.with_file_name("run.dirql");
    let answer = run(&["--registry", text(&file), "--record", text(&record), "--policy", "random:3"]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    fs::remove_file(&file).unwrap();
    let again = dirql(["replay", text(&record)]);
    let said = again.said();
    assert!(
        again.code == Some(0) && said.contains("replay: the same run, ") && said.contains("hello"),
        "{said}"
    );
}

#[test]
fn one_value_wins_over_a_file_and_is_in_the_record() {
    let file = given("value", "\"Greeting\"=\"hello\"");
    let record = file.with_file_name("run.dirql");
    let value = format!(r#"{KEY}\Greeting="again""#);
    let answer = run(&["--registry-value", &value, "--registry", text(&file), "--record", text(&record)]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(answer.out.contains("settings: again\n"), "{}", answer.said());
    let again = dirql(["replay", text(&record)]);
    assert!(again.code == Some(0) && again.out.contains("settings: again\n"), "{}", again.said());
}

#[test]
fn a_value_that_cannot_be_set_is_refused_in_one_line() {
    let refused = |value: &str, why: &str| {
        let answer = run(&["--registry-value", value]);
        let expected = format!("dirql: registry value {value}: {why}");
        assert!(answer.code == Some(2) && answer.err.starts_with(&expected), "{expected}\n{}", answer.said());
    };
    refused(r"HKLM\Software\Depth=dwrod:1", "`dwrod:1` stands here, which is no data of a value");
    refused(r"HKLN\Software\Depth=dword:1", "`HKLN` is no root of the registry; did you mean HKLM?");
    refused(r"HKLM\Software\Depth", r"this is neither a value, KEY\NAME=DATA, nor a key alone, KEY\;");
    refused("Depth=dword:1", r"this is neither a value, KEY\NAME=DATA, nor a key alone, KEY\;");
    refused("HKLM\\Software\\Depth=dword:1\n\"More\"=dword:1", "there is more than one value in it");
}

#[test]
fn a_search_and_many_runs_have_the_file_in_each_of_their_processes() {
    let file = given("search", "\"Disabled\"=dword:00000001");
    let sys = driver("settings.sys");
    let fails = r"open \\.\DirqlSettings as s expect STATUS_OBJECT_NAME_NOT_FOUND";
    let fixed = ["explore", text(&sys), "--registry", text(&file), "--do", fails];
    let answer = dirql(fixed.iter().chain(&["--preemptions", "1", "--workers", "2"]));
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let saved = file.with_file_name("left.reg");
    let many = ["--policy", "random:1", "--runs", "4", "--workers", "2", "--do", fails];
    let answer = run(&[&["--registry", text(&file), "--registry-save", text(&saved)], &many[..]].concat());
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(!saved.exists(), "no run is shown, so that none is saved");
    let answer = dirql(["run", text(&sys), "--do", fails]);
    assert_eq!(answer.code, Some(1), "without the file the device is there\n{}", answer.said());
}

#[test]
fn a_file_that_cannot_be_used_is_told_in_one_line() {
    let one_line = |answer: Answer, what: &str| {
        assert_eq!((answer.code, &*answer.err), (Some(2), &*format!("dirql: {what}\n")), "{}", answer.said());
    };
    let file = given("wrong", "\"Greeting\"=dwrod:1");
    let shown = text(&file).to_owned();
    one_line(
        run(&["--registry", &shown]),
        &format!("{shown}:4:12: `dwrod:1` stands here, which is no data of a value; did you mean `dword:`?"),
    );
    fs::write(&file, "Windows Registry Editor Version 5.00\n[HKEY_LOCAL_MACHNE\\Software]\n").unwrap();
    one_line(
        run(&["--registry", &shown]),
        &format!(
            "{shown}:2:2: `HKEY_LOCAL_MACHNE` is no root of the registry; did you mean HKEY_LOCAL_MACHINE?"
        ),
    );
    fs::remove_file(&file).unwrap();
    one_line(
        run(&["--registry", &shown]),
        &format!("{shown}: there is no such file; give the path of the registry file"),
    );
    // What is read is not written over.
    let file = given("over", "\"Greeting\"=\"hello\"");
    let answer = run(&["--registry", text(&file), "--registry-save", text(&file)]);
    assert!(answer.code == Some(2) && answer.err.contains("which this command reads"), "{}", answer.said());
}

#[test]
fn the_tree_and_wmi_take_it_too() {
    let file = given("tree", "\"Greeting\"=\"hello\"");
    for command in ["tree", "wmi"] {
        let answer = dirql([command, text(&driver("settings.sys")), "--registry", text(&file)]);
        assert_eq!(answer.code, Some(0), "{command}\n{}", answer.said());
    }
}
