//! Mutex objects. Follows *KeInitializeMutex function*, *KeReleaseMutex function*, *Introduction to Mutex Objects*.
//!
//! Waiting for them is `wait`'s. The levels drivers give them mean nothing, as since Windows Vista.

use abi::{DISPATCHER_HEADER, DriverPtr, KMUTANT, NtStatus};
use engine::Flow;

use super::dispatcher::{self, Kind};
use super::event::finish;
use super::wait::{self, Timeout};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind as EventKind, LockKind};
use crate::few::Few;
use crate::ke::calls::exception;
use crate::ke::lock_order::{self, Hold};
use crate::verdict::Verdict;
use crate::witness;

/// A mutex that a thread owns.
pub(crate) struct Owned {
    pub(crate) mutex: u64,
    /// The moment when the thread acquired it; none as long as it has not run since.
    pub(crate) acquired: Option<u64>,
}

/// When its owner acquired a mutex.
pub(crate) fn acquired(k: &Kernel, mutex: u64) -> Option<u64> {
    let owned =
        k.ke.sched.threads().iter().flat_map(|thread| &thread.mutexes).find(|owned| owned.mutex == mutex);
    owned?.acquired
}

/// A wait of the current thread's is over: what it owns since then, it has acquired there. `waits`: it has waited for all, and would have for ever.
///
/// # Errors
/// As [`lock_order::acquired`].
pub(crate) fn note_acquired(cx: &mut Cx<'_>, waits: bool) -> Flow<()> {
    let is_new = |owned: &Owned| owned.acquired.is_none();
    if !cx.with(|k| k.ke.thread().is_some_and(|thread| thread.mutexes.iter().any(is_new))) {
        return Ok(());
    }
    let moment = witness::moment(cx);
    let new: Few<u64, 1> = cx.with(|k| {
        let mutexes = k.ke.thread_mut().into_iter().flat_map(|thread| &mut thread.mutexes);
        let note = |owned: &mut Owned| {
            owned.acquired = Some(moment);
            owned.mutex
        };
        mutexes.filter(|owned| is_new(owned)).map(note).collect()
    });
    for &lock in &*new {
        cx.detail(EventKind::LockAcquired, || Event::LockAcquired { lock, kind: LockKind::Mutex });
        lock_order::acquired(cx, Hold { lock, kind: LockKind::Mutex, acquired: moment }, waits)?;
    }
    Ok(())
}

/// `KeInitializeMutex`: not owned; a thread that owns it gets no normal kernel APCs.
///
/// # Errors
/// A verdict if the pointer is bad or a thread waits for the mutex.
pub(crate) fn initialize(cx: &mut Cx<'_>, mutex: DriverPtr<KMUTANT>, _level: u32) -> Flow<()> {
    dispatcher::set_up(cx, mutex.cast(), Kind::Mutant, size_of::<KMUTANT>() as u64, 1)?;
    cx.with(|k| k.ke.lock_order.forget(mutex.address, size_of::<KMUTANT>() as u64));
    cx.write(mutex + KMUTANT::OwnerThread, DriverPtr::NULL)?;
    cx.write(mutex + KMUTANT::Abandoned, 0)?;
    cx.write(mutex + KMUTANT::ApcDisable, 1)
}

/// `KeReleaseMutex`: returns 0 if it is free now, negative if it was acquired more than once.
///
/// # Errors
/// STATUS_MUTANT_NOT_OWNED is raised if the caller does not own it, STATUS_ABANDONED if its owner ended without releasing it. A verdict
/// if it is no mutex; [`engine::Leave`] of what runs at once.
pub(crate) fn release(cx: &mut Cx<'_>, mutex: DriverPtr<KMUTANT>, wait: bool) -> Flow<i32> {
    dispatcher::expect(cx, mutex.cast(), "KeReleaseMutex", &[Kind::Mutant])?;
    let owner = cx.read(mutex + KMUTANT::OwnerThread)?;
    let me = crate::ke::sched::thread_record::current_object(cx);
    if owner != me {
        let (who, whose) = cx.with(|k| {
            let name = |object: u64| k.ke.thread_of(object).map(|thread| format!("the {}", thread.name));
            let none = || "no thread".to_owned();
            (name(me.address).unwrap_or_else(none), name(owner.address).unwrap_or_else(none))
        });
        let at = mutex.address;
        let message = format!("KeReleaseMutex: {who} released mutex {at:#x}, which {whose} owns");
        let acquired = cx.with(|k| acquired(k, at));
        let verdict = Verdict::error("mutex-not-owned", message).related_if("acquired", acquired);
        let abandoned = cx.read(mutex + KMUTANT::Abandoned)? != 0;
        let status = if abandoned { NtStatus::ABANDONED } else { NtStatus::MUTANT_NOT_OWNED };
        return Err(exception::raise_or(cx, status, verdict));
    }
    let state = (mutex + KMUTANT::Header) + DISPATCHER_HEADER::SignalState;
    let before = cx.read(state)?;
    if before == 0 {
        let disable = cx.read(mutex + KMUTANT::ApcDisable)?;
        cx.write(mutex + KMUTANT::OwnerThread, DriverPtr::NULL)?;
        cx.with(|k| {
            if let Some(thread) = k.ke.thread_mut() {
                thread.mutexes.retain(|owned| owned.mutex != mutex.address);
                thread.apc_disable += i32::from(disable);
            }
        });
        let lock = mutex.address;
        lock_order::released(cx, lock);
        cx.detail(EventKind::LockReleased, || Event::LockReleased { lock, kind: LockKind::Mutex });
    }
    // Windows gives the thread that waited an increment of 1.
    dispatcher::signal(cx, mutex.cast(), before.wrapping_add(1), 1)?;
    finish(cx, wait)?;
    Ok(before)
}

/// `KeInitializeMutant`: as a mutex, but its owner goes on to get normal kernel APCs; the caller owns it if it says so.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn initialize_mutant(cx: &mut Cx<'_>, mutant: DriverPtr<KMUTANT>, owned: bool) -> Flow<()> {
    initialize(cx, mutant, 0)?;
    cx.write(mutant + KMUTANT::ApcDisable, 0)?;
    if owned {
        // It is free, so this waits for nothing.
        let (none, name) = (DriverPtr::NULL, "KeInitializeMutant");
        let _ = wait::wait(cx, &[mutant.cast()], false, Timeout::Poll, none, name)?;
    }
    Ok(())
}

/// `KeReleaseMutant`: as [`release`]; that its owner has abandoned it is for the system alone to say.
///
/// # Errors
/// As [`release`].
pub(crate) fn release_mutant(
    cx: &mut Cx<'_>,
    mutant: DriverPtr<KMUTANT>,
    _increment: i32,
    abandoned: bool,
    wait: bool,
) -> Flow<i32> {
    if abandoned {
        return Err(cx.stop(Verdict::not_implemented("KeReleaseMutant of a mutant that is abandoned")));
    }
    release(cx, mutant, wait)
}

/// `KeReadStateMutex`, `KeReadStateMutant`: 1 if it is free, else 0 or less.
///
/// # Errors
/// A verdict if it is no mutex.
pub(crate) fn read_state(cx: &mut Cx<'_>, mutex: DriverPtr<KMUTANT>) -> Flow<i32> {
    dispatcher::expect(cx, mutex.cast(), "KeReadStateMutex", &[Kind::Mutant])?;
    cx.read((mutex + KMUTANT::Header) + DISPATCHER_HEADER::SignalState)
}
