//! Pool, owned: what is dropped is freed.
//!
//! Pages: *ExAllocatePoolWithTag*, *ExFreePoolWithTag*, *When Should Code and Data Be Pageable?*. Where there is no memory the caller gets
//! `STATUS_INSUFFICIENT_RESOURCES`. It has no growing collections.
//!
//! | | made at | read at | dropped at |
//! | --- | --- | --- | --- |
//! | [`PoolBox`], which is [`NonPagedBox`] | `DISPATCH_LEVEL` and below | any level | `DISPATCH_LEVEL` and below |
//! | [`Shared`] | `DISPATCH_LEVEL` and below | any level | `DISPATCH_LEVEL` and below, by its last owner |
//! | [`PagedBox`] | `PASSIVE_LEVEL` | `PASSIVE_LEVEL` | `PASSIVE_LEVEL` |
//!
//! The levels of making and reading are proofs that these take; a drop, which can be given none, asks the processor.

use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::NtStatus;

use crate::irql::{self, AtMostDispatch, Passive};
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
        // SAFETY: this is the block's only owner; at most at DISPATCH_LEVEL.
        unsafe {
            self.block.drop_in_place();
            sys::ExFreePoolWithTag(self.block.as_ptr().cast(), self.tag.number());
        }
    }
}

/// A `T` in nonpaged pool, by the name that tells it from [`PagedBox`].
pub type NonPagedBox<T> = PoolBox<T>;

/// A `T` in paged pool, which may have to be brought in where it is touched: it is made, read and dropped at `PASSIVE_LEVEL`. Above that its
/// end is a bug check. A reference to the value lasts no longer than the proof is lent, so it is gone where the level is raised.
///
/// ```
/// use wdm::{NtStatus, PagedBox, Passive, Result, Tag};
///
/// /// What an INF says of a card: not needed above `PASSIVE_LEVEL`.
/// struct Settings {
///     calibration: [u16; 512],
/// }
///
/// fn corrected(settings: &PagedBox<Settings>, sample: u16, passive: &mut Passive) -> Result<u16> {
///     let calibration = &settings.get(passive).calibration;
///     calibration.get(usize::from(sample >> 7)).copied().ok_or(NtStatus::INVALID_PARAMETER)
/// }
///
/// fn read(passive: &mut Passive) -> Result<PagedBox<Settings>> {
///     PagedBox::new(Settings { calibration: [0; 512] }, Tag::new(b"Sett"), passive)
/// }
/// ```
pub struct PagedBox<T> {
    block: NonNull<T>,
    tag: Tag,
}

// SAFETY: it owns its `T`.
unsafe impl<T: Send> Send for PagedBox<T> {}
// SAFETY: a shared box gives out shared references only.
unsafe impl<T: Sync> Sync for PagedBox<T> {}

impl<T> PagedBox<T> {
    /// Moves `value` to paged pool.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn new(value: T, tag: Tag, _passive: &mut Passive) -> Result<Self> {
        const { assert!(align_of::<T>() <= 16, "pool blocks are aligned to 16 bytes") };
        // SAFETY: at PASSIVE_LEVEL.
        let block =
            unsafe { sys::ExAllocatePoolWithTag(abi::PagedPool, size_of::<T>().max(1), tag.number()) };
        let block = NonNull::new(block.cast::<T>()).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        // SAFETY: the block is ours and large enough.
        unsafe { block.write(value) };
        Ok(Self { block, tag })
    }

    /// The value.
    #[must_use]
    pub fn get<'a>(&'a self, _passive: &'a mut Passive) -> &'a T {
        // SAFETY: the block holds a `T` until the box is dropped; at PASSIVE_LEVEL for as long as the proof is borrowed.
        unsafe { self.block.as_ref() }
    }

    /// The value, to be changed.
    #[must_use]
    pub fn get_mut<'a>(&'a mut self, _passive: &'a mut Passive) -> &'a mut T {
        // SAFETY: as `get`, and the box is borrowed exclusively.
        unsafe { self.block.as_mut() }
    }
}

impl<T> Drop for PagedBox<T> {
    fn drop(&mut self) {
        irql::expect_at_most(abi::PASSIVE_LEVEL);
        // SAFETY: this is the block's only owner; at PASSIVE_LEVEL.
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
