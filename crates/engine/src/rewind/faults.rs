//! Finding written pages by write protection: the first write to a page is a SIGSEGV, which copies the page and opens it.
//!
//! Pages stay open behind a rewind or a new snapshot, so that there are faults only until every page that the machine often writes to has
//! been met. Each is compared every time: one of which that was in vain for long is closed again ([`super::quiet`]). Where the pages of a table are written one after
//! the other, ever more are opened at once. The host
//! allows a process 65,530 mappings, and opening single pages makes many: where that is reached, a whole neighbourhood is
//! copied and opened at once.

use std::cell::{Cell, RefCell};
use std::io;

use rustix::mm::{MprotectFlags, mprotect};

use super::Tracker;
use super::copies::{Copies, address_of, id_of};
use crate::machine::{State, state};
use crate::memory::usize_of;
use crate::page_set::Reserved;
use crate::page_table::{self, GRANULE, granule_base};
use crate::windows::{HEAP, PAGE, PAGES, STACKS, Window};
use crate::{heap, strand};

/// The back end.
#[derive(Default)]
pub(super) struct Faults {
    shared: RefCell<Option<Box<Shared>>>,
}

/// What the signal handler sees.
pub(crate) struct Shared {
    copies: *const Copies,
    /// Addresses of pages that have been opened, with the host's page protection still on around them.
    opened: Reserved,
    count: Cell<u64>,
    /// Behind what the last fault has opened.
    behind: Cell<u64>,
    /// How many pages that were.
    run: Cell<u64>,
}

/// More pages than can be opened between two snapshots: by then the whole of memory is.
const OPENED: u64 = 1 << 25;
/// So many pages of a table are opened at once at most.
const MOST_AHEAD: u64 = 64;
/// What is opened at once when the host runs out of mappings.
const NEIGHBOURHOOD: u64 = 1 << 20;

impl Tracker for Faults {
    fn begin(&self, copies: &Copies) -> io::Result<()> {
        let shared = Shared {
            copies,
            opened: Reserved::new(OPENED * 8)?,
            count: Cell::new(0),
            behind: Cell::new(0),
            run: Cell::new(0),
        };
        let shared: *const Shared = &raw const **self.shared.borrow_mut().insert(Box::new(shared));
        // SAFETY: the box stays where it is until `end`, which takes the reference back first; and the tracker, with the
        // copies beside it, lives until then.
        let shared: &'static Shared = unsafe { &*shared };
        state().rewind.faults.set(Some(shared));
        for window in anonymous() {
            protect(window.base, window.size, MprotectFlags::READ)?;
        }
        for run in mapped() {
            state().memory.lay(run.address, run.length);
        }
        Ok(())
    }

    fn collect(&self, _copies: &Copies) {}

    fn renew(&self, copies: &Copies, _changed: usize) {
        // The copies hold what the pages do: they may stay open.
        self.rewound(copies);
    }

    fn rewound(&self, copies: &Copies) {
        copies.came_back();
        // To find and close them takes about as long as to compare all that are open.
        if copies.overdue() > copies.written.borrow().as_slice().len() {
            self.close_quiet(copies);
        }
    }

    fn mapping_goes(&self, _copies: &Copies, _address: u64, _length: u64) {}

    fn mapping_comes(&self, address: u64, length: u64) {
        // Drivers' memory comes as `Memory::host` says; a new stack is closed here.
        if self.shared.borrow().is_some() && STACKS.contains(address) {
            protect(address, length, MprotectFlags::READ).expect("the host lets fewer mappings be");
        }
    }

    fn end(&self) {
        state().rewind.faults.set(None);
        if let Some(shared) = &*self.shared.borrow() {
            unlist(shared.opened());
        }
        let open = MprotectFlags::READ | MprotectFlags::WRITE;
        for window in anonymous() {
            protect(window.base, window.size, open).expect("the host lets fewer mappings be");
        }
        for run in mapped() {
            state().memory.lay(run.address, run.length);
        }
        *self.shared.borrow_mut() = None;
    }
}

impl Faults {
    /// Closes the pages that have not differed for long.
    fn close_quiet(&self, copies: &Copies) {
        copies.drop_quiet();
        let shared = self.shared.borrow();
        let shared = shared.as_ref().expect("it has begun");
        let mut opened = shared.opened().to_vec();
        opened.sort_unstable();
        opened.dedup();
        unlist(&opened);
        shared.count.set(0);
        let written = copies.written.borrow();
        let stays = |page: &u64| id_of(*page).is_some_and(|id| written.contains(id));
        let (open, closed): (Vec<u64>, Vec<u64>) = opened.into_iter().partition(stays);
        for page in open {
            assert!(shared.is_open(page), "there was room for more");
        }
        for range in ranges(&closed) {
            if address_of(id_of(range.base).unwrap_or(0)).is_some_and(|address| address == range.base) {
                protect(range.base, range.size, MprotectFlags::READ).expect("it was so before");
            } else if page_table::get(range.base).is_mapped() {
                state().memory.lay(range.base, range.size);
            }
        }
    }
}

/// The machine's memory outside the page table: all of it readable and writable to the machine.
fn anonymous() -> impl Iterator<Item = Window> {
    strand::stacks(state().stacks.get())
        .chain([heap::opened(), PAGES.window()])
        .chain(state().shadow.tables())
}

/// Everything drivers have mapped.
pub(super) fn mapped() -> Vec<page_table::Run> {
    let mut granules = state().memory.granules.as_slice().to_vec();
    granules.sort_unstable();
    let pages = granules.into_iter().flat_map(|granule| {
        let base = granule_base(granule.into());
        (base..base + GRANULE).step_by(usize_of(PAGE))
    });
    page_table::runs(pages.filter(|page| page_table::get(*page).is_mapped()))
}

