//! What was found and did not end the run, and how often the same is reported.
//!
//! A driver may do the same a million times. One finding is one rule, one instruction of the driver's and one sentence: it is reported once,
//! and of one rule no instruction gets more than [`OF_ONE_INSTRUCTION`] sentences, since more of them differ in nothing but addresses. What the
//! kernel finds by itself (a leak when the driver is gone) belongs to no instruction, and each is reported; so is every error.

use std::collections::{BTreeMap, BTreeSet};

use crate::verdict::{Tier, Verdict};

/// So many sentences of a rule about one instruction.
const OF_ONE_INSTRUCTION: usize = 8;

/// All findings of a run, in their order.
#[derive(Default)]
pub(crate) struct Findings {
    list: Vec<Verdict>,
    /// By instruction (a return address, 0 where there is none) and rule: what was said.
    reported: BTreeMap<(u64, &'static str), BTreeSet<String>>,
}

impl Findings {
    /// Whether a finding about the `instruction` is to be reported; it counts as reported from then on.
    pub(crate) fn is_news(&mut self, instruction: u64, finding: &Verdict) -> bool {
        let reported = self.reported.entry((instruction, finding.rule)).or_default();
        let is_limited = instruction != 0 && finding.tier != Tier::Error;
        let is_enough = is_limited && reported.len() >= OF_ONE_INSTRUCTION;
        !is_enough && reported.insert(finding.message.clone())
    }

    /// Adds one that is news.
    pub(crate) fn push(&mut self, finding: Verdict) {
        self.list.push(finding);
    }

    /// All, in their order.
    pub(crate) fn all(&self) -> &[Verdict] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_for_each_instruction_and_rule() {
        let mut findings = Findings::default();
        let advice = Verdict::advice("long-stall", "60 microseconds");
        assert!(findings.is_news(0x1000, &advice) && !findings.is_news(0x1000, &advice));
        assert!(findings.is_news(0x2000, &advice), "another instruction");
        assert!(findings.is_news(0x1000, &Verdict::advice("print-cut", "60 microseconds")), "another rule");
        assert!(findings.is_news(0x1000, &Verdict::advice("long-stall", "70 microseconds")), "other words");
    }

    #[test]
    fn an_instruction_gets_so_many_sentences_and_the_kernels_own_findings_and_errors_are_all_told() {
        let mut findings = Findings::default();
        let mut reported = |instruction: u64, make: fn(&'static str, String) -> Verdict| {
            (0..100).filter(|n| findings.is_news(instruction, &make("rule", format!("sentence {n}")))).count()
        };
        assert_eq!(reported(0x1000, Verdict::warning), OF_ONE_INSTRUCTION);
        assert_eq!(reported(0x2000, Verdict::error), 100);
        assert_eq!(reported(0, Verdict::verifier), 100);
    }
}
