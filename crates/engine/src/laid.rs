//! What the host has at each page of drivers' memory. It should be what the page table says; so nothing is asked of the host that it
//! has done already, which is most of what a machine asks for that is taken back again and again.
//!
//! On the host's side, and not taken back: after a rewind the host has what it had. Where nothing is mapped any more the host may keep the page
//! *closed*, without access, so that it is opened again by one cheap call, and without faults.

use std::cell::Cell;
use std::io;

use rustix::mm::ProtFlags;

use crate::memory::FRAMES;
use crate::page_set::Reserved;
use crate::page_table::{self, GRANULES};
use crate::windows::PAGE;

/// What the host has at one page. All-zero is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Held(u32);

const HELD: u32 = 1 << 31;
const READ: u32 = 1 << 30;
const WRITE: u32 = 1 << 29;
/// The host has provided the page: the next access is no fault of the host's.
const PROVIDED: u32 = 1 << 28;
/// Nothing is mapped there, and the page is kept without access.
const CLOSED: u32 = 1 << 27;
/// The page may have been written since the newest snapshot, and is in the list of those that have to be watched again.
const LISTED: u32 = 1 << 26;
const FRAME: u32 = LISTED - 1;

const _: () = assert!(FRAMES <= FRAME as u64);

impl Held {
    pub(crate) fn new(frame: u32, protection: ProtFlags) -> Self {
        Self(HELD | frame & FRAME).with(protection)
    }

    /// The same page, with this access.
    pub(crate) fn with(self, protection: ProtFlags) -> Self {
        self.set(READ, protection.contains(ProtFlags::READ)).set(WRITE, protection.contains(ProtFlags::WRITE))
    }

    const fn set(self, bit: u32, is: bool) -> Self {
        Self(if is { self.0 | bit } else { self.0 & !bit })
    }

    const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Whether the host has a page of the machine's memory there.
    pub(crate) const fn is_held(self) -> bool {
        self.has(HELD)
    }

    /// Whether it is this one.
    pub(crate) const fn shows(self, frame: u32) -> bool {
        self.is_held() && self.0 & FRAME == frame
    }

    /// Whether the host allows any access.
    pub(crate) const fn is_open(self) -> bool {
        self.0 & (READ | WRITE) != 0
    }

    /// Whether the host allows this access, and no other.
    pub(crate) fn allows(self, protection: ProtFlags) -> bool {
        self == self.with(protection)
    }
}

/// All of it.
pub(crate) struct Laid {
    held: Reserved,
    /// How many pages are closed.
    closed: Cell<u64>,
}

impl Laid {
    /// The host has nothing anywhere.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { held: Reserved::new(GRANULES * PAGE)?, closed: Cell::new(0) })
    }

    fn cell(&self, page: u64) -> &Cell<Held> {
        let index = page_table::index(page).expect("only memory that drivers can have is mapped");
        // SAFETY: inside the mapping, which has a word for each page and was all zeroes; all bit patterns are values, and only this thread
        // looks at them.
        unsafe { &*self.held.at(4 * index).cast() }
    }

    pub(crate) fn get(&self, page: u64) -> Held {
        self.cell(page).get()
    }

    /// The host has this there now. Nothing is allocated: the signal handler does it, too.
    pub(crate) fn set(&self, page: u64, held: Held) {
        self.replace(page, held.set(CLOSED, false));
    }

    /// Nothing is mapped there any more, and the host keeps the page without access.
    pub(crate) fn close(&self, page: u64) {
        self.replace(page, self.get(page).with(ProtFlags::empty()).set(CLOSED, true));
    }

    fn replace(&self, page: u64, held: Held) {
        let cell = self.cell(page);
        let before = cell.replace(held.set(LISTED, cell.get().has(LISTED)));
        self.closed.set(u64::from(held.has(CLOSED)) + self.closed.get() - u64::from(before.has(CLOSED)));
    }

    pub(crate) fn is_closed(&self, page: u64) -> bool {
        self.get(page).has(CLOSED)
    }

    /// How many pages are closed.
    pub(crate) fn closed(&self) -> u64 {
        self.closed.get()
    }

    pub(crate) fn is_provided(&self, page: u64) -> bool {
        self.get(page).has(PROVIDED)
    }

    /// The host has provided the page that it has mapped there.
    pub(crate) fn provided(&self, page: u64) {
        self.set(page, self.get(page).set(PROVIDED, true));
    }

    /// The page has to be watched again at the next snapshot. False if that is known already.
    pub(crate) fn list(&self, page: u64) -> bool {
        let held = self.get(page);
        self.cell(page).set(held.set(LISTED, true));
        !held.has(LISTED)
    }

    /// It is watched again.
    pub(crate) fn unlist(&self, page: u64) {
        self.cell(page).set(self.get(page).set(LISTED, false));
    }
}
