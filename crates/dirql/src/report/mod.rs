//! What came of a run: the verdict, the findings, the sums, and the exit code that they mean.
//!
//! It tells the driver's fault from a failed expectation, from what dirql cannot do yet, and from a fault of dirql's own.

pub mod bugcheck;
pub(crate) mod dismissals;
mod dress;
mod finding_key;
mod json;
mod remarks;
mod schedule;
mod text;

pub use dismissals::{Dismissal, Dismissed};
pub use dress::Dress;
pub use finding_key::HANGS;
pub(crate) use finding_key::{instruction, key, request};
pub use text::verdict_text;

use std::fmt::Write as _;

use kernel::departures::Departure;
use kernel::verdict::{Related, StackLine, Tier, Verdict};
use kernel::wdf::log::FrameworkLog;

use crate::readers::{Sums, SymbolBook, json_array, json_object};

/// A script's expectation that did not hold, or a request of it that nothing could end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Where: `demo.txt:3`.
    pub place: String,
    /// The command as written.
    pub command: String,
    /// What was expected and what was seen.
    pub message: String,
    /// Of what does not end: when what is waited for came to be as it is.
    pub moments: Vec<Related>,
}

/// How a run ended, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// A fault of dirql's own.
    OurFault,
    /// The driver used something that dirql does not have yet: the run could not be completed, and is no fault of the driver's.
    NotImplemented,
    /// The driver broke a rule.
    Broken,
    /// An expectation of the script did not hold.
    Unexpected,
    /// Nothing was wrong.
    Clean,
}

impl Outcome {
    /// The exit code of a command that ends so: 0 clean, 1 the driver's or the script's, 3 ours.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Broken | Self::Unexpected => 1,
            Self::OurFault | Self::NotImplemented => 3,
        }
    }

    /// As JSON names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OurFault => "our-fault",
            Self::NotImplemented => "not-implemented",
            Self::Broken => "broken",
            Self::Unexpected => "unexpected",
            Self::Clean => "clean",
        }
    }
}

/// What came of a run.
pub struct Report {
    /// The verdict that ended it, if one did.
    pub verdict: Option<Verdict>,
    /// Findings that did not end it, in their order.
    pub findings: Vec<Verdict>,
    /// What was found besides, and does not count.
    pub dismissed: Vec<Dismissed>,
    /// The script's failed expectation.
    pub failure: Option<Failure>,
    /// The message of a panic of ours.
    pub our_fault: Option<String>,
    /// What was counted.
    pub sums: Sums,
    /// What the user should know of how the run was set up: an INF directive passed over, a PDB that does not fit.
    pub notes: Vec<String>,
    /// Every line the driver printed.
    pub prints: Vec<String>,
    /// A hash of all events: equal for equal runs.
    pub trace_hash: u128,
    /// A hash of the memory that the driver could see when the run ended.
    pub memory_hash: u128,
    /// How many events there were: what the run took.
    pub(crate) events: u64,
    /// Where a verdict ended it: what driver frameworks have logged of their clients.
    pub framework_logs: Vec<FrameworkLog>,
    /// The driver's stacks at the moments that were asked for (`explain`), by their events' numbers.
    pub(crate) witnessed: Vec<(u64, Vec<StackLine>)>,
    /// Where its schedule departs from the usual, if that was asked for, and how many more times it does.
    pub departures: (Vec<Departure>, u64),
    /// Each access of the driver's was tested.
    pub checked: bool,
    /// Names of addresses, for showing.
    pub symbols: SymbolBook,
}

