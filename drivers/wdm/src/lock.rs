//! Spin locks that own what they guard.
//!
//! Pages: *KeAcquireSpinLock*, *KeAcquireSpinLockAtDpcLevel*. Holding one is being at `DISPATCH_LEVEL`: what runs with the lock held is
//! lent the proof of that. There is no guard, which could be forgotten, and with it the way back to the level before. Locks do
//! not nest by themselves: who takes two does so in one order everywhere.

use core::cell::UnsafeCell;

use crate::irql::{AtMostDispatch, Dispatch};
use crate::sys;

/// A `T` that one processor at a time may use.
///
/// ```
/// fn count(lock: &wdm::SpinLock<u32>, level: &mut wdm::DispatchOrBelow) -> u32 {
///     lock.with(level, |count, _dispatch| {
///         *count += 1;
///         *count
///     })
/// }
/// ```
pub struct SpinLock<T> {
    lock: UnsafeCell<u64>,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands its value to one processor at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}
// SAFETY: an unlocked lock is a `T` and a number.
unsafe impl<T: Send> Send for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An unlocked lock (`KeInitializeSpinLock`).
    pub const fn new(value: T) -> Self {
        Self { lock: UnsafeCell::new(0), value: UnsafeCell::new(value) }
    }

    /// Runs `body` with the lock held, at `DISPATCH_LEVEL`. The proof of the level before cannot be used meanwhile.
    pub fn with<L: AtMostDispatch, R>(
        &self,
        _level: &mut L,
        body: impl FnOnce(&mut T, &mut Dispatch) -> R,
    ) -> R {
        let raised_from = if L::IS_DISPATCH {
            // SAFETY: at DISPATCH_LEVEL, by the proof.
            unsafe { sys::KeAcquireSpinLockAtDpcLevel(self.lock.get()) };
            None
        } else {
            // SAFETY: at most DISPATCH_LEVEL, by the proof.
            Some(unsafe { sys::KeAcquireSpinLockRaiseToDpc(self.lock.get()) })
        };
        // SAFETY: the lock is held, so the value is ours and the processor is at DISPATCH_LEVEL until it is released below; `body`
        // keeps neither. It comes back, because a panic stops the machine.
        let result = unsafe { body(&mut *self.value.get(), &mut Dispatch::assume()) };
        match raised_from {
            // SAFETY: taken above, from that level.
            Some(level) => unsafe { sys::KeReleaseSpinLock(self.lock.get(), level) },
            // SAFETY: taken above, at DISPATCH_LEVEL.
            None => unsafe { sys::KeReleaseSpinLockFromDpcLevel(self.lock.get()) },
        }
        result
    }
}
