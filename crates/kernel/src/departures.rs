//! Where a run departs from the usual: which thread gave way, where it stood, and who goes on, for people who read a schedule.
//!
//! Noted only if [`crate::nt::Settings::narrated`] asks, and so many of the first at most; whether a call was made to fail is noted always. It decides
//! nothing: the chooser does.

use std::cell::{Cell, RefCell};

use engine::StrandId;

use crate::ldr;
use crate::nt::Nt;
use crate::verdict::StackLine;

/// Departures that are kept at most.
const MOST: usize = 500;

/// One answer of the chooser's that is not the usual one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Departure {
    /// The question: `ke.before_export`, `ke.slice`, `ke.turn`, `fault.pool`.
    pub point: &'static str,
    /// The thread that was asked for, by its name.
    pub thread: String,
    /// The driver's code that it stood in, if it did in any.
    pub at: Option<StackLine>,
    /// The thread that goes on instead, if it was about that.
    pub to: Option<String>,
    /// What was answered.
    pub answer: u64,
    /// The number of the event that comes next.
    pub event: u64,
}

/// The departures of a run.
pub(crate) struct Departures {
    is_on: bool,
    seen: RefCell<Vec<Departure>>,
    more: Cell<u64>,
    /// So many calls were made to fail that could have succeeded.
    refused: Cell<u64>,
}

/// How the names of such questions begin.
const REFUSAL: &str = "fault.";

impl Departures {
    pub(crate) fn new(is_on: bool) -> Self {
        Self { is_on, seen: RefCell::default(), more: Cell::new(0), refused: Cell::new(0) }
    }

    /// How many calls were made to fail that could have succeeded.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Those that were kept, and how many came after them.
    pub(crate) fn seen(&self) -> (Vec<Departure>, u64) {
        (self.seen.borrow().clone(), self.more.get())
    }
}

/// The chooser gave another answer than the usual one: `of` (or the thread that runs) is what it was about, `to` goes on.
#[inline]
pub(crate) fn note(nt: &Nt, point: &'static str, answer: u64, of: Option<StrandId>, to: Option<StrandId>) {
    if answer != 0 {
        if point.starts_with(REFUSAL) {
            nt.departures.refused.set(nt.departures.refused.get() + 1);
        }
        if nt.departures.is_on {
            keep(nt, point, answer, of, to);
        }
    }
}

#[cold]
fn keep(nt: &Nt, point: &'static str, answer: u64, of: Option<StrandId>, to: Option<StrandId>) {
    let all = &nt.departures;
    if all.seen.borrow().len() >= MOST || nt.kernel.try_borrow_mut().is_err() {
        all.more.set(all.more.get() + 1);
        return;
    }
    let mut cx = nt.cx();
    let runs = cx.engine().strand();
    // Of a thread that does not run the stack is not at hand.
    let at =
        if of.is_none_or(|of| of == runs) { ldr::stack::lines(&mut cx).into_iter().next() } else { None };
    let (thread, to) = cx.with(|k| {
        let name = |strand: StrandId| {
            let thread = k.ke.sched.threads().iter().find(|thread| thread.strand == strand);
            thread.map_or_else(|| "the scheduler".to_owned(), |thread| thread.name.clone())
        };
        (name(of.unwrap_or(runs)), to.map(name))
    });
    let event = nt.next_event();
    all.seen.borrow_mut().push(Departure { point, thread, at, to, answer, event });
}
