//! Taking the machine back: snapshots of everything in the arena, in microseconds, any number of times.
//!
//! Snapshots are a stack. The newest one's contents of pages written since are in [`copies`]; each older one keeps what
//! changed between it and the next, by lines ([`changes`]). Who finds out which pages were written is a [`Tracker`]: [`faults`] by write
//! protection and SIGSEGV, [`userfault`] by the kernel's own bookkeeping. Not taken back: translations (those of changed pages
//! are dropped), what the host's side has seen and decided, and time outside.

mod changes;
mod copies;
mod faults;
mod fingerprint;
mod lines;
mod quiet;
mod userfault;

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeSet;
use std::io;

use changes::Changes;
use copies::{Copies, PageId, SIZE, is_frame};
use faults::Faults;
use lines::{Lines, Page};
use userfault::Userfault;

use crate::host::{Host, StartError};
use crate::machine::state;
use crate::page_set::PageSet;
use crate::page_table::{ENTRIES, Entry, granule_base};
use crate::translate::SavedWords;
use crate::windows::{PAGE, PAGES, Window};
use crate::{gone, heap, page_table, shadow, sharing, signals};

/// How the pages that were written are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracking {
    /// The first write to a page since the snapshot is a fault, which saves the page and lets it be written from then on.
    /// On any Linux. A rewind costs nearly nothing but the copying; a new snapshot costs some 6–12 µs for each page written
    /// after it.
    Faults,
    /// The kernel keeps account (`userfaultfd` with asynchronous write protection, Linux 6.7). A snapshot and a rewind cost
    /// a scan of all memory in use; a first write under 1 µs.
    Userfault,
}

/// A state that the machine can be taken back to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Snapshot(u64);

/// Finds the pages that were written.
trait Tracker {
    /// From now on, every write is to be found.
    fn begin(&self, copies: &Copies) -> io::Result<()>;
    /// Enters in `copies.written` every page that may have been written since the newest snapshot, with its content
    /// then as its copy.
    fn collect(&self, copies: &Copies);
    /// There is a new snapshot: `copies.written` are clean again, `changed` of them having been written indeed, and
    /// their copies are what they hold.
    fn renew(&self, copies: &Copies, changed: usize);
    /// The machine is back at the newest snapshot.
    fn rewound(&self, copies: &Copies);
    /// A range of drivers' memory is mapped anew by the host: now, or a moment ago.
    fn mapping_goes(&self, copies: &Copies, address: u64, length: u64);
    fn mapping_comes(&self, address: u64, length: u64);
    /// No write is of interest any more.
    fn end(&self);
}

/// What lies outside pages and must be put back.
struct Words {
    scratch: SavedWords,
    gs: u64,
}

impl Words {
    fn save() -> Self {
        Self { scratch: SavedWords::now(), gs: signals::gs() }
    }

    fn restore(&self) {
        self.scratch.restore();
        if signals::gs() != self.gs {
            signals::set_gs(self.gs);
        }
    }
}

/// A snapshot, and how it differs from the next one.
struct Level {
    name: Snapshot,
    words: Words,
    /// What a machine that learns has noted of the run.
    touched: sharing::Mark,
    /// Between this snapshot and the next. None at the newest.
    changes: Changes,
}

/// Lists of levels that are gone: what they held would cost the host's kernel more to make anew than a fork costs.
#[derive(Default)]
struct Spare(RefCell<Vec<Changes>>);

/// So many lists are kept.
const SPARE: usize = 8;

