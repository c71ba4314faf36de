//! Fast mutexes.
//!
//! Pages: *ExAcquireFastMutex function*, *ExReleaseFastMutex function*, *ExAcquireFastMutexUnsafe function*,
//! *ExTryToAcquireFastMutex function*. `ExInitializeFastMutex` is inlined into drivers; the structure in memory is the
//! mutex, and the threads that wait are in its event.

use abi::{DriverPtr, FAST_MUTEX, KEVENT};
use engine::{Flow, Leave};

use crate::cx::Cx;
use crate::event::{Event, Kind, LockKind};
use crate::ke::lock_order::{self, Hold};
use crate::ke::{event, irql, region, thread, wait};
use crate::verdict::Verdict;
use crate::witness;

type Mutex = DriverPtr<FAST_MUTEX>;

const APC_LEVEL: u8 = 1;

/// `ExAcquireFastMutex`: returns at APC_LEVEL.
///
/// # Errors
/// A verdict if the caller owns it already, or it is none.
pub(crate) fn acquire(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    not_owned(cx, mutex, "ExAcquireFastMutex")?;
    let old = irql::raise(cx, APC_LEVEL)?;
    lock(cx, mutex, "ExAcquireFastMutex", true)?;
    cx.write(mutex + FAST_MUTEX::OldIrql, old.into())
}

