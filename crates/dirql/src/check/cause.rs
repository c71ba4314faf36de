//! What is wrong with a driver, as one thing, however many runs show it.
//!
//! Two runs show the same if they break the same rule at the same instruction; what belongs to no instruction is the same if its words are, but for
//! addresses, counts and who waits. Advice does not count, and an expectation of a script that did not hold is no cause. What does not end is seen when the process exits.

use std::collections::BTreeSet;

use kernel::verdict::{Accessed, Memory, Tier, Verdict};
use serde::{Deserialize, Serialize};

use crate::report::{Dismissal, Dismissed, Report, instruction, key, request};

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
    /// Why it does not count, if it does not.
    pub aside: Option<Aside>,
    /// Of an access of driver code to memory.
    pub access: Option<Access>,
    /// Of a request that waits for another one.
    pub awaited: Option<Awaited>,
}

/// Why something that is wrong does not count.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Aside {
    /// It is advice.
    Advice,
    /// The user's file of dismissals says so.
    Dismissed(Dismissal),
}

/// A request that waits for another one, each by its kind: `read`, `ioctl 0x222000`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Awaited {
    /// The one that waits.
    pub waits: String,
    /// The one that ends it.
    pub ends: String,
}

/// An access to memory, by what is the same in each run.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Access {
    /// Which memory it was meant for; equal for the same. None where that is not known.
    pub memory: Option<String>,
    /// A length or an index that is too large, or a buffer that is too short, can be why.
    pub is_outside: bool,
    /// Where the routine begins whose instruction it was.
    pub routine: Option<u64>,
    /// Where that routine returns to.
    pub caller: Option<u64>,
}

/// The memory that the I/O manager copies a request's data to, as [`Access::memory`] has it.
pub(super) const SYSTEM_BUFFER: &str = "system buffer";
/// What is near address 0.
pub(super) const NULL: &str = "null";
/// What stands before the bus address of a window of device memory that was unmapped.
pub(super) const UNMAPPED: &str = "unmapped ";
/// What stands before the place that has freed a block.
pub(super) const FREED: &str = "freed by ";

impl Access {
    fn of(verdict: &Verdict) -> Option<Self> {
        let Accessed { memory, is_outside, routine } = verdict.accessed?;
        let memory = match memory {
            Memory::SystemBuffer => Some(SYSTEM_BUFFER.to_owned()),
            Memory::Pool => Some("pool".to_owned()),
            Memory::Freed(by) => Some(format!("{FREED}{by:#x}")),
            Memory::Null => Some(NULL.to_owned()),
            Memory::Unmapped(bus) => Some(format!("{UNMAPPED}{bus:#x}")),
            Memory::Unknown => None,
        };
        Some(Self { memory, is_outside, routine, caller: verdict.stack.get(1).map(|line| line.address) })
    }
}

impl Report {
    /// What is wrong with the driver by this run, each thing once, in the order of the run, and behind it what is dismissed.
    #[must_use]
    pub fn causes(&self) -> Vec<Cause> {
        let mut known = BTreeSet::new();
        let counts = |(verdict, _): &(&Verdict, _)| verdict.tier != Tier::Advice;
        self.all().filter(counts).filter_map(|of| self.cause(of, &mut known)).collect()
    }

    /// The advice of this run, and what is dismissed of it, but what is known by its key.
    pub(super) fn advice(&self, known: &mut BTreeSet<String>) -> Vec<Cause> {
        let is_advice = |(verdict, _): &(&Verdict, _)| verdict.tier == Tier::Advice;
        let advice = self.all().filter(is_advice).map(|(verdict, by)| (verdict, by.or(Some(Aside::Advice))));
        advice.filter_map(|of| self.cause(of, known)).collect()
    }

    /// All that was found, and behind it what is dismissed.
    fn all(&self) -> impl Iterator<Item = (&Verdict, Option<Aside>)> {
        let found = self.findings.iter().chain(&self.verdict).map(|verdict| (verdict, None));
        let by = |by: &Dismissal| Some(Aside::Dismissed(by.clone()));
        let dismissed = self.dismissed.iter().map(move |one: &Dismissed| (&one.verdict, by(&one.by)));
        found.chain(dismissed).filter(|(verdict, _)| !verdict.not_implemented)
    }

    /// What makes this known, unless it is.
    fn cause(
        &self,
        (verdict, aside): (&Verdict, Option<Aside>),
        known: &mut BTreeSet<String>,
    ) -> Option<Cause> {
        let key = key(verdict);
        if !known.insert(key.clone()) {
            return None;
        }
        let awaited = verdict.awaited.as_ref();
        Some(Cause {
            key,
            rule: verdict.rule.to_owned(),
            tier: verdict.tier.name().to_owned(),
            instruction: instruction(verdict),
            finding: self.finding_json(verdict),
            aside,
            access: Access::of(verdict),
            awaited: awaited.map(|of| Awaited { waits: request(&of.waits), ends: request(&of.ends) }),
        })
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
