//! What only Driver Verifier stops for, and data races, of many runs: each finding once, as a line of the first run that had it.

use std::collections::BTreeSet;

use explore::Remark;
use kernel::verdict::{Tier, Verdict};

use super::{Report, key};

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
