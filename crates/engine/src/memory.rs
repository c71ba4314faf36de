//! The machine's memory: physical pages in one file, mapped into the windows; and the accessors through which the
//! kernel reaches memory that a driver named.
//!
//! Physical memory is a sparse `memfd`, so one page can appear at several virtual addresses (an MDL's system mapping of a
//! user buffer). A frame is a page of that file; which physical address drivers see for it is the kernel's choice. No page is
//! ever executable for the host; which ones a driver may execute is in the page table and asked by the translator.
//!
//! A word of SYSTEM, in a machine that observes no accesses, is read or written by one instruction behind one comparison. A section of
//! the binary lists these instructions; if one faults, the signal handler goes on behind it, and the access is reported as failed.

use std::cell::{Ref, RefCell};
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use crate::blocks;
use crate::fill::Fill;
use crate::gone;
use crate::heap;
use crate::laid::{Held, Laid};
use crate::machine::state;
use crate::nameless;
use crate::page_set::PageSet;
use crate::page_table::{self, Entry, GRANULE, Run, granule, granule_base};
use crate::shadow::Shadow;
use crate::sharing;
use crate::view::{self, take_fault};
use crate::windows::{DRIVER_MEMORY, IMAGES, PAGE, SYSTEM, USER, Window};

/// What the kernel or a driver may do with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protection {
    /// Loads succeed.
    pub read: bool,
    /// Stores succeed.
    pub write: bool,
    /// Driver code may run from it (by translation).
    pub execute: bool,
}

impl Protection {
    /// No access at all.
    pub const NONE: Self = Self { read: false, write: false, execute: false };
    /// Constants.
    pub const READ: Self = Self { read: true, write: false, execute: false };
    /// Data.
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false };
    /// Code.
    pub const READ_EXECUTE: Self = Self { read: true, write: false, execute: true };
}

/// An address that cannot be read, or not be written, as was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadAddress {
    /// The first address of the access.
    pub address: u64,
    /// A store failed, not a load.
    pub write: bool,
}

/// Physical memory above which there is none: 8 GiB, so that addresses above 4 GiB exist.
pub(crate) const PHYSICAL: u64 = 8 << 30;

/// How many physical pages there are.
pub(crate) const FRAMES: u64 = PHYSICAL / PAGE;

/// The machine's memory, on the host's side. What lies where is in the [page table](crate::page_table).
pub(crate) struct Memory {
    pub(crate) file: OwnedFd,
    /// Granules of the page table that have ever held an entry.
    pub(crate) granules: PageSet,
    /// Pages that hold translated code and that the driver may write: meanwhile the host has them write-protected.
    watched: RefCell<BTreeSet<u64>>,
    /// Pages that were written while they were watched: translations do not rely on data there again. This affects speed only.
    changing: RefCell<BTreeSet<u64>>,
    /// Frames that translations were made from.
    translated: RefCell<PageSet>,
    /// Frames that were ever mapped, before the machine was taken back, too: all others hold zeros, as the file did at first.
    ever_mapped: PageSet,
    /// What the host has mapped.
    pub(crate) laid: Laid,
    /// What is to be closed at the end of [`Memory::unmap_together`].
    closing: RefCell<Option<Vec<Window>>>,
}

/// A page of an image that translations rely on.
pub(crate) struct Relied {
    page: u64,
    entry: Entry,
    watched: bool,
}

/// Ranges that are unmapped together are closed by one call if they are no further apart.
const APART: u64 = 16 * PAGE;

/// So many pages are closed at most: each may be two areas of the host's more, of which it has 65,530 for all.
const MOST_CLOSED: u64 = 2048;

impl Memory {
    pub(crate) fn new() -> std::io::Result<Self> {
        let file = nameless::file("dirql-ram", PHYSICAL)?;
        let granules = PageSet::new(page_table::GRANULES)?;
        let translated = RefCell::new(PageSet::new(FRAMES)?);
        Ok(Self {
            file,
            granules,
            watched: RefCell::default(),
            changing: RefCell::default(),
            translated,
            ever_mapped: PageSet::new(FRAMES)?,
            laid: Laid::new()?,
            closing: RefCell::default(),
        })
    }

