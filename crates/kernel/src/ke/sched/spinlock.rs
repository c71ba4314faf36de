//! Spin locks: plain, at DISPATCH_LEVEL, in-stack queued. Follows *Introduction to Spin Locks*,
//! *KeAcquireInStackQueuedSpinLock function* and their neighbours.
//!
//! The lock's own memory says whether it is held, as on x64; who holds it is known here. A processor that finds a lock
//! held gives its turn away until it is free. Reader/writer spin locks are `ex::spinlock`'s; who holds one is known here.

use abi::{DriverPtr, KLOCK_QUEUE_HANDLE, KSPIN_LOCK_QUEUE};
use engine::{Flow, TakenLock};

use super::processor::WaitsFor;
use super::scheduler;
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind, LockKind};
use crate::io;
use crate::ke::levels::irql::{self, DISPATCH_LEVEL};
use crate::ke::levels::locks::{Held, Mode};
use crate::ke::lock_order;
use crate::verdict::Verdict;
use crate::witness;

/// A `KSPIN_LOCK`.
pub(crate) type SpinLock = DriverPtr<u64>;

/// A held lock of `base..base+length`.
pub(in crate::ke) fn held_in(k: &Kernel, base: u64, length: u64) -> Option<u64> {
    k.ke.levels.locks().any_in(base, length)
}

/// `KeInitializeSpinLock`.
///
/// # Errors
/// A verdict if the pointer is bad or the lock is held.
pub(crate) fn initialize(cx: &mut Cx<'_>, lock: SpinLock) -> Flow<()> {
    if cx.with(|k| k.ke.levels.locks().is_held(lock.address)) {
        let message = format!("KeInitializeSpinLock was called for {:#x}, which is held", lock.address);
        return Err(cx.stop(Verdict::error("spin-lock-initialized-while-held", message)));
    }
    cx.with(|k| k.ke.lock_order.forget(lock.address, 8));
    cx.write(lock, 0)
}

/// `KeAcquireSpinLockRaiseToDpc`: returns the old level.
///
/// # Errors
/// As [`spin`].
pub(crate) fn acquire_raise(cx: &mut Cx<'_>, lock: SpinLock) -> Flow<u8> {
    if let Some(old) = take_at_once(cx, lock, Some(DISPATCH_LEVEL)) {
        irql::tell(cx, old, DISPATCH_LEVEL);
        return Ok(old);
    }
    let old = irql::raise(cx, DISPATCH_LEVEL)?;
    spin(cx, lock, 1)?;
    Ok(old)
}

/// Whether the current processor holds the lock.
pub(crate) fn is_held_here(cx: &mut Cx<'_>, lock: SpinLock) -> bool {
    cx.with(|k| k.ke.levels.locks().is_held_by(lock.address, k.ke.processor().number))
}

/// `KeAcquireSpinLockAtDpcLevel`.
///
/// # Errors
/// As [`spin`].
pub(crate) fn acquire_at_dispatch(cx: &mut Cx<'_>, lock: SpinLock) -> Flow<()> {
    if take_at_once(cx, lock, None).is_some() {
        return Ok(());
    }
    spin(cx, lock, 1)
}

/// `KeTryToAcquireSpinLockAtDpcLevel`: whether it was free, and is the caller's now.
///
/// # Errors
/// A verdict if the pointer is bad or the lock holds what no acquire has written.
pub(crate) fn try_acquire_at_dispatch(cx: &mut Cx<'_>, lock: SpinLock) -> Flow<bool> {
    if is_free(cx, lock)? {
        take(cx, lock, 1, false)?;
        return Ok(true);
    }
    Ok(false)
}

/// `KeTestSpinLock`: whether it is free, as its memory says, however that was written.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn test(cx: &mut Cx<'_>, lock: SpinLock) -> Flow<bool> {
    Ok(cx.read(lock)? == 0)
}

/// `KeReleaseSpinLock`: and lowers to `level`.
///
/// # Errors
/// As [`give_back`]; whatever the lower level lets in.
pub(crate) fn release_lower(cx: &mut Cx<'_>, lock: SpinLock, level: u8) -> Flow<()> {
    give_back_and_lower(cx, lock, level, "KeReleaseSpinLock")
}

/// `KeReleaseSpinLockForDpc`: and lowers to `level`, for a threaded DPC that may have run below DISPATCH_LEVEL.
///
/// # Errors
/// As [`release_lower`].
pub(crate) fn release_for_dpc(cx: &mut Cx<'_>, lock: SpinLock, level: u8) -> Flow<()> {
    give_back_and_lower(cx, lock, level, "KeReleaseSpinLockForDpc")
}

