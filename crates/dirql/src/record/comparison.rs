//! A run held against its record, event by event: the first one that differs is named.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use explore::{Complaint, Replay};
use kernel::event::{Event, Kind, Reader, Stamp};

use super::line::{BLOCK, End, EventMark, Rolling};
use super::read::Record;
use crate::readers::json_line;
use crate::report::Report;

/// The first difference between a run and its record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// An event that the record does not have so.
    Event {
        /// Its number, from 0.
        number: u64,
        /// What the record has there; `None` if it has ended.
        expected: Option<EventMark>,
        /// The event, as JSON; `None` if the run has ended.
        seen: Option<String>,
    },
    /// Each event agrees in its mark, but not all together.
    State {
        /// After so many events.
        events: u64,
    },
    /// A choice that does not fit the run.
    Choice(Complaint),
    /// All events are equal, and the end is not: the field, what the record has, what the run has.
    End(&'static str, String, String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { number, expected, seen } => {
                write!(f, "event {number} is the first that differs: ")?;
                match expected {
                    Some(EventMark { time, strand, kind, hash }) => write!(
                        f,
                        "recorded was `{kind}` of strand {strand} at {time} ns (mark {hash:08x}), "
                    )?,
                    None => f.write_str("the record ends before it, ")?,
                }
                match seen {
                    Some(seen) => write!(f, "now it is {seen}"),
                    None => f.write_str("now the run ends before it"),
                }
            }
            Self::State { events } => write!(
                f,
                "the first {events} events are not all equal: the difference is among the last {BLOCK} of them, in an event whose mark is the same by chance"
            ),
            Self::Choice(complaint) => write!(f, "a recorded choice does not fit: {complaint}"),
            Self::End(what, expected, seen) => {
                write!(f, "all events are equal; {what} was {expected}, now it is {seen}")
            }
        }
    }
}

/// Compares a run with its record. A clone is the same.
#[derive(Clone)]
pub struct Comparison(Rc<RefCell<State>>);

struct State {
    record: Record,
    replay: Replay,
    rolling: Rolling,
    first: Option<Difference>,
}

impl Comparison {
    pub(super) fn new(record: Record, replay: Replay) -> Self {
        let rolling = Rolling::default();
        Self(Rc::new(RefCell::new(State { record, replay, rolling, first: None })))
    }

    /// The first difference, if there is one. The machine must be finished.
    #[must_use]
    pub fn difference(&self, report: &Report) -> Option<Difference> {
        let state = self.0.borrow();
        if state.first.is_some() {
            return state.first.clone();
        }
        let seen = state.rolling.events();
        let index = usize::try_from(seen).unwrap_or(usize::MAX);
        if let Some(expected) = state.record.events.get(index) {
            return Some(Difference::Event { number: seen, expected: Some(expected.clone()), seen: None });
        }
        if let Some(complaint) = state.replay.complaints().into_iter().next() {
            return Some(Difference::Choice(complaint));
        }
        let end = End::new(report, state.rolling, state.record.end.choices);
        end_differs(&state.record.end, &end)
    }

    /// How many events the record has.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.borrow().record.end.events
    }
}

fn end_differs(recorded: &End, now: &End) -> Option<Difference> {
    let text = |rule: &Option<String>| rule.clone().unwrap_or_else(|| "none".to_owned());
    let fields = [
        ("the outcome", recorded.outcome.clone(), now.outcome.clone()),
        ("the verdict", text(&recorded.verdict), text(&now.verdict)),
        ("the list of findings", recorded.findings.join(" "), now.findings.join(" ")),
        ("the script's failure", text(&recorded.failure), text(&now.failure)),
        ("the hash of all events", recorded.state.clone(), now.state.clone()),
        ("the hash of the memory that drivers see", recorded.memory.clone(), now.memory.clone()),
    ];
    let (what, then, now) = fields.into_iter().find(|(_, then, now)| then != now)?;
    Some(Difference::End(what, then, now))
}

impl Reader for Comparison {
    fn wants(&self, _kind: Kind) -> bool {
        true
    }

    fn event(&mut self, stamp: &Stamp, event: &Event) {
        let mut state = self.0.borrow_mut();
        if state.first.is_some() {
            return;
        }
        let number = state.rolling.events();
        let mark = state.rolling.take(stamp, event);
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let expected = state.record.events.get(index).cloned();
        if expected.as_ref() != Some(&mark) {
            let seen = Some(json_line(stamp, event, None));
            state.first = Some(Difference::Event { number: stamp.number, expected, seen });
            return;
        }
        let events = state.rolling.events();
        let block = usize::try_from(events / BLOCK).unwrap_or(usize::MAX);
        if state.rolling.due().is_some() && state.record.states.get(block - 1) != Some(&state.rolling.hash())
        {
            state.first = Some(Difference::State { events });
        }
    }
}
