//! `rules`: docs/rules.md, the rules with their tiers, bug checks, pages and remedies, and the tests of each.
//!
//! A pair of `drivers/c/pairs` is a test of both kinds, which `crates/dirql/tests/pairs.rs` measures: the wrong half fires, the right half
//! makes the same calls and does not. Else a test fires a rule if it names it in its text; a test of the correct counterpart says so in its
//! doc comment (`Not: RULE, RULE`), or the correct driver does in a comment above its function. It is wrong if a rule fires without a row, a
//! row fires nowhere, or a place fires in a tier that the row does not have. Whether a test is good enough, it cannot say.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::microsoft;

/// The table.
pub(crate) const TABLE: &str = "crates/kernel/src/rules.tsv";
const EVENTS: &str = "crates/kernel/src/event.rs";
/// The names of bug checks.
const BUG_CHECKS: &str = "crates/dirql/src/report/bugchecks.tsv";
/// The document.
const DOCUMENT: &str = "docs/rules.md";
/// Where the pairs are, and what stands before the name of each.
pub(crate) const PAIRS: &str = "drivers/c/pairs/";
const PAIR: &str = "PAIR(";
/// What the comment of a correct counterpart says, before the rules.
const NOT: &str = "Not: ";
/// Words of the kernel's that look like rules and are none: names of settings.
const OTHER_WORDS: [&str; 18] = [
    "32-bit-programs",
    "before-vista",
    "code-integrity",
    "fully-specified",
    "high-memory",
    "invariant-mdl",
    "late-cards",
    "late-stores",
    "loose-cards",
    "low-memory",
    "meeting-cards",
    "later-bus",
    "stand-ins",
    "quick-cards",
    "relayed-lines",
    "shifted-bus",
    "silent-cards",
    "special-pool",
];
/// How a verdict is made, by tier.
const TIERS: [&str; 4] = ["error", "verifier", "warning", "advice"];

const HEAD: &str = "\
# Rules

Written by `cargo xtask rules` from the table of rules and from the tests; a test fails if it is not what would be written. *error*: Windows
would stop, or state is provably wrong or lost. *verifier*: only Driver Verifier would stop, with the option named: reported in a run, and an error
with `--verifier`. *warning*: documented as wrong, and survived. *advice*: style, speed, obsolete. `dirql rules NAME` tells one rule in full.

A *pair* is a routine of `drivers/c/pairs` that a test runs twice: wrong, where the rule must fire, and right, where the same calls are made
and nothing may fire. Else a rule is fired if a test names it (*yes*), and has a correct counterpart if a test or a correct driver says that it
is near the rule and does not break it (`Not: RULE`).

";

/// One row of the table.
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    pub(crate) tiers: &'a str,
    checks: &'a str,
    page: &'a str,
    remedy: &'a str,
}

/// A source file.
struct Source {
    path: String,
    text: String,
}

/// Writes the document, or says what differs from what it would write.
///
/// # Errors
/// A rule without a row, a row without a rule, a tier that the row does not have; with `check`, a document that is not what would be written.
pub(crate) fn write(root: &Path, check: bool) -> Result<()> {
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let (table, names) = (read(TABLE)?, read(BUG_CHECKS)?);
    let rows: Vec<Row<'_>> = rows(&table).collect();
    let sources = sources(root)?;
    let wrong = complaints(&rows, &sources);
    ensure!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    let text = document(&rows, &sources, &names);
    if !check {
        fs::write(root.join(DOCUMENT), text)?;
        eprintln!("xtask: {DOCUMENT}");
    } else if read(DOCUMENT).ok() != Some(text) {
        bail!("{DOCUMENT} is not what the rules and tests say: run `cargo xtask rules`");
    }
    microsoft::write(root, &rows.iter().map(|row| (row.name, row.tiers)).collect(), check)
}

/// The rows of the table.
pub(crate) fn rows(table: &str) -> impl Iterator<Item = Row<'_>> {
    table.lines().filter(|line| !line.starts_with('#')).filter_map(row)
}

fn row(line: &str) -> Option<Row<'_>> {
    let mut cells = line.split('\t');
    let mut next = || cells.next();
    Some(Row { name: next()?, tiers: next()?, checks: next()?, page: next()?, remedy: next()? })
}

