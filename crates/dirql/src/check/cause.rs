//! What is wrong with a driver, as one thing, however many runs show it.
//!
//! Two runs show the same if they break the same rule at the same instruction; what belongs to no instruction is the same if its words are, but for
//! addresses, counts and who waits. Advice is no cause, and neither is an expectation of a script that did not hold. What does not end is seen when the process exits.

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
    /// What says that it does not count.
    pub dismissed: Option<Dismissal>,
    /// Of an access of driver code to memory.
    pub access: Option<Access>,
    /// Of a request that waits for another one.
    pub awaited: Option<Awaited>,
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
                access: Access::of(verdict),
                awaited: verdict
                    .awaited
                    .as_ref()
                    .map(|awaited| Awaited { waits: request(&awaited.waits), ends: request(&awaited.ends) }),
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
