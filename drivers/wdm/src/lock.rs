//! Spin locks that own what they guard.
//!
//! Pages: *KeAcquireSpinLock*, *KeAcquireSpinLockAtDpcLevel*. Holding one is being at `DISPATCH_LEVEL`; the guard lends
//! the proof. Locks do not nest by themselves: who takes two does so in one order everywhere.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use crate::irql::{AtMostDispatch, Dispatch};
use crate::sys;

/// A `T` that one processor at a time may use.
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

    /// Takes the lock, and raises to `DISPATCH_LEVEL` where that is not the level already. The proof of the level before
    /// cannot be used until the guard is dropped.
    pub fn lock<'a, L: AtMostDispatch>(&'a self, _level: &'a mut L) -> Guard<'a, T> {
        let raised_from = if L::IS_DISPATCH {
            // SAFETY: at DISPATCH_LEVEL, by the proof.
            unsafe { sys::KeAcquireSpinLockAtDpcLevel(self.lock.get()) };
            None
        } else {
            // SAFETY: at most DISPATCH_LEVEL, by the proof.
            Some(unsafe { sys::KeAcquireSpinLockRaiseToDpc(self.lock.get()) })
        };
        // SAFETY: a holder of a spin lock is at DISPATCH_LEVEL; the guard's drop ends both.
        Guard { lock: self, raised_from, level: unsafe { Dispatch::assume() }, here: PhantomData }
    }

    /// Runs `body` with the lock held.
    pub fn with<L: AtMostDispatch, R>(&self, level: &mut L, body: impl FnOnce(&mut T) -> R) -> R {
        body(&mut self.lock(level))
    }
}

/// A spin lock held. Dropping it releases the lock and returns to the level before.
pub struct Guard<'a, T> {
    lock: &'a SpinLock<T>,
    raised_from: Option<u8>,
    level: Dispatch,
    here: PhantomData<*mut ()>,
}

impl<T> Guard<'_, T> {
    /// The value, and the proof of `DISPATCH_LEVEL` that holding the lock is.
    pub fn split(&mut self) -> (&mut T, &mut Dispatch) {
        // SAFETY: the lock is held.
        (unsafe { &mut *self.lock.value.get() }, &mut self.level)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        let lock = self.lock.lock.get();
        match self.raised_from {
            // SAFETY: taken by `lock` from that level.
            Some(level) => unsafe { sys::KeReleaseSpinLock(lock, level) },
            // SAFETY: taken by `lock` at DISPATCH_LEVEL.
            None => unsafe { sys::KeReleaseSpinLockFromDpcLevel(lock) },
        }
    }
}