    /// The file it is mapped from.
    pub(crate) fn file(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Maps `length` bytes of the file from `offset` on to `address`. All are multiples of a page.
    pub(crate) fn map(&self, address: u64, offset: u64, length: u64, protection: Protection) {
        check(address, length);
        assert!(offset.is_multiple_of(PAGE) && offset + length <= PHYSICAL, "no such physical memory");
        let first = offset / PAGE;
        self.enter(address, length, |page| {
            let frame = u32::try_from(first + page).expect("frames are few");
            Entry::new(frame, protection)
        });
        self.lay(address, length);
    }

    /// Whether the page of the file at `offset` was never mapped.
    pub(crate) fn is_untouched(&self, offset: u64) -> bool {
        u32::try_from(offset / PAGE).is_ok_and(|frame| !self.ever_mapped.contains(frame))
    }

    /// All of this range is written next: the host provides its pages in one call, where a fault for each costs several times as much.
    pub(crate) fn provide(&self, address: u64, length: u64) {
        check(address, length);
        if pages(address, length).all(|page| self.laid.is_provided(page)) {
            return;
        }
        // SAFETY: the range lies in a window of the machine, and its contents stay. A host that does not know the call (before Linux
        // 5.14) provides the pages by faults.
        let done =
            unsafe { rustix::mm::madvise(address as *mut _, usize_of(length), Advice::LinuxPopulateWrite) };
        if done.is_ok() {
            pages(address, length).for_each(|page| self.laid.provided(page));
        }
    }

    /// Takes the mapping away; accesses fault from now on.
    pub(crate) fn unmap(&self, address: u64, length: u64) {
        self.unmap_later(address, length);
        self.close(address, length);
    }

    /// The same, and accesses fault once it was carried out: see [`crate::gone`].
    pub(crate) fn unmap_later(&self, address: u64, length: u64) {
        check(address, length);
        if let Some(shadow) = Shadow::live() {
            shadow.clear(address, length);
        }
        self.enter(address, length, |_| Entry::default());
    }

    /// Changes what may be done with mapped pages.
    pub(crate) fn protect(&self, address: u64, length: u64, protection: Protection) {
        check(address, length);
        for page in pages(address, length) {
            let entry = page_table::get(page);
            assert!(entry.is_mapped(), "nothing is mapped at {page:#x}");
            page_table::set(page, Entry::new(entry.frame(), protection));
        }
        self.lay(address, length);
    }

    fn enter(&self, address: u64, length: u64, entry: impl Fn(u64) -> Entry) {
        state().rewind.mapping_goes(address, length);
        state().sharing.forget(address, length);
        state().fresh.add(address, length);
        for (index, page) in pages(address, length).enumerate() {
            self.granules.insert(u32::try_from(granule(page).expect("checked")).expect("granules are few"));
            let entry = entry(index as u64);
            if entry.is_mapped() {
                self.ever_mapped.insert(entry.frame());
            }
            page_table::set(page, entry);
        }
    }

    /// The shadow says something of this range, though perhaps nothing was ever mapped there.
    pub(crate) fn described(&self, address: u64, length: u64) {
        let last = address.saturating_add(length.saturating_sub(1));
        if let (Some(first), Some(last)) = (granule(address), granule(last))
            && first == last
        {
            self.granules.insert(u32::try_from(first).expect("granules are few"));
            return;
        }
        let starts = (address..=last).step_by(usize_of(GRANULE)).chain([last]);
        for granule in starts.filter_map(granule) {
            self.granules.insert(u32::try_from(granule).expect("granules are few"));
        }
    }

    /// Makes the host's mappings what the page table says, and their protections what they should be now.
    pub(crate) fn lay(&self, address: u64, length: u64) {
        for run in page_table::runs(pages(address, length)) {
            if run.entry.is_mapped() {
                self.lay_run(&run).expect("mapping the machine's memory");
            } else {
                self.close(run.address, run.length);
            }
        }
    }

    /// Nothing can be taken back any more: the host gives up what is closed.
    pub(crate) fn discard_closed(&self) {
        if self.laid.closed() == 0 {
            return;
        }
        let mut granules = self.granules.as_slice().to_vec();
        granules.sort_unstable();
        let all = granules.into_iter().flat_map(|granule| pages(granule_base(granule.into()), GRANULE));
        for run in page_table::runs(all.filter(|page| self.laid.is_closed(*page))) {
            self.discard(run.address, run.length);
        }
    }

    /// Nothing is mapped here any more. While the machine can be taken back, the host keeps its pages for the next time.
    pub(crate) fn close(&self, address: u64, length: u64) {
        if state().rewind.stands() && self.laid.closed() < MOST_CLOSED {
            if let Some(closing) = &mut *self.closing.borrow_mut() {
                return heap::outside(|| closing.push(Window { base: address, size: length }));
            }
            return self.parts(address, length, |from, to| {
                set_protection(from, to - from, MprotectFlags::empty());
                pages(from, to - from).for_each(|page| self.laid.close(page));
            });
        }
        if pages(address, length).any(|page| self.laid.get(page).is_held()) {
            self.discard(address, length);
        }
    }

    /// Carries out `unmap`, and closes what it has unmapped at its end, neighbours by one call.
    pub(crate) fn unmap_together(&self, unmap: impl FnOnce()) {
        self.closing.replace(Some(Vec::new()));
        unmap();
        heap::outside(|| {
            let mut closing = self.closing.take().unwrap_or_default();
            closing.sort_unstable_by_key(|range| range.base);
            // What lies between may stay as it is closed if it is not there.
            let is_nothing = |page: u64| !page_table::get(page).is_mapped() && !self.laid.get(page).is_open();
            let mut ranges: Vec<Window> = Vec::new();
            for range in closing {
                match ranges.last_mut() {
                    Some(last)
                        if range.base - last.end() <= APART
                            && pages(last.end(), range.base - last.end()).all(is_nothing) =>
                    {
                        last.size = range.end() - last.base;
                    }
                    _ => ranges.push(range),
                }
            }
            ranges.iter().for_each(|range| self.close_whole(range.base, range.size));
        });
    }

    /// Takes all access away from a range where nothing is mapped.
    fn close_whole(&self, address: u64, length: u64) {
        let is_held = |page: &u64| self.laid.get(*page).is_held();
        let held: Vec<u64> = pages(address, length).filter(is_held).collect();
        if held.iter().any(|page| self.laid.get(*page).is_open()) {
            set_protection(address, length, MprotectFlags::empty());
            held.into_iter().for_each(|page| self.laid.close(page));
        }
    }

    /// Tells `each` the parts of a range where the host allows access.
    fn parts(&self, address: u64, length: u64, mut each: impl FnMut(u64, u64)) {
        let is_open = |page: &u64| self.laid.get(*page).is_open();
        let (mut from, end) = (address, address + length);
        while let Some(first) = pages(from, end - from).find(is_open) {
            let to = pages(first, end - first).find(|page| !is_open(page)).unwrap_or(end);
            each(first, to);
            from = to;
        }
    }

    fn discard(&self, address: u64, length: u64) {
        reserve(Window { base: address, size: length }, ProtFlags::empty(), MapFlags::FIXED)
            .expect("the host gives up what it has mapped");
        pages(address, length).for_each(|page| self.laid.set(page, Held::default()));
    }

    fn protect_host(&self, address: u64, length: u64, protection: ProtFlags) {
        set_protection(address, length, MprotectFlags::from_bits_retain(protection.bits()));
        pages(address, length).for_each(|page| self.laid.set(page, self.laid.get(page).with(protection)));
    }

    /// Of pages on neighbouring frames, which may be as they should already.
    fn lay_run(&self, run: &Run) -> std::io::Result<()> {
        let end = run.address + run.length;
        let frame = |page: u64| {
            run.entry.frame() + u32::try_from((page - run.address) / PAGE).expect("frames are few")
        };
        let is_held = |page: u64| self.laid.get(page).shows(frame(page));
        let mut from = run.address;
        while from < end {
            let (protection, held) = (self.host(from), is_held(from));
            let alike = |page: &u64| self.host(*page) == protection && is_held(*page) == held;
            let to = pages(from, end - from).find(|page| !alike(page)).unwrap_or(end);
            if !held {
                self.map_host(from, to - from, frame(from), protection)?;
            } else if pages(from, to - from).any(|page| !self.laid.get(page).allows(protection)) {
                self.protect_host(from, to - from, protection);
            } else {
                pages(from, to - from).for_each(|page| self.laid.set(page, self.laid.get(page)));
            }
            if protection.contains(ProtFlags::WRITE) {
                state().rewind.opened(pages(from, to - from));
            }
            from = to;
        }
        Ok(())
    }

    fn map_host(&self, address: u64, length: u64, frame: u32, protection: ProtFlags) -> std::io::Result<()> {
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        let (offset, bytes) = (u64::from(frame) * PAGE, usize_of(length));
        // SAFETY: as in `set_protection`.
        unsafe { rustix::mm::mmap(address as *mut _, bytes, protection, flags, &self.file, offset) }?;
        for (frame, page) in (frame..).zip(pages(address, length)) {
            self.laid.set(page, Held::new(frame, protection));
        }
        state().rewind.mapping_comes(address, length);
        Ok(())
    }

    /// The signal handler has let a page be written.
    pub(crate) fn opened_by_handler(&self, page: u64) {
        if page_table::index(page).is_some() {
            self.laid.set(page, self.laid.get(page).with(ProtFlags::READ | ProtFlags::WRITE));
        }
    }

    /// What the host lets anybody do with a mapped page now: less than the machine does, while a write must be noticed.
    fn host(&self, page: u64) -> ProtFlags {
        let entry = page_table::get(page);
        let Protection { read, write, .. } = entry.protection();
        let mut flags = ProtFlags::empty();
        flags.set(ProtFlags::READ, read || write);
        let noticed = write && (self.is_watched(page) || state().rewind.awaits(entry.frame()));
        flags.set(ProtFlags::WRITE, write && !noticed);
        flags
    }

    /// Whether driver code may run from the page that holds `address`.
    pub(crate) fn executable(&self, address: u64) -> bool {
        page_table::get(address).protection().execute
    }

    // ---- pages that translations were made from ----

    /// A translation is made from the page that holds `address`. If drivers may write there, the next write is a fault.
    pub(crate) fn translate_from(&self, address: u64) {
        let (page, entry) = (address & !(PAGE - 1), page_table::get(address));
        self.translated.borrow().insert(entry.frame());
        let Protection { write, execute, .. } = entry.protection();
        if write && execute && heap::outside(|| self.watched.borrow_mut().insert(page)) {
            self.lay(page, PAGE);
        }
    }

    /// A translation relies on what a page of data that drivers hardly write (an import table) holds now: as for code, the next
    /// write is a fault. False if that was wrong about this page once.
    pub(crate) fn translate_from_data(&self, address: u64) -> bool {
        let (page, entry) = (address & !(PAGE - 1), page_table::get(address));
        let write = entry.protection().write;
        if !entry.is_mapped() || write && self.changing.borrow().contains(&page) {
            return false;
        }
        self.translated.borrow().insert(entry.frame());
        if write && heap::outside(|| self.watched.borrow_mut().insert(page)) {
            self.lay(page, PAGE);
        }
        true
    }

    /// A page that was watched has been written.
    pub(crate) fn changes(&self, page: u64) {
        heap::outside(|| self.changing.borrow_mut().insert(page));
    }

    /// Whether translations were made from any page of this range.
    pub(crate) fn is_any_translated(&self, address: u64, length: u64) -> bool {
        let translated = self.translated.borrow();
        pages(address, length).any(|page| {
            let entry = page_table::get(page);
            entry.is_mapped() && translated.contains(entry.frame())
        })
    }

    /// The frames that translations were made from.
    pub(crate) fn translated(&self) -> Ref<'_, PageSet> {
        self.translated.borrow()
    }

