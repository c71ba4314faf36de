//! Guarded mutexes: a fast mutex under a guarded region in place of APC_LEVEL.
//!
//! Pages: *KeInitializeGuardedMutex function*, *KeAcquireGuardedMutex function*, *KeReleaseGuardedMutex function*,
//! *KeTryToAcquireGuardedMutex function*. The structure is a `FAST_MUTEX`'s, as since Windows 8.

use abi::{DriverPtr, FAST_MUTEX};
use engine::Flow;

use super::{event, region};
use crate::cx::Cx;
use crate::ex::fast_mutex;

type Mutex = DriverPtr<FAST_MUTEX>;

/// `KeInitializeGuardedMutex`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub fn initialize(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    cx.write(mutex + FAST_MUTEX::Count, 1)?;
    cx.write(mutex + FAST_MUTEX::Owner, DriverPtr::NULL)?;
    cx.write(mutex + FAST_MUTEX::Contention, 0)?;
    event::initialize(cx, mutex + FAST_MUTEX::Event, 1, false)
}

/// `KeAcquireGuardedMutex`: in a guarded region from here on.
///
/// # Errors
/// As [`fast_mutex::acquire_unsafe`].
pub fn acquire(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    region::enter_guarded(cx)?;
    fast_mutex::acquire_unsafe(cx, mutex)
}

/// `KeTryToAcquireGuardedMutex`: in a guarded region if it was free.
///
/// # Errors
/// As [`acquire`].
pub fn try_acquire(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<bool> {
    if cx.read(mutex + FAST_MUTEX::Count)? != 1 {
        return Ok(false);
    }
    acquire(cx, mutex).map(|()| true)
}

/// `KeReleaseGuardedMutex`.
///
/// # Errors
/// As [`fast_mutex::release_unsafe`].
pub fn release(cx: &mut Cx<'_>, mutex: Mutex) -> Flow<()> {
    fast_mutex::release_unsafe(cx, mutex)?;
    region::leave_guarded(cx)
}