impl Spare {
    fn take(&self) -> Changes {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    fn keep(&self, gone: Option<Level>) {
        let mut lists = self.0.borrow_mut();
        if let Some(Level { mut changes, .. }) = gone
            && changes.has_room()
            && lists.len() < SPARE
        {
            changes.clear();
            lists.push(changes);
        }
    }
}

/// While the machine is tracked.
struct Tracked {
    copies: Copies,
    tracker: Box<dyn Tracker>,
    levels: RefCell<Vec<Level>>,
    spare: Spare,
}

/// The engine's part of it.
#[derive(Default)]
pub(crate) struct Rewind {
    tracked: RefCell<Option<Tracked>>,
    names: Cell<u64>,
    /// There is a snapshot.
    stands: Cell<bool>,
    /// For the signal handler: what it needs of the first back end while that one is at work.
    faults: Cell<Option<&'static faults::Shared>>,
}

impl Rewind {
    /// The machine ends: its memory is not watched any more.
    pub(crate) fn finish(&self) {
        if let Some(tracked) = self.tracked.borrow_mut().take()
            && !tracked.levels.borrow().is_empty()
        {
            tracked.end();
        }
    }

    /// Whether the machine can be taken back.
    pub(crate) fn stands(&self) -> bool {
        self.stands.get()
    }

    /// Whether a write to this frame, if it came, would have to be noticed.
    pub(crate) fn awaits(&self, frame: u32) -> bool {
        self.faults.get().is_some_and(|shared| shared.awaits(frame))
    }

    /// Whether written pages are found by their first fault.
    pub(crate) fn faults_are_tracked(&self) -> bool {
        self.faults.get().is_some()
    }

    /// These pages may be written now without notice: their frames have been, by another address.
    pub(crate) fn opened(&self, mut pages: impl Iterator<Item = u64>) {
        if let Some(shared) = self.faults.get() {
            let remembered = pages.all(|page| shared.is_open(page));
            assert!(remembered, "too many mappings since the last snapshot");
        }
    }

    /// A write to `address` has faulted. True if it was only to be noticed, and succeeds now. In the signal handler.
    pub(crate) fn first_write(&self, address: u64) -> bool {
        self.faults.get().is_some_and(|shared| shared.first_write(address))
    }

    /// Whether a frame holds what it held at the newest snapshot.
    pub(crate) fn is_unchanged(&self, frame: u32) -> bool {
        let tracked = self.tracked.borrow();
        let Some(Tracked { copies, .. }) = &*tracked else { return false };
        // By faults a copy is made when the page is first written; by the host's account there is one of each.
        let unwritten = self.faults.get().is_some_and(|shared| shared.awaits(frame));
        unwritten || copies.is_as_its_copy(frame)
    }

    /// The host is about to take away what is mapped here.
    pub(crate) fn mapping_goes(&self, address: u64, length: u64) {
        if let Some(tracked) = &*self.tracked.borrow()
            && !tracked.levels.borrow().is_empty()
        {
            heap::outside(|| tracked.tracker.mapping_goes(&tracked.copies, address, length));
        }
    }

    /// The host has mapped something here.
    pub(crate) fn mapping_comes(&self, address: u64, length: u64) {
        if let Some(tracked) = &*self.tracked.borrow() {
            heap::outside(|| tracked.tracker.mapping_comes(address, length));
        }
    }
}

impl Host {
    /// Prepares for snapshots. Before the first one, on the host's side; a second call changes the way.
    ///
    /// # Errors
    /// [`StartError::Host`] if the host does not have what it takes. Then nothing has changed.
    pub fn track(&self, tracking: Tracking) -> Result<(), StartError> {
        assert_outside();
        let rewind = &state().rewind;
        let stands =
            rewind.tracked.borrow().as_ref().is_some_and(|tracked| !tracked.levels.borrow().is_empty());
        assert!(!stands, "the way of tracking is chosen while no snapshot stands");
        let host = |what| move |error| StartError::Host(what, error);
        let copies = Copies::new(&state().memory, self.is_checked()).map_err(host("memory for snapshots"))?;
        let tracker: Box<dyn Tracker> = match tracking {
            Tracking::Faults => Box::new(Faults::default()),
            Tracking::Userfault => {
                Box::new(Userfault::new().map_err(host("userfaultfd with asynchronous write protection"))?)
            }
        };
        *rewind.tracked.borrow_mut() =
            Some(Tracked { copies, tracker, levels: RefCell::default(), spare: Spare::default() });
        Ok(())
    }

