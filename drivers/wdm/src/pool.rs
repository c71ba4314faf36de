//! Nonpaged pool, owned: what is dropped is freed.
//!
//! Pages: *ExAllocatePoolWithTag*, *ExFreePoolWithTag*. Where there is no memory the caller gets
//! `STATUS_INSUFFICIENT_RESOURCES`. It has no paged pool and no growing collections.

use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::NtStatus;

use crate::irql::{self, AtMostDispatch};
use crate::{Result, sys};

/// A block's name in pool listings: four characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(u32);

impl Tag {
    /// The tag that listings show as `name`.
    #[must_use]
    pub const fn new(name: &[u8; 4]) -> Self {
        Self(u32::from_le_bytes(*name))
    }

    /// The number the kernel is given.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

/// A `T` in nonpaged pool. Usable at any level, droppable at `DISPATCH_LEVEL` and below: above that its end is a bug check.
pub struct PoolBox<T> {
    block: NonNull<T>,
    tag: Tag,
}

// SAFETY: it owns its `T`.
unsafe impl<T: Send> Send for PoolBox<T> {}
// SAFETY: a shared box gives out shared references only.
unsafe impl<T: Sync> Sync for PoolBox<T> {}

impl<T> PoolBox<T> {
    /// Moves `value` to pool.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn new<L: AtMostDispatch>(value: T, tag: Tag, _level: &mut L) -> Result<Self> {
        const { assert!(align_of::<T>() <= 16, "pool blocks are aligned to 16 bytes") };
        let bytes = size_of::<T>().max(1);
        // SAFETY: nonpaged pool may be had up to DISPATCH_LEVEL, above which there is no such proof.
        let block = unsafe { sys::ExAllocatePoolWithTag(abi::NonPagedPoolNx, bytes, tag.number()) };
        let block = NonNull::new(block.cast::<T>()).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        // SAFETY: the block is ours and large enough.
        unsafe { block.write(value) };
        Ok(Self { block, tag })
    }

    /// Where the value lies; it stays there for as long as the box lives.
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.block.as_ptr()
    }

    /// Gives the block away, its value in it.
    pub(crate) fn into_raw(self) -> (NonNull<T>, Tag) {
        let this = core::mem::ManuallyDrop::new(self);
        (this.block, this.tag)
    }

    /// # Safety
    /// Both came from [`PoolBox::into_raw`], once.
    pub(crate) unsafe fn from_raw(block: NonNull<T>, tag: Tag) -> Self {
        Self { block, tag }
    }
}

impl<T> Deref for PoolBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the block holds a `T` until the box is dropped.
        unsafe { self.block.as_ref() }
    }
}

impl<T> Drop for PoolBox<T> {
    fn drop(&mut self) {
        irql::expect_at_most(abi::DISPATCH_LEVEL);
        // SAFETY: nobody else owns the block; at most at DISPATCH_LEVEL.
        unsafe {
            self.block.drop_in_place();
            sys::ExFreePoolWithTag(self.block.as_ptr().cast(), self.tag.number());
        }
    }
}

struct Counted<T> {
    owners: AtomicUsize,
    value: T,
}

/// A `T` in nonpaged pool that several own: the last one to go frees it, at `DISPATCH_LEVEL` and below.
pub struct Shared<T> {
    block: NonNull<Counted<T>>,
    tag: Tag,
}

// SAFETY: as for any counted reference: owners share the value, and any of them may be the one to drop it.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Moves `value` to pool.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn new<L: AtMostDispatch>(value: T, tag: Tag, level: &mut L) -> Result<Self> {
        let (block, tag) =
            PoolBox::new(Counted { owners: AtomicUsize::new(1), value }, tag, level)?.into_raw();
        Ok(Self { block, tag })
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // SAFETY: the block lives for as long as an owner does.
        let owners = unsafe { self.block.as_ref() }.owners.fetch_add(1, Ordering::Relaxed);
        assert!(owners <= usize::MAX / 2, "so many owners were forgotten that their count would begin again");
        Self { block: self.block, tag: self.tag }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the block lives for as long as an owner does.
        &unsafe { self.block.as_ref() }.value
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the block lives for as long as an owner does.
        if unsafe { self.block.as_ref() }.owners.fetch_sub(1, Ordering::AcqRel) == 1 {
            drop(PoolBox { block: self.block, tag: self.tag });
        }
    }
}
