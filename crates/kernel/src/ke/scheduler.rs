//! Which thread runs on which processor. Follows *Scheduling Priorities*, *Context Switches*, *Priority Boosts*.
//!
//! The highest ready priority runs; a thread that becomes ready takes a processor that is idle or that runs something
//! lower, at once unless the level there forbids it. One processor at a time has its turn; it keeps it until its thread
//! waits, spins on a lock, or its turn ends (`slice`). When nobody can go on, time jumps to whatever happens next.

use engine::{Flow, Leave, Progress, StrandId};

use super::processor::{self, DISPATCH_LEVEL};
use super::slice;
use super::thread::{Role, State};
use super::{irql, line, place, spinlock, time, timer, wait};
use crate::cx::{Cx, Kernel};
use crate::nt::Nt;
use crate::verdict::Verdict;

/// Why [`run`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The caller's condition holds.
    Done,
    /// Nothing can run, and nothing is due.
    Quiet,
    /// A verdict or a fault of ours ended the machine.
    Stopped,
}

/// Runs threads until `done` says so, nothing can run any more, or the machine stops. Called from outside any strand.
pub fn run(nt: &Nt, done: &mut dyn FnMut(&Nt) -> bool) -> End {
    let mut cx = nt.cx();
    loop {
        if nt.stopping() {
            return End::Stopped;
        }
        if done(nt) {
            return End::Done;
        }
        line::observe(&mut cx);
        timer::ring(&mut cx);
        place::threads(&mut cx);
        if let Some(index) = choose_processor(&mut cx) {
            take_turn(&mut cx, index);
        } else if let Some(deadlock) = cx.with(|k| spinlock::deadlock(k)) {
            let _ = cx.stop(deadlock);
        } else if !pass_time(&mut cx) {
            return End::Quiet;
        }
    }
}

/// As [`run`], for a caller that cannot go on before `done`: if the machine falls quiet first, that is a deadlock.
pub fn run_until(nt: &Nt, done: &mut dyn FnMut(&Nt) -> bool) -> End {
    match run(nt, done) {
        End::Quiet => {
            let mut cx = nt.cx();
            let verdict = cx.with(|k| deadlock(k));
            let _ = cx.stop(verdict);
            End::Stopped
        }
        end => end,
    }
}

/// Everybody waits, and nothing is due that could wake anybody.
fn deadlock(k: &Kernel) -> Verdict {
    let waiting = k.ke.threads.values().filter(|thread| {
        let ours = thread.role == Role::Worker && thread.callouts.is_empty();
        thread.state == State::Waiting && !ours
    });
    let lines: Vec<String> = waiting
        .map(|thread| format!("the {} waits for {}", thread.name, wait::describe(k, thread.strand)))
        .collect();
    let who = if lines.is_empty() { "no thread is left to go on".to_owned() } else { lines.join("; ") };
    Verdict::error("deadlock", format!("nothing can run any more, and no timer or device is due: {who}"))
}

/// Time jumps to what happens next; false if nothing does.
fn pass_time(cx: &mut Cx<'_>) -> bool {
    let now = cx.engine().now();
    let due = cx.with(|k| [k.ke.timers.deadline(), k.hal.hardware.deadline()].into_iter().flatten().min());
    let Some(due) = due else { return false };
    // What is due and changes nothing must not stop the clock.
    time::charge(cx, due.saturating_sub(now).max(1));
    true
}

// ---- turns ----

/// Whether processor `index` has anything to do. `k.ke.locks` tells whether what it spins on is free.
fn can_go_on(k: &Kernel, index: usize) -> bool {
    let processor = &k.ke.processors[index];
    if matches!(irql::next_work(k, index), Some(irql::Work::Interrupt(_) | irql::Work::Dispatch)) {
        return true;
    }
    match processor.spinning {
        Some(lock) => !k.ke.locks.is_held(lock),
        None => !processor.is_idle() || processor.irql >= DISPATCH_LEVEL,
    }
}

