//! What the documents say of the tree is so: the paths they name exist, and the Rust version is the same everywhere.
//!
//! A path is what stands in backticks, has a `/` in it and nothing that a path has not. Generated ones (`target/…`)
//! are not looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::{expect_none, root, rust_files};

const DOCUMENTS: &[&str] = &["ARCHITECTURE.md", "README.md", "SECURITY.md", "docs/glossary.md"];

/// The paths that a document names.
fn paths(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2); // what is between fences is an example
    let quoted = prose.flat_map(|prose| prose.split('`').skip(1).step_by(2));
    quoted.filter(|word| is_path(word)).collect()
}

fn is_path(word: &str) -> bool {
    word.contains('/')
        && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter))
        && !word.starts_with(['/', '-'])
        && !word.starts_with("target/")
}

/// `1.95` of `1.95.0`.
fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// The value of the first line `key = "value"`.
fn value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|line| line.split('=').next().is_some_and(|name| name.trim() == key))?;
    Some(line.split('"').nth(1)?.to_string())
}

#[test]
fn paths_are_told_from_other_words() {
    let text = "See `crates/kernel/src/io/irp.rs`, not `IRP_MJ_READ` or `a / b`; `target/drivers` is made.\n\
                ```\n`made/up`\n```\nAnd `drivers/c`.";
    assert_eq!(paths(text), ["crates/kernel/src/io/irp.rs", "drivers/c"]);
}

#[test]
fn every_path_that_the_documents_name_exists() {
    for document in DOCUMENTS {
        let text =
            fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"));
        let lost = paths(&text).into_iter().filter(|path| !root().join(path).exists());
        expect_none(
            &lost.map(|path| format!("{document} names `{path}`, which is not there")).collect::<Vec<_>>(),
        );
    }
}

/// The tests that SECURITY.md names: words with an underscore, in backticks, in the last column of a table.
fn holding(text: &str) -> Vec<&str> {
    let columns =
        text.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.rsplit('|').nth(1));
    columns
        .flat_map(|column| column.split('`').skip(1).step_by(2))
        .filter(|word| word.contains('_'))
        .collect()
}

#[test]
fn every_sentence_about_security_names_a_test_that_is_there() {
    let text = fs::read_to_string(root().join("SECURITY.md")).expect("it is there");
    let named = holding(&text);
    assert!(named.len() > 10, "{named:?}");
    let sources: Vec<String> = crate::rust_files().into_iter().map(|file| file.text).collect();
    let is_there = |name: &str| sources.iter().any(|source| source.contains(&format!("fn {name}(")));
    let lost = named.into_iter().filter(|name| !is_there(name));
    expect_none(&lost.map(|name| format!("SECURITY.md names {name}, which is no test")).collect::<Vec<_>>());
}

#[test]
fn the_rust_version_promised_is_the_one_built_with() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it is there");
    let promised = value(&read("Cargo.toml"), "rust-version").expect("Cargo.toml has a rust-version");
    let channel = value(&read("rust-toolchain.toml"), "channel").expect("rust-toolchain.toml has a channel");
    assert_eq!(minor(&promised), minor(&channel));
}

/// The names of the rows of the export table.
fn exports(table: &str) -> Vec<&str> {
    let rows = table.lines().filter(|line| line.contains(" => ") && line.contains(" @ "));
    rows.filter_map(|line| line.split_once(": ")?.1.split('(').next()).collect()
}

