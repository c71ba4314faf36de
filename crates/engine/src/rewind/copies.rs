//! Numbers for all pages of a machine, and a second copy of each: what it held at the newest snapshot.
//!
//! Physical pages are numbered by frame, so that it does not matter at which address one was written; pages of the heap,
//! of host stacks, of the page table and of a checked machine's shadow by address. Copies lie outside the machine and cost memory once they are made.

use std::cell::{Cell, RefCell};
use std::io;

use super::lines::{self, Lines};
use super::quiet::Use;
use crate::memory::{FRAMES, Memory, PHYSICAL};
use crate::page_set::{PageSet, Reserved};
use crate::page_table;
use crate::shadow::{self, TABLES};
use crate::windows::{HEAP, PAGE, PAGES, STACKS, Window};

/// The number of a page of the machine.
pub(super) type PageId = u32;

/// Windows of anonymous memory, in the order of their numbers, behind the frames.
#[inline]
fn parts() -> [Window; 3 + TABLES] {
    let mut parts = [HEAP.window(); 3 + TABLES];
    (parts[1], parts[2]) = (STACKS.window(), PAGES.window());
    parts[3..].copy_from_slice(&shadow::windows());
    parts
}

/// How many numbers there are in a machine that is `checked`, or is not.
const fn count(checked: bool) -> u64 {
    let mut pages = FRAMES + (HEAP.size + STACKS.size + PAGES.size) / PAGE;
    let mut index = 0;
    while index < if checked { TABLES } else { 0 } {
        pages += shadow::windows()[index].size / PAGE;
        index += 1;
    }
    pages
}

const _: () = assert!(count(true) < u32::MAX as u64);

/// The number of the page that holds `address`, if the machine has a page there.
pub(super) fn id_of(address: u64) -> Option<PageId> {
    let mut before = FRAMES;
    for part in parts() {
        if part.contains(address) {
            let id = before + (address - part.base) / PAGE;
            return Some(u32::try_from(id).unwrap_or(u32::MAX));
        }
        before += part.size / PAGE;
    }
    let entry = page_table::get(address);
    entry.is_mapped().then_some(entry.frame())
}

/// Whether it is a page of physical memory; then it is the number of the frame.
pub(super) const fn is_frame(id: PageId) -> bool {
    (id as u64) < FRAMES
}

/// Where a page of the heap, of a stack, of the page table or of the shadow is; none for a frame.
pub(super) fn address_of(id: PageId) -> Option<u64> {
    let mut left = u64::from(id).checked_sub(FRAMES)? * PAGE;
    for part in parts() {
        if left < part.size {
            return Some(part.base + left);
        }
        left -= part.size;
    }
    None
}

/// The pages' second copies, and which of them count.
pub(super) struct Copies {
    copies: Reserved,
    /// All physical memory, mapped once more where no driver looks.
    ram: Reserved,
    /// The [`Use`] of each page.
    uses: Reserved,
    /// How often the machine was taken back.
    times: Cell<u16>,
    /// Comparisons of pages that were to be closed, since those were.
    overdue: Cell<usize>,
    /// Pages that have, or may have, been written since the newest snapshot.
    pub(super) written: RefCell<PageSet>,
}

impl Copies {
    pub(super) fn new(memory: &Memory, checked: bool) -> io::Result<Self> {
        Ok(Self {
            copies: Reserved::new(count(checked) * PAGE)?,
            ram: Reserved::of_file(&memory.file, PHYSICAL)?,
            uses: Reserved::new(count(checked) * size_of::<Use>() as u64)?,
            times: Cell::new(0),
            overdue: Cell::new(0),
            written: RefCell::new(PageSet::new(count(checked))?),
        })
    }

    /// The page itself, where it can be read, and for frames also written, without anybody's notice.
    #[inline]
    pub(super) fn live(&self, id: PageId) -> *mut u8 {
        if is_frame(id) {
            return self.ram.at(u64::from(id) * PAGE);
        }
        address_of(id).expect("there are no other numbers") as *mut u8
    }

    /// Its copy.
    pub(super) fn copy(&self, id: PageId) -> *mut u8 {
        self.copies.at(u64::from(id) * PAGE)
    }

    fn used(&self, id: PageId) -> *mut Use {
        self.uses.at(u64::from(id) * size_of::<Use>() as u64).cast()
    }

    fn is_quiet(&self, id: PageId) -> bool {
        // SAFETY: inside the mapping, which begins with zeros, a `Use` like all bytes there.
        unsafe { (*self.used(id)).is_quiet() }
    }

    /// How it was used from here on.
    fn change(&self, id: PageId, change: impl FnOnce(&mut Use)) {
        // SAFETY: as in `is_quiet`, and only this thread looks at it.
        unsafe { change(&mut *self.used(id)) };
    }

    /// The machine was taken back.
    pub(super) fn came_back(&self) {
        self.times.set(self.times.get().wrapping_add(1));
    }

    /// How often pages were compared that are to be closed.
    pub(super) fn overdue(&self) -> usize {
        self.overdue.get()
    }

    /// Takes those that are to be closed from among the written.
    pub(super) fn drop_quiet(&self) {
        self.overdue.set(0);
        self.written.borrow_mut().retain(|id| {
            let stays = !self.is_quiet(id);
            if !stays {
                self.change(id, |page| page.close(self.times.get()));
            }
            stays
        });
    }

    /// Makes the copy, one of so many that are made at once. Also called by the signal handler.
    pub(super) fn make(&self, id: PageId, together: u64) {
        self.change(id, |page| page.open(self.times.get(), together));
        // SAFETY: both are whole pages of mapped memory, and they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(self.live(id), self.copy(id), SIZE) };
    }

    /// Where the page differs from its copy; `next` is the one that is asked about next.
    #[inline]
    fn differing(&self, id: PageId, next: PageId) -> Lines {
        let next = [self.live(next).cast_const(), self.copy(next).cast_const()];
        // SAFETY: as in `make`; neither is written meanwhile.
        unsafe { lines::differing(&*self.live(id).cast(), &*self.copy(id).cast(), next) }
    }

    /// Whether the page is as its copy.
    pub(super) fn is_as_its_copy(&self, id: PageId) -> bool {
        self.differing(id, id) == 0
    }

    /// Tells `each` of these pages where it differs from its copy.
    #[inline]
    pub(super) fn compare(&self, ids: impl Iterator<Item = PageId>, mut each: impl FnMut(PageId, Lines)) {
        let (mut ids, mut overdue) = (ids.peekable(), self.overdue.get());
        while let Some(id) = ids.next() {
            let lines = self.differing(id, *ids.peek().unwrap_or(&id));
            self.change(id, |page| page.compared(lines != 0));
            overdue += usize::from(self.is_quiet(id));
            each(id, lines);
        }
        self.overdue.set(overdue);
    }

    /// Makes the copy, of which only these lines differ.
    pub(super) fn update(&self, id: PageId, lines: Lines) {
        // SAFETY: as in `make`.
        unsafe { lines::copy(&*self.live(id).cast(), &mut *self.copy(id).cast(), lines) }
    }

    /// Makes these lines of the page what its copy has. A page that may be written by notice only is noticed once more.
    pub(super) fn put_back(&self, id: PageId, lines: Lines) {
        // SAFETY: as in `make`.
        unsafe { lines::copy(&*self.copy(id).cast(), &mut *self.live(id).cast(), lines) }
    }
}

/// Bytes of a page.
#[allow(clippy::cast_possible_truncation, reason = "a page is small")]
pub(super) const SIZE: usize = PAGE as usize;
