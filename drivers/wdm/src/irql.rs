//! Interrupt request levels as types: a routine is handed a proof of the level it runs at, and what may be called there
//! takes that proof.
//!
//! Page: *Managing Hardware Priorities*. A proof has no size and cannot be made by a driver. What raises the level
//! borrows the proof mutably, so that nothing that needs the lower level compiles meanwhile. `HIGH_LEVEL` and the clock's
//! level have no proof: no routine that a driver of this crate writes runs there.
//!
//! ```
//! fn wait_a_moment(passive: &mut wdm::Passive) {
//!     wdm::delay_milliseconds(1, passive);
//! }
//! ```
//!
//! What only a drop can do (free pool, unmap a window, disconnect an interrupt) has no proof to take: it asks the processor, and
//! stops with a bug check above the level at which it may be done.
//!
//! A wait needs [`Passive`], which a DPC does not have:
//!
//! ```compile_fail,E0308
//! fn dpc(dispatch: &mut wdm::Dispatch) {
//!     wdm::delay_milliseconds(1, dispatch);
//! }
//! ```
//!
//! and which cannot be used while a spin lock is held:
//!
//! ```compile_fail,E0501
//! fn wait_with_a_lock_held(lock: &wdm::SpinLock<u32>, passive: &mut wdm::Passive) {
//!     lock.with(passive, |_value, _dispatch| wdm::delay_milliseconds(1, passive));
//! }
//! ```
//!
//! An interrupt service routine can complete no request:
//!
//! ```compile_fail,E0277
//! fn isr(irp: wdm::PendingIrp, dirql: &mut wdm::Dirql) {
//!     irp.complete(wdm::NtStatus::SUCCESS, 0, dirql);
//! }
//! ```

use core::marker::PhantomData;

use crate::sys;

/// Proofs stay on the processor that was given them.
type Here = PhantomData<*mut ()>;

/// `PASSIVE_LEVEL`: waiting, paged memory, the registry.
pub struct Passive(Here);
/// At most `DISPATCH_LEVEL`, it is not known which: the dispatch routines that drivers above may call from anywhere.
pub struct DispatchOrBelow(Here);
/// `DISPATCH_LEVEL`: DPCs, `StartIo`, holders of spin locks.
pub struct Dispatch(Here);
/// The device's own level: its interrupt service routine, and what is synchronized with it.
pub struct Dirql(Here);

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Passive {}
    impl Sealed for super::DispatchOrBelow {}
    impl Sealed for super::Dispatch {}
}

/// A level at which spin locks can be taken and requests completed.
pub trait AtMostDispatch: sealed::Sealed {
    /// Whether it is `DISPATCH_LEVEL` for certain, so that nothing need be raised.
    const IS_DISPATCH: bool;
}

impl AtMostDispatch for Passive {
    const IS_DISPATCH: bool = false;
}

impl AtMostDispatch for DispatchOrBelow {
    const IS_DISPATCH: bool = false;
}

impl AtMostDispatch for Dispatch {
    const IS_DISPATCH: bool = true;
}

impl Passive {
    /// # Safety
    /// The processor is at `PASSIVE_LEVEL`, and will be whenever the proof is used.
    pub(crate) unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

impl Dispatch {
    /// # Safety
    /// The processor is at `DISPATCH_LEVEL`, and will be whenever the proof is used.
    pub(crate) unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

impl Dirql {
    /// # Safety
    /// The processor is at a device's level, and will be whenever the proof is used.
    pub(crate) unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

impl DispatchOrBelow {
    /// # Safety
    /// The processor is at most at `DISPATCH_LEVEL`, and will be whenever the proof is used.
    pub(crate) unsafe fn assume() -> Self {
        Self(PhantomData)
    }

    /// Asks the processor. `None` above `PASSIVE_LEVEL`.
    pub fn as_passive(&mut self) -> Option<&mut Passive> {
        // SAFETY: a value without size may be made of any aligned address; the level was asked, and `self` is borrowed
        // for as long as the proof lives.
        (current() == abi::PASSIVE_LEVEL).then(|| unsafe { core::ptr::NonNull::dangling().as_mut() })
    }
}

/// Runs `body` at `DISPATCH_LEVEL` (`KeRaiseIrql`, `KeLowerIrql`).
pub fn at_dispatch<L: AtMostDispatch, R>(_level: &mut L, body: impl FnOnce(&mut Dispatch) -> R) -> R {
    // SAFETY: at most DISPATCH_LEVEL now, by the proof.
    let old = unsafe { sys::KfRaiseIrql(abi::DISPATCH_LEVEL) };
    // SAFETY: raised just now; `body` cannot keep the proof.
    let result = body(&mut unsafe { Dispatch::assume() });
    // SAFETY: back to the level before.
    unsafe { sys::KeLowerIrql(old) };
    result
}

/// Stops the machine above this level: for what no proof can be asked of, as the end of a value.
///
/// # Panics
/// Above that level, which is a bug check.
#[track_caller]
pub(crate) fn expect_at_most(level: u8) {
    if current() > level {
        above();
    }
}

#[cold]
#[track_caller]
fn above() -> ! {
    panic!("the processor is above the level at which this may be done");
}

/// A test that has panicked drops what it has at any level.
#[cfg(test)]
fn current() -> u8 {
    if std::thread::panicking() { abi::PASSIVE_LEVEL } else { crate::fake::irql() }
}

/// The processor's level (`KeGetCurrentIrql`): CR8.
#[cfg(not(test))]
fn current() -> u8 {
    let level: u64;
    // SAFETY: reading CR8 has no effect.
    unsafe { core::arch::asm!("mov {}, cr8", out(reg) level, options(nomem, nostack, preserves_flags)) };
    level.to_le_bytes()[0]
}