/// What is wrong with the coverage document: exports that it does not have, and those that name neither a test nor, in the table of survivors, a
/// reason. `tests` is the text of all tests of whole machines.
fn wrong_coverage(table: &str, document: &str, survivors: &str, tests: &str) -> Vec<String> {
    let rows: BTreeMap<&str, &str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .filter(|row| row.split(" | ").count() == 5) // the tables below have two columns
        .filter_map(|row| Some((row.split_once(" | ")?.0, row.rsplit_once(" | ")?.1)))
        .collect();
    let reasons: Vec<&str> = survivors.lines().filter_map(|line| Some(line.split_once('\t')?.0)).collect();
    let wrong = exports(table).into_iter().filter_map(|name| match rows.get(name).map(|test| test.trim()) {
        None => Some(format!("{name} is not in docs/coverage.md: run `cargo xtask coverage`")),
        Some("") if reasons.contains(&name) => None,
        Some("") => Some(format!("{name} names no test: run `cargo xtask stubs {name}`")),
        Some(_) if reasons.contains(&name) => Some(format!("{name} has a test and a reason for having none")),
        Some(test) => {
            let last = test.rsplit("::").next().unwrap_or(test);
            // A function, or a line of the table that `pairs` makes its tests from.
            let exists =
                tests.contains(&format!("fn {last}(")) || tests.contains(&format!("\n    {last}: \""));
            (!exists).then(|| format!("{name}: there is no test {test}: run `cargo xtask stubs {name}`"))
        }
    });
    wrong.collect()
}

#[test]
fn the_coverage_document_names_a_test_of_every_export() {
    let read =
        |path: &str| fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let table = read("crates/kernel/src/exports/functions.rs");
    assert!(exports(&table).len() > 100, "the table is understood");
    let tests: String = rust_files()
        .into_iter()
        .filter(|file| ["crates/dirql/", "crates/cli/"].iter().any(|at| file.path.starts_with(at)))
        .map(|file| file.text)
        .collect();
    let survivors = read("crates/kernel/src/exports/survivors.tsv");
    expect_none(&wrong_coverage(&table, &read("docs/coverage.md"), &survivors, &tests));
}

#[test]
fn an_export_without_a_row_a_test_or_a_reason_is_noticed() {
    let table = "    : KeA(1) @ 0..=2 => ke::a;\n    : KeB(1) @ 0..=2 => ke::b;\n    : KeC(1) @ 0..=2 => ke::c;\n    : KeD(1) @ 0..=2 => ke::d;";
    let document =
        "| KeA | nt | 0 | ke::a | file::test |\n| KeB | nt | 0 | ke::b |  |\n| KeC | nt | 0 | ke::c |  |";
    let wrong = |survivors, tests| wrong_coverage(table, document, survivors, tests);
    assert_eq!(
        wrong("KeB\twhy", "fn test() {}"),
        [
            "KeC names no test: run `cargo xtask stubs KeC`",
            "KeD is not in docs/coverage.md: run `cargo xtask coverage`"
        ]
    );
    assert_eq!(wrong("KeB\twhy\nKeA\twhy", "fn test() {}")[0], "KeA has a test and a reason for having none");
    assert_eq!(wrong("", "")[0], "KeA: there is no test file::test: run `cargo xtask stubs KeA`");
}

/// The documents whose numbered lines each name a page and the tests that hold them, and how many lines each has at least.
const HELD: &[(&str, usize)] = &[("docs/schedules.md", 20)];

/// A numbered line of one of them, with what it continues in.
fn numbered(text: &str) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let number = line.split_once(". ").map(|(number, _)| number);
        if let Some(number) = number.filter(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
        {
            lines.push((number.to_owned(), String::new()));
            open = true;
        } else if !line.starts_with(' ') {
            open = false;
        }
        if let Some((_, whole)) = lines.last_mut().filter(|_| open) {
            whole.push_str(line);
            whole.push(' ');
        }
    }
    lines
}

/// What is wrong with the lines, given the names of all tests.
fn unheld(document: &str, lines: &[(String, String)], tests: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, (number, text)) in lines.iter().enumerate() {
        let mut complain = |what: String| complaints.push(format!("{document}, line {number}: {what}"));
        if *number != (index + 1).to_string() {
            complain(format!("it should be number {}", index + 1));
        }
        if !text.contains("](https://learn.microsoft.com/en-us/") {
            complain("it names no page that it follows".to_owned());
        }
        let held = text.split_once(" — ").map_or("", |(_, held)| held);
        let names: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            complain("it names no test that holds it".to_owned());
        }
        for name in names.into_iter().filter(|name| !tests.contains(*name)) {
            complain(format!("there is no test `{name}`"));
        }
    }
    complaints
}

