//! The byte shadow of driver memory: for each byte a mark, and whether it was ever stored.
//!
//! Mark 0 means nothing; every other value is the guest's, which is asked before driver code touches such a byte
//! ([`crate::Guest::touched`]). Both tables lie at constant distances from the memory they describe, so that checked
//! translations reach them by one addition. A machine that is not checked has no shadow, and all this does nothing. What
//! a register holds is not followed: a byte that was loaded and stored elsewhere counts as stored.

use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::mm::{MapFlags, ProtFlags};

use crate::memory::{self, usize_of};
use crate::windows::{DRIVER_MEMORY, MARKS, PAGE, STORED, Window};

/// What a byte of the second table says of one that was not stored since it was allocated.
const NEVER: u8 = 1;

/// Whether the live machine is checked.
static LIVE: AtomicBool = AtomicBool::new(false);

/// The live machine's shadow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shadow {
    on: bool,
}

impl Shadow {
    /// Reserves the tables if the machine is to be checked.
    pub(crate) fn new(checked: bool) -> std::io::Result<Self> {
        static CLAIMED: AtomicBool = AtomicBool::new(false);
        if checked {
            let how = if CLAIMED.load(Relaxed) { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
            for table in windows() {
                memory::reserve(table, ProtFlags::READ | ProtFlags::WRITE, how)?;
            }
            CLAIMED.store(true, Relaxed);
        }
        LIVE.store(checked, Relaxed);
        memory::set_checked(checked);
        Ok(Self { on: checked })
    }

    /// Gives the tables' memory back when the machine ends; their addresses stay claimed.
    pub(crate) fn release(self) {
        if self.on {
            LIVE.store(false, Relaxed);
            for table in windows() {
                memory::reserve(table, ProtFlags::empty(), MapFlags::FIXED)
                    .expect("the host lays its own reservation anew");
            }
        }
    }

    /// The shadow, if the live machine has one: without a way through the machine's state, for accessors that have none.
    #[inline]
    pub(crate) fn live() -> Option<Self> {
        LIVE.load(Relaxed).then_some(Self { on: true })
    }

    pub(crate) const fn is_on(self) -> bool {
        self.on
    }

    /// Where all of it lies; nowhere if there is none.
    pub(crate) fn tables(self) -> impl Iterator<Item = Window> {
        windows().into_iter().filter(move |_| self.on)
    }

    /// What of it describes a range of whole pages of driver memory.
    pub(crate) fn of(self, memory: Window) -> impl Iterator<Item = Window> {
        [MARKS, STORED].into_iter().filter(move |_| self.on).map(move |distance| described(memory, distance))
    }

    /// Marks `length` bytes at `address`.
    pub(crate) fn mark(self, address: u64, length: u64, mark: u8) {
        self.table(address, length, MARKS, |marks| fill(marks, mark));
    }

    /// The mark of the byte at `address`; 0 outside driver memory.
    pub(crate) fn mark_of(self, address: u64) -> u8 {
        self.table(address, 1, MARKS, |marks| marks[0]).unwrap_or(0)
    }

    /// The first marked byte of a range, its mark, and how many bytes have the same one.
    pub(crate) fn first_marked(self, address: u64, length: u64) -> Option<(u64, u8, u64)> {
        let found = self.table(address, length, MARKS, |marks| {
            let first = first_other_than(marks, 0)?;
            let mark = marks[first];
            let alike = marks[first..].iter().take_while(|other| **other == mark).count();
            Some((address + first as u64, mark, alike as u64))
        });
        found?
    }

    /// `length` bytes at `address` have been stored.
    pub(crate) fn stored(self, address: u64, length: u64) {
        self.table(address, length, STORED, |bytes| fill(bytes, 0));
    }

    /// Marks the bytes as never stored.
    pub(crate) fn never_stored(self, address: u64, length: u64) {
        self.table(address, length, STORED, |bytes| fill(bytes, NEVER));
    }

    /// The first byte of a range that was never stored.
    pub(crate) fn first_never_stored(self, address: u64, length: u64) -> Option<u64> {
        let first = self.table(address, length, STORED, |bytes| first_other_than(bytes, 0))??;
        Some(address + first as u64)
    }

    /// Forgets all there is on a range.
    pub(crate) fn clear(self, address: u64, length: u64) {
        self.mark(address, length, 0);
        self.stored(address, length);
    }

    /// Looks at a part of a table, which nothing else may do meanwhile; none without a shadow, and for ranges that are not wholly driver
    /// memory.
    #[inline]
    fn table<R>(
        self,
        address: u64,
        length: u64,
        distance: u64,
        look: impl for<'t> FnOnce(&'t mut [u8]) -> R,
    ) -> Option<R> {
        if !self.on || !memory::is_driver_memory(address, length) {
            return None;
        }
        let start = ptr::with_exposed_provenance_mut::<u8>(usize_of(address + distance));
        // SAFETY: the tables of all driver memory are mapped while `on`; one thread uses them, no reference outlives the look, and who
        // looks, in this file alone, does not ask for another.
        Some(look(unsafe { slice::from_raw_parts_mut(start, usize_of(length)) }))
    }
}

/// Leaves what would only be read, as untouched memory is, unwritten.
fn fill(bytes: &mut [u8], value: u8) {
    for page in bytes.chunks_mut(usize_of(PAGE)) {
        if first_other_than(page, value).is_some() {
            page.fill(value);
        }
    }
}

fn first_other_than(bytes: &[u8], value: u8) -> Option<usize> {
    // Without a way out within, so that the compiler compares many at once.
    let differs = |chunk: &[u8]| chunk.iter().fold(0, |all, byte| all | (byte ^ value)) != 0;
    let chunk = bytes.chunks(64).enumerate().find(|(_, chunk)| differs(chunk))?;
    let inside = chunk.1.iter().position(|byte| *byte != value)?;
    Some(chunk.0 * 64 + inside)
}

/// How many tables there are.
pub(crate) const TABLES: usize = 2 * DRIVER_MEMORY.len();

/// The tables' windows: whole pages.
pub(crate) const fn windows() -> [Window; TABLES] {
    let mut tables = [Window { base: 0, size: 0 }; TABLES];
    let mut index = 0;
    while index < TABLES {
        let distance = if index < DRIVER_MEMORY.len() { MARKS } else { STORED };
        let memory = DRIVER_MEMORY[index % DRIVER_MEMORY.len()];
        tables[index] = described(memory, distance);
        index += 1;
    }
    tables
}

/// The memory whose marks are in this page of the machine's; none if it is no page of marks.
pub(crate) fn marked_by(page: u64) -> Option<Window> {
    let table = windows()[..DRIVER_MEMORY.len()].iter().position(|table| table.contains(page))?;
    let first = (page - MARKS) & !(PAGE - 1);
    let memory = DRIVER_MEMORY[table];
    let (base, end) = (first.max(memory.base), (first + 2 * PAGE).min(memory.end()));
    Some(Window { base, size: end.saturating_sub(base) })
}

/// The whole pages that hold what a table says of a range of whole pages.
const fn described(memory: Window, distance: u64) -> Window {
    Window { base: (memory.base + distance) & !(PAGE - 1), size: memory.size + PAGE }
}