    /// Remembers the machine as it is. On the host's side: before a run, after it, or at a question of one that is
    /// [explored](Host::explore). [`Host::track`] comes first.
    ///
    /// # Errors
    /// [`StartError::Host`] if the host refuses to watch the machine's memory (at the first snapshot only).
    pub fn snapshot(&self) -> Result<Snapshot, StartError> {
        assert_outside();
        gone::carry_out();
        let rewind = &state().rewind;
        let tracked = rewind.tracked.borrow();
        let tracked = tracked.as_ref().expect("snapshots are taken after Host::track");
        let mut levels = tracked.levels.borrow_mut();
        if let Some(newest) = levels.last_mut() {
            tracked.push_down(newest);
        } else {
            tracked.begin().map_err(|error| StartError::Host("watching the machine's memory", error))?;
        }
        let name = Snapshot(rewind.names.replace(rewind.names.get() + 1));
        let changes = tracked.spare.take();
        let touched = state().sharing.mark();
        levels.push(Level { name, words: Words::save(), touched, changes });
        Ok(name)
    }

    /// Takes the machine back to a snapshot, which stays; younger ones are gone. On the host's side.
    ///
    /// If it was taken at a question of a run, that question is open again.
    pub fn rewind(&self, to: Snapshot) {
        assert_outside();
        gone::came_back();
        let tracked = state().rewind.tracked.borrow();
        let tracked = tracked.as_ref().expect("there is a snapshot");
        let mut levels = tracked.levels.borrow_mut();
        let to = position(&levels, to);
        let mut consequences = Consequences::none();
        tracked.tracker.collect(&tracked.copies);
        // A snapshot goes the other way: what it looked at last may still be in the host's caches.
        let written = tracked.copies.written.borrow();
        tracked.copies.compare(written.as_slice().iter().rev().copied(), |id, lines| {
            consequences.put(&tracked.copies, id, lines);
        });
        drop(written);
        while levels.len() > to + 1 {
            tracked.spare.keep(levels.pop());
            let newest = levels.last_mut().expect("the one to go to is left");
            tracked.pull_up(newest, |id, lines| {
                consequences.code |= lines != 0 && gone::was_translated(id);
                consequences.put(&tracked.copies, id, lines);
            });
        }
        consequences.carry_out();
        gone::restore();
        levels[to].words.restore();
        state().sharing.take_back(levels[to].touched);
        tracked.tracker.rewound(&tracked.copies);
    }

    /// Forgets a snapshot; the machine stays as it is, and other snapshots stand. With the last one all tracking ends.
    pub fn discard(&self, snapshot: Snapshot) {
        assert_outside();
        gone::carry_out();
        let tracked = state().rewind.tracked.borrow();
        let tracked = tracked.as_ref().expect("there is a snapshot");
        let mut levels = tracked.levels.borrow_mut();
        let index = position(&levels, snapshot);
        let gone = levels.remove(index);
        let newest = index == levels.len();
        let Some(before) = index.checked_sub(1).map(|index| &mut levels[index]) else {
            if newest {
                tracked.end();
            }
            tracked.spare.keep(Some(gone));
            return;
        };
        if newest {
            tracked.tracker.collect(&tracked.copies);
            tracked.pull_up(before, |_, _| ());
        } else {
            before.changes.take_over(&gone.changes);
        }
        tracked.spare.keep(Some(gone));
    }
}

fn assert_outside() {
    assert!(!state().running.get(), "the machine is saved and taken back from the host's stack only");
}

fn position(levels: &[Level], snapshot: Snapshot) -> usize {
    let found = levels.binary_search_by_key(&snapshot, |level| level.name);
    found.expect("the snapshot stands: it was not discarded, and the machine was not taken back behind it")
}

impl Tracked {
    fn begin(&self) -> io::Result<()> {
        self.copies.written.borrow_mut().clear();
        state().rewind.stands.set(true);
        self.tracker.begin(&self.copies).inspect_err(|_| self.end())
    }