/// The names of all tests in the tree.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in crate::rust_files() {
        for part in file.text.split("#[test]").skip(1) {
            let name = part.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
            names.extend(name.map(|(name, _)| name.to_owned()));
        }
    }
    names
}

#[test]
fn a_line_that_no_page_or_test_holds_is_told() {
    let page = "[A](https://learn.microsoft.com/en-us/a)";
    let text = format!(
        "# T\n\n1. Good. {page}\n   — `held`, `lost`\n3. Bad.\n   {page}\n4. No page.\n   — `held`\n\nEnd. `x`\n"
    );
    let tests = BTreeSet::from(["held".to_owned()]);
    let complaints = unheld("it", &numbered(&text), &tests);
    let expected = [
        "line 1: there is no test `lost`",
        "line 3: it should be number 2",
        "line 3: it names no test",
        "line 4: it should be",
        "line 4: it names no page",
    ];
    assert_eq!(complaints.len(), expected.len(), "{complaints:?}");
    assert!(complaints.iter().zip(expected).all(|(found, text)| found.contains(text)), "{complaints:?}");
}

#[test]
fn every_numbered_line_is_held_by_a_page_and_by_tests() {
    let tests = tests();
    for &(document, least) in HELD {
        let text =
            fs::read_to_string(root().join(document)).unwrap_or_else(|why| panic!("{document}: {why}"));
        let lines = numbered(&text);
        assert!(lines.len() >= least, "{document} is understood: {} lines", lines.len());
        expect_none(&unheld(document, &lines, &tests));
    }
}

/// Sentences of one part of a document's source, found by its heading.
fn part<'a>(source: &'a str, heading: &str) -> &'a str {
    let part = source.split("\n## ").find(|part| part.starts_with(heading));
    part.unwrap_or_else(|| panic!("there is a part {heading}"))
}

/// The members of a structure in a list of layouts, as Microsoft calls them.
fn members(layouts: &str, structure: &str) -> Vec<String> {
    let whole =
        layouts.split_once(&format!("    {structure} [")).and_then(|(_, rest)| rest.split_once("\n    }"));
    let lines = whole.map_or("", |(lines, _)| lines).lines().map(str::trim);
    let named = lines.filter_map(|line| line.strip_prefix("0x")?.split_once(' ')?.1.split_once([':', ' ']));
    named.map(|(name, _)| name.replace('_', ".")).collect()
}

#[test]
fn every_member_of_the_parameters_has_its_sentence() {
    let read =
        |path: &str| fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (layouts, source) = (read("crates/abi/src/interrupt.rs"), read("docs/sentences/interrupts.md"));
    let mut lost = Vec::new();
    for (form, count) in [("FULLY_SPECIFIED", 13), ("LINE_BASED", 7), ("MESSAGE_BASED", 10)] {
        let members = members(&layouts, &format!("IO_CONNECT_INTERRUPT_{form}_PARAMETERS"));
        assert_eq!(members.len(), count, "{form}: the layout is understood: {members:?}");
        let sentences = part(&source, &format!("CONNECT_{form}, member by member"));
        let without = members.into_iter().filter(|member| !sentences.contains(&format!("`{member}`")));
        lost.extend(without.map(|member| format!("no sentence is about {member} of CONNECT_{form}")));
    }
    expect_none(&lost);
}

#[test]
fn the_documents_of_sentences_are_what_the_tests_say() {
    crate::output(env!("CARGO_BIN_EXE_xtask"), &["sentences", "--check"]);
}

#[test]
fn every_rule_has_a_test_that_fires_it_and_one_that_does_not() {
    crate::output(env!("CARGO_BIN_EXE_xtask"), &["rules", "--check"]);
    let text = std::fs::read_to_string(crate::root().join("docs/rules.md")).expect("it is there");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    expect_none(&rows.filter(|row| row.contains("**no**")).map(str::to_owned).collect::<Vec<_>>());
}
