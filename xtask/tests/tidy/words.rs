//! Prose says who does what: words that leave the reader to guess it are refused, in code as in documents.
//!
//! It does not judge the rest of a sentence.

use crate::{expect_none, tracked};

/// Words that hide a sentence's subject. Split, so that this file does not have them.
const REFUSED: &[&str] = &[
    concat!("to", "ld"),
    concat!("some", "body"),
    concat!("no", "body"),
    concat!("who", "ever"),
    concat!("hea", "rd"),
];

/// Where one of them has a meaning that is defined: a field of an event, which is part of the schema of traces.
const DEFINED: &[(&str, &str)] = &[
    ("crates/kernel/src/event.rs", concat!("hea", "rd: bool as Flag")),
    ("crates/kernel/src/wmi/shown.rs", concat!("hea", "rd: bool)")),
    ("crates/kernel/src/wmi/shown.rs", concat!("instance, hea", "rd, data")),
    ("crates/dirql/src/readers/wmi_shown.rs", concat!("hea", "rd: has_consumer")),
    ("docs/events.md", concat!("`hea", "rd` |")),
];

/// Files of text that people write or read. The change log is history.
fn is_prose(path: &str) -> bool {
    let endings = [".rs", ".md", ".tsv", ".c", ".h", ".inf", ".txt"];
    path != "CHANGELOG.md" && endings.iter().any(|ending| path.ends_with(ending))
}

/// The numbers of the lines, from 1, that have one of the words, each with the word.
fn refused(path: &str, text: &str) -> Vec<(usize, String)> {
    let is_defined = |line: &str| DEFINED.iter().any(|(file, phrase)| *file == path && line.contains(phrase));
    let lines = text.lines().zip(1..).filter(|(line, _)| !is_defined(line));
    lines
        .flat_map(|(line, number)| {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let words = words.map(str::to_lowercase).filter(|word| REFUSED.contains(&word.as_str()));
            words.map(move |word| (number, word))
        })
        .collect()
}

#[test]
fn a_word_that_hides_the_subject_is_noticed() {
    let text =
        concat!("// The driver waits.\n// No", "body waits.\nlet to", "ld = 1;\nfn to", "ld_by() {}\n");
    assert_eq!(refused("a.rs", text).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3]);
    assert!(refused("docs/events.md", DEFINED[4].1).is_empty());
    assert_eq!(refused("docs/other.md", DEFINED[4].1).len(), 1);
}

#[test]
fn every_sentence_says_who_does_what() {
    let files = tracked().into_iter().filter(|file| is_prose(&file.path));
    let found = files.flat_map(|file| {
        let lines = refused(&file.path, &file.text);
        lines
            .into_iter()
            .map(move |(line, word)| format!("{}:{line}: say who, instead of `{word}`", file.path))
    });
    expect_none(&found.collect::<Vec<_>>());
}
