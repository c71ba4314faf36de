//! Guarded mutexes: a fast mutex under a guarded region in place of APC_LEVEL.
//!
//! Pages: *KeInitializeGuardedMutex function*, *KeAcquireGuardedMutex function*, *KeReleaseGuardedMutex function*,
//! *KeTryToAcquireGuardedMutex function*, *KeAcquireGuardedMutexUnsafe function*, *KeReleaseGuardedMutexUnsafe function*. The structure is a `FAST_MUTEX`'s, as since Windows 8.

use abi::{DriverPtr, FAST_MUTEX};
use engine::Flow;

use super::event;
use crate::cx::Cx;
use crate::ex::fast_mutex;
use crate::ke::sched::region;
use crate::verdict::Verdict;

type Mutex = DriverPtr<FAST_MUTEX>;

/// `KeInitializeGuardedMutex`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn initialize(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    cx.write(mutex + FAST_MUTEX::Count, 1)?;
    cx.write(mutex + FAST_MUTEX::Owner, DriverPtr::NULL)?;
    cx.write(mutex + FAST_MUTEX::Contention, 0)?;
    event::initialize(cx, mutex + FAST_MUTEX::Event, 1, false)
}

/// `KeAcquireGuardedMutex`: in a guarded region from here on.
///
/// # Errors
/// A verdict if the caller owns it already, or it is none.
pub(crate) fn acquire(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    region::enter_guarded(cx)?;
    fast_mutex::take(cx, mutex, "KeAcquireGuardedMutex", true)
}

/// `KeTryToAcquireGuardedMutex`: in a guarded region if it was free.
///
/// # Errors
/// A verdict if it is none.
pub(crate) fn try_acquire(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<bool> {
    if !fast_mutex::is_free(cx, mutex, "KeTryToAcquireGuardedMutex")? {
        return Ok(false);
    }
    region::enter_guarded(cx)?;
    fast_mutex::take(cx, mutex, "KeAcquireGuardedMutex", false).map(|()| true)
}

/// `KeReleaseGuardedMutex`.
///
/// # Errors
/// A verdict if the caller does not own it, or is in no guarded region.
pub(crate) fn release(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    fast_mutex::give(cx, mutex, "KeReleaseGuardedMutex")?;
    region::leave_guarded(cx)
}

/// `KeAcquireGuardedMutexUnsafe`: the caller has seen to it that no APC comes.
///
/// # Errors
/// As [`acquire`].
pub(crate) fn acquire_unsafe(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    warn_of_apcs(cx, mutex, "KeAcquireGuardedMutexUnsafe")?;
    fast_mutex::take(cx, mutex, "KeAcquireGuardedMutexUnsafe", true)
}

/// `KeReleaseGuardedMutexUnsafe`.
///
/// # Errors
/// A verdict if the caller does not own it.
pub(crate) fn release_unsafe(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    warn_of_apcs(cx, mutex, "KeReleaseGuardedMutexUnsafe")?;
    fast_mutex::give(cx, mutex, "KeReleaseGuardedMutexUnsafe")
}

/// What runs between the two must be at APC_LEVEL or in a guarded region; Windows lets it pass.
fn warn_of_apcs(cx: &mut Cx<'_>, mutex: Mutex, name: &str) -> Flow<()> {
    if !region::are_all_apcs_disabled(cx)? {
        let mutex = mutex.address;
        let message = format!(
            "{name} was called for the mutex {mutex:#x} outside a guarded region and below APC_LEVEL"
        );
        cx.report(Verdict::warning("guarded-mutex-apcs", message));
    }
    Ok(())
}
