//! `coverage`: which tests reach which exports, written to `docs/coverage.md`.
//!
//! The list is the export table's own; the calls are written by the machines of the tests (`DIRQL_COVERAGE`). Whether a test would notice
//! that an export does nothing is asked by `stubs`, which names the test of each export here. Of exported variables it says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::suite::{self, Test};
use crate::{drivers, museum};

/// The export table.
const TABLE: &str = "crates/kernel/src/exports/functions.rs";
/// What Windows exports and dirql does not mean to have, with reasons.
const LEFT_OUT: &str = "crates/kernel/src/exports/left_out.tsv";
/// Exports in whose place a stub would not be noticed, with reasons.
const SURVIVORS: &str = "crates/kernel/src/exports/survivors.tsv";
/// The document.
const DOCUMENT: &str = "docs/coverage.md";

const HEAD: &str = "\
# Exports and their tests

Written by `cargo xtask coverage` and `cargo xtask stubs`; a test fails if a row of the export table is missing here, or names no test.
*Test* is a test of a whole machine (`crates/dirql/tests`, `crates/cli/tests`) in which a compiled driver calls the export. `stubs` puts a
routine in the place of each export that returns 0 and touches nothing, and names a test that fails then. The kernel's own tests, which call
services directly, are not counted.
";

/// One row of the export table.
struct Row<'a> {
    name: &'a str,
    module: &'a str,
    irql: &'a str,
    service: &'a str,
}

/// A test, and what its machines called.
pub(crate) struct Reach {
    pub(crate) test: Test,
    pub(crate) exports: BTreeSet<String>,
    /// Host time that it took.
    pub(crate) took: Duration,
}

/// The test of each export, by the export's name.
pub(crate) type Tests = BTreeMap<String, String>;

/// Runs the tests of whole machines and writes the document. A test that it names stays, as long as it still reaches its export.
///
/// # Errors
/// The tests do not build, or the document cannot be written.
pub(crate) fn write(root: &Path) -> Result<()> {
    let all = reached(root)?;
    let mut named = named(root)?;
    named.retain(|export, test| all.iter().any(|it| it.test.label() == *test && it.exports.contains(export)));
    // Of these a test calls the export and would not notice a stub.
    let survivors = survivors(root)?;
    for Reach { test, exports, .. } in &all {
        for export in exports.iter().filter(|export| !survivors.contains_key(*export)) {
            named.entry(export.clone()).or_insert_with(|| test.label());
        }
    }
    store(root, &named)
}

/// The host's clock: it measures tests from outside.
#[allow(clippy::disallowed_types, reason = "it measures a process from outside, and no machine sees it")]
type Clock = std::time::Instant;

/// Runs the tests of whole machines, each in a process of its own; the shortest first. One that fails is named and left out.
///
/// # Errors
/// They do not build, or one cannot be started.
pub(crate) fn reached(root: &Path) -> Result<Vec<Reach>> {
    drivers::build(root, &drivers::default_out(root))?;
    museum::build_for_tests(root)?;
    let folder = root.join("target/coverage");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let tests = suite::build(root, &["-p", "dirql", "-p", "dirql-cli", "--tests"])?;
    eprintln!("xtask: {} tests of whole machines", tests.len());
    let reports = suite::side_by_side(&tests, |index, test| {
        let file = folder.join(format!("{index}.txt"));
        let mut command = test.command();
        command.env("DIRQL_COVERAGE", &file).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Clock::now();
        let status = command.status().with_context(|| format!("cannot start {}", test.program.display()))?;
        let took = begun.elapsed();
        let report = status.success().then(|| fs::read_to_string(file).unwrap_or_default());
        if report.is_none() {
            eprintln!("xtask: {} failed ({status}), and is left out", test.label());
        }
        Ok((report, took))
    })?;
    let with = |(test, (report, took)): (Test, (Option<String>, Duration))| {
        Some(Reach { test, exports: report?.lines().map(str::to_owned).collect(), took })
    };
    let mut all: Vec<Reach> = tests.into_iter().zip(reports).filter_map(with).collect();
    all.sort_by_key(|reach| reach.took);
    Ok(all)
}

/// The tests that the document names.
///
/// # Errors
/// It cannot be read.
pub(crate) fn named(root: &Path) -> Result<Tests> {
    let document = fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    let cells = document.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [name, .., test] = cells[..] else { return None };
        (cells.len() == 5 && test.contains("::")).then(|| (name.to_owned(), test.to_owned()))
    });
    Ok(cells.collect())
}

/// The reasons of the exports in whose place a stub is not noticed.
///
/// # Errors
/// The table cannot be read.
pub(crate) fn survivors(root: &Path) -> Result<BTreeMap<String, String>> {
    reasons(root, SURVIVORS)
}