    /// Whether a write to this page must drop translations. Asked by the signal handler too.
    pub(crate) fn is_watched(&self, page: u64) -> bool {
        self.watched.try_borrow().is_ok_and(|watched| watched.contains(&page))
    }

    /// Which pages of a range are mapped, how, and whether writes to them drop translations; and the frames that translations were made from.
    pub(crate) fn relied_on(&self, address: u64, length: u64) -> (Vec<Relied>, Vec<u32>) {
        let translated = self.translated.borrow();
        let mapped = pages(address, length).map(|page| (page, page_table::get(page)));
        let relied = mapped.filter(|(_, entry)| entry.is_mapped()).map(|(page, entry)| Relied {
            page,
            entry,
            watched: self.is_watched(page),
        });
        let relied: Vec<Relied> = relied.collect();
        let frames = relied.iter().map(|relied| relied.entry.frame());
        let frames = frames.filter(|frame| translated.contains(*frame)).collect();
        (relied, frames)
    }

    /// No translations are made from these frames any more.
    pub(crate) fn not_translated(&self, frames: &[u32]) {
        let mut translated = self.translated.borrow_mut();
        frames.iter().for_each(|frame| translated.remove(*frame));
    }

    /// Translations are used again that were made from these frames, if the pages are mapped as they were; false if not.
    pub(crate) fn rely_again(&self, relied: &[Relied], frames: &[u32]) -> bool {
        let stand = relied.iter().all(|relied| page_table::get(relied.page) == relied.entry);
        if stand {
            frames.iter().for_each(|frame| _ = self.translated.borrow().insert(*frame));
            for relied in relied.iter().filter(|relied| relied.watched) {
                self.watched.borrow_mut().insert(relied.page);
                self.lay(relied.page, PAGE);
            }
        }
        stand
    }

