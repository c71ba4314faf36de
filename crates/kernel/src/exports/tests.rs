//! The table against the documentation: order, levels, and why a level differs where it does.

use super::{FUNCTIONS, INTERNAL, documented};

/// Rows whose levels are not the page's, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    ("ExRaiseAccessViolation", "probing a buffer raises it, and that is allowed at APC_LEVEL"),
    ("ExRaiseDatatypeMisalignment", "as ExRaiseAccessViolation"),
    ("KeInitializeSemaphore", "its page says PASSIVE_LEVEL, Driver Verifier's own rule up to DISPATCH_LEVEL"),
    ("KeReleaseInterruptSpinLock", "which DIRQL is the interrupt object's to tell, and is checked there"),
    (
        "KeShouldYieldProcessor",
        "its page says DISPATCH_LEVEL, and in its first sentence DISPATCH_LEVEL or higher",
    ),
];

/// The highest device level.
const DIRQL: u8 = 12;

/// `0`, `0..2`, `2..`, `any`, `dirql`, `0..dirql` as lowest and highest level.
fn range(text: &str) -> Option<(u8, u8)> {
    let level = |text: &str| if text == "dirql" { Some(DIRQL) } else { text.parse().ok() };
    match text.split_once("..") {
        None if text == "any" => Some((0, 15)),
        None => Some((level(text)?, level(text)?)),
        Some((low, "")) => Some((level(low)?, 15)),
        Some((low, high)) => Some((level(low)?, level(high)?)),
    }
}

#[test]
fn rows_are_sorted_and_named_once() {
    assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
    assert!(INTERNAL.is_sorted_by(|a, b| a.name < b.name));
    assert!(INTERNAL.iter().all(|row| FUNCTIONS.iter().all(|other| other.name != row.name)));
}

#[test]
fn every_level_is_the_documented_one_or_says_why_not() {
    let mut compared = 0;
    let mut differ = Vec::new();
    for row in FUNCTIONS {
        let Some(text) = documented::find(row.name).and_then(|known| known.irql) else { continue };
        let documented =
            range(text).unwrap_or_else(|| panic!("{}: `{text}` is no range of levels", row.name));
        compared += 1;
        if documented != (row.irql_min, row.irql_max) {
            differ.push(row.name);
        }
    }
    let listed: Vec<&str> = DIFFERENCES.iter().map(|(name, _)| *name).collect();
    assert_eq!(differ, listed, "levels that differ from the documentation, against those with a reason");
    assert!(compared > 300, "only {compared} rows have a documented level");
}