/// Whose turn it is: by default whose last one is longest ago.
fn choose_processor(cx: &mut Cx<'_>) -> Option<usize> {
    let mut candidates = cx.with(|k| {
        let all = 0..k.ke.processors.len();
        all.filter(|index| can_go_on(k, *index)).collect::<Vec<_>>()
    });
    if candidates.len() < 2 {
        return candidates.first().copied();
    }
    cx.with(|k| candidates.sort_by_key(|index| k.ke.processors[*index].last_turn));
    let answer = cx.choose("ke.turn", u32::try_from(candidates.len()).expect("at most 64"));
    Some(candidates[answer as usize])
}

/// Whether another processor than the current one waits for a turn, or an idle one could run a ready thread.
pub(crate) fn others_wait(k: &Kernel) -> bool {
    let mut others = (0..k.ke.processors.len()).filter(|index| *index != k.ke.current);
    others.any(|index| {
        let processor = &k.ke.processors[index];
        can_go_on(k, index) || (processor.is_idle() && k.ke.ready.highest(processor.mask()).is_some())
    })
}

/// Lets processor `index` run until it gives its turn away.
fn take_turn(cx: &mut Cx<'_>, index: usize) {
    processor::switch_to(cx, index);
    let engine = cx.engine();
    let strand = cx.with(|k| {
        let turn = k.ke.processors.iter().map(|processor| processor.last_turn).max().unwrap_or(0) + 1;
        let processor = k.ke.processor_mut();
        processor.last_turn = turn;
        processor.turn_began = engine.now();
        let mark = k.ke.retired(engine.now());
        let strand = k.ke.processor().thread;
        k.ke.threads.get_mut(&strand).expect("what a processor runs is a thread").mark = mark;
        strand
    });
    slice::arm(cx);
    if engine.resume(strand) == Progress::Finished {
        // A thread that has ended has left its processor by itself; else the machine stops.
        cx.with(|k| k.ke.threads.get_mut(&strand).map(|thread| thread.state = State::Terminated));
        return;
    }
    let now = engine.now();
    cx.with(|k| k.ke.account_for(strand, now));
}

/// The turn of this processor is over; its thread stays on it. Returns when it has the turn again.
pub(crate) fn end_turn(cx: &mut Cx<'_>) -> Flow<()> {
    suspend(cx)
}

fn suspend(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.nt().stopping() {
        return Err(Leave::Stop);
    }
    cx.engine().suspend();
    if cx.nt().stopping() { Err(Leave::Stop) } else { Ok(()) }
}

// ---- threads ----

/// A thread can run: it goes to the end of its queue.
pub(crate) fn make_ready(k: &mut Kernel, strand: StrandId) {
    let thread = k.ke.threads.get_mut(&strand).expect("a thread that becomes ready exists");
    thread.state = State::Ready;
    k.ke.ready.push_back(strand, thread.priority(), thread.affinity());
    k.ke.rearm = true;
}

/// Whether a ready thread has a better claim to processor `index` than the one there; both levels allow it.
pub(crate) fn must_switch(k: &Kernel, index: usize) -> bool {
    let processor = &k.ke.processors[index];
    if processor.is_idle() {
        // Its thread gives way by itself when it has nothing to do.
        return false;
    }
    let Some(current) = k.ke.threads.get(&processor.thread) else { return false };
    if processor.wait_next {
        return false;
    }
    if processor.yield_requested {
        return true;
    }
    let ready = k.ke.ready.highest(processor.mask());
    ready.is_some_and(|priority| priority > current.priority() && !idle_ones_suffice(k, index, priority))
}

/// Whether idle processors will take the ready threads of this priority anyway.
fn idle_ones_suffice(k: &Kernel, index: usize, priority: u8) -> bool {
    let candidates = k.ke.ready.candidates(priority, k.ke.processors[index].mask());
    let idle = k.ke.processors.iter().filter(|processor| processor.is_idle());
    let takes = |strand: &StrandId| {
        let mut open = idle.clone();
        open.any(|processor| place::is_open(processor, &k.ke.threads[strand]))
    };
    candidates.len() <= idle.clone().count() && candidates.iter().all(takes)
}

