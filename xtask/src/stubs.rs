//! `stubs`: whether a test would notice that an export does nothing.
//!
//! For each export, the machines of the tests that reach it are run again with one in its place that returns 0 and touches nothing
//! (`DIRQL_STUB`), the shortest test first, until one fails: `docs/coverage.md` names that test. An export for which none fails has to stand
//! in the table of survivors with its reason.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::coverage::{self, Reach};
use crate::suite;

/// A test that takes so many times as long as it does without the stub never ends: that is noticed, too.
const PATIENCE: u32 = 20;
/// What a test may take at least.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);
/// How often a test is asked whether it has ended.
const TICK: Duration = Duration::from_millis(5);

/// Asks for the exports `names`, or for all; writes the document.
///
/// # Errors
/// There is no such export; a survivor without a reason, or a reason for one that does not survive.
pub(crate) fn write(root: &Path, names: &[String]) -> Result<()> {
    let known = coverage::exports(root)?;
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        bail!("{unknown} is no export of dirql");
    }
    let exports = if names.is_empty() { known } else { names.to_vec() };
    let all = coverage::reached(root)?;
    let noticed = suite::side_by_side(&exports, |_, export| {
        let noticed = noticed(&all, export)?;
        eprintln!("  {export}: {}", noticed.as_deref().unwrap_or("not noticed"));
        Ok(noticed)
    })?;
    let mut named = coverage::named(root)?;
    let reasons = coverage::survivors(root)?;
    let mut wrong = Vec::new();
    for (export, test) in exports.into_iter().zip(noticed) {
        match (test, reasons.contains_key(&export)) {
            (None, false) => wrong.push(format!("{export}: no test fails if it does nothing")),
            (Some(test), true) => wrong.push(format!("{export}: {test} fails; take its reason out")),
            (None, true) => drop(named.remove(&export)),
            (Some(test), false) => drop(named.insert(export, test)),
        }
    }
    coverage::store(root, &named)?;
    if !wrong.is_empty() {
        bail!("\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

/// The first of the tests that reach `export` that fails if it does nothing.
fn noticed(all: &[Reach], export: &str) -> Result<Option<String>> {
    for reach in all.iter().filter(|reach| reach.exports.contains(export)) {
        if fails(reach, export)? {
            return Ok(Some(reach.test.label()));
        }
    }
    Ok(None)
}

/// Whether the test fails, or never ends, with a stub in the place of `export`.
fn fails(reach: &Reach, export: &str) -> Result<bool> {
    let mut command = reach.test.command();
    command.env("DIRQL_STUB", export).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", reach.test.program.display()))?;
    let mut left = (reach.took * PATIENCE).max(LEAST_PATIENCE);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(!status.success());
        }
        if left.is_zero() {
            // With what it has started.
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            child.wait()?;
            return Ok(true);
        }
        std::thread::sleep(TICK);
        left = left.saturating_sub(TICK);
    }
}
