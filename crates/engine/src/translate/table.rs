//! The dispatch table: for every byte of the images' 4 GiB, where its translation is entered by a jump, and where by
//! a return. Zero is a miss. Translated code reads it without a check, so all of it is reserved.

use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::memory;
use crate::windows::{IMAGES, TABLE, Window};

/// Which of an entry's two columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Column {
    /// Jumps and calls to the address.
    Jump,
    /// Returns to the address: the landing pad behind the call.
    Return,
}

/// The upper half that all addresses of images and cache share.
pub(crate) const UPPER_HALF: u32 = (IMAGES.base >> 32) as u32;

/// From the images' base to the column for returns: what an operand with that base and an address's low half, times 8, needs.
pub(crate) const RETURN_COLUMN: u32 = {
    let distance = TABLE.base + 4 - IMAGES.base;
    assert!(distance < 1 << 31, "the table begins within 2 GiB of the images");
    (distance & 0x7FFF_FFFF) as u32
};

/// Whether there is an entry for this address.
pub(crate) fn covers(original: u64) -> bool {
    original >> 32 == u64::from(UPPER_HALF)
}

fn slot(original: u64, column: Column) -> Option<*mut u32> {
    if !covers(original) {
        return None;
    }
    let offset = (original & 0xFFFF_FFFF) * 8 + if column == Column::Return { 4 } else { 0 };
    Some((TABLE.base + offset) as *mut u32)
}

/// The translated address for an original one.
pub(crate) fn get(original: u64, column: Column) -> Option<u64> {
    let slot = slot(original, column)?;
    // SAFETY: the slot lies in the reserved table, which is readable; pages never touched read as zero.
    let low = unsafe { ptr::read(slot) };
    (low != 0).then_some(IMAGES.base | u64::from(low))
}

/// Enters or replaces a translation. `translated` lies in the cache.
pub(crate) fn set(original: u64, column: Column, translated: u64) {
    let slot = slot(original, column).expect("only addresses of the images' window are translated");
    // SAFETY: as in `get`, and the table is writable.
    unsafe { ptr::write(slot, (translated & 0xFFFF_FFFF) as u32) };
}

/// Empties the table for the images (not for the pseudo-image's permanent entries, which the caller sets again).
pub(crate) fn clear() {
    let window = Window { base: TABLE.base, size: IMAGES.size * 8 };
    // SAFETY: the range is ours and anonymous, so its pages read as zero afterwards.
    let dropped = unsafe {
        rustix::mm::madvise(window.base as *mut _, memory::usize_of(window.size), Advice::LinuxDontNeed)
    };
    if dropped.is_err() {
        memory::reserve(window, ProtFlags::READ | ProtFlags::WRITE, MapFlags::FIXED)
            .expect("the host lays its own reservation anew");
    }
}