fn give_back_and_lower(cx: &mut Cx<'_>, lock: SpinLock, level: u8, what: &str) -> Flow<()> {
    let Some((old, quiet)) = cx.with(|k| give_back_at_once(k, lock, level)) else {
        give_back(cx, lock, 1, what)?;
        return irql::lower(cx, level);
    };
    irql::tell(cx, old, level);
    if quiet { Ok(()) } else { irql::settle(cx) }
}

/// `KeReleaseSpinLockFromDpcLevel`.
///
/// # Errors
/// As [`give_back`].
pub(crate) fn release_from_dispatch(cx: &mut Cx<'_>, lock: SpinLock) -> Flow<()> {
    give_back(cx, lock, 1, "KeReleaseSpinLockFromDpcLevel")
}

/// `KeAcquireInStackQueuedSpinLock`.
///
/// # Errors
/// As [`spin`].
pub(crate) fn acquire_queued(
    cx: &mut Cx<'_>,
    lock: SpinLock,
    handle: DriverPtr<KLOCK_QUEUE_HANDLE>,
) -> Flow<()> {
    let old = irql::raise(cx, DISPATCH_LEVEL)?;
    is_not_in_use(cx, handle)?;
    cx.write(handle + KLOCK_QUEUE_HANDLE::OldIrql, old)?;
    spin_queued(cx, lock, handle)
}

/// A handle is one acquire's until its release: another one would overwrite the level and the place in the queue of the first.
fn is_not_in_use(cx: &mut Cx<'_>, handle: DriverPtr<KLOCK_QUEUE_HANDLE>) -> Flow<()> {
    let Some((lock, processor)) = cx.with(|k| k.ke.levels.locks().acquired_by(handle.address)) else {
        return Ok(());
    };
    let message = format!(
        "a queued spin lock is to be acquired with the handle {:#x}, with which processor {processor} holds the lock {lock:#x}",
        handle.address
    );
    Err(cx.stop(Verdict::error("lock-handle-in-use", message)))
}

/// `KeAcquireInStackQueuedSpinLockAtDpcLevel`.
///
/// # Errors
/// As [`spin`].
pub(crate) fn acquire_queued_at_dispatch(
    cx: &mut Cx<'_>,
    lock: SpinLock,
    handle: DriverPtr<KLOCK_QUEUE_HANDLE>,
) -> Flow<()> {
    is_not_in_use(cx, handle)?;
    spin_queued(cx, lock, handle)
}

/// As [`spin`], with a handle that is in no use.
fn spin_queued(cx: &mut Cx<'_>, lock: SpinLock, handle: DriverPtr<KLOCK_QUEUE_HANDLE>) -> Flow<()> {
    let queue = handle + KLOCK_QUEUE_HANDLE::LockQueue;
    cx.write(queue + KSPIN_LOCK_QUEUE::Next, DriverPtr::NULL)?;
    cx.write(queue + KSPIN_LOCK_QUEUE::Lock, lock)?;
    spin(cx, lock, handle.address)
}

/// `KeReleaseInStackQueuedSpinLock`: and lowers to the level before the acquire.
///
/// # Errors
/// As [`give_back`]; whatever the lower level lets in.
pub(crate) fn release_queued(cx: &mut Cx<'_>, handle: DriverPtr<KLOCK_QUEUE_HANDLE>) -> Flow<()> {
    release_and_lower(cx, handle, "KeReleaseInStackQueuedSpinLock")
}

/// `KeReleaseInStackQueuedSpinLockForDpc`.
///
/// # Errors
/// As [`release_queued`].
pub(crate) fn release_queued_for_dpc(cx: &mut Cx<'_>, handle: DriverPtr<KLOCK_QUEUE_HANDLE>) -> Flow<()> {
    release_and_lower(cx, handle, "KeReleaseInStackQueuedSpinLockForDpc")
}

fn release_and_lower(cx: &mut Cx<'_>, handle: DriverPtr<KLOCK_QUEUE_HANDLE>, what: &str) -> Flow<()> {
    let level = cx.read(handle + KLOCK_QUEUE_HANDLE::OldIrql)?;
    release_handle(cx, handle, what)?;
    irql::lower(cx, level)
}

/// `KeReleaseInStackQueuedSpinLockFromDpcLevel`.
///
/// # Errors
/// As [`give_back`].
pub(crate) fn release_queued_from_dispatch(
    cx: &mut Cx<'_>,
    handle: DriverPtr<KLOCK_QUEUE_HANDLE>,
) -> Flow<()> {
    release_handle(cx, handle, "KeReleaseInStackQueuedSpinLockFromDpcLevel")
}

fn release_handle(cx: &mut Cx<'_>, handle: DriverPtr<KLOCK_QUEUE_HANDLE>, what: &str) -> Flow<()> {
    let lock = cx.read((handle + KLOCK_QUEUE_HANDLE::LockQueue) + KSPIN_LOCK_QUEUE::Lock)?;
    give_back(cx, lock, handle.address, what)
}

