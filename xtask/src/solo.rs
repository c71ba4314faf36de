//! Runs every test of the workspace in a process of its own, on a machine without `cargo-nextest`.
//!
//! A process can hold one live machine, so libtest's threads would make tests wait for each other or fail together.
//! `cargo-nextest` does the same and more, and is used where it is installed; but a fresh machine would have to build it
//! first: over nine minutes of processor time, ten by the clock on 2 busy cores, out of the fifteen that a first
//! `cargo xtask test` may take. It has no retries, no time-outs and no configuration file.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::suite::{self, Test};

/// Builds the tests and runs those whose name contains one of `filters`, or all.
///
/// # Errors
/// They do not build, or some fail: their output has been shown by then.
pub(crate) fn run(root: &Path, filters: &[String]) -> Result<()> {
    eprintln!("xtask: tests, each in its own process (cargo-nextest, if installed, would be used instead)");
    let mut all = suite::build(root, &["--workspace", "--lib", "--bins", "--tests"])?;
    all.retain(|test| filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter)));
    if all.is_empty() {
        bail!("there is no test whose name contains `{}`", filters.join("` or `"));
    }
    let passed = suite::side_by_side(&all, |_, test| {
        let mut command = test.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output().with_context(|| format!("cannot start {}", test.program.display()))?;
        report(test, &output);
        Ok(output.status.success())
    })?;
    let failed: Vec<String> = all
        .iter()
        .zip(passed)
        .filter(|(_, passed)| !passed)
        .map(|(test, _)| format!("{} --exact {}", test.program.display(), test.name))
        .collect();
    eprintln!("{} passed, {} failed", all.len() - failed.len(), failed.len());
    if !failed.is_empty() {
        bail!("failed:\n  {}", failed.join("\n  "));
    }
    Ok(())
}

/// Says how it ended, in one write: others end meanwhile.
fn report(test: &Test, output: &Output) {
    if output.status.success() {
        eprintln!("  pass  {}", test.name);
        return;
    }
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("  FAIL  {} ({})\n{text}\n{errors}", test.name, output.status);
}