    /// Writes to pages of this range are no matter of translations any more.
    pub(crate) fn unwatch(&self, address: u64, length: u64) {
        heap::outside(|| self.watched.borrow_mut().retain(|page| page.wrapping_sub(address) >= length));
    }

    /// There are no translations any more.
    pub(crate) fn nothing_translated(&self) {
        self.translated.borrow_mut().clear();
        let watched = heap::outside(|| std::mem::take(&mut *self.watched.borrow_mut()));
        for page in &watched {
            self.lay(*page, PAGE);
        }
        heap::outside(|| drop(watched));
    }
}

fn set_protection(address: u64, length: u64, flags: MprotectFlags) {
    // SAFETY: the range lies in a window of the machine, where nothing of the host's is.
    unsafe { rustix::mm::mprotect(address as *mut _, usize_of(length), flags) }
        .expect("protecting the machine's memory");
}

fn pages(address: u64, length: u64) -> impl Iterator<Item = u64> + Clone {
    (address..address + length).step_by(usize_of(PAGE))
}

fn check(address: u64, length: u64) {
    let inside = DRIVER_MEMORY.iter().any(|w| w.contains(address) && length <= w.end() - address);
    assert!(inside && address.is_multiple_of(PAGE) && length.is_multiple_of(PAGE) && length > 0);
}

/// Reserves a window at its constant address.
pub(crate) fn reserve(window: Window, protection: ProtFlags, how: MapFlags) -> std::io::Result<()> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | how;
    // SAFETY: either the kernel refuses because something is there, or the range is one of the machine's windows.
    unsafe { rustix::mm::mmap_anonymous(window.base as *mut _, usize_of(window.size), protection, flags) }?;
    Ok(())
}

/// Whether the kernel may follow a driver's pointer to here: RAM of the machine, and nothing of ours.
#[inline]
pub(crate) fn is_driver_memory(address: u64, bytes: u64) -> bool {
    let inside =
        |window: Window| bytes <= window.size && address.wrapping_sub(window.base) <= window.size - bytes;
    inside(SYSTEM) || inside(USER) || inside(IMAGES)
}

