//! Which physical page lies where, and what a driver may do with it: the machine's page table, in a window of the arena.
//!
//! It is what the machine believes; what the host allows at a moment may be less ([`crate::memory`]). Because it lies in the
//! arena a rewind puts it back as any page, and sees by comparison which mappings have changed meanwhile.

use std::cell::Cell;

use crate::memory::Protection;
use crate::windows::{IMAGES, PAGE, PAGES, SYSTEM, USER, Window};

/// What lies at one page. All-zero is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Entry(u32);

const MAPPED: u32 = 1 << 31;
const READ: u32 = 1 << 30;
const WRITE: u32 = 1 << 29;
const EXECUTE: u32 = 1 << 28;
const FRAME: u32 = EXECUTE - 1;

impl Entry {
    pub(crate) fn new(frame: u32, protection: Protection) -> Self {
        assert!(frame <= FRAME);
        let bit = |is, bit| if is { bit } else { 0 };
        let Protection { read, write, execute } = protection;
        Self(MAPPED | frame | bit(read, READ) | bit(write, WRITE) | bit(execute, EXECUTE))
    }

    pub(crate) const fn is_mapped(self) -> bool {
        self.0 & MAPPED != 0
    }

    /// The number of the physical page, if there is one.
    pub(crate) const fn frame(self) -> u32 {
        self.0 & FRAME
    }

    /// All of it, for comparing.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn protection(self) -> Protection {
        Protection { read: self.0 & READ != 0, write: self.0 & WRITE != 0, execute: self.0 & EXECUTE != 0 }
    }
}

/// The windows that have entries, one after the other.
const PARTS: [Window; 3] = [USER, IMAGES, SYSTEM];
/// Entries in a page of the table.
pub(crate) const ENTRIES: u64 = PAGE / 4;
/// Bytes of address space that a page of the table speaks of.
pub(crate) const GRANULE: u64 = ENTRIES * PAGE;
/// How many of these there are.
pub(crate) const GRANULES: u64 = (USER.size + IMAGES.size + SYSTEM.size) / GRANULE;

const _: () = assert!(GRANULES * PAGE <= PAGES.size);

/// Which granule holds `address`, if it lies in memory that drivers can have.
pub(crate) fn granule(address: u64) -> Option<u64> {
    let mut before = 0;
    for part in PARTS {
        if part.contains(address) {
            return Some(before + (address - part.base) / GRANULE);
        }
        before += part.size / GRANULE;
    }
    None
}

/// The first address of a granule.
pub(crate) fn granule_base(granule: u64) -> u64 {
    let mut left = granule * GRANULE;
    for part in PARTS {
        if left < part.size {
            return part.base + left;
        }
        left -= part.size;
    }
    unreachable!("there is no granule {granule}")
}

/// The number of the page of `address` among all that drivers can have.
pub(crate) fn index(address: u64) -> Option<u64> {
    Some(granule(address)? * ENTRIES + address % GRANULE / PAGE)
}

fn entry(address: u64) -> Option<&'static Cell<Entry>> {
    let at = PAGES.base() + index(address)? * 4;
    // SAFETY: in the table's window, which is mapped as long as a machine is alive; all bit patterns are entries, and one
    // thread uses them.
    Some(unsafe { &*(at as *const Cell<Entry>) })
}

/// What lies at the page of `address`; nothing, if no driver can have memory there.
pub(crate) fn get(address: u64) -> Entry {
    entry(address).map_or(Entry::default(), Cell::get)
}

/// Changes the entry of the page of `address`.
pub(crate) fn set(address: u64, to: Entry) {
    entry(address).expect("only memory that drivers can have is mapped").set(to);
}

/// Neighbouring pages that lie on neighbouring frames with the same protection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) address: u64,
    pub(crate) length: u64,
    /// The first page's.
    pub(crate) entry: Entry,
}

impl Run {
    /// Puts the page at `address` with this entry behind the run, if it goes on so.
    fn takes(&mut self, address: u64, entry: Entry) -> bool {
        let pages = self.length / PAGE;
        let frame = u64::from(self.entry.frame()) + if entry.is_mapped() { pages } else { 0 };
        let same = entry.is_mapped() == self.entry.is_mapped()
            && entry.protection() == self.entry.protection()
            && frame == u64::from(entry.frame());
        let goes_on = same && address == self.address + self.length;
        if goes_on {
            self.length += PAGE;
        }
        goes_on
    }
}

/// The runs of the given pages, whose addresses ascend.
pub(crate) fn runs(pages: impl IntoIterator<Item = u64>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for address in pages {
        let entry = get(address);
        if !runs.last_mut().is_some_and(|last| last.takes(address, entry)) {
            runs.push(Run { address, length: PAGE, entry });
        }
    }
    runs
}
