//! What is wrong with a driver, as one thing, however many runs show it.
//!
//! Two runs show the same if they break the same rule at the same instruction; what belongs to no instruction is the same if its words are, but for
//! addresses, counts and who waits. Advice is no cause, and neither is an expectation of a script that did not hold. What does not end is seen when the process exits.

use kernel::verdict::{Tier, Verdict};
use serde::{Deserialize, Serialize};

use crate::report::{Dismissal, Dismissed, Report, instruction, key};

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Cause {
    /// Equal where it is the same.
    pub key: String,
    /// The rule that is broken.
    pub rule: String,
    /// Its tier's name.
    pub tier: String,
    /// The instruction, if it belongs to one.
    pub instruction: Option<u64>,
    /// In full, as JSON has it in `finding-in-full`.
    pub finding: String,
    /// What says that it does not count.
    pub dismissed: Option<Dismissal>,
}

impl Report {
    /// What is wrong with the driver by this run, each thing once, in the order of the run, and behind it what is dismissed.
    #[must_use]
    pub fn causes(&self) -> Vec<Cause> {
        let counts = |verdict: &&Verdict| verdict.tier != Tier::Advice && !verdict.not_implemented;
        let mut causes: Vec<Cause> = Vec::new();
        let wrong = self.findings.iter().chain(&self.verdict).map(|verdict| (verdict, None));
        let dismissed = self.dismissed.iter().map(|Dismissed { verdict, by }| (verdict, Some(by.clone())));
        for (verdict, dismissed) in wrong.chain(dismissed).filter(|(verdict, _)| counts(verdict)) {
            let cause = Cause {
                key: key(verdict),
                rule: verdict.rule.to_owned(),
                tier: verdict.tier.name().to_owned(),
                instruction: instruction(verdict),
                finding: self.finding_json(verdict),
                dismissed,
            };
            if causes.iter().all(|known| known.key != cause.key) {
                causes.push(cause);
            }
        }
        causes
    }

    /// Why it says nothing of the driver: what dirql lacks that the run has needed, or a fault of dirql's own.
    #[must_use]
    pub fn no_answer(&self) -> Option<String> {
        self.lacking().map(str::to_owned).or_else(|| self.our_fault.clone())
    }

    /// What dirql lacks that this run has needed.
    #[must_use]
    pub fn lacking(&self) -> Option<&str> {
        let all = self.verdict.iter().chain(&self.findings);
        all.into_iter().find(|verdict| verdict.not_implemented).map(|verdict| verdict.message.as_str())
    }
}