std::arch::global_asm!(
    // Copies rdx bytes from rsi to rdi; the same with eax. Up to 512 bytes by four pairs of words, by one pair, then what is left
    // by an overlapping pair.
    ".global dirql_ram_copy",
    ".global dirql_ram_copy_end",
    "dirql_ram_copy:",
    "cmp rdx, 16",
    "jb 4f",
    "cmp rdx, 512",
    "ja 4f",
    "lea r8, [rdx - 16]",
    "xor eax, eax",
    "cmp rdx, 64",
    "jb 3f",
    "lea r9, [rdx - 64]",
    "2: movups xmm0, [rsi + rax]",
    "movups xmm1, [rsi + rax + 16]",
    "movups xmm2, [rsi + rax + 32]",
    "movups xmm3, [rsi + rax + 48]",
    "movups [rdi + rax], xmm0",
    "movups [rdi + rax + 16], xmm1",
    "movups [rdi + rax + 32], xmm2",
    "movups [rdi + rax + 48], xmm3",
    "add rax, 64",
    "cmp rax, r9",
    "jbe 2b",
    "3: cmp rax, r8",
    "jae 6f",
    "5: movups xmm0, [rsi + rax]",
    "movups [rdi + rax], xmm0",
    "add rax, 16",
    "cmp rax, r8",
    "jb 5b",
    "6: movups xmm0, [rsi + r8]",
    "movups [rdi + r8], xmm0",
    "xor eax, eax",
    "ret",
    "4: mov rcx, rdx",
    "rep movsb",
    "xor eax, eax",
    "ret",
    // Fills rdx bytes (at least 16) from rdi on with the 16 at rsi; the same with eax.
    ".global dirql_ram_fill",
    "dirql_ram_fill:",
    "movups xmm0, [rsi]",
    "lea r8, [rdx - 16]",
    "xor eax, eax",
    "cmp rdx, 64",
    "jb 3f",
    "lea r9, [rdx - 64]",
    "2: movups [rdi + rax], xmm0",
    "movups [rdi + rax + 16], xmm0",
    "movups [rdi + rax + 32], xmm0",
    "movups [rdi + rax + 48], xmm0",
    "add rax, 64",
    "cmp rax, r9",
    "jbe 2b",
    "3: cmp rax, r8",
    "jae 6f",
    "5: movups [rdi + rax], xmm0",
    "add rax, 16",
    "cmp rax, r8",
    "jb 5b",
    "6: movups [rdi + r8], xmm0",
    "xor eax, eax",
    "ret",
    // Whether rdx bytes (at least 16) from rsi are all as the 16 at rdi: 0 if so, 2 if not.
    ".global dirql_ram_same",
    "dirql_ram_same:",
    "movups xmm1, [rdi]",
    "lea r8, [rdx - 16]",
    "movups xmm0, [rsi + r8]",
    "pcmpeqb xmm0, xmm1",
    "movaps xmm2, xmm0",
    "xor eax, eax",
    "cmp rdx, 64",
    "jb 10f",
    "lea r9, [rdx - 64]",
    "11: movups xmm0, [rsi + rax]",
    "movups xmm3, [rsi + rax + 16]",
    "movups xmm4, [rsi + rax + 32]",
    "movups xmm5, [rsi + rax + 48]",
    "pcmpeqb xmm0, xmm1",
    "pcmpeqb xmm3, xmm1",
    "pcmpeqb xmm4, xmm1",
    "pcmpeqb xmm5, xmm1",
    "pand xmm0, xmm3",
    "pand xmm4, xmm5",
    "pand xmm2, xmm0",
    "pand xmm2, xmm4",
    "add rax, 64",
    "cmp rax, r9",
    "jbe 11b",
    "10: cmp rax, r8",
    "jae 8f",
    "7: movups xmm0, [rsi + rax]",
    "pcmpeqb xmm0, xmm1",
    "pand xmm2, xmm0",
    "add rax, 16",
    "cmp rax, r8",
    "jb 7b",
    "8: pmovmskb ecx, xmm2",
    "xor eax, eax",
    "cmp ecx, 0xFFFF",
    "je 9f",
    "mov eax, 2",
    "9: ret",
    // The same of at least 128 bytes, for a processor that has AVX2.
    ".global dirql_ram_same_avx2",
    "dirql_ram_same_avx2:",
    "vbroadcasti128 ymm1, [rdi]",
    "vpcmpeqb ymm2, ymm1, [rsi + rdx - 32]",
    "lea r8, [rdx - 128]",
    "lea r9, [rdx - 32]",
    "xor eax, eax",
    "13: vpcmpeqb ymm0, ymm1, [rsi + rax]",
    "vpcmpeqb ymm3, ymm1, [rsi + rax + 32]",
    "vpcmpeqb ymm4, ymm1, [rsi + rax + 64]",
    "vpcmpeqb ymm5, ymm1, [rsi + rax + 96]",
    "vpand ymm0, ymm0, ymm3",
    "vpand ymm4, ymm4, ymm5",
    "vpand ymm2, ymm2, ymm0",
    "vpand ymm2, ymm2, ymm4",
    "add rax, 128",
    "cmp rax, r8",
    "jbe 13b",
    "jmp 15f",
    "14: vpcmpeqb ymm0, ymm1, [rsi + rax]",
    "vpand ymm2, ymm2, ymm0",
    "add rax, 32",
    "15: cmp rax, r9",
    "jb 14b",
    "vpmovmskb ecx, ymm2",
    "vzeroupper",
    "xor eax, eax",
    "cmp ecx, -1",
    "je 16f",
    "mov eax, 2",
    "16: ret",
    "dirql_ram_copy_end:",
    "dirql_ram_copy_fixup:",
    "mov eax, 1",
    "ret",
    ".global dirql_ram_copy_fixup",
);

