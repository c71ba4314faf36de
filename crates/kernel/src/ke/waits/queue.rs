//! Queue objects: entries that threads wait for, and how many of those threads may run at once.
//!
//! Pages: *KeInitializeQueue function*, *KeInsertQueue function*, *KeInsertHeadQueue function*, *KeRemoveQueue function*,
//! *KeRundownQueue function*, *I/O Completion Ports* ("Threads and Concurrency"). A thread belongs to the queue that it took an entry from
//! last, or waits on, until it takes one from another or ends. `CurrentCount` says how many of a queue's threads run: those that wait for
//! anything do not, and an entry is given to a thread only while fewer than `MaximumCount` run. The thread that has begun to wait last is
//! the first to go on. *Ours:* `ThreadListHead` is an empty list; which threads belong to the queue is known here.

use abi::{DISPATCHER_HEADER, DriverPtr, KQUEUE, LIST_ENTRY, NtStatus};
use engine::{BadAddress, Engine, Flow, StrandId};

use super::dispatcher::{self, Kind, end_wait};
use super::links::{self, Broken};
use super::user_apc::{self, WaitMode};
use super::wait::{self, Timeout};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind as EventKind};
use crate::ke::levels::irql;
use crate::ke::sched::scheduler;

type Queue = DriverPtr<KQUEUE>;
type Entry = DriverPtr<LIST_ENTRY>;

/// What taking an entry comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// The entry.
    Entry(Entry),
    /// `TIMEOUT`, `USER_APC`, `ABANDONED`.
    None(NtStatus),
}

/// `KeInitializeQueue`: `count` threads may run at once, 0 being as many as there are processors.
///
/// # Errors
/// A verdict if a thread waits on it, or it is not memory.
pub(crate) fn initialize(cx: &mut Cx<'_>, queue: DriverPtr<KQUEUE>, count: u32) -> Flow<()> {
    dispatcher::set_up(cx, queue.cast(), Kind::Queue, size_of::<KQUEUE>() as u64, 0)?;
    let processors = cx.with(|k| {
        forget(k, queue);
        u32::try_from(k.ke.processors.len()).unwrap_or(u32::MAX)
    });
    let engine = cx.engine();
    for head in [queue + KQUEUE::EntryListHead, queue + KQUEUE::ThreadListHead] {
        links::initialize(engine, head).map_err(|bad| cx.bad_pointer(bad))?;
    }
    cx.write(queue + KQUEUE::CurrentCount, 0)?;
    cx.write(queue + KQUEUE::MaximumCount, if count == 0 { processors } else { count })
}

/// `KeReadStateQueue`: how many entries there are.
///
/// # Errors
/// A verdict if it is no queue.
pub(crate) fn read_state(cx: &mut Cx<'_>, queue: DriverPtr<KQUEUE>) -> Flow<i32> {
    dispatcher::expect(cx, queue.cast(), "KeReadStateQueue", &[Kind::Queue])?;
    cx.read((queue + KQUEUE::Header) + DISPATCHER_HEADER::SignalState)
}

/// `KeInsertQueue`: an entry for the thread that waits, or at the end. How many entries were there.
///
/// # Errors
/// A verdict if it is no queue; [`engine::Leave`] of what runs at once.
pub(crate) fn insert(cx: &mut Cx<'_>, queue: DriverPtr<KQUEUE>, entry: DriverPtr<LIST_ENTRY>) -> Flow<i32> {
    put(cx, queue, entry, "KeInsertQueue", false)
}

/// `KeInsertHeadQueue`: as [`insert`], at the head.
///
/// # Errors
/// As [`insert`].
pub(crate) fn insert_head(
    cx: &mut Cx<'_>,
    queue: DriverPtr<KQUEUE>,
    entry: DriverPtr<LIST_ENTRY>,
) -> Flow<i32> {
    put(cx, queue, entry, "KeInsertHeadQueue", true)
}

fn put(cx: &mut Cx<'_>, queue: Queue, entry: Entry, what: &str, at_head: bool) -> Flow<i32> {
    dispatcher::expect(cx, queue.cast(), what, &[Kind::Queue])?;
    let done = cx.with(|k| -> Result<i32, Broken> {
        let head = queue + KQUEUE::EntryListHead;
        let state = k.engine.read(signal_state(queue))?;
        // Before the first one is at the end of the list that begins with it.
        let place = if at_head { k.engine.read(head + LIST_ENTRY::Flink)? } else { head };
        links::insert_tail(k.engine, place, entry)?;
        k.engine.write(signal_state(queue), state.wrapping_add(1))?;
        serve(k, queue)?;
        Ok(state)
    });
    let before = done.map_err(|broken| dispatcher::stop(cx, queue.cast(), broken))?;
    let (object, kind) = (queue.address, Kind::Queue as u8);
    let before_it = before.cast_unsigned();
    cx.detail(EventKind::Signalled, || Event::Signalled { object, kind, before: before_it });
    irql::settle(cx)?;
    Ok(before)
}