/// `ExTryToAcquireFastMutex`: at APC_LEVEL if it was free.
///
/// # Errors
/// As [`acquire`], but that owning it is no mistake.
pub(crate) fn try_acquire(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<bool> {
    if !is_free(cx, mutex, "ExTryToAcquireFastMutex")? {
        return Ok(false);
    }
    let old = irql::raise(cx, APC_LEVEL)?;
    lock(cx, mutex, "ExTryToAcquireFastMutex", false)?;
    cx.write(mutex + FAST_MUTEX::OldIrql, old.into())?;
    Ok(true)
}

/// `ExReleaseFastMutex`: back to the level before.
///
/// # Errors
/// A verdict if the caller does not own it.
pub(crate) fn release(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    owned(cx, mutex, "ExReleaseFastMutex")?;
    let old = cx.read(mutex + FAST_MUTEX::OldIrql)?.to_le_bytes()[0];
    unlock(cx, mutex)?;
    irql::lower(cx, old)
}

/// `ExAcquireFastMutexUnsafe`: the caller has normal kernel APCs disabled.
///
/// # Errors
/// As [`acquire`]; a verdict if they are not.
pub(crate) fn acquire_unsafe(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    apcs_disabled(cx, mutex, "ExAcquireFastMutexUnsafe", 0x39)?;
    take(cx, mutex, "ExAcquireFastMutexUnsafe", true)
}

/// Takes it for the export of this name, which has seen to levels and APCs, and to whether it has to wait.
///
/// # Errors
/// As [`acquire`].
pub(crate) fn take(cx: &mut Cx<'_>, mutex: Mutex, name: &str, waits: bool) -> Flow<()> {
    not_owned(cx, mutex, name)?;
    lock(cx, mutex, name, waits)
}

/// `ExReleaseFastMutexUnsafe`.
///
/// # Errors
/// As [`release`].
pub(crate) fn release_unsafe(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    apcs_disabled(cx, mutex, "ExReleaseFastMutexUnsafe", 0x3A)?;
    give(cx, mutex, "ExReleaseFastMutexUnsafe")
}

/// Gives it back for the export of this name.
///
/// # Errors
/// As [`release`].
pub(crate) fn give(cx: &mut Cx<'_>, mutex: Mutex, name: &str) -> Flow<()> {
    owned(cx, mutex, name)?;
    unlock(cx, mutex)
}

/// Whether it is free.
///
/// # Errors
/// A verdict if it is none.
pub(crate) fn is_free(cx: &mut Cx<'_>, mutex: Mutex, name: &str) -> Flow<bool> {
    Ok(count(cx, mutex, name)? == 1)
}

/// The count, if it is one an initialized mutex has: 1 is free, below one less for each that wants it.
fn count(cx: &mut Cx<'_>, mutex: Mutex, name: &str) -> Flow<i32> {
    let count = cx.read(mutex + FAST_MUTEX::Count)?;
    // An event in it has 24 bytes and type 1; the count of waiting threads never exceeds this.
    let kind = cx.read(mutex.cast::<u8>().byte_add(FAST_MUTEX::Event.offset()))?;
    if kind == 1 && (-0x1_0000..=1).contains(&count) {
        return Ok(count);
    }
    let message = format!("{name} was given {:#x}, which no driver has initialized as one", mutex.address);
    Err(cx.stop(Verdict::error("fast-mutex-uninitialized", message)))
}

fn lock(cx: &mut Cx<'_>, mutex: Mutex, name: &str, waits: bool) -> Flow<()> {
    let count = count(cx, mutex, name)?;
    cx.write(mutex + FAST_MUTEX::Count, count - 1)?;
    if count != 1 {
        let contention = cx.read(mutex + FAST_MUTEX::Contention)?;
        cx.write(mutex + FAST_MUTEX::Contention, contention.wrapping_add(1))?;
        let event = event_of(mutex);
        cx.with(|k| k.ex.contended.push(event.address));
        let woken = wait::for_object(cx, event);
        cx.with(|k| {
            let contended = &mut k.ex.contended;
            contended.iter().position(|own| *own == event.address).map(|own| contended.swap_remove(own))
        });
        let _ = woken?;
    }
    let thread = thread::current_object(cx);
    let acquired = witness::moment(cx);
    cx.with(|k| k.ex.mutexes.insert(mutex.address, acquired));
    cx.write(mutex + FAST_MUTEX::Owner, thread)?;
    let lock = mutex.address;
    cx.detail(Kind::LockAcquired, || Event::LockAcquired { lock, kind: LockKind::FastMutex });
    lock_order::acquired(cx, Hold { lock, kind: LockKind::FastMutex, acquired }, waits)
}

fn unlock(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    cx.with(|k| k.ex.mutexes.remove(mutex.address));
    cx.write(mutex + FAST_MUTEX::Owner, DriverPtr::NULL)?;
    let lock = mutex.address;
    lock_order::released(cx, lock);
    cx.detail(Kind::LockReleased, || Event::LockReleased { lock, kind: LockKind::FastMutex });
    let count = cx.read(mutex + FAST_MUTEX::Count)?.wrapping_add(1);
    cx.write(mutex + FAST_MUTEX::Count, count)?;
    if count <= 0 {
        event::set(cx, event_of(mutex), 0, false)?;
    }
    Ok(())
}

const fn event_of(mutex: Mutex) -> DriverPtr<KEVENT> {
    DriverPtr::new(mutex.address + FAST_MUTEX::Event.offset())
}

fn not_owned(cx: &mut Cx<'_>, mutex: Mutex, name: &str) -> Flow<()> {
    let (owner, thread) = (cx.read(mutex + FAST_MUTEX::Owner)?, thread::current_object(cx));
    if count(cx, mutex, name)? == 1 || owner.is_null() || owner != thread {
        return Ok(());
    }
    Err(stop(
        cx,
        "fast-mutex-recursive",
        name,
        mutex,
        "which its caller owns already: it waits for itself",
        [0; 4],
    ))
}

fn owned(cx: &mut Cx<'_>, mutex: Mutex, name: &str) -> Flow<()> {
    let (owner, thread) = (cx.read(mutex + FAST_MUTEX::Owner)?, thread::current_object(cx));
    if owner == thread && count(cx, mutex, name)? < 1 {
        return Ok(());
    }
    let thread = thread.address;
    let parameters = [0x1000, mutex.address, thread, owner.address];
    Err(stop(cx, "fast-mutex-not-owned", name, mutex, "which its caller does not own", parameters))
}

fn apcs_disabled(cx: &mut Cx<'_>, mutex: Mutex, name: &str, sub: u64) -> Flow<()> {
    let level = irql::current(cx);
    if level == APC_LEVEL || region::are_apcs_disabled(cx)? {
        return Ok(());
    }
    let message = format!(
        "{name} was called for the mutex {:#x}, outside a critical region and below APC_LEVEL",
        mutex.address
    );
    let verdict = Verdict::verifier("fast-mutex-apcs", message);
    cx.verify(verdict.bug_check(0xC4, [sub, level.into(), mutex.address, 0]))
}

fn stop(
    cx: &mut Cx<'_>,
    rule: &'static str,
    name: &str,
    mutex: Mutex,
    what: &str,
    parameters: [u64; 4],
) -> Leave {
    let message = format!("{name} was called for the mutex {:#x}, {what}", mutex.address);
    let acquired = cx.with(|k| k.ex.mutexes.get(mutex.address).copied());
    let verdict = Verdict::error(rule, message).related_if("acquired", acquired);
    cx.stop(if parameters[0] == 0 { verdict } else { verdict.bug_check(0xC4, parameters) })
}