unsafe extern "sysv64" {
    fn dirql_ram_copy(to: *mut u8, from: *const u8, bytes: usize) -> u32;
    fn dirql_ram_fill(to: *mut u8, pattern: *const u8, bytes: usize) -> u32;
    fn dirql_ram_same(pattern: *const u8, from: *const u8, bytes: usize) -> u32;
    fn dirql_ram_same_avx2(pattern: *const u8, from: *const u8, bytes: usize) -> u32;
    static dirql_ram_copy_end: u8;
    static dirql_ram_copy_fixup: u8;
}

/// An instruction that accesses driver memory, and what lies behind it; each as a distance from the field itself.
#[repr(C)]
pub(crate) struct WordAccess {
    instruction: i32,
    behind: i32,
}

unsafe extern "C" {
    #[link_name = "__start_dirql_words"]
    static FIRST_WORD: WordAccess;
    #[link_name = "__stop_dirql_words"]
    static END_OF_WORDS: WordAccess;
}

/// If the instruction at `rip` is one of an accessor's: where to go on after a fault there, and how it is reported.
pub(crate) fn fixup(rip: u64) -> Option<Fixup> {
    let copy = dirql_ram_copy as *const () as u64..(&raw const dirql_ram_copy_end) as u64;
    if copy.contains(&rip) {
        return Some(Fixup { next: (&raw const dirql_ram_copy_fixup) as u64, report: Report::InEax });
    }
    let words = accesses(&raw const FIRST_WORD, &raw const END_OF_WORDS);
    let in_words = || behind(words, rip).map(|next| Fixup { next, report: Report::InEdx });
    let in_views = || view::fixup(rip).map(|next| Fixup { next, report: Report::Missed });
    let in_blocks = || blocks::fixup(rip).map(|next| Fixup { next, report: Report::InEax });
    in_words().or_else(in_views).or_else(in_blocks)
}

/// How the host goes on after a fault in an accessor.
pub(crate) struct Fixup {
    pub(crate) next: u64,
    pub(crate) report: Report,
}

/// How an accessor learns that its access has faulted.
pub(crate) enum Report {
    /// There is 1 in `eax`.
    InEax,
    /// There is 1 in `edx`.
    InEdx,
    /// By [`view::take_fault`].
    Missed,
}

/// All accesses of one kind, wherever they were inlined.
pub(crate) fn accesses(first: *const WordAccess, end: *const WordAccess) -> &'static [WordAccess] {
    // SAFETY: the linker puts the two symbols around a section that holds nothing else, and is never written.
    unsafe { std::slice::from_raw_parts(first, end.offset_from_unsigned(first)) }
}

/// What lies behind the instruction at `rip`, if that is one of these.
pub(crate) fn behind(accesses: &[WordAccess], rip: u64) -> Option<u64> {
    let from = |distance: &i32| (ptr::from_ref(distance) as u64).wrapping_add_signed((*distance).into());
    accesses.iter().find(|access| from(&access.instruction) == rip).map(|access| from(&access.behind))
}

/// One instruction on driver memory, with `edx` 0 if it did what it says and 1 if it faulted. It is in the table of
/// [`fixup`], wherever it is inlined.
macro_rules! access {
    ($instruction:literal, $($operand:tt)*) => {{
        let failed: u32;
        // SAFETY: the address lies in the windows that hold driver memory, where nothing of ours is; where it is not mapped or may
        // not be written, the signal handler goes on behind the instruction.
        unsafe {
            std::arch::asm!(
                "xor edx, edx",
                concat!("2: ", $instruction),
                "3:",
                ".pushsection dirql_words, \"aR\", @progbits",
                ".balign 4",
                ".long 2b - .",
                ".long 3b - .",
                ".popsection",
                out("edx") failed,
                $($operand)*
                options(nostack),
            );
        }
        failed == 0
    }};
}

/// Loads one word from driver memory; the answer is whether that worked.
macro_rules! load {
    ($instruction:literal, $address:expr, $into:expr) => {{
        let value: u64;
        let there = access!($instruction, address = in(reg) $address, value = out(reg) value,);
        $into.copy_from_slice(&value.to_le_bytes()[..$into.len()]);
        there
    }};
}