    fn end(&self) {
        self.tracker.end();
        state().rewind.stands.set(false);
        state().memory.discard_closed();
        self.copies.written.borrow_mut().clear();
    }

    /// Before a newer snapshot is made: what this one's pages held moves from the copies to its own list.
    fn push_down(&self, newest: &mut Level) {
        self.tracker.collect(&self.copies);
        self.copies.compare(self.copies.written.borrow().as_slice().iter().copied(), |id, lines| {
            // SAFETY: a whole page, which is not written meanwhile.
            let page = unsafe { &*self.copies.copy(id).cast::<Page>() };
            newest.changes.keep(id, lines, lines::numbers(lines).map(|number| page[number]));
            self.copies.update(id, lines);
        });
        self.tracker.renew(&self.copies, newest.changes.len());
    }

    /// The reverse: this snapshot is the newest again, and its own list goes back into the copies. `each` gets each page that differed.
    fn pull_up(&self, newest: &mut Level, mut each: impl FnMut(PageId, Lines)) {
        for (id, lines, contents) in newest.changes.pages() {
            self.copies.written.borrow().insert(id);
            // SAFETY: a whole page, to which there is no other reference meanwhile.
            let copy = unsafe { &mut *self.copies.copy(id).cast::<Page>() };
            lines::numbers(lines).zip(contents).for_each(|(number, line)| copy[number] = *line);
            each(id, lines);
        }
        newest.changes.clear();
    }
}

/// What must follow when pages are put back.
struct Consequences<'m> {
    translated: Ref<'m, PageSet>,
    /// Addresses whose mapping has changed.
    mappings: BTreeSet<u64>,
    /// A page that translations were made from has changed.
    code: bool,
}

impl Consequences<'_> {
    fn none() -> Self {
        Self { translated: state().memory.translated(), mappings: BTreeSet::new(), code: false }
    }

    /// Puts some lines of a page back to what its copy has.
    #[inline]
    fn put(&mut self, copies: &Copies, id: PageId, lines: Lines) {
        if lines == 0 {
            return;
        }
        if is_frame(id) {
            self.code = self.code || self.translated.contains(id);
        } else if PAGES.contains(copies.live(id) as u64) {
            // SAFETY: both are pages of the table, in which all bit patterns are entries.
            unsafe { self.compare(copies.live(id), copies.copy(id)) };
        } else if let Some(memory) = shadow::marked_by(copies.live(id) as u64) {
            // A translation says whether its own code was marked.
            self.code = self.code || self.is_translated(memory);
        }
        copies.put_back(id, lines);
    }

    /// Whether translations were made from any page of this range.
    fn is_translated(&self, memory: Window) -> bool {
        (memory.base..memory.end())
            .step_by(SIZE)
            .map(page_table::get)
            .any(|entry| entry.is_mapped() && self.translated.contains(entry.frame()))
    }

    /// Notes where a page of the page table is about to change.
    unsafe fn compare(&mut self, live: *const u8, content: *const u8) {
        let first = granule_base((live as u64 - PAGES.base()) / PAGE);
        for index in 0..ENTRIES {
            let offset = crate::memory::usize_of(index * 4);
            // SAFETY: inside both pages; all bit patterns are entries.
            let (now, then) = unsafe {
                (live.add(offset).cast::<Entry>().read(), content.add(offset).cast::<Entry>().read())
            };
            if now != then {
                // What lies there now goes; nothing can have been translated from what comes.
                self.code |= now.is_mapped() && self.translated.contains(now.frame());
                self.mappings.insert(first + index * PAGE);
            }
        }
    }

    fn carry_out(self) {
        let Self { translated, mappings, code } = self;
        drop(translated);
        if code {
            state().translator.flush();
        }
        for run in page_table::runs(mappings) {
            state().memory.lay(run.address, run.length);
        }
    }
}
