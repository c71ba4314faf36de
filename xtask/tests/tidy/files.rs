//! Every file says what it is for, is named after its idea, and names no place that only one machine has.
//!
//! It does not judge whether a header is true.

use std::path::Path;

use crate::{expect_none, rust_files, tracked};

/// Names that say nothing, so that strangers collect behind them.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "misc", "types"];
/// Places that exist on one machine only. Split, so that this file does not name them.
const PLACES: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("artifac", "tory")];

/// Whether a file starts by saying what it is for, in its language.
fn has_header(path: &str, text: &str) -> bool {
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("rs") => text.starts_with("//! "),
        Some("c" | "h") => text.starts_with("/*\n * ") || text.starts_with("/* "),
        _ => true,
    }
}

/// Whether a part of the path is a name that says nothing.
fn has_empty_name(path: &str) -> bool {
    Path::new(path).iter().any(|part| {
        let stem = Path::new(part).file_stem().and_then(|stem| stem.to_str());
        stem.is_some_and(|stem| EMPTY_NAMES.contains(&stem))
    })
}

/// The numbers of the lines, from 1, that name a place of one machine only, each with the place.
fn places(text: &str) -> Vec<(usize, &'static str)> {
    let lines = text.lines().map(str::to_lowercase).zip(1..);
    lines
        .flat_map(|(line, number)| {
            PLACES.iter().filter(move |place| line.contains(**place)).map(move |place| (number, *place))
        })
        .collect()
}

/// The numbers of the lines, from 1, that name the target's folder for temporary files and make no folder of their own in it.
fn shared_folders(text: &str) -> Vec<usize> {
    // Split, so that this file does not name it.
    let folder = concat!("CARGO_TARGET", "_TMPDIR");
    let lines = text.lines().zip(1..);
    lines
        .filter(|(line, _)| line.contains(folder) && !line.contains("tempdir_in("))
        .map(|(_, number)| number)
        .collect()
}

#[test]
fn a_file_that_tests_may_share_is_noticed() {
    let folder = concat!("env!(\"CARGO_TARGET", "_TMPDIR\")");
    assert_eq!(shared_folders(&format!("\nlet f = Path::new({folder}).join(\"driver.inf\");\n")), [2]);
    assert!(shared_folders(&format!("let f = tempfile::Builder::new().tempdir_in({folder});")).is_empty());
}

#[test]
fn no_test_writes_a_file_that_another_may_read() {
    let found = rust_files().into_iter().flat_map(|file| {
        let lines = shared_folders(&file.text);
        lines.into_iter().map(move |line| {
            format!("{}:{line}: make a folder of the test's own with `tempdir_in`", file.path)
        })
    });
    expect_none(&found.collect::<Vec<_>>());
}

#[test]
fn a_file_without_a_header_is_noticed() {
    assert!(!has_header("a.rs", "use std::fmt;\n"));
    assert!(!has_header("a.c", "#include <ddk/wdm.h>\n"));
    assert!(has_header("a.rs", "//! What it is for.\n"));
    assert!(has_header("a.c", "/*\n * What it is for.\n */\n"));
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let bare = tracked().into_iter().filter(|file| !has_header(&file.path, &file.text));
    expect_none(
        &bare.map(|file| format!("{} does not start with what it is for", file.path)).collect::<Vec<_>>(),
    );
}

#[test]
fn a_file_named_after_nothing_is_noticed() {
    assert!(has_empty_name("crates/kernel/src/utils.rs"));
    assert!(has_empty_name("crates/kernel/tests/common/mod.rs"));
    assert!(!has_empty_name("crates/kernel/src/io/irp.rs"));
}

#[test]
fn every_rust_file_is_named_after_its_idea() {
    let empty = rust_files().into_iter().filter(|file| has_empty_name(&file.path));
    expect_none(&empty.map(|file| format!("{}: name it after its one idea", file.path)).collect::<Vec<_>>());
}

#[test]
fn a_line_that_names_a_workplace_is_noticed() {
    let text = format!("fine\nsee {}notes.md\n", PLACES[0]);
    assert_eq!(places(&text), [(2, PLACES[0])]);
    assert!(places("a framework/of things").is_empty());
}

#[test]
fn no_file_names_the_place_where_it_was_written() {
    let found = tracked().into_iter().flat_map(|file| {
        let say = |(line, place)| format!("{}:{line} names {place}", file.path);
        places(&file.text).into_iter().map(say).collect::<Vec<_>>()
    });
    expect_none(&found.collect::<Vec<_>>());
}
