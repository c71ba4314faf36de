//! Special kernel APCs: what the system has a thread do in its own context. Follows *Types of APCs*, *Disabling APCs*,
//! *Waits and APCs*.
//!
//! Only the system queues them: the end of a request is delivered in the thread that made it (`io::finish`). A thread carries them
//! out below APC_LEVEL and outside guarded regions, before anything else it does there, and in the middle of a wait, which goes
//! on behind them: *ours,* at its place in the queue. What is carried out runs at APC_LEVEL and does not wait; work that makes no thread
//! ready and calls no routine leaves the level as it is, if no reader wants those. Drivers have no documented way to queue an APC, so
//! normal and user APCs do not exist here.

use abi::NtStatus;
use engine::{Flow, StrandId};

use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::io::completion_notice::CompletionNotice;
use crate::ke::levels::irql::{self, APC_LEVEL, PASSIVE_LEVEL};
use crate::ke::sched::history::{self, Operation};
use crate::ke::sched::thread_record::{State, Thread};
use crate::ke::sched::{scheduler, slice};

/// What a thread is to do.
pub(crate) struct Apc {
    /// For people, where it cannot be done: `the end of the IRP`.
    pub(crate) what: &'static str,
    /// Its address.
    pub(crate) whose: u64,
    /// What is to be delivered.
    pub(crate) work: CompletionNotice,
}

/// Whether the thread that runs now could carry one out at once: so nothing need be queued for it.
pub(crate) fn runs_at_once(k: &Kernel, thread: StrandId) -> bool {
    let here = k.ke.thread().filter(|here| here.strand == thread);
    here.is_some_and(|here| here.special_apc_disable == 0) && k.level() < APC_LEVEL
}

/// The thread is to do this; its caller settles.
pub(crate) fn queue(k: &mut Kernel, strand: StrandId, apc: Apc) {
    let thread = k.ke.sched.threads_mut().get_mut(strand).expect("an APC is for a thread that exists");
    thread.apcs.push_back(apc);
    let interrupts = thread.state == State::Waiting && thread.irql < APC_LEVEL && is_open(thread);
    k.ke.waits.apcs += 1;
    if interrupts {
        scheduler::make_ready(k, strand);
    } else if k.ke.processors.len() == 1 && k.ke.processor().thread == strand && !slice::asks_now(k) {
        // The thread runs the APC as soon as its level allows.
        k.ke.raise_pending(APC_LEVEL);
    } else {
        // The thread may be running: here, below a DPC, or on another processor.
        k.ke.rearm();
    }
}

fn is_open(thread: &Thread) -> bool {
    thread.special_apc_disable == 0
}

/// Whether any thread has something to do.
#[cfg(test)]
pub(crate) fn is_any_pending(k: &Kernel) -> bool {
    k.ke.waits.apcs != 0
}

/// Whether the thread that processor `index` runs has something to do that nothing but its level may hold back.
#[inline]
pub(in crate::ke) fn is_pending(k: &Kernel, index: usize) -> bool {
    k.ke.waits.apcs != 0 && is_pending_for(k, k.ke.processors[index].thread)
}

fn is_pending_for(k: &Kernel, strand: StrandId) -> bool {
    k.ke.sched.threads().get(strand).is_some_and(|thread| !thread.apcs.is_empty() && is_open(thread))
}

/// The thread that runs now does all that it is to do.
///
/// # Errors
/// As what it does; [`engine::Leave`] if the machine ends meanwhile.
pub(crate) fn deliver(cx: &mut Cx<'_>) -> Flow<()> {
    while let Some(apc) = cx.with(take) {
        cx.detail(Kind::ApcRun, || Event::ApcRun { object: apc.whose });
        irql::set(cx, APC_LEVEL);
        apc.work.tell(cx)?;
        irql::set(cx, PASSIVE_LEVEL);
    }
    Ok(())
}

/// The first that is more than a few words of memory; what comes before it is done.
fn take(k: &mut Kernel) -> Option<Apc> {
    while is_pending(k, k.ke.current) {
        let strand = k.ke.processor().thread;
        k.ke.waits.apcs -= 1;
        let mut apcs = std::mem::take(&mut k.ke.sched.threads_mut().get_mut(strand)?.apcs);
        let is_told = !k.ke.levels_are_read() && apcs.front().is_some_and(|apc| apc.work.tell_at_once(k));
        let apc = if is_told {
            drop(apcs.pop_front());
            None
        } else {
            apcs.pop_front()
        };
        k.ke.sched.threads_mut().get_mut(strand)?.apcs = apcs;
        if apc.is_some() {
            k.ke.invalidate_levels();
            return apc;
        }
    }
    None
}

/// The current thread has left its processor to wait. Returns when its wait is over: how that ended.
///
/// # Errors
/// As [`deliver`].
#[inline(always)]
#[allow(clippy::inline_always, reason = "each frame it returns through costs a mispredicted return")]
pub(crate) fn block(cx: &mut Cx<'_>) -> Flow<NtStatus> {
    scheduler::suspend(cx)?;
    history::operates(cx, Operation::Woken, 0);
    match cx.with(|k| end_of_wait(k)) {
        Some(status) => Ok(status),
        None => go_on_waiting(cx),
    }
}

/// How the wait of the current thread ended, if it has.
#[inline]
fn end_of_wait(k: &Kernel) -> Option<NtStatus> {
    let thread = k.ke.thread().expect("a thread waits");
    thread.wait.is_none().then_some(thread.wait_status)
}

#[inline(never)]
fn go_on_waiting(cx: &mut Cx<'_>) -> Flow<NtStatus> {
    loop {
        deliver(cx)?;
        let over = cx.with(|k| {
            let status = end_of_wait(k);
            if status.is_none() {
                k.ke.change_thread(|thread| thread.state = State::Waiting);
                scheduler::leave_to_wait(k);
            }
            status
        });
        if let Some(status) = over {
            return Ok(status);
        }
        scheduler::suspend(cx)?;
        history::operates(cx, Operation::Woken, 0);
        if let Some(status) = cx.with(|k| end_of_wait(k)) {
            return Ok(status);
        }
    }
}

/// What waits for a thread that cannot do it, for the verdict on a deadlock.
pub(crate) fn describe(thread: &Thread) -> Option<String> {
    let Apc { what, whose, .. } = thread.apcs.front()?;
    let why = if is_open(thread) { "is at APC_LEVEL" } else { "is in a guarded region" };
    Some(format!(
        "{what} {whose:#x} is to be delivered in that thread by a special kernel APC, which cannot come while the thread {why}"
    ))
}