/// `KeRemoveQueue`: the first entry, which is waited for; or a status, which no entry has for an address.
///
/// # Errors
/// A verdict if it is no queue, or a thread may not wait here; [`engine::Leave`] if the machine ends meanwhile.
pub(crate) fn remove(
    cx: &mut Cx<'_>,
    queue: DriverPtr<KQUEUE>,
    mode: u8,
    timeout: DriverPtr<i64>,
) -> Flow<u64> {
    dispatcher::expect(cx, queue.cast(), "KeRemoveQueue", &[Kind::Queue])?;
    let timeout = Timeout::read(cx, timeout)?;
    Ok(match take(cx, queue, WaitMode::of(mode, false), timeout, "KeRemoveQueue")? {
        Taken::Entry(entry) => entry.address,
        Taken::None(status) => status.0.into(),
    })
}

/// The running thread takes the first entry, and waits for one in this mode.
///
/// # Errors
/// As [`remove`].
pub(crate) fn take(
    cx: &mut Cx<'_>,
    queue: Queue,
    mode: WaitMode,
    timeout: Timeout,
    what: &'static str,
) -> Flow<Taken> {
    if timeout != Timeout::Poll {
        wait::check_may_block(cx, timeout, what)?;
    }
    let (strand, at_once) = cx.with(|k| {
        let processor = k.ke.processor_mut();
        processor.wait_next = false;
        let strand = processor.thread;
        k.ke.invalidate_levels();
        (strand, take_now(k, queue, strand))
    });
    let at_once = at_once.map_err(|broken| dispatcher::stop(cx, queue.cast(), broken))?;
    let over = at_once.or_else(|| {
        let polled = (timeout == Timeout::Poll).then_some(NtStatus::TIMEOUT);
        let status = polled.or_else(|| cx.with(|k| user_apc::instead_of_waiting(k, strand, mode)));
        status.map(Taken::None)
    });
    if let Some(taken) = over {
        if matches!(taken, Taken::Entry(_)) {
            wait::tell_satisfied(cx, queue.address);
        }
        cx.with(|k| {
            let own = k.ke.sched.threads().get(strand).map_or(0, |thread| thread.queue);
            runs_again(k, own);
        });
        irql::settle(cx)?;
        return Ok(taken);
    }
    if cx.count_event(EventKind::Wait) {
        cx.emit(Event::Wait { object: queue.address, count: 1 });
    }
    let begun = cx.with(|k| {
        let objects = [queue.cast()];
        wait::begin(k, strand, (&objects, false, mode), timeout, DriverPtr::NULL)
    });
    begun.map_err(|broken| dispatcher::stop(cx, queue.cast(), broken))?;
    cx.with(scheduler::leave_to_wait);
    let status = wait::until_over(cx)?;
    if status != NtStatus::SUCCESS {
        return Ok(Taken::None(status));
    }
    wait::tell_satisfied(cx, queue.address);
    let taken = cx.with(|k| {
        k.ke.sched.threads_mut().get_mut(strand).map_or(0, |thread| std::mem::take(&mut thread.taken))
    });
    Ok(Taken::Entry(DriverPtr::new(taken)))
}

/// The thread belongs to the queue from now on, and does not count as running. What there is for it without waiting.
fn take_now(k: &mut Kernel, queue: Queue, strand: StrandId) -> Result<Option<Taken>, Broken> {
    let own = k.ke.sched.threads().get(strand).map_or(0, |thread| thread.queue);
    if is_run_down(k.engine, queue)? {
        leave(k, strand);
        return Ok(Some(Taken::None(NtStatus::ABANDONED_WAIT_0)));
    }
    if own == queue.address {
        // It comes before those that wait.
        count(k.engine, queue, |running| running.saturating_sub(1))?;
    } else {
        leave(k, strand);
        if let Some(thread) = k.ke.sched.threads_mut().get_mut(strand) {
            thread.queue = queue.address;
        }
    }
    Ok(if may_run(k.engine, queue)? { pop(k.engine, queue)?.map(Taken::Entry) } else { None })
}

/// `KeRundownQueue`: ends all waits on it. The first of its entries, which are a list without a head now; null if it has none.
///
/// # Errors
/// A verdict if it is no queue; [`engine::Leave`] of what runs at once.
pub(crate) fn run_down(cx: &mut Cx<'_>, queue: DriverPtr<KQUEUE>) -> Flow<Entry> {
    dispatcher::expect(cx, queue.cast(), "KeRundownQueue", &[Kind::Queue])?;
    let done = cx.with(|k| -> Result<Entry, Broken> {
        let (engine, head) = (k.engine, queue + KQUEUE::EntryListHead);
        engine.write(queue.cast::<DISPATCHER_HEADER>() + DISPATCHER_HEADER::Abandoned, 1)?;
        let waiting = k.ke.waits.waits.get(&queue.address).map_or_else(Vec::new, |waiting| waiting.to_vec());
        for strand in waiting {
            end_wait(k, strand, NtStatus::ABANDONED_WAIT_0, 0)?;
        }
        forget(k, queue);
        engine.write(queue + KQUEUE::CurrentCount, 0)?;
        engine.write(signal_state(queue), 0)?;
        let first = engine.read(head + LIST_ENTRY::Flink)?;
        if first == head {
            return Ok(DriverPtr::NULL);
        }
        links::remove(engine, head)?;
        links::initialize(engine, head)?;
        Ok(first)
    });
    let first = done.map_err(|broken| dispatcher::stop(cx, queue.cast(), broken))?;
    irql::settle(cx)?;
    Ok(first)
}

