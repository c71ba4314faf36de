//! The ordinary switch: a thread has begun to wait, and the one that goes on is beyond question. Follows *Context Switches*.
//!
//! What the scheduler's loop asks one after the other (hardware, alarms, starving threads, processors, whose turn it is, when the slice ends)
//! is looked at here at once, before anything is changed. The free level that was published to driver code answers most of it: at
//! PASSIVE_LEVEL nothing waits, and code that makes something wait takes it back. A slice that ends no later than the new thread's would
//! goes on. Only on a machine of one processor; everything unusual is left to the general path (`scheduler`, `assign_processor`, `slice`),
//! which explains each step. Debug builds compare.

use engine::StrandId;

use super::processor::{self, Processor};
use super::thread_record::State;
use super::{assign_processor, slice};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ke::irq::interrupt_delivery;
use crate::ke::levels::irql::PASSIVE_LEVEL;
use crate::mm::spaces;

/// Gives the turn to the thread that must have it, if that is all there is to it; it is to be resumed. None if there is more, and then
/// nothing has been done.
#[inline]
pub(crate) fn next(cx: &mut Cx<'_>) -> Option<StrandId> {
    let (from, to) = cx.with(hand_over)?;
    if cx.count_event(Kind::Switch) {
        cx.emit_counted(Event::Switch { from, to });
    }
    Some(to)
}

#[inline]
fn hand_over(k: &mut Kernel) -> Option<(StrandId, StrandId)> {
    let [only] = k.ke.processors.as_slice() else { return None };
    let nothing_waits = k.engine.free_levels() == PASSIVE_LEVEL && k.ke.waits.is_no_apc_queued();
    // Where processes have address spaces of their own, the general path changes the current one.
    if !nothing_waits || k.level() != PASSIVE_LEVEL || !is_free(only) || spaces::is_any_apart(k) {
        return None;
    }
    let strand = k.ke.sched.ready.sole_best(only.mask(), k.engine.may_depart())?;
    let thread = k.ke.sched.threads.get(strand)?;
    if thread.stuck.is_some() || thread.irql != PASSIVE_LEVEL {
        return None;
    }
    let from = only.thread;
    let now = k.engine.now();
    let quantum_end = now + slice::QUANTUM;
    let until = if slice::serves(k, thread, now, quantum_end) {
        k.ke.sched.armed_until
    } else {
        let (until, instructions) = slice::of_next_turn(k, thread, now, quantum_end)?;
        if !interrupt_delivery::is_unchanged_before(k, until) {
            return None;
        }
        k.ke.begin_slice(now, until, instructions);
        until
    };
    debug_assert_eq!(k.ke.sched.ready.iter().next(), Some(strand), "no thread has a better claim");
    debug_assert!(
        assign_processor::is_open(k, &k.ke.processors[0], &k.ke.sched.threads[strand]),
        "it can be switched to"
    );
    go(k, strand, now, quantum_end);
    debug_assert!(until <= slice::end(k, now).0, "the slice ends no later than on the general path");
    if k.engine.may_depart() {
        // Fewer are ready now: more may be published.
        k.ke.invalidate_levels();
        k.publish_as_nothing_waits();
    }
    k.check_published();
    Some((from, strand))
}

/// Whether a processor has nothing to do but to take a thread. DPCs that need not run at once do where no thread does.
#[inline]
fn is_free(processor: &Processor) -> bool {
    processor.is_idle()
        && processor.waits_for.is_none()
        && processor.interrupts_enabled
        && processor.dpcs.is_empty()
}

/// What `place` and the scheduler's turn do.
#[inline]
fn go(k: &mut Kernel, strand: StrandId, now: u64, quantum_end: u64) {
    k.ke.sched.ready.take_best();
    let stepped = k.engine.retired();
    let mark = (k.ke.retired(now), now, stepped);
    let thread = k.ke.sched.threads.get_mut(strand).expect("a ready thread exists");
    (thread.state, thread.last_processor, thread.quantum_end) = (State::Running, 0, quantum_end);
    (thread.mark, thread.retired.1) = (mark, stepped);
    let object = thread.object;
    let processor = k.ke.processor_mut();
    processor.yield_requested = false;
    (processor.last_turn, processor.turn_began) = (processor.last_turn + 1, now);
    k.ke.sched.turn_is_idle = false;
    processor::exchange_thread(k, 0, strand, object);
}
