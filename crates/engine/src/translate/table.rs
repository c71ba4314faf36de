//! The dispatch table: for every byte of the images' 4 GiB, where its translation is entered by a jump, and where by
//! a return. Zero is a miss. Translated code reads it without a check, so all of it is mapped.
//! It is only read there: it is written through another mapping of the same file, whose place a driver does not know.

use std::cell::RefCell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::mm::{MprotectFlags, mprotect};

use crate::windows::{IMAGES, TABLE, TABLE_WRITTEN, Window};
use crate::{heap, memory};

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

/// From the images' base to the column for jumps: what an operand with that base and an address's low half, times 8, needs.
pub(crate) const JUMP_COLUMN: u32 = {
    let distance = TABLE.base - IMAGES.base;
    assert!(distance < 1 << 31, "the table begins within 2 GiB of the images");
    (distance & 0x7FFF_FFFF) as u32
};

/// The same for the column for returns.
pub(crate) const RETURN_COLUMN: u32 = JUMP_COLUMN + 4;

/// Whether there is an entry for this address.
pub(crate) fn covers(original: u64) -> bool {
    original >> 32 == u64::from(UPPER_HALF)
}

/// From the table's beginning to an entry's column.
fn offset(original: u64, column: Column) -> u64 {
    (original & 0xFFFF_FFFF) * 8 + if column == Column::Return { 4 } else { 0 }
}

/// The translated address for an original one.
pub(crate) fn get(original: u64, column: Column) -> Option<u64> {
    if !covers(original) {
        return None;
    }
    // SAFETY: the entry lies in the table, which is readable; what was never written reads as zero.
    let low = unsafe { ptr::read((TABLE.base + offset(original, column)) as *const u32) };
    (low != 0).then_some(IMAGES.base | u64::from(low))
}

/// Enters or replaces a translation. `translated` lies in the cache.
pub(crate) fn set(original: u64, column: Column, translated: u64) {
    assert!(IMAGES.contains(original), "only addresses of the images' window are translated");
    let offset = offset(original, column);
    open(offset);
    write(offset, (translated & 0xFFFF_FFFF) as u32);
    heap::outside(|| ENTERED.with_borrow_mut(|entered| entered.push(offset)));
}

/// Empties the table; permanent entries the caller sets again.
pub(crate) fn clear() {
    heap::outside(|| {
        ENTERED.with_borrow_mut(|entered| entered.drain(..).for_each(|offset| write(offset, 0)))
    });
}

/// An entry that was taken out: where it stands, and what it was.
pub(crate) type Entry = (u64, u32);

/// Takes out what is entered for the addresses of a range.
pub(crate) fn take_out(range: Window) -> Vec<Entry> {
    let is_inside = |offset: u64| range.contains(IMAGES.base + offset / 8);
    ENTERED.with_borrow_mut(|entered| {
        let inside = entered.extract_if(.., |offset| is_inside(*offset));
        let taken = inside.filter_map(|offset| {
            // SAFETY: as in `get`.
            let value = unsafe { ptr::read((TABLE.base + offset) as *const u32) };
            write(offset, 0);
            (value != 0).then_some((offset, value))
        });
        taken.collect()
    })
}

/// Enters it again.
pub(crate) fn put_back(entries: &[Entry]) {
    ENTERED.with_borrow_mut(|entered| {
        for (offset, value) in entries {
            write(*offset, *value);
            entered.push(*offset);
        }
    });
}

/// The table was laid anew.
pub(crate) fn begin() {
    OPEN.iter().for_each(|chunks| chunks.store(0, Relaxed));
    heap::outside(|| ENTERED.with_borrow_mut(Vec::clear));
}

thread_local! {
    // tidy: it grows and shrinks on the host's heap only, and says what is in the table, which is not taken back.
    /// The offsets that were written since the table was empty.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// A driver cannot write the table: this is where we do.
fn write(offset: u64, value: u32) {
    // SAFETY: inside the window, in a chunk that is open; one thread reads and writes the table.
    unsafe { ptr::write((TABLE_WRITTEN.base() + offset) as *mut u32, value) };
}

/// What is opened of the window for writing at once.
const CHUNK: u64 = 16 << 20;
/// Which chunks are.
static OPEN: [AtomicU64; (TABLE_WRITTEN.size / CHUNK / 64) as usize] =
    [const { AtomicU64::new(0) }; (TABLE_WRITTEN.size / CHUNK / 64) as usize];

/// Lets the entry at `offset` be written. The rest stays closed: a stray access of a driver's hits nothing.
fn open(offset: u64) {
    let chunk = offset / CHUNK;
    let (chunks, bit) = (&OPEN[memory::usize_of(chunk / 64)], 1 << (chunk % 64));
    if chunks.load(Relaxed) & bit != 0 {
        return;
    }
    let at = (TABLE_WRITTEN.base() + chunk * CHUNK) as *mut _;
    // SAFETY: the range lies in the window, which is mapped from the table's file.
    unsafe { mprotect(at, memory::usize_of(CHUNK), MprotectFlags::READ | MprotectFlags::WRITE) }
        .expect("the host lets a mapping of ours be written");
    chunks.fetch_or(bit, Relaxed);
}
