//! `dirql explore --state`: a search that is ended by its bound, a signal, or with its process goes on, and says what one says that was never
//! interrupted; and what is refused as a state.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::rig::lost_update::{COUNTED, DIFFERING, QUIET, UNSEEN};
use super::rig::{Answer, dirql, driver, folder};

fn command(script: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command
        .arg("explore")
        .arg(driver("lost_update.sys"))
        .args(["--processors", "2", "--do", script])
        .args(more);
    command.env_remove("RUST_BACKTRACE");
    command
}

fn explore(script: &str, more: &[&str]) -> Answer {
    Answer::of(command(script, more).output().unwrap())
}

/// With that file.
fn kept(script: &str, more: &[&str], state: &Path) -> Answer {
    explore(script, &[more, &["--state", state.to_str().unwrap()]].concat())
}

/// Where a state may be.
fn place(name: &str) -> PathBuf {
    folder(name).join("search.state")
}

fn same(one: &Answer, other: &Answer, when: &str) {
    // The command that makes a finding again does not name the state.
    assert_eq!((one.code, &one.out, &one.err), (other.code, &other.out, &other.err), "{when}");
}

/// Threads of which each has its own requests: many schedules.
const MANY: &str = r"open \\.\DirqlLostUpdate as a
open \\.\DirqlLostUpdate as b
open \\.\DirqlLostUpdate as c
t: ioctl a 0x22200c; ioctl a 0x22200c
u: ioctl b 0x22200c; ioctl b 0x22200c
ioctl c 0x22200c
join t; join u";

#[test]
fn a_search_that_was_ended_by_its_bound_goes_on_and_says_what_one_says_that_was_not() {
    let cases: [(&str, &[&str]); 5] = [
        (UNSEEN, &["--preemptions", "3"]),
        (UNSEEN, &["--preemptions", "2", "--json"]),
        (QUIET, &["--quiet"]),
        (DIFFERING, &["--preemptions", "2"]), // with findings that make no run fail
        (COUNTED, &["--policy", "random:1"]),
    ];
    for (number, (script, more)) in cases.into_iter().enumerate() {
        let whole = explore(script, &[more, &["--schedules", "3000"]].concat());
        for workers in ["1", "3"] {
            let state = place(&format!("bounded_{number}_{workers}"));
            for schedules in ["1", "20", "300"] {
                let bounds = [more, &["--workers", workers, "--schedules", schedules]].concat();
                same(&kept(script, &bounds, &state), &explore(script, &bounds), schedules);
            }
            let bounds = [more, &["--workers", workers, "--schedules", "3000"]].concat();
            same(&kept(script, &bounds, &state), &whole, "to its end");
            let (size, again) = (state.metadata().unwrap().len(), kept(script, &bounds, &state));
            same(&again, &whole, "and once more");
            // Where something is found, workers are ahead of it.
            assert!(whole.code != Some(0) || state.metadata().unwrap().len() == size, "which makes nothing");
        }
    }
}

#[test]
fn a_search_goes_on_from_wherever_its_state_was_cut_short() {
    let more = ["--preemptions", "2", "--json"];
    let (state, whole) = (place("cut"), explore(UNSEEN, &more));
    kept(UNSEEN, &[&more[..], &["--schedules", "200"]].concat(), &state);
    same(&kept(UNSEEN, &more, &state), &whole, "to its end");
    let bytes = std::fs::read(&state).unwrap();
    let head = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
    for part in 0..8 {
        let length = head + (bytes.len() - head) * part / 8;
        std::fs::write(&state, &bytes[..length]).unwrap();
        let workers = if part % 2 == 0 { "1" } else { "3" };
        same(&kept(UNSEEN, &[&more[..], &["--workers", workers]].concat(), &state), &whole, "cut short");
    }
}

