//! What only Driver Verifier stops for, and data races, of many runs: each finding once, as a line of the first run that had it.
//!
//! Two runs have found the same if it is the same rule at the same instruction of the driver's: the words differ by addresses that
//! depend on the schedule. What belongs to no instruction (a leak) is the same if the words are, but for such numbers.

use std::collections::BTreeSet;

use explore::Remark;
use kernel::verdict::{Tier, Verdict};

use super::Report;

impl Report {
    /// The findings of tier verifier, and data races: each with its key, and in full, as JSON has it in `finding-in-full`, where its key was not among the
    /// `reported` ones. It is from then on.
    #[must_use]
    pub fn remarks(&self, reported: &mut BTreeSet<String>) -> Vec<Remark> {
        let mut remarks: Vec<Remark> = Vec::new();
        for finding in self.findings.iter().filter(|finding| is_told_of_many(finding)) {
            let key = key(finding);
            if remarks.iter().all(|remark| remark.key != key) {
                let text = reported.insert(key.clone()).then(|| self.finding_json(finding));
                remarks.push(Remark { key, text });
            }
        }
        remarks
    }
}

fn is_told_of_many(finding: &Verdict) -> bool {
    finding.tier == Tier::Verifier || finding.rule == rules::RACES
}

/// Equal for the same findings of two runs.
pub(crate) fn key(finding: &Verdict) -> String {
    match finding.stack.first() {
        Some(line) => format!("{}@{:x}", finding.rule, line.address),
        None => format!("{}:{}", finding.rule, without_counts(&without_addresses(&finding.message))),
    }
}

/// A text whose numbers in hexadecimal are only `0x`.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        all + "0x" + part.trim_start_matches(|letter: char| letter.is_ascii_hexdigit())
    })
}

/// A text that does not say how many times something was done.
fn without_counts(text: &str) -> String {
    let parts: Vec<&str> = text.split(" times").collect();
    let last = parts.len() - 1;
    let counted = |(at, part): (usize, &&str)| {
        let digits =
            if at < last { part.trim_end_matches(|letter: char| letter.is_ascii_digit()) } else { part };
        digits.to_owned()
    };
    parts.iter().enumerate().map(counted).collect::<Vec<_>>().join(" times")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_finding_of_two_runs_has_one_key_whatever_its_addresses_are() {
        let found = |message: &str| key(&Verdict::verifier("some-rule", message));
        assert_eq!(found("a block at 0x20200010 of 8 bytes"), found("a block at 0xabc of 8 bytes"));
        assert_ne!(found("a block at 0x20200010 of 8 bytes"), found("a block at 0x20200010 of 9 bytes"));
        assert_eq!(without_addresses("0x1f, 0x2"), "0x, 0x");
        assert_eq!(found("acquired 2 times, last in a"), found("acquired 14 times, last in a"));
        assert_eq!(without_counts("12 blocks, 3 times and 4 times"), "12 blocks,  times and  times");
    }
}
