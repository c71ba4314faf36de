//! Something that is there for a while: put there and taken away at `PASSIVE_LEVEL`, used meanwhile at `DISPATCH_LEVEL`
//! and below. Taking it away waits for the users who are in.
//!
//! The idea of the page *Run-Down Protection*, with a count and an event of its own. It is where a driver keeps what only
//! `PASSIVE_LEVEL` may drop.

use core::cell::UnsafeCell;
use core::ops::Deref;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::Result;
use crate::event::Event;
use crate::irql::{AtMostDispatch, Passive};
use crate::pool::Tag;
use crate::sys;

/// Users may come in.
const OPEN: u32 = 1;
/// A value is being put or taken.
const CHANGING: u32 = 2;
/// One user; the bits above count them.
const USER: u32 = 4;

/// A place for a `T` that may be empty.
pub struct Rundown<T> {
    state: AtomicU32,
    drained: Event,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: users share the value (`T: Sync`). It is put by one thread and taken by another (`T: Send`), at PASSIVE_LEVEL and when no
// user is left.
unsafe impl<T: Send + Sync> Sync for Rundown<T> {}

impl<T> Rundown<T> {
    /// An empty place.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn new(tag: Tag, passive: &mut Passive) -> Result<Self> {
        let drained = Event::notification(tag, passive)?;
        Ok(Self { state: AtomicU32::new(0), drained, value: UnsafeCell::new(None) })
    }

    /// Puts a value there.
    ///
    /// # Errors
    /// The value, if there is one already.
    pub fn put(&self, value: T, passive: &mut Passive) -> core::result::Result<(), T> {
        if self.state.compare_exchange(0, CHANGING, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(value);
        }
        self.drained.clear(passive);
        // SAFETY: CHANGING without OPEN and users: no other thread is here.
        unsafe { *self.value.get() = Some(value) };
        self.state.store(OPEN, Ordering::Release);
        Ok(())
    }

    /// Takes the value away, when the last user has left. `None` if there is none, or another thread takes it. The
    /// caller must not be a user itself: it would wait for itself.
    pub fn take(&self, passive: &mut Passive) -> Option<T> {
        let close = |state| (state & (OPEN | CHANGING) == OPEN).then_some(state & !OPEN | CHANGING);
        let before = self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, close).ok()?;
        if before >= USER {
            self.drained.wait(passive);
        }
        // SAFETY: closed, and no user is left.
        let value = unsafe { (*self.value.get()).take() };
        self.state.store(0, Ordering::Release);
        value
    }

    /// Comes in. `None` if there is nothing, it is being taken away, or so many users were forgotten that no more can be counted.
    pub fn enter<L: AtMostDispatch>(&self, _level: &mut L) -> Option<User<'_, T>> {
        let enter = |state: u32| (state & OPEN != 0).then(|| state.checked_add(USER)).flatten();
        self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, enter).ok()?;
        // SAFETY: counted in while open: the value stays until we leave.
        unsafe { (*self.value.get()).as_ref() }.map(|value| User { place: self, value })
    }

    /// What `take` does first, without its wait.
    #[cfg(test)]
    pub(crate) fn close_for_test(&self) {
        self.state.fetch_xor(OPEN | CHANGING, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn is_drained(&self) -> bool {
        // SAFETY: the test is at PASSIVE_LEVEL.
        unsafe { crate::event::wait(self.drained.as_ptr(), Some(0)) == abi::NtStatus::SUCCESS }
    }

    /// As many users as can be counted but `left`.
    #[cfg(test)]
    pub(crate) fn crowd_for_test(&self, left: u32) {
        self.state.store(OPEN | ((u32::MAX / USER - left) * USER), Ordering::Relaxed);
    }

    /// A user leaves.
    fn leave(&self) {
        if self.state.fetch_sub(USER, Ordering::Release) - USER == CHANGING {
            // SAFETY: users are at most at DISPATCH_LEVEL; `take` waits for this and keeps the event until then.
            unsafe { sys::KeSetEvent(self.drained.as_ptr(), 0, 0) };
        }
    }
}

/// A user of the value; it stays there until the last one is dropped.
pub struct User<'a, T> {
    place: &'a Rundown<T>,
    value: &'a T,
}

impl<T> User<'_, T> {
    /// Stays in without a value that says so, until [`Rundown::leave_kept`].
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }
}

impl<T> Rundown<T> {
    /// A user that was kept leaves.
    ///
    /// # Safety
    /// One was kept here by [`User::keep`], and has not left.
    pub(crate) unsafe fn leave_kept(&self) {
        self.leave();
    }
}

impl<T> Deref for User<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Drop for User<'_, T> {
    fn drop(&mut self) {
        self.place.leave();
    }
}
