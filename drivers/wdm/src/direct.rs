//! Direct I/O: an application's own pages, locked for as long as the request lives.
//!
//! Pages: *Using Direct I/O*, *MmGetSystemAddressForMdlSafe*, *Defining I/O Control Codes* (`METHOD_IN_DIRECT`, `METHOD_OUT_DIRECT`).
//! A view lives no longer than the borrow of its request. The application has the same pages and may write them at any moment, so
//! there is no `&[u8]` to them: bytes are copied, each once, and what was checked is the copy. Pages that were locked for reading have
//! no method that writes.
//!
//! It reads the first memory descriptor list of a request only. `METHOD_NEITHER`'s buffers are reached once they are locked: `neither`.

use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};

use abi::{IRP, MDL, NtStatus};

use crate::irp::Owned;
use crate::shared_bytes::{OutOfBuffer, SharedBytes};
use crate::{Result, raw, sys};

/// Which way the bytes of a direct request go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// From the application: a write, or `METHOD_IN_DIRECT`. The pages are locked for reading.
    FromApplication,
    /// To the application: a read, or `METHOD_OUT_DIRECT`. The pages are locked for writing.
    ToApplication,
}

/// Pages that the application gives: of a write, or of `METHOD_IN_DIRECT`.
pub struct Source<'a> {
    pages: SharedBytes,
    request: PhantomData<&'a ()>,
}

/// Pages that the application gets filled: of a read, or of `METHOD_OUT_DIRECT`.
///
/// ```
/// use wdm::{AtMostDispatch, Irp, NtStatus, Result};
///
/// /// Doubles every byte that the application gave with `METHOD_OUT_DIRECT`.
/// fn double<L: AtMostDispatch>(irp: &Irp<'_>, level: &mut L) -> Result<usize> {
///     let pages = irp.destination(level)?;
///     let mut bytes = [0; 64];
///     let bytes = bytes.get_mut(..pages.len()).ok_or(NtStatus::INVALID_BUFFER_SIZE)?;
///     pages.copy_from(0, bytes)?;
///     bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(2));
///     pages.copy_to(0, bytes)?;
///     Ok(bytes.len())
/// }
/// ```
pub struct Destination<'a> {
    pages: SharedBytes,
    request: PhantomData<&'a ()>,
}

impl<'a> Source<'a> {
    /// # Safety
    /// `owned` is the request's owner, borrowed for `'a`; at most at `DISPATCH_LEVEL`.
    pub(crate) unsafe fn of(owned: &Owned) -> Result<Self> {
        // SAFETY: the caller's promise.
        let pages = unsafe { pages_of(owned, Way::FromApplication) }?;
        Ok(Self { pages, request: PhantomData })
    }

    /// # Safety
    /// The list describes locked pages, and outlives what is returned; at most at `DISPATCH_LEVEL`.
    pub(crate) unsafe fn of_list(list: *mut MDL) -> Result<Self> {
        // SAFETY: the caller's promise.
        let pages =
            unsafe { SharedBytes::new(system_address(list)?, raw::get(list, MDL::ByteCount) as usize) };
        Ok(Self { pages, request: PhantomData })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.len() == 0
    }

    /// Copies from the application's pages.
    ///
    /// # Errors
    /// If not all of it lies there; then nothing is copied.
    pub fn copy_from(&self, offset: usize, to: &mut [u8]) -> core::result::Result<(), OutOfBuffer> {
        self.pages.copy_from(offset, to)
    }
}

impl<'a> Destination<'a> {
    /// # Safety
    /// `owned` is the request's owner, borrowed for `'a`; at most at `DISPATCH_LEVEL`.
    pub(crate) unsafe fn of(owned: &Owned) -> Result<Self> {
        // SAFETY: the caller's promise.
        let pages = unsafe { pages_of(owned, Way::ToApplication) }?;
        Ok(Self { pages, request: PhantomData })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.len() == 0
    }

    /// Copies from the application's pages.
    ///
    /// # Errors
    /// If not all of it lies there; then nothing is copied.
    pub fn copy_from(&self, offset: usize, to: &mut [u8]) -> core::result::Result<(), OutOfBuffer> {
        self.pages.copy_from(offset, to)
    }

    /// Copies to the application's pages.
    ///
    /// # Errors
    /// If not all of it lies there; then nothing is copied.
    pub fn copy_to(&self, offset: usize, from: &[u8]) -> core::result::Result<(), OutOfBuffer> {
        self.pages.copy_to(offset, from)
    }
}

/// A request's pages, mapped in system space.
///
/// # Safety
/// `owned` is the request's owner and outlives what is returned; at most at `DISPATCH_LEVEL`. Of a request from the application
/// nothing is written there.
unsafe fn pages_of(owned: &Owned, way: Way) -> Result<SharedBytes> {
    if owned.direct() != Some(way) {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }
    // SAFETY: the request is ours; the list is the request's, its pages are locked until the request is completed. A request of no
    // bytes has none.
    unsafe {
        let list = raw::follow(owned.as_ptr(), IRP::MdlAddress);
        if list.is_null() {
            return Ok(SharedBytes::new(NonNull::dangling().as_ptr(), 0));
        }
        Ok(SharedBytes::new(system_address(list)?, raw::get(list, MDL::ByteCount) as usize))
    }
}

/// `MmGetSystemAddressForMdlSafe`, never executable.
///
/// # Safety
/// The list describes locked pages and lives; at most at `DISPATCH_LEVEL`.
unsafe fn system_address(list: *mut MDL) -> Result<*mut u8> {
    const MAPPED: u16 = abi::MDL_MAPPED_TO_SYSTEM_VA | abi::MDL_SOURCE_IS_NONPAGED_POOL;
    // SAFETY: the caller's promise. A mapping that this makes is undone with the list.
    let address = unsafe {
        if raw::get(list, MDL::MdlFlags).cast_unsigned() & MAPPED == 0 {
            let priority = abi::NormalPagePriority | abi::MdlMappingNoExecute;
            sys::MmMapLockedPagesSpecifyCache(list, 0, abi::MmCached, null_mut(), 0, priority)
        } else {
            raw::follow(list, MDL::MappedSystemVa).cast()
        }
    };
    if address.is_null() { Err(NtStatus::INSUFFICIENT_RESOURCES) } else { Ok(address.cast()) }
}
