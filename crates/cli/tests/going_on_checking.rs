//! `dirql check --state`: a check that is ended by a signal, or with its process, goes on, and says what one says that was never interrupted.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::rig::{Answer, folder, root};

fn command(more: &[&str]) -> Command {
    let sys = root().join("target/museum/timer_left_at_unload.sys");
    assert!(sys.is_file(), "{} is not there: run `cargo xtask museum --build` first", sys.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command.arg("check").arg(sys).args(["--json", "--quiet"]).args(more);
    command
}

fn check(more: &[&str]) -> Answer {
    Answer::of(command(more).output().unwrap())
}

fn place() -> (PathBuf, String) {
    let state = folder("going_on_checking").join("check.state");
    let option = format!("--state={}", state.display());
    (state, option)
}

fn lines(state: &Path) -> usize {
    std::fs::read_to_string(state).unwrap_or_default().lines().filter(|line| line.starts_with("job ")).count()
}

/// Starts it, in a group of its own, and waits until a job more is in its state.
fn started(more: &[&str], state: &Path) -> Child {
    let before = lines(state);
    let mut command = command(more);
    let mut child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while lines(state) <= before && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn same(one: &Answer, other: &Answer) {
    assert_eq!((one.code, &one.out), (other.code, &other.out));
}

#[test]
fn a_check_that_was_killed_or_interrupted_goes_on_and_reports_as_one_that_was_not() {
    let whole = check(&["--budget=20"]);
    assert_eq!(whole.code, Some(1), "{}", whole.said());
    let (state, option) = place();
    let more = ["--budget=20", &option, "--workers=2"];
    let mut child = started(&more, &state);
    child.kill().unwrap();
    let killed = child.wait().unwrap().code().is_none();
    let child = started(&more, &state);
    kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    let interrupted = Answer::of(child.wait_with_output().unwrap());
    assert!(killed, "it is killed before its end");
    assert!(interrupted.out.contains("it was interrupted; not done: "), "{}", interrupted.said());
    assert!(interrupted.out.contains("jobs; the same command goes on"), "{}", interrupted.said());
    same(&check(&more), &whole);
    let jobs = lines(&state);
    same(&check(&more), &whole);
    assert_eq!(lines(&state), jobs, "what was done is not done again");
}

#[test]
fn a_state_of_another_check_or_of_none_is_refused() {
    let (state, option) = place();
    check(&["--budget=1", &option]);
    let answer = check(&["--budget=2", &option]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(
        answer.err.contains("is of another check: budget: 1 then, 2 now; check with"),
        "{}",
        answer.said()
    );
    std::fs::write(&state, "mine\n").unwrap();
    let answer = check(&["--budget=1", &option]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("is no state of a check"), "{}", answer.said());
}
