//! The tests of the workspace as programs: which there are, how one is started, several side by side.
//!
//! A process can hold one live machine, so each test is a process of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

use crate::call;

/// One test: the program it is in, the folder it expects to run in, its name.
pub(crate) struct Test {
    pub(crate) program: PathBuf,
    folder: PathBuf,
    pub(crate) name: String,
}

impl Test {
    /// What is called to run it; nothing is captured yet.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command.args(["--exact", &self.name, "--nocapture"]);
        command.stdin(Stdio::null());
        command
    }

    /// `services::threads::a_thread_ends`: the file it is in and its name there.
    pub(crate) fn label(&self) -> String {
        let stem = self.program.file_stem().unwrap_or_default().to_string_lossy();
        let file = stem.rsplit_once('-').map_or(&*stem, |(file, _)| file);
        format!("{file}::{}", self.name)
    }
}

/// Builds the tests that `selection` (arguments of `cargo test`) names, and lists them, without those that are ignored.
///
/// # Errors
/// They do not build, or one of the programs does not list what it has.
pub(crate) fn build(root: &Path, selection: &[&str]) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for (program, folder) in programs(root, selection)? {
        tests.extend(list(&program, &folder)?);
    }
    Ok(tests)
}

/// The test programs, each with its package's folder.
fn programs(root: &Path, selection: &[&str]) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut cargo = call::cargo(root);
    cargo.args(["test", "--no-run", "--quiet", "--message-format", "json-render-diagnostics"]);
    cargo.args(selection);
    let mut programs = BTreeMap::new();
    for line in call::output(&mut cargo)?.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).context("cargo's messages are not JSON")?;
        let (Some(program), Some(manifest)) =
            (message["executable"].as_str(), message["manifest_path"].as_str())
        else {
            continue;
        };
        if message["profile"]["test"].as_bool() == Some(true) {
            let folder = Path::new(manifest).parent().unwrap_or(root);
            programs.insert(program.into(), folder.into());
        }
    }
    Ok(programs)
}

fn list(program: &Path, folder: &Path) -> Result<Vec<Test>> {
    let names =
        call::output(Command::new(program).current_dir(folder).args(["--list", "--format", "terse"]))?;
    let ignored = call::output(Command::new(program).current_dir(folder).args([
        "--list",
        "--format",
        "terse",
        "--ignored",
    ]))?;
    let tests = names.lines().filter(|line| !ignored.lines().any(|other| other == *line));
    let tests = tests.filter_map(|line| line.strip_suffix(": test"));
    Ok(tests.map(|name| Test { program: program.into(), folder: folder.into(), name: name.into() }).collect())
}

/// Does `work` for each of `items`, as many at a time as the host has processors, and returns the results in the items' order.
///
/// # Errors
/// The first of what went wrong; the rest is done all the same.
///
/// # Panics
/// If `work` does.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    shared_among(workers, items, work)
}

/// No worker waits for another: a worker that has done an item takes the next one.
fn shared_among<T: Sync, R: Send>(
    workers: usize,
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, Result<R>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(index, item);
                    results.lock().expect("no worker panics with it").insert(index, result);
                }
            });
        }
    });
    results.into_inner().expect("no worker panics with it").into_values().collect()
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let doubled = side_by_side(&[1, 2, 3, 4, 5], |_, item| Ok(item * 2)).unwrap();
        assert_eq!(doubled, [2, 4, 6, 8, 10]);
    }

    #[test]
    fn an_item_that_takes_long_holds_up_no_other() {
        let (done, end) = (Mutex::new(0), std::sync::Condvar::new());
        let all = shared_among(2, &[0, 1, 2, 3, 4], |_, item| {
            let mut done = done.lock().unwrap();
            if *item == 0 {
                // It takes until all the others are done.
                let (_done, late) = end
                    .wait_timeout_while(done, std::time::Duration::from_secs(60), |done| *done < 4)
                    .unwrap();
                assert!(!late.timed_out(), "the others wait for this one");
            } else {
                *done += 1;
                end.notify_all();
            }
            Ok(*item)
        });
        assert_eq!(all.unwrap(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_goes_wrong_with_one_item_does_not_keep_the_others_from_being_done() {
        let done = AtomicUsize::new(0);
        let result = side_by_side(&[1, 2, 3], |_, item| {
            done.fetch_add(1, Ordering::Relaxed);
            if *item == 1 { bail!("one") } else { Ok(()) }
        });
        assert_eq!(result.unwrap_err().to_string(), "one");
        assert_eq!(done.into_inner(), 3);
    }

    #[test]
    fn a_label_is_the_file_and_the_name() {
        let test =
            Test { program: "/x/deps/edu_rust-0f3a".into(), folder: "/x".into(), name: "a::b".to_owned() };
        assert_eq!(test.label(), "edu_rust::a::b");
    }
}
