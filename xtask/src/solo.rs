//! Runs every test of the workspace in a process of its own, on a machine without `cargo-nextest`.
//!
//! A process can hold one live machine, so libtest's threads would make tests wait for each other or fail together.
//! `cargo-nextest` does the same and more, and is used where it is installed; but a fresh machine would have to build it
//! first: over nine minutes of processor time, ten by the clock on 2 busy cores, out of the fifteen that a first
//! `cargo xtask test` may take. It has no retries, no time-outs and no configuration file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::call;

/// One test: the program it is in, the folder it expects to run in, its name.
struct Test {
    program: PathBuf,
    folder: PathBuf,
    name: String,
}

/// Builds the tests and runs those whose name contains one of `filters`, or all.
///
/// # Errors
/// They do not build, or some fail: their output has been shown by then.
pub(crate) fn run(root: &Path, filters: &[String]) -> Result<()> {
    eprintln!("xtask: tests, each in its own process (cargo-nextest, if installed, would be used instead)");
    let mut tests = Vec::new();
    for (program, folder) in programs(root)? {
        tests.extend(list(&program, &folder)?);
    }
    tests.retain(|test| filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter)));
    if tests.is_empty() {
        bail!("there is no test whose name contains `{}`", filters.join("` or `"));
    }
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut failed = Vec::new();
    for batch in tests.chunks(workers) {
        let children: Vec<_> = batch.iter().map(start).collect::<Result<_>>()?;
        for (test, child) in batch.iter().zip(children) {
            report(test, &child.wait_with_output()?, &mut failed);
        }
    }
    eprintln!("{} passed, {} failed", tests.len() - failed.len(), failed.len());
    if !failed.is_empty() {
        bail!("failed:\n  {}", failed.join("\n  "));
    }
    Ok(())
}

/// The test programs, each with its package's folder.
fn programs(root: &Path) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut cargo = call::cargo(root);
    cargo.args(["test", "--workspace", "--no-run", "--quiet", "--message-format", "json-render-diagnostics"]);
    cargo.args(["--lib", "--bins", "--tests"]);
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

fn start(test: &Test) -> Result<std::process::Child> {
    let mut command = Command::new(&test.program);
    command.current_dir(&test.folder).env("CARGO_MANIFEST_DIR", &test.folder);
    command.args(["--exact", &test.name, "--nocapture"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("cannot start {}", test.program.display()))
}

fn report(test: &Test, output: &Output, failed: &mut Vec<String>) {
    if output.status.success() {
        eprintln!("  pass  {}", test.name);
        return;
    }
    eprintln!("  FAIL  {} ({})", test.name, output.status);
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    failed.push(format!("{} --exact {}", test.program.display(), test.name));
}
