//! The tests of the workspace as programs: which there are, how one is started, several side by side.
//!
//! A process can hold one live machine, so each test is a process of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::call;

/// One test: the program it is in, the folder it expects to run in, its name.
pub(crate) struct Test {
    pub(crate) program: PathBuf,
    folder: PathBuf,
    /// The program is made of files of `tests`, so that a test's name starts with its file's.
    of_files: bool,
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

    /// `services::threads::a_thread_ends`: the file it is in, or the library or command, and its name there.
    pub(crate) fn label(&self) -> String {
        if self.of_files {
            return self.name.clone();
        }
        let stem = self.program.file_stem().unwrap_or_default().to_string_lossy();
        let program = stem.rsplit_once('-').map_or(&*stem, |(program, _)| program);
        format!("{program}::{}", self.name)
    }
}

/// Builds the tests that `selection` (arguments of `cargo test`) names, and lists them, without those that are ignored.
///
/// # Errors
/// They do not build, or one of the programs does not list what it has.
pub(crate) fn build(root: &Path, selection: &[&str]) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for (program, (folder, of_files)) in programs(root, selection)? {
        tests.extend(list(&program, &folder, of_files)?);
    }
    Ok(tests)
}

/// Builds the tests of one file of a package's `tests`, with `options` of `cargo test`, and lists them.
///
/// # Errors
/// No test program has such a file, or none of its tests is run; else as [`build`].
pub(crate) fn build_file(root: &Path, package: &str, file: &str, options: &[&str]) -> Result<Vec<Test>> {
    let program = program_of(root, package, file)?;
    let mut tests = build(root, &[&["-p", package, "--test", &program], options].concat())?;
    tests.retain(|test| test.name.split("::").next() == Some(file));
    ensure!(!tests.is_empty(), "{file} of {package} has no tests");
    Ok(tests)
}

/// One after the other, in one process, with what they print; none if there is no test.
pub(crate) fn in_a_row(tests: &[Test]) -> Option<Command> {
    let (first, others) = tests.split_first()?;
    let mut command = first.command();
    command.args(others.iter().map(|test| &test.name)).arg("--test-threads=1");
    Some(command)
}

/// The test program of `package` whose root names `file`.
fn program_of(root: &Path, package: &str, file: &str) -> Result<String> {
    let mut cargo = call::cargo(root);
    let text = call::output(cargo.args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo's metadata are not JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.filter(|it| it["name"] == package).filter_map(|it| it["targets"].as_array());
    for target in targets.flatten().filter(|target| target["kind"][0] == "test") {
        let (Some(name), Some(path)) = (target["name"].as_str(), target["src_path"].as_str()) else {
            continue;
        };
        let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
        if text.lines().any(|line| line == format!("mod {file};")) {
            return Ok(name.to_owned());
        }
    }
    bail!("no test program of {package} has a file {file}")
}

/// The test programs, each with its package's folder and whether it is made of files of `tests`.
fn programs(root: &Path, selection: &[&str]) -> Result<BTreeMap<PathBuf, (PathBuf, bool)>> {
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
            programs.insert(program.into(), (folder.into(), message["target"]["kind"][0] == "test"));
        }
    }
    Ok(programs)
}

fn list(program: &Path, folder: &Path, of_files: bool) -> Result<Vec<Test>> {
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
    let test =
        |name: &str| Test { program: program.into(), folder: folder.into(), of_files, name: name.into() };
    Ok(tests.map(test).collect())
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
    fn a_file_of_tests_is_found_in_its_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let program = |package, file| program_of(root, package, file).map_err(|error| error.to_string());
        assert_eq!(program("dirql-engine", "rewind").as_deref(), Ok("all"));
        assert_eq!(program("dirql", "kmdf_rules").as_deref(), Ok("pnp"));
        let none = "no test program of dirql has a file rewind";
        assert_eq!(program("dirql", "rewind").unwrap_err(), none);
    }

    #[test]
    fn tests_in_a_row_are_named_one_by_one() {
        let test = |name: &str| Test {
            program: "/x/deps/all-0f3a".into(),
            folder: "/x".into(),
            of_files: true,
            name: name.to_owned(),
        };
        assert!(in_a_row(&[]).is_none());
        let command = in_a_row(&[test("a::one"), test("a::two")]).unwrap();
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["--exact", "a::one", "--nocapture", "a::two", "--test-threads=1"]);
    }

    #[test]
    fn a_label_is_the_file_or_the_library_and_the_name() {
        let label = |program: &str, of_files, name: &str| {
            Test { program: program.into(), folder: "/x".into(), of_files, name: name.to_owned() }.label()
        };
        assert_eq!(label("/x/deps/hardware-0f3a", true, "edu_rust::a::b"), "edu_rust::a::b");
        assert_eq!(label("/x/deps/dirql-0f3a", false, "inf::tests::a"), "dirql::inf::tests::a");
    }
}