/// Stores one word in driver memory; the answer is whether that worked.
macro_rules! store {
    ($instruction:literal, $address:expr, $from:expr) => {{
        let mut bytes = [0; 8];
        bytes[..$from.len()].copy_from_slice($from);
        let value = u64::from_le_bytes(bytes);
        access!($instruction, address = in(reg) $address, value = in(reg) value,)
    }};
}

/// Copies driver memory to `into`.
#[inline]
pub(crate) fn read(address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
    if sharing::is_live() {
        gone::carry_out_at(address);
        sharing::kernel_touches(address, into.len() as u64, false);
    }
    peek(address, into)
}

/// The same for the engine's own needs: what has to be looked at for a translation, of which no run is to know whether it was made before.
#[inline]
pub(crate) fn peek(address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
    gone::carry_out_at(address);
    let there = is_driver_memory(address, into.len() as u64)
        && match into.len() {
            1 => load!("movzx {value:e}, byte ptr [{address}]", address, into),
            2 => load!("movzx {value:e}, word ptr [{address}]", address, into),
            4 => load!("mov {value:e}, [{address}]", address, into),
            8 => load!("mov {value}, [{address}]", address, into),
            // SAFETY: the destination is a slice of ours; a source that is not mapped ends in the fix-up.
            _ => unsafe { dirql_ram_copy(into.as_mut_ptr(), address as *const u8, into.len()) == 0 },
        };
    if there { Ok(()) } else { Err(BadAddress { address, write: false }) }
}

/// Copies `from` to driver memory.
#[inline]
pub(crate) fn write(address: u64, from: &[u8]) -> Result<(), BadAddress> {
    gone::carry_out_at(address);
    if !is_driver_memory(address, from.len() as u64) {
        return Err(BadAddress { address, write: true });
    }
    if let Some(shadow) = Shadow::live() {
        shadow.stored(address, from.len() as u64);
    }
    if sharing::is_live() {
        sharing::kernel_touches(address, from.len() as u64, true);
    }
    if store(address, from) { Ok(()) } else { write_code(address, from) }
}

#[inline]
fn store(address: u64, from: &[u8]) -> bool {
    match from.len() {
        1 => store!("mov [{address}], {value:l}", address, from),
        2 => store!("mov [{address}], {value:x}", address, from),
        4 => store!("mov [{address}], {value:e}", address, from),
        8 => store!("mov [{address}], {value}", address, from),
        // SAFETY: the destination lies in the windows that hold driver memory only; where it may not be written, the
        // fault ends in the fix-up.
        _ => unsafe { dirql_ram_copy(address as *mut u8, from.as_ptr(), from.len()) == 0 },
    }
}

/// Fills driver memory.
#[inline]
pub(crate) fn fill(address: u64, bytes: u64, fill: Fill) -> Result<(), BadAddress> {
    // Its last store ends where the bytes do, and holds what a multiple of eight begins with.
    let whole = if fill.is_one_byte() { bytes } else { bytes & !7 };
    fill_whole(address, whole, fill)?;
    let rest = address + whole;
    if whole < bytes { write(rest, &fill.from(rest)[..usize_of(bytes - whole)]) } else { Ok(()) }
}

/// As [`fill`], of so many bytes that what they hold ends with a whole one of the fill.
#[inline]
fn fill_whole(address: u64, bytes: u64, fill: Fill) -> Result<(), BadAddress> {
    let pattern = [fill.from(address); 2];
    let within = is_plain(address) && bytes <= PAGE && is_plain(address + bytes);
    gone::carry_out_at(address);
    let plain = bytes >= 16 && (within || is_driver_memory(address, bytes) && nobody_asks());
    // SAFETY: as in `store`; the pattern is an array of ours of 16 bytes.
    if plain && unsafe { dirql_ram_fill(address as *mut u8, pattern.as_ptr().cast(), usize_of(bytes)) } == 0 {
        return Ok(());
    }
    fill_by_chunks(address, bytes, fill)
}

#[cold]
fn fill_by_chunks(address: u64, bytes: u64, fill: Fill) -> Result<(), BadAddress> {
    let chunk = [fill.from(address); 32];
    let chunk = chunk.as_flattened();
    let mut at = address;
    while at < address + bytes {
        let length = (address + bytes - at).min(chunk.len() as u64);
        write(at, &chunk[..usize_of(length)])?;
        at += length;
    }
    Ok(())
}

/// How far from the beginning of [`SYSTEM`] a word may begin that is accessed without further checks: 0 while accesses are observed.
/// Most of what the kernel accesses is there, and this is one comparison for all checks.
pub(crate) static PLAIN: AtomicU64 = AtomicU64::new(0);
/// Why accesses are observed: [`CHECKED`], [`NOTED`], [`REPORTED`].
static ASKING: AtomicU64 = AtomicU64::new(0);
const CHECKED: u64 = 1;
const NOTED: u64 = 2;
const REPORTED: u64 = 4;

/// The machine that begins now is checked, or not.
pub(crate) fn set_checked(checked: bool) {
    set_asking(CHECKED, checked);
}

