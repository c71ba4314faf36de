//! What dirql says about a driver: one finding, with the bug check Windows would stop with, and who did it.
//!
//! A verdict is about the driver. A fault of ours is never one: it is an assertion, reported as such (exit code 3).

use abi::DriverPtr;
use engine::{BadAddress, Caller};

use crate::ke::locks::Held;
use crate::mm::pool::Block;

/// How sure, and how bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tier {
    /// Windows without Verifier would stop, or state is provably wrong or lost. Fails the run.
    Error,
    /// Only Driver Verifier would stop. Reported, and fails no run; an error with the option of Verifier's that it belongs to
    /// ([`crate::nt::Settings::verifier`]).
    Verifier,
    /// Documented as wrong, survives on this Windows version.
    Warning,
    /// Style, performance, obsolete.
    Advice,
}

impl Tier {
    /// All, the worst first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Verifier, Self::Warning, Self::Advice];

    /// As JSON and the table of rules name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Verifier => "verifier",
            Self::Warning => "warning",
            Self::Advice => "advice",
        }
    }
}

/// The bug check Windows would show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BugCheck {
    /// E.g. 0xD1.
    pub code: u32,
    /// Its four parameters.
    pub parameters: [u64; 4],
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The rule, in kebab case: `irql-too-high`, `double-completion`, `wild-write`.
    pub rule: &'static str,
    /// How bad.
    pub tier: Tier,
    /// One sentence for the driver's engineer: what the driver did, with names and values.
    pub message: String,
    /// What Windows would show, where it would stop.
    pub bug_check: Option<BugCheck>,
    /// What dirql lacks: the run stops because of us, and the driver is not blamed.
    pub not_implemented: bool,
    /// The instruction that it is about, if the driver may have gone on since: of its stack, what is above the same routine's frame is shown.
    pub instruction: Option<u64>,
    /// For a fault of an instruction: its address and all registers, as they were before it.
    pub caller: Option<Caller>,
    /// The driver's instruction (original address) and the return addresses above it, innermost first, each with its
    /// symbol. Filled in by [`crate::Nt::stop`].
    pub stack: Vec<StackLine>,
    /// Earlier moments that belong to it, in the order in which they are shown.
    pub related: Vec<Related>,
    /// What makes it the same finding as another of its rule, if not all of its words do: who has allocated what is left. Nothing that differs between runs.
    pub identity: Option<String>,
    /// It is the hardware that acts: whatever instruction runs meanwhile has no part in it.
    pub by_hardware: bool,
    /// Of an access of driver code: which memory it was meant for.
    pub accessed: Option<Accessed>,
    /// Of a request that waits for another one: which two.
    pub awaited: Option<Awaited>,
}

/// A request that another one ends, as the script has both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Awaited {
    /// The one that waits.
    pub waits: String,
    /// The one that ends it.
    pub ends: String,
}

/// The memory that an access was meant for which is wrong: what two findings of one mistake have in common, though their addresses differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accessed {
    /// Which.
    pub memory: Memory,
    /// A length or an index that is too large, or a buffer that is too short, can be why: it was beside the block, or where no block is.
    pub is_outside: bool,
    /// Where the routine begins whose instruction it was, if the image's unwind data say.
    pub routine: Option<u64>,
}

/// A kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// The copy that the I/O manager makes of a request's data: `Irp->AssociatedIrp.SystemBuffer`. It is NULL where a request has no bytes.
    SystemBuffer,
    /// Another block of pool.
    Pool,
    /// One that the call which returns to this address has freed.
    Freed(u64),
    /// Near address 0.
    Null,
    /// The window of device memory that began at this bus address, until it was unmapped.
    Unmapped(u64),
    /// Something else.
    Unknown,
}

/// An earlier moment that a verdict refers to: an allocation, a free, the taking of a lock. The stack of that moment is not
/// kept; the same run with [`crate::nt::Settings::witness`] shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Related {
    /// What happened: `allocated`, `freed`, `taken`, `queued`, `set`, `marked pending` and the like.
    pub what: &'static str,
    /// The number of the event that came with it or next.
    pub event: u64,
}

/// One line of a verdict's stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StackLine {
    /// Original address.
    pub address: u64,
    /// It is a return address: the call is what stands before it.
    pub is_return: bool,
    /// `name.sys!Function+0x12`, or `name.sys+0x1234`.
    pub symbol: String,
    /// It belongs to code that a DPC or service routine further in had interrupted: no call leads from it to that.
    pub interrupted: bool,
    /// It is a client's of a driver framework, in its call of this function.
    pub ddi: Option<&'static str>,
}