/// The current thread leaves its processor to a better one: before its equals, or behind them if that was asked for.
/// Returns when it runs again, on whatever processor.
pub(crate) fn give_way(cx: &mut Cx<'_>) -> Flow<()> {
    cx.with(|k| {
        let behind = std::mem::take(&mut k.ke.processor_mut().yield_requested);
        let strand = k.ke.processor().thread;
        leave_processor(k);
        let thread = k.ke.threads.get_mut(&strand).expect("the thread that runs");
        thread.state = State::Ready;
        let (priority, affinity) = (thread.priority(), thread.affinity());
        if behind {
            k.ke.ready.push_back(strand, priority, affinity);
        } else {
            k.ke.ready.push_front(strand, priority, affinity);
        }
    });
    suspend(cx)
}

/// The current thread, whose state says that it waits, leaves its processor. Returns when the wait is over.
pub(crate) fn block(cx: &mut Cx<'_>) -> Flow<()> {
    cx.with(|k| {
        let now = k.engine.now();
        let strand = k.ke.processor().thread;
        k.ke.account_for(strand, now);
        let thread = k.ke.threads.get_mut(&strand).expect("the thread that runs");
        // It made progress: it is in no endless loop.
        (thread.spent, thread.boost) = (0, 0);
        leave_processor(k);
    });
    suspend(cx)
}

/// `ZwYieldExecution`, and a delay of 0: behind its equals, if there are any.
pub(crate) fn yield_now(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.with(|k| equals_wait(k)) {
        cx.with(|k| k.ke.processor_mut().yield_requested = true);
    }
    irql::settle(cx)
}

/// Whether a thread that is as good as the current one could have this processor.
fn equals_wait(k: &Kernel) -> bool {
    let processor = k.ke.processor();
    let highest = k.ke.ready.highest(processor.mask());
    processor.irql < DISPATCH_LEVEL && k.ke.thread().is_some_and(|thread| highest >= Some(thread.priority()))
}

/// A driver is about to do something that others can see: the policy may let another thread or processor go first.
pub(crate) fn before_visible(cx: &mut Cx<'_>) -> Flow<()> {
    let (equals, others) = cx.with(|k| (equals_wait(k), others_wait(k)));
    if !(equals || others) || cx.choose("ke.before_export", 2) == 0 {
        return Ok(());
    }
    if equals { yield_now(cx) } else { end_turn(cx) }
}

/// The processor is the idle thread's; the thread that leaves remembers its level.
fn leave_processor(k: &mut Kernel) {
    let processor = k.ke.processor();
    let (strand, irql, idle) = (processor.thread, processor.irql, processor.idle);
    assert!(irql < DISPATCH_LEVEL, "no thread is switched at DISPATCH_LEVEL");
    let index = k.ke.current;
    if let Some(thread) = k.ke.threads.get_mut(&strand) {
        thread.irql = irql;
        thread.last_processor = index;
    }
    k.ke.processors[index].irql = 0;
    processor::set_current_thread(k, index, idle);
}

/// What an idle thread does: lets in what is there for its processor, and gives the turn away.
pub(crate) fn idle(cx: &mut Cx<'_>) -> Flow<()> {
    loop {
        irql::settle(cx)?;
        suspend(cx)?;
    }
}

/// Resumes everything that is suspended, so that it unwinds; the machine is stopping.
pub(crate) fn unwind_all(cx: &mut Cx<'_>) {
    let strands: Vec<StrandId> = cx.with(|k| k.ke.threads.keys().copied().collect());
    for strand in strands {
        let alive = cx.with(|k| k.ke.threads.get(&strand).is_some_and(|t| t.state != State::Terminated));
        if alive {
            let progress = cx.engine().resume(strand);
            assert_eq!(progress, Progress::Finished, "a strand that is told to stop must not wait");
        }
    }
}
