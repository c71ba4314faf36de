//! Part of `rules`: docs/wdm-rules.md and docs/verifier-checks.md, what Microsoft's tools check of WDM drivers and what sees it here.
//!
//! Both are tables of the kernel's, of which a row says by which rules it is seen, or why it is not. It is wrong if such a rule does not
//! exist. Whether the rule fires for it, the rule's own tests say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// One of the tables, and the document that is made of it.
struct Sheet {
    table: &'static str,
    document: &'static str,
    head: &'static str,
    columns: &'static [&'static str],
    /// So many rows the page of Microsoft's has.
    rows: usize,
}

const SHEETS: [Sheet; 2] = [
    Sheet {
        table: "crates/kernel/src/rules/wdm.tsv",
        document: "docs/wdm-rules.md",
        head: "\
# Microsoft's rules for WDM drivers

What Static Driver Verifier checks of a WDM driver's source (*Rules for WDM Drivers*), and what sees it here, where the driver runs. Written by
`cargo xtask rules`. The names are those of [rules](rules.md). Where Microsoft has a rule in several variants that say the
same, the others refer to the first. *Windows* says whether Driver Verifier checks it at run time (*DDI Compliance Checking*).

",
        columns: &["rule", "set", "Windows", "what it demands"],
        rows: 169,
    },
    Sheet {
        table: "crates/kernel/src/rules/verifier.tsv",
        document: "docs/verifier-checks.md",
        head: "\
# What Driver Verifier checks

The checks of each option of Driver Verifier that is not for drivers of file systems, networks or storage ports, and what sees them here. Written by
`cargo xtask rules`. The names are those of [rules](rules.md). What Verifier puts a driver under (*stress*), here policies and
searches do: [exploration](exploration.md), [replay](replay.md).

",
        columns: &["option", "check", "what Windows shows"],
        rows: 217,
    },
];

/// How far a row is seen, as the tables write it, in the order in which documents count them.
const KINDS: [(&str, &str); 6] = [
    ("seen", "are seen"),
    ("part", "in part"),
    ("same", "say the same as another"),
    ("stress", "are stress, not checks"),
    ("no", "could be seen and are not"),
    ("not", "are not in the bytes of a driver"),
];

/// Writes both documents, or says which is not what would be written. `known` are the rules with their tiers.
///
/// # Errors
/// A row that is not whole or names a rule that does not exist; with `check`, a document that is not what would be written.
pub(crate) fn write(root: &Path, known: &BTreeMap<&str, &str>, check: bool) -> Result<()> {
    for sheet in &SHEETS {
        let table = fs::read_to_string(root.join(sheet.table)).with_context(|| sheet.table.to_owned())?;
        let text = document(sheet, &table, known)?;
        let path = root.join(sheet.document);
        if !check {
            fs::write(path, text)?;
            eprintln!("xtask: {}", sheet.document);
        } else if fs::read_to_string(path).ok() != Some(text) {
            bail!("{} is not what {} says: run `cargo xtask rules`", sheet.document, sheet.table);
        }
    }
    Ok(())
}

fn document(sheet: &Sheet, table: &str, known: &BTreeMap<&str, &str>) -> Result<String> {
    let rows: Vec<Vec<&str>> =
        table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
    ensure!(rows.len() == sheet.rows, "{}: {} rows, not {}", sheet.table, rows.len(), sheet.rows);
    let width = sheet.columns.len();
    let mut text = sheet.head.to_owned();
    let counted = KINDS.iter().filter_map(|(kind, words)| {
        let count = rows.iter().filter(|row| row.get(width) == Some(kind)).count();
        (count > 0).then(|| format!("{count} {words}"))
    });
    let _ = writeln!(text, "Of {}: {}.\n", rows.len(), counted.collect::<Vec<_>>().join(", "));
    let _ = writeln!(text, "| {} | | seen by |", sheet.columns.join(" | "));
    let _ = writeln!(text, "|{}", " --- |".repeat(width + 2));
    for row in &rows {
        let [cells @ .., kind, seen] = &row[..] else { bail!("{}: {row:?}", sheet.table) };
        let is_whole =
            cells.len() == width && KINDS.iter().any(|(known, _)| known == kind) && !seen.is_empty();
        ensure!(is_whole, "{}: {row:?}", sheet.table);
        let unknown = rules_of(seen).find(|rule| !known.contains_key(rule));
        ensure!(
            unknown.is_none(),
            "{}: {}: there is no rule `{}`",
            sheet.table,
            row[0],
            unknown.unwrap_or_default()
        );
        ensure!(
            *kind != "seen" || rules_of(seen).next().is_some(),
            "{}: {}: seen by what?",
            sheet.table,
            row[0]
        );
        let kind = if *kind == "seen" { "" } else { kind };
        let _ = writeln!(text, "| {} | {kind} | {} |", cells.join(" | "), with_tiers(seen, known));
    }
    Ok(text)
}

/// The cell, with the tiers of each rule behind its name.
fn with_tiers(cell: &str, known: &BTreeMap<&str, &str>) -> String {
    let words = cell.split('`').enumerate().map(|(place, word)| match known.get(word) {
        Some(tiers) if place % 2 == 1 => {
            format!("`{word}` ({})", tiers.replace(',', ", ").replace(':', ": "))
        }
        _ if place % 2 == 1 => format!("`{word}`"),
        _ => word.to_owned(),
    });
    words.collect()
}

/// The rules that a cell names: what stands between backquotes and is no option.
fn rules_of(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2).filter(|word| {
        word.contains('-')
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            && !word.starts_with("--")
            || ["breakpoint", "deadlock", "stuck"].contains(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHEET: Sheet =
        Sheet { table: "a.tsv", document: "a.md", head: "# A\n\n", columns: &["rule"], rows: 2 };

    fn made(table: &str) -> Result<String, String> {
        document(&SHEET, table, &BTreeMap::from([("double-thing", "error,verifier:io")]))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn rows_are_counted_by_how_far_they_are_seen() {
        let text =
            made("# comment\nOnce\tseen\t`double-thing`, with `--faults`\nTwice\tnot\ta reason\n").unwrap();
        assert!(text.contains("Of 2: 1 are seen, 1 are not in the bytes of a driver."), "{text}");
        assert!(
            text.contains("| Once |  | `double-thing` (error, verifier: io), with `--faults` |"),
            "{text}"
        );
        assert!(text.contains("| Twice | not | a reason |"), "{text}");
    }

    #[test]
    fn rules_that_do_not_exist_and_rows_that_lack_something_are_refused() {
        let other = "Twice\tnot\ta reason\n";
        for (row, says) in [
            ("Once\tseen\t`other-thing`\n", "there is no rule `other-thing`"),
            ("Once\tseen\tsomehow\n", "seen by what?"),
            ("Once\toften\t`double-thing`\n", "often"),
            ("Once\tseen\n", "Once"),
            ("", "1 rows, not 2"),
        ] {
            let error = made(&format!("{row}{other}")).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