/// Starts it, in a group of its own, and waits until its state has grown.
fn started(more: &[&str], state: &Path) -> Child {
    let size = || state.metadata().map_or(0, |data| data.len());
    let before = size().max(3000);
    let mut command = command(MANY, &[more, &["--state", state.to_str().unwrap()]].concat());
    let mut child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while size() <= before && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

const BOUNDS: [&str; 5] = ["--preemptions", "3", "--schedules", "12000", "--workers"];

#[test]
fn a_search_whose_process_was_killed_goes_on_from_what_it_had_written() {
    let whole = explore(MANY, &BOUNDS[..4]);
    assert!(whole.out.starts_with("explored 12000 schedules"), "{}", whole.said());
    for workers in ["1", "3"] {
        let (state, bounds) = (place("killed"), [&BOUNDS[..], &[workers]].concat());
        let mut killed = 0;
        for _ in 0..3 {
            let mut child = started(&bounds, &state);
            child.kill().unwrap();
            killed += u32::from(child.wait().unwrap().code().is_none());
        }
        assert!(killed > 0, "it is killed before its end");
        same(&kept(MANY, &bounds, &state), &whole, workers);
    }
}

#[test]
fn an_interrupted_search_says_what_it_has_not_tried_and_goes_on() {
    let whole = explore(MANY, &BOUNDS[..4]);
    for (signal, workers) in [(Signal::INT, "1"), (Signal::TERM, "3")] {
        let (state, bounds) = (place("interrupted"), [&BOUNDS[..], &[workers]].concat());
        let child = started(&bounds, &state);
        // As a terminal does: the workers get it, too.
        kill_process_group(Pid::from_child(&child), signal).unwrap();
        // And `timeout` sends two, one to its command and one to the group.
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = Answer::of(child.wait_with_output().unwrap());
        assert_eq!((ended.code, &*ended.err), (Some(3), ""), "{}", ended.said());
        for text in
            ["it was interrupted, and none of them is broken\nnot tried: ", "\nto go on: dirql explore "]
        {
            assert!(ended.out.contains(text), "no `{text}`: {}", ended.said());
        }
        assert!(ended.out.ends_with(&format!("--state {}\n", state.display())), "{}", ended.said());
        same(&kept(MANY, &bounds, &state), &whole, workers);
    }
}

#[test]
fn without_a_state_an_interrupted_search_says_what_it_has_not_tried_too() {
    let bounds = ["--preemptions", "3", "--schedules", "1000000", "--json"];
    let child = command(MANY, &bounds).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = Answer::of(child.wait_with_output().unwrap());
    assert_eq!((ended.code, &*ended.err), (Some(3), ""), "{}", ended.said());
    let said: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let explored = &said["explored"];
    assert_eq!(
        (&explored["interrupted"], &explored["complete"]),
        (&true.into(), &false.into()),
        "{}",
        ended.said()
    );
    let known = explored["not_tried"]["known"].as_array().unwrap();
    assert!(known.len() == 4 && known.iter().any(|count| count.as_u64() > Some(0)), "{}", ended.said());
}

/// What is refused, and why.
fn refused(answer: &Answer, texts: &[&str]) {
    assert_eq!((answer.code, &*answer.out), (Some(2), ""), "{}", answer.said());
    assert_eq!(answer.err.lines().count(), 1, "{}", answer.said());
    for text in texts {
        assert!(answer.err.contains(text), "no `{text}`: {}", answer.said());
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_what_differs_and_left_as_it_is() {
    let (state, more) = (place("other"), ["--preemptions", "1"]);
    assert_eq!(kept(UNSEEN, &more, &state).code, Some(0));
    let bytes = std::fs::read(&state).unwrap();
    let other = |more: &[&str], texts: &[&str]| refused(&kept(UNSEEN, more, &state), texts);
    other(
        &["--faults"],
        &["search.state: is of another search: faults: false then, true now; ", "give another name"],
    );
    other(&["--instructions"], &["instructions: false then, true now"]);
    other(&["--policy", "random:1"], &["of another search: "]);
    other(&["--checked"], &["translation: `fast` then, `checked` now"]);
    other(&["--memory", "64M"], &["memory: 201326592 then, 67108864 now"]);
    refused(&kept(QUIET, &more, &state), &["script: "]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command.arg("explore").arg(driver("queue.sys")).args(["--processors", "2", "--do", UNSEEN, "--state"]);
    let another = Answer::of(command.arg(&state).output().unwrap());
    refused(&another, &["driver: one whose SHA-256 begins with "]);
    assert_eq!(std::fs::read(&state).unwrap(), bytes);
    let twice = kept(UNSEEN, &["--preemptions", "2"], &state);
    same(&twice, &explore(UNSEEN, &["--preemptions", "2"]), "with more preemptions it goes on");
}

#[test]
fn what_is_no_state_is_refused_and_not_written_over() {
    let state = place("damaged");
    assert_eq!(kept(UNSEEN, &["--preemptions", "1"], &state).code, Some(0));
    let bytes = std::fs::read(&state).unwrap();
    let mut damaged = bytes.clone();
    let at = bytes.len() - 200;
    damaged[at] ^= 1;
    let no_state: [(&[u8], &str); 4] = [
        (&damaged, "was changed or damaged after it was written: the checksum in line "),
        (&bytes[..100], "is no state of a search, or cut short in its first lines; delete it"),
        (b"", "is no state of a search"),
        (b"\xff\xfe\n", "is no state of a search"),
    ];
    for (bytes, text) in no_state {
        std::fs::write(&state, bytes).unwrap();
        refused(&kept(UNSEEN, &["--preemptions", "1"], &state), &["search.state: ", text]);
        assert_eq!(std::fs::read(&state).unwrap(), bytes);
    }
    let folder = state.parent().unwrap();
    refused(&kept(UNSEEN, &[], folder), &["cannot be written: it is a folder"]);
    refused(&kept(UNSEEN, &[], &driver("lost_update.sys")), &["which this command reads"]);
    refused(
        &kept(UNSEEN, &[], Path::new("/no/such/folder/a.state")),
        &["/no/such/folder/a.state: cannot be written"],
    );
    let name = state.to_str().unwrap();
    refused(&kept(UNSEEN, &["--record", name], &state), &["two things cannot be written to one file"]);
}

#[test]
fn two_searches_do_not_write_one_state() {
    let state = place("locked");
    let mut child = started(&["--preemptions", "3", "--schedules", "1000000"], &state);
    let second = kept(MANY, &["--preemptions", "3"], &state);
    assert!(child.try_wait().unwrap().is_none(), "the first is still at it");
    child.kill().unwrap();
    child.wait().unwrap();
    refused(&second, &["search.state: another search is writing it"]);
    assert_eq!(dirql(["explore", "x.sys", "--do", "close", "--in-process", "--state", "y"]).code, Some(2));
}