/// Acquires at the level that is set already; gives turns away while another processor holds it.
///
/// # Errors
/// A verdict if this processor holds it already, or it holds what no acquire has written; [`engine::Leave`] if the
/// machine ends meanwhile.
pub(crate) fn spin(cx: &mut Cx<'_>, lock: SpinLock, value: u64) -> Flow<()> {
    while !is_free(cx, lock)? {
        if is_held_here(cx, lock) {
            return Err(recursion(cx, lock.address));
        }
        scheduler::wait_for(cx, WaitsFor::Lock(lock.address))?;
    }
    take(cx, lock, value, true)
}

/// `waits`: as [`note_taken`].
fn take(cx: &mut Cx<'_>, lock: SpinLock, value: u64, waits: bool) -> Flow<()> {
    cx.write(lock, value)?;
    note_taken(cx, lock.address, (Mode::Plain, value), waits)
}

/// This processor holds a lock from here on, in this mode and with this in the lock's memory; `waits`: it would have waited for it.
///
/// # Errors
/// As [`lock_order::spin_lock_acquired`].
pub(crate) fn note_taken(cx: &mut Cx<'_>, lock: u64, (mode, value): (Mode, u64), waits: bool) -> Flow<()> {
    let taken = witness::moment(cx);
    let (since, place) = (cx.engine().now(), cx.engine().caller_rip());
    let is_step = cx.with(|k| {
        let is_step = waits && holds_any(k);
        note(k, lock, (mode, value), (since, place, taken));
        is_step
    });
    cx.detail(Kind::LockAcquired, || Event::LockAcquired { lock, kind: mode.kind() });
    if is_step { lock_order::spin_lock_acquired(cx, lock) } else { Ok(()) }
}

/// The lock that the current processor acquired last and holds.
#[inline]
pub(crate) fn held_here(k: &Kernel) -> Option<(u64, Held)> {
    if k.ke.levels.locks().is_none_held() {
        return None;
    }
    let here = k.ke.processor().number;
    let lock = k.ke.levels.locks().held_by(here)?;
    Some((lock, k.ke.levels.locks().of_processor(lock, here)?))
}

/// Whether the current processor holds a lock: what it acquires now comes after that.
#[inline]
fn holds_any(k: &Kernel) -> bool {
    k.ke.levels.locks().count(k.ke.processor().number) > 0
}

/// As [`note_taken`]: in which mode and with what in the lock's memory; when, where, and the moment of that.
#[inline]
fn note(k: &mut Kernel, lock: u64, (mode, value): (Mode, u64), (since, place, taken): (u64, u64, u64)) {
    let processor = k.ke.processor().number;
    k.ke.levels.locks_mut().insert(lock, Held { processor, mode, value, since, place, taken });
    k.ke.raise_floor(DISPATCH_LEVEL);
    k.engine.allow_short_locks(false);
}

/// Driver code has taken a lock by itself, before the event with number `taken`: as [`note_taken`].
pub(crate) fn note_taken_alone(k: &mut Kernel, lock: &TakenLock, taken: u64) {
    let TakenLock { lock, place, since, .. } = *lock;
    note(k, lock, (Mode::Plain, 1), (since, place, taken));
}

/// Whether it is free, by its memory and by the record of locks.
fn is_free(cx: &mut Cx<'_>, lock: SpinLock) -> Flow<bool> {
    let (value, at) = (cx.read(lock)?, lock.address);
    let held = cx.with(|k| k.ke.levels.locks().holder(at));
    match held {
        None if value == 0 => Ok(true),
        Some(held) if held.mode == Mode::Plain && held.value == value => Ok(false),
        held => Err(damaged(cx, at, held, value)),
    }
}

#[cold]
fn damaged(cx: &mut Cx<'_>, at: u64, held: Option<Held>, value: u64) -> engine::Leave {
    let message = match (held, value) {
        (Some(held), _) if held.mode != Mode::Plain => {
            format!("spin lock {at:#x} is held as a reader/writer spin lock by processor {}", held.processor)
        }
        (None, value) => format!(
            "spin lock {at:#x} holds {value:#x}, which no acquire has written: it was never initialised, or overwritten"
        ),
        (Some(held), value) => format!(
            "spin lock {at:#x}, which processor {} holds, was overwritten with {value:#x}",
            held.processor
        ),
    };
    cx.stop(Verdict::error("spin-lock-damaged", message).of_lock(held))
}

#[cold]
fn recursion(cx: &mut Cx<'_>, lock: u64) -> engine::Leave {
    let which = if cx.with(|k| io::cancel::is_lock(k, lock)) { "the cancel spin lock" } else { "spin lock" };
    let message = format!(
        "{which} {lock:#x} was asked for by the processor that holds it already: it would spin for ever"
    );
    let held = cx.with(|k| k.ke.levels.locks().holder(lock));
    let verdict = Verdict::error("spin-lock-recursion", message).bug_check(0xF, [lock, 0, 0, 0]);
    cx.stop(verdict.of_lock(held))
}

