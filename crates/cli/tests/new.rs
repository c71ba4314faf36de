//! `dirql new`: what it makes builds and is green, and what it cannot make is one message.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::rig::{Answer, folder};

/// `dirql` in a folder.
fn dirql_in(folder: &Path, arguments: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_dirql")).args(arguments).current_dir(folder).output();
    Answer::of(output.unwrap())
}

/// Runs `./test.sh` of the new folder, with the built command first on the path.
fn test(folder: &Path, options: &[&str]) -> String {
    let dirql = Path::new(env!("CARGO_BIN_EXE_dirql")).parent().unwrap();
    let path = format!("{}:{}", dirql.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("./test.sh");
    // What a test of the workspace is built by is not what a driver is.
    shell
        .args(options)
        .current_dir(folder)
        .env("PATH", path)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    let answer = Answer::of(shell.output().unwrap());
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    answer.out
}

/// What a green test has printed.
fn is_green(out: &str) {
    assert!(out.contains(": 0 errors, 0 warnings, 0 advice"), "{out}");
    let verdicts = out.lines().filter(|line| *line == "verdict: clean").count();
    assert_eq!(verdicts, 4, "{out}");
    assert!(out.contains("none is broken"), "{out}");
}

#[test]
fn a_driver_in_c_builds_and_is_green() {
    let place = folder("new-c");
    let answer = dirql_in(&place, &["new", "mycard", "--device", "1AF4:00ff", "--lang", "c"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""), "{}", answer.said());
    assert!(answer.out.contains("cd mycard && ./test.sh"), "{}", answer.said());
    let made = place.join("mycard");
    is_green(&test(&made, &[]));
    is_green(&test(&made, &["clang-19"]));
    assert!(fs::read_to_string(made.join("README.md")).unwrap().contains("PCI card 1af4:00ff"));
}

#[test]
fn a_driver_in_rust_builds_and_is_green() {
    let place = folder("new-rust");
    let answer = dirql_in(&place, &["new", "other_card", "--device", "10b5:9050"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""), "{}", answer.said());
    is_green(&test(&place.join("other_card"), &["--offline"]));
}

#[test]
fn no_file_keeps_a_mark_of_its_template() {
    for language in ["c", "rust"] {
        let place = folder("new-marks");
        assert_eq!(
            dirql_in(&place, &["new", "mycard", "--device", "10b5:9050", "--lang", language]).code,
            Some(0)
        );
        let mut open = vec![place.join("mycard")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for mark in ["NAME", "VVVV", "DDDD", "PACKAGES", "ORIGIN", "WDM\n", "CRATE"] {
                assert!(!text.contains(mark), "{} has {mark}", path.display());
            }
        }
    }
}

#[test]
fn what_cannot_be_made_is_one_message() {
    let place = folder("new-wrong");
    fs::create_dir(place.join("there")).unwrap();
    for (name, device, says) in [
        ("My-Card", "10b5:9050", "`My-Card` cannot be a driver's name"),
        ("9card", "10b5:9050", "`9card` cannot be a driver's name"),
        ("../up", "10b5:9050", "`../up` cannot be a driver's name"),
        ("match", "10b5:9050", "`match` is a word that Rust, Windows or the folder itself has"),
        ("mycard", "10b5", "`10b5` is not VVVV:DDDD"),
        ("mycard", "10b5:905", "`10b5:905` is not VVVV:DDDD"),
        ("mycard", "ffff:9050", "`ffff:9050` is not VVVV:DDDD"),
        ("there", "10b5:9050", "there exists already"),
    ] {
        let answer = dirql_in(&place, &["new", name, "--device", device]);
        assert_eq!((answer.code, &*answer.out), (Some(2), ""), "{}", answer.said());
        assert!(answer.err.contains(says) && answer.err.lines().count() == 1, "{says}\n{}", answer.said());
    }
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing was made");
}