impl Verdict {
    /// A finding of the error tier.
    #[must_use]
    pub fn error(rule: &'static str, message: impl Into<String>) -> Self {
        Self {
            rule,
            tier: Tier::Error,
            message: message.into(),
            bug_check: None,
            not_implemented: false,
            instruction: None,
            caller: None,
            stack: Vec::new(),
            related: Vec::new(),
            identity: None,
            by_hardware: false,
            accessed: None,
            awaited: None,
        }
    }

    /// A finding of the warning tier.
    #[must_use]
    pub fn warning(rule: &'static str, message: impl Into<String>) -> Self {
        Self::error(rule, message).as_warning()
    }

    /// The same, where Windows goes on.
    #[must_use]
    pub fn as_warning(self) -> Self {
        Self { tier: Tier::Warning, ..self }
    }

    /// A finding of the verifier tier: hand it to [`crate::Cx::verify`], and go on.
    #[must_use]
    pub fn verifier(rule: &'static str, message: impl Into<String>) -> Self {
        Self::error(rule, message).as_verifier()
    }

    /// The same, where only Driver Verifier would stop.
    #[must_use]
    pub fn as_verifier(self) -> Self {
        Self { tier: Tier::Verifier, ..self }
    }

    /// A finding of the advice tier.
    #[must_use]
    pub fn advice(rule: &'static str, message: impl Into<String>) -> Self {
        Self::error(rule, message).as_advice()
    }

    /// The same, where it may be meant so.
    #[must_use]
    pub fn as_advice(self) -> Self {
        Self { tier: Tier::Advice, ..self }
    }

    /// With the bug check Windows would stop with.
    #[must_use]
    pub fn bug_check(mut self, code: u32, parameters: [u64; 4]) -> Self {
        self.bug_check = Some(BugCheck { code, parameters });
        self
    }

    /// With an earlier moment that belongs to it.
    #[must_use]
    pub(crate) fn related(mut self, what: &'static str, event: u64) -> Self {
        self.related.push(Related { what, event });
        self
    }

    /// The same, where there was one.
    #[must_use]
    pub(crate) fn related_if(self, what: &'static str, event: Option<u64>) -> Self {
        match event {
            Some(event) => self.related(what, event),
            None => self,
        }
    }

    /// With the moments when each of those that hold a lock acquired it.
    #[must_use]
    pub(crate) fn acquired(self, moments: impl IntoIterator<Item = u64>) -> Self {
        moments.into_iter().fold(self, |verdict, moment| verdict.related("acquired", moment))
    }

    /// With the moments of a block of pool.
    #[must_use]
    pub(crate) fn of_block(self, block: &Block) -> Self {
        let allocated =
            if block.allocator.is_driver() { self.related("allocated", block.allocated) } else { self };
        match block.freed.at.number().filter(|_| block.allocator.is_driver() && block.is_freed()) {
            Some(event) => allocated.related("freed", event),
            None => allocated,
        }
    }

    /// With the moment when a lock was taken, if it is held.
    #[must_use]
    pub(crate) fn of_lock(self, held: Option<Held>) -> Self {
        match held {
            Some(held) => self.related("taken", held.taken),
            None => self,
        }
    }

    /// Something the driver may do and dirql cannot yet: `IoFoo: not implemented by dirql`.
    #[must_use]
    pub fn not_implemented(what: &str) -> Self {
        let mut verdict = Self::error("not-implemented", format!("{what}: not implemented by dirql"));
        verdict.not_implemented = true;
        verdict
    }

    /// A list in memory that drivers can write, in which following `field` from `start` never comes to an end.
    #[must_use]
    pub(crate) fn endless_list(field: &str, start: u64) -> Self {
        let message = format!(
            "the list that begins at {start:#x} has no end: its links ({field}) lead back into it, and Windows would follow them for ever"
        );
        Self::error("list-cycle", message)
    }

    /// The kernel followed a pointer of the driver's to memory that is not there.
    #[must_use]
    pub fn bad_pointer(bad: BadAddress, irql: u8) -> Self {
        let verb = if bad.write { "written" } else { "read" };
        let message =
            format!("the driver passed {:#x} to the kernel, where nothing can be {verb}", bad.address);
        let code = if irql >= 2 { 0xA } else { 0x50 };
        let parameters = if irql >= 2 {
            [bad.address, u64::from(irql), u64::from(bad.write), 0]
        } else {
            [bad.address, if bad.write { 2 } else { 0 }, 0, 0]
        };
        Self::error("bad-pointer", message).bug_check(code, parameters)
    }
}

/// For messages: a pointer as people read it.
#[must_use]
pub fn at<T>(pointer: DriverPtr<T>) -> String {
    format!("{:#x}", pointer.address)
}