/// The tracked sources of crates and drivers.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let list = git.args(["crates", "drivers"]).output().context("git cannot be started")?;
    let list = String::from_utf8(list.stdout)?;
    let is_source = |path: &&str| [".rs", ".c", ".h"].iter().any(|end| path.ends_with(end));
    let read =
        |path: &str| Some(Source { path: path.to_owned(), text: fs::read_to_string(root.join(path)).ok()? });
    Ok(list.lines().filter(is_source).filter_map(read).collect())
}

impl Source {
    /// It is nothing but tests.
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs") || self.path.ends_with("/rig.rs")
    }

    /// What is compiled into the product.
    fn product(&self) -> &str {
        match self.path.ends_with(".rs") && self.path.contains("/src/") && !self.is_test() {
            true => self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default(),
            false => "",
        }
    }

    /// What is compiled for tests only.
    fn tests(&self) -> &str {
        if self.is_test() { &self.text } else { self.text.get(self.product().len()..).unwrap_or_default() }
    }
}

/// All string literals of the form of a rule's name, with what stands before them.
fn literals(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices('"').filter_map(|(at, _)| {
        let rest = &text[at + 1..];
        let end = rest.find(|letter: char| {
            !(letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
        })?;
        (end > 1 && rest[end..].starts_with('"')).then(|| (&text[..at], &rest[..end]))
    })
}

/// The tier of a verdict that is made with the literal that follows `before`.
fn made_in(before: &str) -> Option<&'static str> {
    let before = before.trim_end().strip_suffix('(')?;
    TIERS.into_iter().find(|tier| before.ends_with(&format!("Verdict::{tier}")))
}

fn complaints(rows: &[Row<'_>], sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    let known: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
    let mut fired = BTreeSet::new();
    for source in sources {
        // The names of kinds of events look like rules and are none.
        let is_kernels = source.path.starts_with("crates/kernel/src") && source.path != EVENTS;
        for (before, word) in literals(source.product()) {
            let tier = made_in(before);
            let looks_alike = is_kernels && word.contains('-') && !OTHER_WORDS.contains(&word);
            if !known.contains(word) && (tier.is_some() || looks_alike) {
                wrong.push(format!("{}: `{word}` has no row in {TABLE}", source.path));
            }
            fired.insert(word.to_owned());
            let Some((tier, row)) = tier.zip(rows.iter().find(|row| row.name == word)) else { continue };
            if !row.tiers.split(',').any(|known| known.split(':').next() == Some(tier)) {
                let (path, tiers) = (&source.path, row.tiers);
                wrong.push(format!("{path}: `{word}` fires in tier {tier}; its row says {tiers}"));
            }
        }
    }
    let nowhere = rows.iter().filter(|row| !fired.contains(row.name));
    wrong.extend(nowhere.map(|row| format!("{TABLE}: `{}` fires nowhere", row.name)));
    let unknown = counterparts(sources).into_iter().filter(|rule| !known.contains(rule.as_str()));
    wrong.extend(unknown.map(|rule| format!("`{NOT}{rule}`: there is no such rule")));
    let unknown = pairs(sources).into_iter().filter(|rule| !known.contains(rule));
    wrong.extend(unknown.map(|rule| format!("{PAIRS}: there is no rule `{rule}`")));
    wrong
}

/// The rules that comments of correct counterparts name.
fn counterparts(sources: &[Source]) -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for line in sources.iter().flat_map(|source| source.text.lines()) {
        let line = line.trim_start();
        let comment = ["/// ", "// ", "/* ", "* "].iter().find_map(|mark| line.strip_prefix(mark));
        let Some(named) = comment.and_then(|comment| comment.strip_prefix(NOT)) else { continue };
        let named = named.trim_end_matches("*/").split(',').map(|rule| rule.trim().to_owned());
        rules.extend(named.filter(|rule| !rule.is_empty() && !rule.contains(' ')));
    }
    rules
}

/// The rules that have a pair.
fn pairs(sources: &[Source]) -> BTreeSet<&str> {
    let headers = sources.iter().filter(|source| source.path.starts_with(PAIRS));
    let named = headers.flat_map(|source| literals(&source.text));
    named.filter(|(before, _)| before.ends_with(PAIR)).map(|(_, rule)| rule).collect()
}