/// Acquires a lock that is free, in one step, and raises the level if that is to be raised. Answers the level before; none
/// if there is more to it, and then nothing has been done.
#[inline]
fn take_at_once(cx: &mut Cx<'_>, lock: SpinLock, to: Option<u8>) -> Option<u8> {
    let taken = witness::plain_moment(cx)?;
    let place = cx.engine().caller_rip();
    cx.with(|k| {
        let old = k.level();
        if to.is_some_and(|to| old > to) || !take_free(k, lock, place, taken) {
            return None;
        }
        if let Some(to) = to {
            k.set_level(k.ke.current, to);
        }
        Some(old)
    })
}

/// Acquires a lock that is free, and this processor's only one, for a routine that runs at a level; false: nothing has been done. Its place and
/// moment are its caller's.
#[inline]
pub(crate) fn take_free(k: &mut Kernel, lock: SpinLock, place: u64, taken: u64) -> bool {
    let free = k.engine.read_plain(lock) == Some(0)
        && !holds_any(k)
        && !k.ke.levels.locks().is_held(lock.address)
        && k.engine.write_plain(lock, &1);
    if free {
        let since = k.engine.now();
        note(k, lock.address, (Mode::Plain, 1), (since, place, taken));
    }
    free
}

/// Gives back what [`take_free`] has acquired, if it is as it was; false: nothing has been done.
#[inline]
pub(in crate::ke) fn give_back_plainly(k: &mut Kernel, lock: SpinLock) -> bool {
    let here = k.ke.processor().number;
    let own =
        !k.has_details && k.ke.levels.locks().is_own(lock.address, here, 1) && k.engine.write_plain(lock, &0);
    if own {
        k.ke.levels.locks_mut().remove(lock.address, here, Mode::Plain);
        k.publish_free_lock();
    }
    own
}

/// Releases a lock that this processor has acquired the ordinary way, and lowers the level, if no
/// rule forbids it. Returns the level before, and whether nothing waits for the lower one; none if there is more to it, and then
/// nothing has been done.
#[inline]
fn give_back_at_once(k: &mut Kernel, lock: SpinLock, level: u8) -> Option<(u8, bool)> {
    let processor = k.ke.processor();
    let (old, here) = (k.level(), processor.number);
    let floor = processor.floors.last().copied().unwrap_or(0);
    let may = !k.has_details
        && floor <= level
        && level <= old
        && (level >= DISPATCH_LEVEL || k.ke.levels.locks().count(here) == 1)
        && k.ke.levels.locks().is_own(lock.address, here, 1)
        && k.engine.write_plain(lock, &0);
    if !may {
        return None;
    }
    k.ke.levels.locks_mut().remove(lock.address, here, Mode::Plain);
    k.set_level(k.ke.current, level);
    k.publish_free_lock();
    Some((old, k.is_nothing_pending()))
}

/// Releases.
///
/// # Errors
/// A verdict if this processor does not hold it, or acquired it another way.
pub(crate) fn give_back(cx: &mut Cx<'_>, lock: SpinLock, value: u64, what: &str) -> Flow<()> {
    let at = lock.address;
    let given_back = cx.with(|k| {
        let here = k.ke.processor().number;
        let is_own = k.ke.levels.locks().is_own(at, here, value);
        if is_own {
            k.ke.levels.locks_mut().remove(at, here, Mode::Plain);
            k.publish_free_lock();
        }
        is_own
    });
    if !given_back {
        return Err(not_held(cx, at, what));
    }
    cx.write(lock, 0)?;
    cx.detail(Kind::LockReleased, || Event::LockReleased { lock: at, kind: LockKind::Spin });
    Ok(())
}

#[cold]
fn not_held(cx: &mut Cx<'_>, at: u64, what: &str) -> engine::Leave {
    let (held, here) = cx.with(|k| (k.ke.levels.locks().holder(at), k.ke.processor().number));
    let message = match held {
        None => format!("{what} was called for spin lock {at:#x}, which is not held"),
        Some(held) if held.processor != here => {
            format!(
                "{what} was called on processor {here} for spin lock {at:#x}, which processor {} holds",
                held.processor
            )
        }
        Some(_) => {
            format!("{what} was called for spin lock {at:#x}, which was acquired by another kind of routine")
        }
    };
    let code = if held.is_none() { (0x10, [at, 0, 0, 0]) } else { (0xC4, [0x1009, at, 0, 0]) };
    let verdict = Verdict::error("spin-lock-not-held", message).bug_check(code.0, code.1);
    cx.stop(verdict.of_lock(held))
}
