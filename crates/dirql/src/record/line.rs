//! The lines of a record between its header and its checksum.

use explore::Choice;
use kernel::event::{Event, Stamp};
use serde::{Deserialize, Serialize};

use crate::readers::{Hash128, of_event};
use crate::report::Report;

/// How many events a `state` line comes after.
pub(super) const BLOCK: u64 = 1_000;

/// One event, as a record keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventMark {
    /// The machine's clock, in ns.
    pub time: u64,
    /// The strand; 0 is the scheduler.
    pub strand: u32,
    /// As JSON names it: `irp-sent`.
    pub kind: String,
    /// Of all its fields.
    pub hash: u32,
}

/// How the run ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How many events there were.
    pub events: u64,
    /// How many choices were not the default.
    pub choices: u64,
    /// As the report names it: `clean`, `broken`, …
    pub outcome: String,
    /// The rule of the verdict that ended the run.
    pub verdict: Option<String>,
    /// The rules of the findings that did not.
    pub findings: Vec<String>,
    /// The script's failed expectation.
    pub failure: Option<String>,
    /// The hash of all events, as a `state` line has it.
    pub state: String,
    /// The hash of the memory that drivers could see.
    pub memory: String,
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Line {
    Choice(Choice),
    Event(EventMark),
    State { events: u64, hash: u128 },
    End(End),
}

/// The hash of all events so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Rolling {
    hash: Hash128,
    events: u64,
}

impl Rolling {
    /// Takes one more event in.
    pub(super) fn take(&mut self, stamp: &Stamp, event: &Event) -> EventMark {
        let own = of_event(stamp, event);
        self.hash.hash(own);
        self.events += 1;
        let folded = own.value() ^ own.value() >> 64;
        EventMark {
            time: stamp.time,
            strand: stamp.strand.0,
            kind: event.kind().name().to_owned(),
            hash: u32::try_from(folded & 0xFFFF_FFFF).unwrap_or_default(),
        }
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn hash(&self) -> u128 {
        self.hash.value()
    }

    /// The state line that is due after the last event.
    pub(super) fn due(&self) -> Option<Line> {
        self.events.is_multiple_of(BLOCK).then(|| Line::State { events: self.events, hash: self.hash() })
    }
}

impl End {
    pub(super) fn new(report: &Report, rolling: Rolling, choices: u64) -> Self {
        Self {
            events: rolling.events(),
            choices,
            outcome: report.outcome().name().to_owned(),
            verdict: report.verdict.as_ref().map(|verdict| verdict.rule.to_owned()),
            findings: report.findings.iter().map(|finding| finding.rule.to_owned()).collect(),
            failure: report.failure.as_ref().map(ToString::to_string),
            state: format!("{:032x}", rolling.hash()),
            memory: format!("{:032x}", report.memory_hash),
        }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Choice(choice) => choice.fmt(f),
            Self::Event(EventMark { time, strand, kind, hash }) => {
                write!(f, "event {time} {strand} {kind} {hash:08x}")
            }
            Self::State { events, hash } => write!(f, "state {events} {hash:032x}"),
            Self::End(end) => {
                write!(f, "end {}", serde_json::to_string(end).map_err(|_| std::fmt::Error)?)
            }
        }
    }
}

impl Line {
    /// Reads one; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ')?;
        let words: Vec<&str> = rest.split(' ').collect();
        match (word, &words[..]) {
            ("choice" | "preempt" | "delay", _) => text.parse().ok().map(Self::Choice),
            ("event", [time, strand, kind, hash]) if hash.len() == 8 && !kind.is_empty() => {
                Some(Self::Event(EventMark {
                    time: time.parse().ok()?,
                    strand: strand.parse().ok()?,
                    kind: (*kind).to_owned(),
                    hash: u32::from_str_radix(hash, 16).ok()?,
                }))
            }
            ("state", [events, hash]) if hash.len() == 32 => {
                Some(Self::State { events: events.parse().ok()?, hash: u128::from_str_radix(hash, 16).ok()? })
            }
            ("end", _) => serde_json::from_str(rest).ok().map(Self::End),
            _ => None,
        }
    }
}
