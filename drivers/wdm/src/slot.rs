//! A place for one value, which is put and taken without a lock: the request on the card, its turn, its mapped pages.
//!
//! It follows no page: a pointer in a device extension, changed by `InterlockedExchangePointer`, is what C drivers have. Of several
//! that take at once, one gets the value.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const FULL: u8 = 1;
/// One processor puts or takes.
const BUSY: u8 = 2;

/// A place for a `T` that may be empty. At any level.
///
/// ```
/// use wdm::{Dispatch, NtStatus, PendingIrp, Slot};
///
/// struct Card {
///     on_it: Slot<PendingIrp>,
/// }
///
/// fn dpc(card: &Card, dispatch: &mut Dispatch) {
///     if let Some(irp) = card.on_it.take() {
///         irp.complete(NtStatus::SUCCESS, 0, dispatch);
///     }
/// }
/// ```
pub struct Slot<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: only who has made the state BUSY touches the value, which moves from thread to thread.
unsafe impl<T: Send> Sync for Slot<T> {}

impl<T> Slot<T> {
    /// An empty place.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(None) }
    }

    /// Puts a value there.
    ///
    /// # Errors
    /// The value, if there is one already, or another is put or taken at this very moment: this does not wait.
    pub fn put(&self, value: T) -> Result<(), T> {
        if self.state.compare_exchange(EMPTY, BUSY, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(value);
        }
        // SAFETY: BUSY is ours: no other thread is here.
        unsafe { *self.value.get() = Some(value) };
        self.state.store(FULL, Ordering::Release);
        Ok(())
    }

    /// Takes the value away. None if there is none, or it is put or taken at this very moment.
    pub fn take(&self) -> Option<T> {
        self.state.compare_exchange(FULL, BUSY, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: BUSY is ours: no other thread is here.
        let value = unsafe { (*self.value.get()).take() };
        self.state.store(EMPTY, Ordering::Release);
        value
    }

    /// Whether there is a value, now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state.load(Ordering::Acquire) == FULL
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_value_and_gives_it_once() {
        let slot = Slot::new();
        assert_eq!((slot.take(), slot.is_full()), (None, false));
        assert_eq!(slot.put(1), Ok(()));
        assert_eq!((slot.put(2), slot.is_full()), (Err(2), true));
        assert_eq!((slot.take(), slot.take()), (Some(1), None));
        assert_eq!(slot.put(3), Ok(()));
    }

    #[test]
    fn of_many_that_take_at_once_each_value_comes_to_one() {
        let slot = Slot::new();
        let taken: u32 = std::thread::scope(|scope| {
            let takers: std::vec::Vec<_> =
                (0..3).map(|_| scope.spawn(|| (0..2000).filter_map(|_| slot.take()).sum::<u32>())).collect();
            let put: u32 = (0..2000).filter(|_| slot.put(1).is_ok()).map(|_| 1).sum();
            let taken: u32 = takers.into_iter().map(|taker| taker.join().unwrap()).sum();
            put - taken - slot.take().unwrap_or(0)
        });
        assert_eq!(taken, 0);
    }
}