/// Whether [`run_down`] has ended it.
///
/// # Errors
/// If it is not memory.
pub(crate) fn is_run_down(engine: Engine, queue: Queue) -> Result<bool, BadAddress> {
    Ok(engine.read(queue.cast::<DISPATCHER_HEADER>() + DISPATCHER_HEADER::Abandoned)? != 0)
}

fn signal_state(queue: Queue) -> DriverPtr<i32> {
    queue.cast::<DISPATCHER_HEADER>() + DISPATCHER_HEADER::SignalState
}

/// Whether one thread more may run.
fn may_run(engine: Engine, queue: Queue) -> Result<bool, BadAddress> {
    Ok(engine.read(queue + KQUEUE::CurrentCount)? < engine.read(queue + KQUEUE::MaximumCount)?)
}

/// Takes the first entry out.
fn pop(engine: Engine, queue: Queue) -> Result<Option<Entry>, Broken> {
    let head = queue + KQUEUE::EntryListHead;
    let first = engine.read(head + LIST_ENTRY::Flink)?;
    if first == head {
        return Ok(None);
    }
    links::remove(engine, first)?;
    engine.write(signal_state(queue), engine.read(signal_state(queue))?.wrapping_sub(1))?;
    Ok(Some(first))
}

/// Gives entries to threads that wait, the last one first, as long as more may run.
fn serve(k: &mut Kernel, queue: Queue) -> Result<(), Broken> {
    while let Some(strand) = k.ke.waits.waits.get(&queue.address).and_then(|waiting| waiting.last().copied())
        && may_run(k.engine, queue)?
    {
        let Some(entry) = pop(k.engine, queue)? else { break };
        if let Some(thread) = k.ke.sched.threads_mut().get_mut(strand) {
            thread.taken = entry.address;
        }
        end_wait(k, strand, NtStatus::SUCCESS, 0)?;
    }
    Ok(())
}

/// A thread of the queue's runs again: its wait is over.
pub(super) fn runs_again(k: &mut Kernel, queue: u64) {
    // An error in its memory is reported where the queue is used next.
    let _ = count(k.engine, DriverPtr::new(queue), |running| running.saturating_add(1));
}

/// Changes how many threads run, if a queue is there: its driver may have freed it.
fn count(engine: Engine, queue: Queue, change: impl FnOnce(u32) -> u32) -> Result<bool, BadAddress> {
    if queue.is_null()
        || engine.read(queue.cast::<DISPATCHER_HEADER>() + DISPATCHER_HEADER::Type)? != Kind::Queue as u8
    {
        return Ok(false);
    }
    let running = engine.read(queue + KQUEUE::CurrentCount)?;
    engine.write(queue + KQUEUE::CurrentCount, change(running))?;
    Ok(true)
}

/// The thread begins to wait, for whatever it is: another one of its queue's may run meanwhile.
#[inline]
pub(super) fn runs_no_more(k: &mut Kernel, strand: StrandId) {
    let queue = k.ke.sched.threads().get(strand).map_or(0, |thread| thread.queue);
    if queue != 0 {
        one_less(k, DriverPtr::new(queue));
    }
}

#[cold]
fn one_less(k: &mut Kernel, queue: Queue) {
    if count(k.engine, queue, |running| running.saturating_sub(1)) == Ok(true) {
        // Damage of its lists is reported where they are used next.
        let _ = serve(k, queue);
    }
}

/// The thread, which runs, belongs to no queue any more.
pub(in crate::ke) fn leave(k: &mut Kernel, strand: StrandId) {
    runs_no_more(k, strand);
    if let Some(thread) = k.ke.sched.threads_mut().get_mut(strand) {
        thread.queue = 0;
    }
}

/// No thread belongs to it any more.
fn forget(k: &mut Kernel, queue: Queue) {
    let own: Vec<StrandId> =
        k.ke.sched
            .threads()
            .iter()
            .filter(|thread| thread.queue == queue.address)
            .map(|thread| thread.strand)
            .collect();
    for strand in own {
        if let Some(thread) = k.ke.sched.threads_mut().get_mut(strand) {
            thread.queue = 0;
        }
    }
}
