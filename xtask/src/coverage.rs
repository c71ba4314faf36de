//! `coverage`: which exports a driver has called in a test, written to `docs/coverage.md`.
//!
//! The list is the export table's own; the calls are told by the machines of the tests (`DIRQL_COVERAGE`). It says nothing
//! of how much of an export's behaviour was reached, nor of exported variables.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{call, drivers};

/// The export table.
const TABLE: &str = "crates/kernel/src/exports/functions.rs";
/// What is left out, and why.
const LEFT_OUT: &str = "crates/kernel/src/exports/left_out.tsv";
/// The document.
const DOCUMENT: &str = "docs/coverage.md";

const HEAD: &str = "\
# Exports and the tests that reach them

Written by `cargo xtask coverage`; a test fails if a row of the export table is missing here. *Reached* means that a compiled
driver has called it in a test of a whole machine (`crates/dirql/tests`, `crates/cli/tests`). The kernel's own tests, which call
services directly, are not counted.
";

/// One row of the export table.
struct Row<'a> {
    name: &'a str,
    module: &'a str,
    irql: &'a str,
    service: &'a str,
}

/// Runs the tests of whole machines and writes the document.
///
/// # Errors
/// A test fails, or the document cannot be written.
pub(crate) fn write(root: &Path) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    let reached = root.join("target/coverage.txt");
    let _ = fs::remove_file(&reached);
    let mut cargo = call::cargo(root);
    cargo
        .args(["test", "--quiet", "-p", "dirql", "-p", "dirql-cli", "--tests", "--", "--test-threads=1"])
        .env("DIRQL_COVERAGE", &reached);
    call::step("tests of whole machines", &mut cargo)?;
    let reached = fs::read_to_string(&reached).context("no machine has told what it reached")?;
    let reached: BTreeSet<&str> = reached.lines().collect();
    let table = fs::read_to_string(root.join(TABLE))?;
    let rows: Vec<Row<'_>> = table.lines().filter_map(row).collect();
    let text = document(&rows, &reached) + &left_out(&fs::read_to_string(root.join(LEFT_OUT))?);
    fs::write(root.join(DOCUMENT), text)?;
    eprintln!("xtask: {DOCUMENT}");
    Ok(())
}

/// `: KeSetEvent(3) @ 0..=2 => ke::event::set;`, with `hal` or `wmilib` before the colon for what is in HAL.dll or wmilib.sys.
fn row(line: &str) -> Option<Row<'_>> {
    let (left, service) = line.trim().strip_suffix(';')?.split_once(" => ")?;
    let (module, rest) = left.split_once(": ")?;
    let (name, levels) = rest.split_once(" @ ")?;
    let irql = levels.split(" ~ ").next()?; // what Windows survives is another column's matter
    let module = match module.trim() {
        "hal" => "hal.dll",
        "wmilib" => "wmilib.sys",
        _ => "ntoskrnl.exe",
    };
    Some(Row { name: name.split('(').next()?, module, irql, service })
}

fn document(rows: &[Row<'_>], reached: &BTreeSet<&str>) -> String {
    let count = rows.iter().filter(|row| reached.contains(row.name)).count();
    let mut text = format!("{HEAD}\n{count} of {} functions are reached.\n\n", rows.len());
    text.push_str("| function | module | IRQL | service | reached |\n| --- | --- | --- | --- | --- |\n");
    for Row { name, module, irql, service } in rows {
        let reached = if reached.contains(name) { "yes" } else { "" };
        let irql = irql.replace("..=", "–");
        let _ = writeln!(text, "| {name} | {module} | {irql} | {service} | {reached} |");
    }
    text
}

/// The part of the document that says what is left out.
fn left_out(table: &str) -> String {
    let mut text = "\n## Left out\n\nA driver that calls one of these is told its name.\n\n".to_owned();
    text.push_str("| name | why |\n| --- | --- |\n");
    for (name, why) in
        table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'))
    {
        let _ = writeln!(text, "| `{name}` | {why} |");
    }
    text
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
        let text = document(&rows, &BTreeSet::from(["KeSetEvent"]));
        assert!(text.contains("1 of 2 functions are reached."), "{text}");
        assert!(text.contains("| KeSetEvent | ntoskrnl.exe | 0–2 | ke::event::set | yes |"), "{text}");
        assert!(text.contains("| KfRaiseIrql | hal.dll | 0–15 | ke::irql::raise |  |"), "{text}");
    }
}