/// A table of names and reasons.
fn reasons(root: &Path, path: &str) -> Result<BTreeMap<String, String>> {
    let table = fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
    let rows = table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'));
    Ok(rows.map(|(name, reason)| (name.to_owned(), reason.to_owned())).collect())
}

/// Writes the document with these tests.
///
/// # Errors
/// A table cannot be read, or the document not be written.
pub(crate) fn store(root: &Path, tests: &Tests) -> Result<()> {
    let table = fs::read_to_string(root.join(TABLE)).context(TABLE)?;
    let text = document(&rows(&table), tests, &survivors(root)?, &reasons(root, LEFT_OUT)?);
    fs::write(root.join(DOCUMENT), text).context(DOCUMENT)?;
    eprintln!("xtask: {DOCUMENT}");
    Ok(())
}

/// The export table's names.
///
/// # Errors
/// It cannot be read.
pub(crate) fn exports(root: &Path) -> Result<Vec<String>> {
    let table = fs::read_to_string(root.join(TABLE)).context(TABLE)?;
    Ok(rows(&table).iter().map(|row| row.name.to_owned()).collect())
}

fn rows(table: &str) -> Vec<Row<'_>> {
    table.lines().filter_map(row).collect()
}

/// `: KeSetEvent(3) @ 0..=2 => ke::event::set;`, with `hal`, `recorder`, `wdfldr` or `wmilib` before the colon for what is in HAL.dll,
/// wpprecorder.sys, wdfldr.sys or wmilib.sys.
fn row(line: &str) -> Option<Row<'_>> {
    let (left, service) = line.trim().strip_suffix(';')?.split_once(" => ")?;
    let (module, rest) = left.split_once(": ")?;
    let (name, levels) = rest.split_once(" @ ")?;
    // What Windows survives, and what the call is, are no matter of this column.
    let irql = levels.split(" ~ ").next()?.split(" is ").next()?;
    let module = match module.trim() {
        "hal" => "hal.dll",
        "wdfldr" => "wdfldr.sys",
        "wmilib" => "wmilib.sys",
        "recorder" => "wpprecorder.sys",
        _ => "ntoskrnl.exe",
    };
    Some(Row { name: name.split('(').next()?, module, irql, service })
}

fn document(
    rows: &[Row<'_>],
    tests: &Tests,
    survivors: &BTreeMap<String, String>,
    left_out: &BTreeMap<String, String>,
) -> String {
    let count = rows.iter().filter(|row| tests.contains_key(row.name)).count();
    let mut text = format!("{HEAD}\n{count} of {} functions have a test.\n\n", rows.len());
    text.push_str("| function | module | IRQL | service | test |\n| --- | --- | --- | --- | --- |\n");
    for Row { name, module, irql, service } in rows {
        let test = tests.get(*name).map_or("", String::as_str);
        let irql = irql.replace("..=", "–");
        let _ = writeln!(text, "| {name} | {module} | {irql} | {service} | {test} |");
    }
    text.push_str("\n## Where a stub is not noticed\n\nNo test fails if these return 0 and do nothing.\n\n");
    table(&mut text, survivors);
    text.push_str("\n## Left out\n\nA call of one of these is a verdict with its name.\n\n");
    table(&mut text, left_out);
    text
}

fn table(text: &mut String, rows: &BTreeMap<String, String>) {
    text.push_str("| function | reason |\n| --- | --- |\n");
    for (name, reason) in rows {
        let _ = writeln!(text, "| {name} | {reason} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_table_is_a_row_of_the_document() {
        let rows: Vec<Row<'_>> = [
            "exports! { FUNCTIONS:",
            "    : KeSetEvent(3) @ 0..=2 => ke::event::set;",
            "    hal : KfRaiseIrql(1) @ 0..=15 ~ 0..=15 => ke::irql::raise;",
        ]
        .into_iter()
        .filter_map(row)
        .collect();
        assert_eq!(rows.len(), 2);
        let tests = Tests::from([("KeSetEvent".to_owned(), "services::sets".to_owned())]);
        let reasons = |name: &str| BTreeMap::from([(name.to_owned(), "why".to_owned())]);
        let text = document(&rows, &tests, &reasons("KfRaiseIrql"), &reasons("ClfsAddLogContainer"));
        assert!(text.contains("1 of 2 functions have a test."), "{text}");
        assert!(
            text.contains("| KeSetEvent | ntoskrnl.exe | 0–2 | ke::event::set | services::sets |"),
            "{text}"
        );
        assert!(text.contains("| KfRaiseIrql | hal.dll | 0–15 | ke::irql::raise |  |"), "{text}");
        assert!(text.contains(
            "not noticed\n\nNo test fails if these return 0 and do nothing.\n\n| function | reason |"
        ));
        assert!(
            text.contains("| KfRaiseIrql | why |") && text.contains("| ClfsAddLogContainer | why |"),
            "{text}"
        );
    }
}
