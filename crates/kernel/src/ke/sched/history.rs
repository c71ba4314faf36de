//! What of a run its history must know beside the memory that is touched, and what of the scheduler's state it does not tell: a policy compares runs by both
//! ([`engine::Chooser::comes_to`]).
//!
//! What the kernel does is one operation on one object, so that all of it is in one order: each call of an export, device access, routine that the
//! kernel calls and comes back from, wait that is over, request of an application, answer to a question, beginning and end of a thread. Whatever reads the clock or
//! keeps the time in what it changes gives the time, too: see [`reads_clock`]. What an operation does then follows from what came before it.
//!
//! *Not distinguished* is what only measures how long something took: ends of quanta, threads that starve, budgets, how long a level or lock was held, when a busy
//! wait is noticed.

use engine::{DelayPlace, StrandId, mixed};

use super::thread_record::State;
use crate::cx::{Cx, Kernel};

/// What a flow of control does: known by these in its hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Operation {
    /// It calls an export.
    Call = 1,
    /// The kernel calls a routine.
    Enter,
    /// The routine is over.
    Leave,
    /// A wait may be over.
    Woken,
    /// A question is answered.
    Answer,
    /// An application asks for something.
    Request,
    /// A thread begins.
    Begin,
    /// It ends.
    End,
    /// An interrupt or a DPC is taken.
    Work,
    /// The clock is read.
    Clock,
}

/// What a flow stands behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Stand {
    /// It gave way.
    GaveWay = 1,
    /// It was held up.
    HeldUp,
}

/// The flow of control that runs: a thread, what has interrupted one, or the scheduler.
pub(crate) fn flow(k: &Kernel) -> u64 {
    let processor = k.ke.processor();
    match processor.floors.last() {
        _ if k.engine.strand() == StrandId(0) => 0,
        // What has interrupted a thread: a routine of this level on this processor, which never interrupts its equals.
        Some(level) => interrupting(processor.number, *level),
        None => u64::from(k.engine.strand().0),
    }
}

/// The flow of what interrupts at this level.
pub(crate) fn interrupting(processor: u32, level: u8) -> u64 {
    1 << 40 | u64::from(processor) << 8 | u64::from(level)
}

/// The flow that runs does something in the kernel.
#[inline]
pub(crate) fn operates(cx: &mut Cx<'_>, what: Operation, which: u64) {
    if cx.engine().keeps_history() {
        cx.with(|k| note(k, flow(k), what, which));
    }
}

/// The current processor takes an interrupt or a DPC: that is not what it interrupts.
#[inline]
pub(crate) fn takes(cx: &mut Cx<'_>, which: u64) {
    if cx.engine().keeps_history() {
        cx.with(|k| note(k, interrupting(k.ke.processor().number, u8::MAX), Operation::Work, which));
    }
}

/// What the kernel does now reads the clock, or keeps the time: it is another operation at another time.
#[inline]
pub(crate) fn reads_clock(k: &Kernel) {
    if k.engine.keeps_history() {
        note(k, flow(k), Operation::Clock, k.engine.now());
    }
}

#[inline(never)]
fn note(k: &Kernel, flow: u64, what: Operation, which: u64) {
    let processor = u64::from(k.ke.processor().number);
    k.engine.operates(flow, mixed(what as u64 | processor << 8, which));
}

/// The flow that runs goes on behind the questions at a place that others may see.
#[inline]
pub(crate) fn goes_on(cx: &mut Cx<'_>, place: u64) {
    if cx.engine().keeps_history() {
        cx.with(|k| k.engine.goes_on(flow(k), place));
    }
}

/// The flow that runs was asked something, and others go first.
#[inline]
pub(crate) fn stands(cx: &mut Cx<'_>, behind: Stand) {
    if cx.engine().keeps_history() {
        cx.with(|k| k.engine.stands(flow(k), behind as u64));
    }
}

/// The name of a point as a number.
pub(crate) fn point(name: &str) -> u64 {
    name.bytes().fold(0, |hash, byte| mixed(hash, byte.into()))
}

/// A place of an instruction as a number.
pub(crate) fn place(place: DelayPlace) -> u64 {
    match place {
        DelayPlace::Call(at) => mixed(1, at),
        DelayPlace::Visible(at) => mixed(2, at),
        DelayPlace::Watched(at) => mixed(3, at),
        DelayPlace::SliceEnd => 4,
    }
}

/// All that the next answer depends on: the history, the time, and the state of the scheduler.
#[inline(never)]
pub(crate) fn state(k: &Kernel) -> u64 {
    let sched = &k.ke.sched;
    let mut hash = mixed(k.engine.history(), k.engine.now());
    let mut add = |number: u64| hash = mixed(hash, number);
    add(k.ke.current as u64);
    add(u64::from(k.engine.strand().0));
    for (index, processor) in k.ke.processors.iter().enumerate() {
        let flags = [
            processor.interrupts_enabled,
            processor.dispatch_requested,
            processor.wait_next,
            processor.yield_requested,
            processor.is_idle(),
            k.ke.timing.timers().is_due(k.engine.now(), index),
            sched.taker == Some(index),
        ];
        add(flags.iter().fold(0, |bits, flag| bits << 1 | u64::from(*flag)));
        add(u64::from(processor.thread.0) | u64::from(k.level_of(index)) << 32);
        add(processor.running_dpc.unwrap_or(0));
        add(processor.dpcs.len() as u64);
        processor.floors.iter().for_each(|level| add(u64::from(*level) + 1));
        add(processor.waits_for.map_or(0, |what| what.number()));
        // Of the turns only their order matters.
        let later = k.ke.processors.iter().filter(|other| other.last_turn > processor.last_turn).count();
        add(later as u64);
    }
    for strand in sched.ready.iter() {
        add(u64::from(strand.0) | 1 << 32);
    }
    for thread in sched.threads.iter() {
        let over = matches!(thread.state, State::Terminated);
        let bits =
            u64::from(over) | u64::from(thread.stuck.is_some()) << 1 | u64::from(thread.priority()) << 8;
        add(u64::from(thread.strand.0) << 32 | bits);
    }
    mixed(hash, sched.delays.number())
}
