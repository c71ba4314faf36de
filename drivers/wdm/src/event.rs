//! Events, waits and delays, and a lock for code at `PASSIVE_LEVEL`.
//!
//! Pages: *KeInitializeEvent*, *KeWaitForSingleObject*, *KeDelayExecutionThread*, *KeStallExecutionProcessor*,
//! *KeEnterCriticalRegion*. Waits cannot be alerted.

use core::cell::UnsafeCell;

use abi::{KEVENT, NtStatus};

use crate::irql::{AtMostDispatch, Passive};
use crate::pool::{PoolBox, Tag};
use crate::{Result, sys};

/// 100 ns units in a millisecond.
const PER_MILLISECOND: i64 = 10_000;

/// A kernel event, in pool because it must not move.
pub struct Event(PoolBox<UnsafeCell<KEVENT>>);

// SAFETY: the kernel's routines take an event from any processor.
unsafe impl Sync for Event {}
// SAFETY: as above.
unsafe impl Send for Event {}

impl Event {
    /// A notification event: set, it lets every waiter pass until it is cleared.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn notification<L: AtMostDispatch>(tag: Tag, level: &mut L) -> Result<Self> {
        Self::new(abi::NotificationEvent, false, tag, level)
    }

    fn new<L: AtMostDispatch>(kind: u32, signaled: bool, tag: Tag, level: &mut L) -> Result<Self> {
        let event = PoolBox::new(UnsafeCell::new(KEVENT::zeroed()), tag, level)?;
        // SAFETY: the event is ours and will stay where it is.
        unsafe { sys::KeInitializeEvent(event.get(), kind, signaled.into()) };
        Ok(Self(event))
    }

    /// Where the kernel finds it.
    pub(crate) fn as_ptr(&self) -> *mut KEVENT {
        self.0.get()
    }

    /// Signals it.
    pub fn set<L: AtMostDispatch>(&self, _level: &mut L) {
        // SAFETY: initialized; at most at DISPATCH_LEVEL.
        unsafe { sys::KeSetEvent(self.0.get(), 0, 0) };
    }

    /// Takes the signal back.
    pub fn clear<L: AtMostDispatch>(&self, _level: &mut L) {
        // SAFETY: initialized; at most at DISPATCH_LEVEL.
        unsafe { sys::KeClearEvent(self.0.get()) };
    }

    /// Waits for the signal.
    pub fn wait(&self, _passive: &mut Passive) {
        // SAFETY: initialized; at PASSIVE_LEVEL.
        let _signaled = unsafe { wait(self.0.get(), None) };
    }

    /// Waits for the signal, but not longer. Whether it came.
    #[must_use]
    pub fn wait_milliseconds(&self, milliseconds: u32, _passive: &mut Passive) -> bool {
        // SAFETY: initialized; at PASSIVE_LEVEL.
        unsafe { wait(self.0.get(), Some(milliseconds)) != NtStatus::TIMEOUT }
    }
}

/// # Safety
/// `event` is an initialized event; at `PASSIVE_LEVEL`.
pub(crate) unsafe fn wait(event: *mut KEVENT, milliseconds: Option<u32>) -> NtStatus {
    let mut interval = milliseconds.map(|time| -i64::from(time) * PER_MILLISECOND);
    let timeout = interval.as_mut().map_or(core::ptr::null_mut(), core::ptr::from_mut);
    // SAFETY: the caller's promise; `interval` outlives the call.
    unsafe { sys::KeWaitForSingleObject(event.cast(), abi::Executive, 0, 0, timeout) }
}

/// Lets the thread sleep.
pub fn delay_milliseconds(milliseconds: u32, _passive: &mut Passive) {
    let mut interval = -i64::from(milliseconds) * PER_MILLISECOND;
    // SAFETY: at PASSIVE_LEVEL.
    let _slept = unsafe { sys::KeDelayExecutionThread(0, 0, &raw mut interval) };
}

/// Keeps the processor busy. At any level; Microsoft asks for at most 50 microseconds.
pub fn stall_microseconds(microseconds: u32) {
    // SAFETY: may be called at any level.
    unsafe { sys::KeStallExecutionProcessor(microseconds) };
}

/// A `T` that one thread at a time may use, at `PASSIVE_LEVEL`. Its holder is in a critical region, so that it cannot be
/// suspended.
pub struct Mutex<T> {
    free: Event,
    value: UnsafeCell<T>,
}

// SAFETY: the event hands the value to one thread at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// A free mutex.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn new(value: T, tag: Tag, passive: &mut Passive) -> Result<Self> {
        let free = Event::new(abi::SynchronizationEvent, true, tag, passive)?;
        Ok(Self { free, value: UnsafeCell::new(value) })
    }

    /// Waits until the mutex is free, and runs `body` while it is held.
    pub fn with<R>(&self, passive: &mut Passive, body: impl FnOnce(&mut T, &mut Passive) -> R) -> R {
        // SAFETY: at PASSIVE_LEVEL; left below.
        unsafe { sys::KeEnterCriticalRegion() };
        self.free.wait(passive);
        // SAFETY: the event hands the value to one thread at a time, and is set when `body` has come back: a panic stops the machine.
        let result = body(unsafe { &mut *self.value.get() }, passive);
        // SAFETY: at PASSIVE_LEVEL again, in the region that was entered.
        unsafe {
            sys::KeSetEvent(self.free.0.get(), 0, 0);
            sys::KeLeaveCriticalRegion();
        }
        result
    }
}