/// From now on it is noted who touches what, or not any more.
pub(crate) fn set_noted(noted: bool) {
    set_asking(NOTED, noted);
}

/// From now on accesses are reported to the guest, or not any more.
pub(crate) fn set_reported(reported: bool) {
    set_asking(REPORTED, reported);
}

fn set_asking(who: u64, asks: bool) {
    let others = ASKING.load(Relaxed) & !who;
    let asking = if asks { others | who } else { others };
    ASKING.store(asking, Relaxed);
    PLAIN.store(if asking == 0 { SYSTEM.size - 7 } else { 0 }, Relaxed);
}

#[inline]
pub(crate) fn is_plain(address: u64) -> bool {
    address.wrapping_sub(SYSTEM.base) < PLAIN.load(Relaxed)
}

/// The same of memory of applications.
#[inline]
pub(crate) fn is_plain_user(address: u64) -> bool {
    const { assert!(USER.size == SYSTEM.size, "one word says it of both") };
    address.wrapping_sub(USER.base) < PLAIN.load(Relaxed)
}

/// Loads a word of 1, 2, 4 or 8 bytes that lies where most do. False says nothing: [`read`] does.
#[inline]
pub(crate) fn read_plain(address: u64, into: &mut [u8]) -> bool {
    is_plain(address)
        && match into.len() {
            1 => load!("movzx {value:e}, byte ptr [{address}]", address, into),
            2 => load!("movzx {value:e}, word ptr [{address}]", address, into),
            4 => load!("mov {value:e}, [{address}]", address, into),
            8 => load!("mov {value}, [{address}]", address, into),
            _ => false,
        }
}

/// Stores a word of 1, 2, 4 or 8 bytes that lies where most do. False says nothing: [`write`] does.
#[inline]
pub(crate) fn write_plain(address: u64, from: &[u8]) -> bool {
    is_plain(address)
        && match from.len() {
            1 => store!("mov [{address}], {value:l}", address, from),
            2 => store!("mov [{address}], {value:x}", address, from),
            4 => store!("mov [{address}], {value:e}", address, from),
            8 => store!("mov [{address}], {value}", address, from),
            _ => false,
        }
}

/// Whether accesses are not observed.
#[inline]
pub(crate) fn nobody_asks() -> bool {
    PLAIN.load(Relaxed) != 0
}

/// Copies `bytes` bytes of driver memory to another place of it, neither of them an image's. False: a part may have been copied.
#[inline]
pub(crate) fn copy_plain(to: u64, from: u64, bytes: u64) -> bool {
    let is_there = |at: u64| is_plain(at) || is_plain_user(at);
    let is_inside = |at: u64| is_there(at) && (bytes <= PAGE || is_driver_memory(at, bytes));
    if !is_inside(to) || !is_inside(from) {
        return false;
    }
    if bytes == 4 {
        view::store::<4>(to, view::load::<4>(from));
        return !take_fault();
    }
    // SAFETY: both ranges lie in the windows that hold driver memory, or begin there and end in the page behind, where nothing of ours
    // is; a fault ends in the fix-up.
    unsafe { dirql_ram_copy(to as *mut u8, from as *const u8, usize_of(bytes)) == 0 }
}

/// Whether a type is a word to [`read_plain`] and [`write_plain`].
#[inline]
pub(crate) const fn is_word<T>() -> bool {
    matches!(size_of::<T>(), 1 | 2 | 4 | 8)
}

/// Whether `bytes` bytes (16 at least) of driver memory all are `value`.
#[inline]
pub(crate) fn is_filled(address: u64, bytes: u64, value: u8) -> Result<bool, BadAddress> {
    assert!(bytes >= 16, "it looks at 16 bytes at once");
    let pattern = [value; 16];
    let within = is_plain(address) && bytes <= PAGE && is_plain(address + bytes);
    gone::carry_out_at(address);
    if !within && !is_driver_memory(address, bytes) {
        return Err(BadAddress { address, write: false });
    }
    // Stacks are looked at page by page.
    let is_long = bytes >= 128 && std::arch::is_x86_feature_detected!("avx2");
    let same = if is_long { dirql_ram_same_avx2 } else { dirql_ram_same };
    // SAFETY: the pattern is an array of ours of 16 bytes; a page that is not mapped ends in the fix-up.
    match unsafe { same(pattern.as_ptr(), address as *const u8, usize_of(bytes)) } {
        0 => Ok(true),
        2 => Ok(false),
        _ => Err(BadAddress { address, write: false }),
    }
}

/// A store that faulted: the page may hold code that has been translated, and is written to all the same.
#[cold]
fn write_code(address: u64, from: &[u8]) -> Result<(), BadAddress> {
    let last = address + (from.len() as u64).saturating_sub(1);
    let translator = &crate::machine::state().translator;
    let again = (translator.written(address) | translator.written(last)) && store(address, from);
    if again { Ok(()) } else { Err(BadAddress { address, write: true }) }
}

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on x86-64")]
pub(crate) const fn usize_of(n: u64) -> usize {
    n as usize
}
