//! Which ready thread goes to which processor. Follows *Scheduling Priorities*, *Context Switches*.
//!
//! Strictly by priority; a thread that was preempted stays first among its equals. It starts no thread: that is the
//! scheduler's.

use engine::{Point, StrandId};

use super::processor::{self, Processor};
use super::ready::Candidates;
use super::slice;
use super::thread_record::{State, Thread};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ke::levels::irql::DISPATCH_LEVEL;

/// Puts ready threads on processors: idle ones first, then in place of lower priorities.
pub(crate) fn threads(cx: &mut Cx<'_>) {
    loop {
        let mut candidates = Candidates::default();
        let Some(index) = cx.with(|k| next(k, &mut candidates)) else { return };
        let strand = match candidates.len() {
            1 => candidates[0],
            _ => candidates[cx.nt().next_strand(Point("ke.next_thread"), &candidates)],
        };
        let from = cx.with(|k| put_on(k, strand, index));
        processor::switch_to(cx, index);
        if cx.count_event(Kind::Switch) {
            cx.emit(Event::Switch { from, to: strand });
        }
    }
}

/// Where one of the `candidates` is to be placed next.
#[inline]
fn next(k: &Kernel, candidates: &mut Candidates) -> Option<usize> {
    if k.ke.sched.ready.is_empty() {
        return None;
    }
    let (priority, index) = k.ke.sched.ready.iter().find_map(|strand| {
        let thread = &k.ke.sched.threads[strand];
        Some((thread.priority(), place_for(k, thread)?))
    })?;
    k.ke.sched.ready.candidates(priority, k.ke.processors[index].mask(), candidates);
    Some(index)
}

/// The processor a ready thread takes: the one it ran on last if that is idle, another idle one, else the one that runs
/// the lowest priority below its own.
fn place_for(k: &Kernel, thread: &Thread) -> Option<usize> {
    let open = k.ke.processors.iter().filter(|p| is_open(k, p, thread));
    let index = |processor: &Processor| processor.number as usize;
    let mut idle = open.clone().filter(|processor| processor.is_idle());
    if let Some(free) = idle.clone().find(|p| index(p) == thread.last_processor).or_else(|| idle.next()) {
        return Some(index(free));
    }
    let running = |processor: &Processor| k.ke.sched.threads.get(processor.thread);
    let lower = open.filter(|processor| {
        let lower = running(processor).is_some_and(|other| other.priority() < thread.priority());
        lower && !processor.wait_next
    });
    lower.min_by_key(|processor| running(processor).map(Thread::priority)).map(index)
}

/// Whether a processor can change its thread now, and to this one.
pub(crate) fn is_open(k: &Kernel, processor: &Processor, thread: &Thread) -> bool {
    k.level_of(processor.number as usize) < DISPATCH_LEVEL
        && processor.interrupts_enabled
        && processor.waits_for.is_none()
        && thread.affinity() & processor.mask() != 0
}

/// `strand` takes processor `index`; who was there goes to the head of its queue. Returns that one.
fn put_on(k: &mut Kernel, strand: StrandId, index: usize) -> StrandId {
    let was = k.ke.processors[index].thread;
    if !k.ke.processors[index].is_idle() {
        let irql = k.level_of(index);
        let thread = k.ke.sched.threads.get_mut(was).expect("what a processor runs is a thread");
        (thread.state, thread.irql, thread.last_processor) = (State::Ready, irql, index);
        k.ke.sched.ready.push_front(was, thread.priority(), thread.affinity(), k.engine.now());
    }
    assert!(k.ke.sched.ready.remove(strand), "a thread that is placed was ready");
    let quantum = k.engine.now() + slice::QUANTUM;
    let thread = k.ke.sched.threads.get_mut(strand).expect("a ready thread exists");
    (thread.state, thread.last_processor, thread.quantum_end) = (State::Running, index, quantum);
    let irql = thread.irql;
    k.set_level(index, irql);
    k.ke.processors[index].yield_requested = false;
    processor::set_current_thread(k, index, strand);
    was
}