impl Report {
    /// How the run ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let all = || self.verdict.iter().chain(&self.findings);
        if self.our_fault.is_some() {
            Outcome::OurFault
        } else if all().any(|verdict| verdict.not_implemented) {
            Outcome::NotImplemented
        } else if all().any(|verdict| verdict.tier == Tier::Error) {
            Outcome::Broken
        } else if self.failure.is_some() {
            Outcome::Unexpected
        } else {
            Outcome::Clean
        }
    }

    /// Nothing was wrong, as far as a run shows that is not checked: only a checked one is called clean.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.outcome() == Outcome::Clean && !self.checked
    }

    /// Whether a checked run of the same machine may blame another instruction, earlier: something damaged memory, or what was
    /// seen may be its consequence. Such a run is worth repeating with [`crate::Bench::checked`] before anyone is blamed.
    #[must_use]
    pub fn wants_checked_run(&self) -> bool {
        const SUSPICIOUS: [&str; 16] = [
            "execute-of-data",
            "invalid-opcode",
            "list-corrupt",
            "list-damaged",
            "pool-overrun",
            "pool-underrun",
            "protection-fault",
            "spin-lock-damaged",
            "trap",
            "wait-list-damaged",
            "wild-call",
            "wild-pointer",
            "wild-read",
            "wild-write",
            "write-after-free",
            "write-to-read-only",
        ];
        let rule = |verdict: &Verdict| SUSPICIOUS.contains(&verdict.rule);
        self.our_fault.is_some() || self.verdict.iter().any(rule)
    }

    /// For tests: fails unless nothing was wrong.
    ///
    /// # Panics
    /// With the whole report, if anything was.
    pub fn expect_clean(&self) {
        assert!(self.outcome() == Outcome::Clean, "the run was not clean\n{self}");
    }

    /// For tests: the verdict that ended the run.
    ///
    /// # Panics
    /// With the whole report, if none did.
    #[must_use]
    pub fn expect_verdict(&self) -> &Verdict {
        match &self.verdict {
            Some(verdict) => verdict,
            None => panic!("a verdict was expected\n{self}"),
        }
    }
}

/// What is known of a line of a stack.
pub(crate) struct Place {
    /// What the address is called: `card!DispatchWrite+0x12`.
    pub(crate) symbol: String,
    /// The line of the driver's own source that led there, or else any.
    pub(crate) source: Option<String>,
    /// The routines that were inlined there, the innermost first, each with its line.
    pub(crate) inlined: Vec<(String, Option<String>)>,
}

/// Where a line of a stack is.
pub(crate) fn place(symbols: &SymbolBook, line: &StackLine) -> Place {
    let (name, frames) = if line.is_return {
        (symbols.return_name(line.address), symbols.frames(line.address.wrapping_sub(1)))
    } else {
        (symbols.name(line.address), symbols.frames(line.address))
    };
    let own = frames.iter().find(|frame| frame.is_own).or_else(|| frames.last());
    let source = own.and_then(|frame| frame.source.clone());
    let inlined = frames.into_iter().filter_map(|frame| Some((frame.inlined?, frame.source)));
    Place { symbol: name.unwrap_or_else(|| line.symbol.clone()), source, inlined: inlined.collect() }
}

/// One line of a stack as JSON.
pub(crate) fn line_json(symbols: &SymbolBook, line: &StackLine) -> String {
    let Place { symbol, source, inlined } = place(symbols, line);
    let object = json_object().address("address", line.address).text("symbol", &symbol);
    let object = object.optional("source", source.as_deref()).optional("ddi", line.ddi);
    let object = if line.interrupted { object.flag("interrupted", true) } else { object };
    if inlined.is_empty() {
        return object.end();
    }
    let one = |(routine, source): &(String, Option<String>)| {
        json_object().text("routine", routine).optional("source", source.as_deref()).end()
    };
    object.raw("inlined", &json_array(inlined.iter().map(one))).end()
}

/// A stack for people: a line each, and below it what was inlined there; where an interrupt stands on what it interrupted, that is said.
pub(crate) fn stack_text(symbols: &SymbolBook, stack: &[StackLine]) -> String {
    let mut text = String::new();
    let mut interrupted = false;
    for line in stack {
        let Place { symbol, source, inlined } = place(symbols, line);
        if line.interrupted && !interrupted {
            text.push_str("    which had interrupted\n");
        }
        interrupted = line.interrupted;
        let source = source.map(|source| format!("  ({source})")).unwrap_or_default();
        let ddi = line.ddi.map(|name| format!(", in its call of {name}")).unwrap_or_default();
        let _ = writeln!(text, "    {:#x}  {symbol}{ddi}{source}", line.address);
        for (routine, source) in inlined {
            let source = source.map(|source| format!("  ({source})")).unwrap_or_default();
            let _ = writeln!(text, "        in {routine}, inlined{source}");
        }
    }
    text
}