fn document(rows: &[Row<'_>], sources: &[Source], names: &str) -> String {
    let fired: BTreeSet<&str> =
        sources.iter().flat_map(|source| literals(source.tests())).map(|(_, word)| word).collect();
    let (correct, pairs) = (counterparts(sources), pairs(sources));
    let without = |has: &dyn Fn(&str) -> bool| rows.iter().filter(|row| !has(row.name)).count();
    let mut text = HEAD.to_owned();
    let _ = writeln!(
        text,
        "{} rules, {} of them with a pair; {} without a test that fires, {} without a correct counterpart.\n",
        rows.len(),
        pairs.len(),
        without(&|name| pairs.contains(name) || fired.contains(name)),
        without(&|name| pairs.contains(name) || correct.contains(name)),
    );
    text.push_str(
        "| rule | tier | bug checks | Microsoft's page | what usually mends it | fired | correct |\n",
    );
    text.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    let yes = |name: &str, is: bool| match is {
        _ if pairs.contains(name) => "pair",
        true => "yes",
        false => "**no**",
    };
    for Row { name, tiers, checks, page, remedy } in rows {
        let tiers = tiers.replace(',', ", ").replace(':', ": ");
        let checks: Vec<String> =
            checks.split(' ').filter(|check| *check != "-").map(|check| named(check, names)).collect();
        let (fires, holds) = (yes(name, fired.contains(name)), yes(name, correct.contains(*name)));
        let page = if *page == "-" { "" } else { page };
        let _ = writeln!(
            text,
            "| `{name}` | {tiers} | {} | {page} | {remedy} | {fires} | {holds} |",
            checks.join("<br>")
        );
    }
    text
}

/// `0xC9/0x7` with the name of its code.
fn named(check: &str, names: &str) -> String {
    let (code, first) = check.split_once('/').map_or((check, None), |(code, first)| (code, Some(first)));
    let mut rows = names.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let name =
        rows.find(|row| row[0] == code).and_then(|row| row.get(2).copied()).unwrap_or("the driver's own");
    first.map_or_else(|| format!("{name} ({code})"), |first| format!("{name} ({code}, {first})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str =
        "double-thing\terror\t0x44\tA page\tDo it once\nother-thing\tverifier:io\t-\t-\tDo it well\n";

    fn judged(product: &str, tests: &str) -> (Vec<String>, String) {
        let rows: Vec<Row<'_>> = ROWS.lines().filter_map(row).collect();
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let sources =
            [source("crates/kernel/src/io/a.rs", product), source("crates/dirql/tests/a.rs", tests)];
        (complaints(&rows, &sources), document(&rows, &sources, "0x44\t-\tMULTIPLE\tmeaning"))
    }

    const BOTH: &str = "Verdict::error(\n \"double-thing\", m); report(\"other-thing\")";

    #[test]
    fn rules_rows_and_tiers_agree() {
        assert_eq!(judged(BOTH, "").0, Vec::<String>::new());
        let (wrong, _) =
            judged("Verdict::warning(\"double-thing\", m); f(\"new-thing\")", "/// Not: old-thing");
        let wrong = wrong.join("\n");
        for part in [
            "fires in tier warning",
            "`new-thing` has no row",
            "`other-thing` fires nowhere",
            "`Not: old-thing`",
        ] {
            assert!(wrong.contains(part), "{part}\n{wrong}");
        }
    }

    #[test]
    fn what_has_no_test_stands_in_the_document() {
        let (_, text) = judged(BOTH, "/// Not: double-thing\nassert_eq!(rule, \"double-thing\")");
        assert!(
            text.contains(
                "2 rules, 0 of them with a pair; 1 without a test that fires, 1 without a correct counterpart"
            ),
            "{text}"
        );
        assert!(
            text.contains("| `double-thing` | error | MULTIPLE (0x44) | A page | Do it once | yes | yes |"),
            "{text}"
        );
        assert!(
            text.contains("| `other-thing` | verifier: io |  |  | Do it well | **no** | **no** |"),
            "{text}"
        );
    }
}