/// Pages of drivers' memory among these are in no list of opened ones any more.
fn unlist(opened: &[u64]) {
    let drivers = opened.iter().filter(|page| page_table::index(**page).is_some());
    drivers.for_each(|page| state().memory.laid.unlist(*page));
}

/// Neighbouring pages as one range.
fn ranges(pages: &[u64]) -> Vec<Window> {
    let mut ranges: Vec<Window> = Vec::new();
    for page in pages {
        match ranges.last_mut() {
            Some(last) if last.end() == *page && page_table::get(last.base) == page_table::get(*page) => {
                last.size += PAGE;
            }
            _ => ranges.push(Window { base: *page, size: PAGE }),
        }
    }
    ranges
}

fn protect(address: u64, length: u64, flags: MprotectFlags) -> rustix::io::Result<()> {
    // SAFETY: only memory of the machine is named here, where the handler opens what is closed too tightly.
    unsafe { mprotect(address as *mut _, usize_of(length), flags) }
}

impl Shared {
    fn copies(&self) -> &Copies {
        // SAFETY: see `Faults::begin`.
        unsafe { &*self.copies }
    }

    fn opened(&self) -> &[u64] {
        // SAFETY: so many have been written.
        unsafe { std::slice::from_raw_parts(self.opened.at(0).cast(), usize_of(self.count.get())) }
    }

    pub(super) fn awaits(&self, frame: u32) -> bool {
        !self.copies().written.try_borrow().is_ok_and(|written| written.contains(frame))
    }

    /// Nothing is allocated here, and nothing of the machine is written.
    pub(super) fn first_write(&self, address: u64) -> bool {
        let page = address & !(PAGE - 1);
        let state = state();
        if !is_the_machines(state, page) {
            return false;
        }
        let together = self.ahead(state, page);
        let end = page + together * PAGE;
        if !(page..end).step_by(usize_of(PAGE)).all(|page| self.note(page, together)) {
            return false;
        }
        self.behind.set(end);
        if protect(page, end - page, MprotectFlags::READ | MprotectFlags::WRITE).is_ok() {
            state.memory.opened_by_handler(page);
            return true;
        }
        self.open_neighbourhood(state, page)
    }

    /// How many pages from this one on are opened together: more than one where it follows those that were opened last, which are soon to be written, too.
    fn ahead(&self, state: &State, page: u64) -> u64 {
        let run = if page == self.behind.get() { MOST_AHEAD.min(2 * self.run.get()) } else { 1 };
        self.run.set(run);
        let mut tables = state.shadow.tables().chain([heap::opened(), PAGES.window()]);
        let Some(table) = tables.find(|table| run > 1 && table.contains(page)) else { return 1 };
        let copies = self.copies();
        let is_closed = |page: &u64| {
            id_of(*page)
                .is_some_and(|id| copies.written.try_borrow().is_ok_and(|written| !written.contains(id)))
        };
        let others = (page + PAGE..table.end()).step_by(usize_of(PAGE)).take(usize_of(run - 1));
        others.take_while(is_closed).fold(1, |pages, _| pages + 1)
    }

    /// Copies the page, one of so many, unless that was done, and remembers that it is open.
    fn note(&self, page: u64, together: u64) -> bool {
        let copies = self.copies();
        let (Some(id), Ok(written)) = (id_of(page), copies.written.try_borrow()) else { return false };
        if written.insert(id) {
            copies.make(id, together);
        }
        self.is_open(page)
    }

    /// Remembers a page that may be written without notice, until there is a new snapshot. False if there is no room.
    pub(super) fn is_open(&self, page: u64) -> bool {
        if page_table::index(page).is_some() && !state().memory.laid.list(page) {
            return true;
        }
        let count = self.count.get();
        if count == OPENED {
            return false;
        }
        // SAFETY: there is room, and only this thread writes there.
        unsafe { self.opened.at(count * 8).cast::<u64>().write(page) };
        self.count.set(count + 1);
        true
    }

    /// The host has no mapping left: opens everything around the page that may be open, which joins mappings.
    fn open_neighbourhood(&self, state: &State, page: u64) -> bool {
        let base = page & !(NEIGHBOURHOOD - 1);
        let around = (base..base + NEIGHBOURHOOD).step_by(usize_of(PAGE));
        let alike =
            |other: &u64| is_the_machines(state, *other) && address_of(id_of(*other).unwrap_or(0)).is_some();
        let below = around.clone().take_while(|other| *other < page);
        let from = below.filter(|other| !alike(other)).last().map_or(base, |last| last + PAGE);
        let to = around.clone().find(|other| *other > page && !alike(other)).unwrap_or(base + NEIGHBOURHOOD);
        if !alike(&page) {
            return false;
        }
        let all = || (from..to).step_by(usize_of(PAGE));
        let opened = all().all(|other| self.note(other, (to - from) / PAGE))
            && protect(from, to - from, MprotectFlags::READ | MprotectFlags::WRITE).is_ok();
        if opened {
            all().for_each(|other| state.memory.opened_by_handler(other));
        }
        opened
    }
}

/// Whether the machine itself may write to this page, so that only tracking kept it from that.
fn is_the_machines(state: &State, page: u64) -> bool {
    if HEAP.contains(page) || PAGES.contains(page) {
        return true;
    }
    if STACKS.contains(page) {
        return strand::in_stack(page, state.stacks.get());
    }
    if state.shadow.tables().any(|table| table.contains(page)) {
        return true;
    }
    page_table::get(page).protection().write && !state.memory.is_watched(page)
}
