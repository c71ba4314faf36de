//! The remove lock: who uses the device holds it, and removal waits for them.
//!
//! Page: *Using Remove Locks*. The framework takes it for every request a driver is given, with the request as tag, and
//! releases it when the request leaves the driver. The checked form of debug builds is not used.

use core::cell::UnsafeCell;
use core::ffi::c_void;

use abi::{IO_REMOVE_LOCK, NtStatus};

use crate::irql::Passive;
use crate::pool::Tag;
use crate::{Result, sys};

const SIZE: u32 = 0x20;
const _: () = assert!(size_of::<IO_REMOVE_LOCK>() == SIZE as usize);

/// A remove lock, in a device extension.
pub(crate) struct RemoveLock(UnsafeCell<IO_REMOVE_LOCK>);

impl RemoveLock {
    /// Not yet initialized.
    pub(crate) const fn zeroed() -> Self {
        Self(UnsafeCell::new(IO_REMOVE_LOCK::zeroed()))
    }

    /// Makes it ready for use where it lies; it must not move after that.
    pub(crate) fn initialize(&self, tag: Tag, _passive: &mut Passive) {
        // SAFETY: the lock is not in use yet.
        unsafe { sys::IoInitializeRemoveLockEx(self.0.get(), tag.number(), 0, 0, SIZE) };
    }

    /// Takes it for the holder named `tag`.
    ///
    /// # Errors
    /// `STATUS_DELETE_PENDING` once the device is being removed.
    pub(crate) fn acquire(&self, tag: *mut c_void) -> Result<()> {
        // SAFETY: initialized with this size; the routine may be called at DISPATCH_LEVEL.
        match unsafe { sys::IoAcquireRemoveLockEx(self.0.get(), tag, c"".as_ptr().cast(), 1, SIZE) } {
            NtStatus::SUCCESS => Ok(()),
            refused => Err(refused),
        }
    }

    /// Releases what the holder named `tag` took.
    ///
    /// # Safety
    /// `tag` was given to [`RemoveLock::acquire`], successfully, and not released since.
    pub(crate) unsafe fn release(&self, tag: *mut c_void) {
        // SAFETY: the caller's promise.
        unsafe { sys::IoReleaseRemoveLockEx(self.0.get(), tag, SIZE) };
    }

    /// Releases what the holder named `tag` took, closes the lock, and waits until all have left.
    ///
    /// # Safety
    /// As [`RemoveLock::release`].
    pub(crate) unsafe fn release_and_wait(&self, tag: *mut c_void, _passive: &mut Passive) {
        // SAFETY: the caller's promise; at PASSIVE_LEVEL.
        unsafe { sys::IoReleaseRemoveLockAndWaitEx(self.0.get(), tag, SIZE) };
    }
}
