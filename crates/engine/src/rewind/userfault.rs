//! Finding written pages by the kernel's account: `userfaultfd` with asynchronous write protection, read by `PAGEMAP_SCAN`
//! (Linux 6.7; without privileges). No fault reaches us, no mapping is split, and the kernel's own writes count too.
//!
//! The account is of what was written since a page was last protected. Pages are not protected again at each snapshot: one
//! too many that is compared costs less than one more first write, until too many are.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Tracker;
use super::copies::{Copies, PageId, id_of};
use crate::heap;
use crate::machine::state;
use crate::memory::PHYSICAL;
use crate::page_table::{GRANULE, granule_base};
use crate::strand;
use crate::windows::{HEAP, Hidden, IMAGES, PAGE, PAGES, STACKS, SYSTEM, USER, Window};

// From <linux/userfaultfd.h> and <linux/fs.h>.
const UFFD_API: u64 = 0xAA;
const UFFD_USER_MODE_ONLY: i32 = 1;
const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1;
const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 2;
const UFFDIO_API: u64 = 0xC018_AA3F;
const UFFDIO_REGISTER: u64 = 0xC020_AA00;
const UFFDIO_UNREGISTER: u64 = 0x8010_AA01;
const PAGEMAP_SCAN: u64 = 0xC060_6610;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PM_SCAN_WP_MATCHING: u64 = 1;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Which pages a scan is after.
#[derive(Clone, Copy)]
enum Wanted {
    /// Written since they were protected, or never protected and there. Not those that read as zero only.
    Written,
    /// There at all.
    Present,
}

/// The back end.
pub(super) struct Userfault {
    descriptor: OwnedFd,
    pagemap: File,
    regions: RefCell<Vec<Region>>,
}

/// Regions that one call of the kernel's answers.
const REGIONS: usize = 1024;
/// With so many pages compared in vain, it is worth while to protect anew.
const IN_VAIN: usize = 256;

impl Userfault {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the call makes a descriptor, which is ours.
        let descriptor = unsafe {
            let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY;
            let descriptor = checked(libc::syscall(libc::SYS_userfaultfd, flags))?;
            OwnedFd::from_raw_fd(i32::try_from(descriptor).expect("descriptors are small"))
        };
        let features = UFFD_FEATURE_PAGEFAULT_FLAG_WP
            | UFFD_FEATURE_WP_HUGETLBFS_SHMEM
            | UFFD_FEATURE_WP_UNPOPULATED
            | UFFD_FEATURE_WP_ASYNC;
        let mut api = Api { api: UFFD_API, features, ioctls: 0 };
        // SAFETY: the structure is the one this request takes.
        unsafe { request(&descriptor, UFFDIO_API, &raw mut api)? };
        let this =
            Self { descriptor, pagemap: File::open("/proc/self/pagemap")?, regions: RefCell::default() };
        this.regions.borrow_mut().resize(REGIONS, Region::default());
        // A kernel without the scan says so here, and not in the middle of a run.
        this.scan(Window { base: HEAP.base(), size: PAGE }, Wanted::Present, 0, |_| ())?;
        Ok(this)
    }

    fn register(&self, window: Window) -> io::Result<()> {
        let mut register =
            Register { start: window.base, length: window.size, mode: UFFDIO_REGISTER_MODE_WP, ioctls: 0 };
        // SAFETY: as in `new`; it changes nothing but the kernel's account.
        unsafe { request(&self.descriptor, UFFDIO_REGISTER, &raw mut register) }
    }

    /// Tells `each` the ranges of wanted pages.
    fn scan(
        &self,
        window: Window,
        wanted: Wanted,
        flags: u64,
        mut each: impl FnMut(Window),
    ) -> io::Result<()> {
        let mut regions = self.regions.borrow_mut();
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags,
            start: window.base,
            end: window.end(),
            vec: regions.as_mut_ptr() as u64,
            vec_len: REGIONS as u64,
            return_mask: PAGE_IS_PRESENT,
            ..Scan::default()
        };
        match wanted {
            Wanted::Written => {
                scan.category_mask = PAGE_IS_WRITTEN | PAGE_IS_PFNZERO;
                scan.category_inverted = PAGE_IS_PFNZERO;
            }
            Wanted::Present => scan.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        }
        while scan.start < scan.end {
            // SAFETY: the structure is the one this request takes, and names a list of ours with its length.
            let found = unsafe {
                checked(libc::ioctl(self.pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan).into())?
            };
            for region in &regions[..usize::try_from(found).expect("at most REGIONS")] {
                each(Window { base: region.start, size: region.end - region.start });
            }
            scan.start = scan.walk_end;
        }
        Ok(())
    }

    /// Every page in use, and what it holds.
    fn copy_all(&self, copies: &Copies) -> io::Result<()> {
        let make = |id: PageId| copies.make(id, 1);
        for window in used().filter(|window| is_anonymous(window.base)) {
            self.scan(window, Wanted::Present, 0, |found| ids(found).for_each(make))?;
        }
        let file = state().memory.file.as_raw_fd();
        let physical = i64::try_from(PHYSICAL).expect("it is less than that");
        let mut at = 0;
        while at < physical {
            // SAFETY: plain calls on our own descriptor; no one reads by its position.
            let (data, hole) = unsafe {
                let data = libc::lseek(file, at, libc::SEEK_DATA);
                if data < 0 {
                    break;
                }
                (data, libc::lseek(file, data, libc::SEEK_HOLE))
            };
            let page = |offset: i64| u32::try_from(offset.cast_unsigned() / PAGE).expect("frames are few");
            (page(data)..page(hole)).for_each(make);
            at = hole;
        }
        Ok(())
    }

    fn protect_all(&self) -> io::Result<()> {
        used().try_for_each(|window| self.scan(window, Wanted::Written, PM_SCAN_WP_MATCHING, |_| ()))
    }

    fn note(&self, copies: &Copies, window: Window) {
        let written = copies.written.borrow();
        let each = |found| {
            ids(found).for_each(|id| {
                written.insert(id);
            })
        };
        self.scan(window, Wanted::Written, 0, each).expect("the kernel has answered this before");
    }
}

impl Tracker for Userfault {
    fn begin(&self, copies: &Copies) -> io::Result<()> {
        for window in
            [HEAP.window(), PAGES.window(), USER, IMAGES, SYSTEM].into_iter().chain(state().shadow.tables())
        {
            self.register(window)?;
        }
        for stack in strand::stacks(state().stacks.get()) {
            self.register(stack)?;
        }
        self.copy_all(copies)?;
        self.protect_all()
    }

    fn collect(&self, copies: &Copies) {
        used().for_each(|window| self.note(copies, window));
    }

    fn renew(&self, copies: &Copies, changed: usize) {
        let mut written = copies.written.borrow_mut();
        if written.as_slice().len() > 2 * changed + IN_VAIN {
            self.protect_all().expect("the kernel has done this before");
        }
        written.clear();
    }

    fn rewound(&self, copies: &Copies) {
        copies.written.borrow_mut().clear();
    }

    fn mapping_goes(&self, copies: &Copies, address: u64, length: u64) {
        // What was written goes by the frame; the account goes with the mapping.
        self.note(copies, Window { base: address, size: length });
    }

    fn mapping_comes(&self, address: u64, length: u64) {
        self.register(Window { base: address, size: length }).expect("the kernel has done this before");
    }

    fn end(&self) {
        let hidden = [HEAP, PAGES, STACKS].map(Hidden::window);
        for window in hidden.into_iter().chain([USER, IMAGES, SYSTEM]).chain(state().shadow.tables()) {
            let mut range = [window.base, window.size];
            // SAFETY: as in `new`. What was never registered is no matter.
            let _ = unsafe { request(&self.descriptor, UFFDIO_UNREGISTER, range.as_mut_ptr()) };
        }
    }
}

/// All that may be in use, in as few ranges as are tight.
fn used() -> impl Iterator<Item = Window> {
    let mut granules = state().memory.granules.as_slice().to_vec();
    granules.sort_unstable();
    let mut drivers: Vec<Window> = Vec::new();
    let mut table: Vec<Window> = Vec::new();
    for granule in granules.into_iter().map(u64::from) {
        add(&mut drivers, Window { base: granule_base(granule), size: GRANULE });
        add(&mut table, Window { base: PAGES.base() + granule * PAGE, size: PAGE });
    }
    let heap = Window { base: HEAP.base(), size: heap::end() - HEAP.base() };
    let shadow = drivers.clone().into_iter().flat_map(|memory| state().shadow.of(memory));
    let shadow = shadow.collect::<Vec<_>>();
    std::iter::once(heap)
        .chain(strand::stacks(state().strands.stacks()))
        .chain(table)
        .chain(drivers)
        .chain(shadow)
}

fn add(windows: &mut Vec<Window>, window: Window) {
    match windows.last_mut() {
        Some(last) if last.end() == window.base => last.size += window.size,
        _ => windows.push(window),
    }
}

fn is_anonymous(address: u64) -> bool {
    [HEAP, STACKS, PAGES]
        .map(Hidden::window)
        .into_iter()
        .chain(state().shadow.tables())
        .any(|window| window.contains(address))
}

fn ids(window: Window) -> impl Iterator<Item = PageId> {
    let pages = (window.base..window.end()).step_by(crate::memory::usize_of(PAGE));
    pages.filter_map(id_of)
}

fn checked(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
/// `argument` points to what the request takes.
unsafe fn request<T>(descriptor: &OwnedFd, request: u64, argument: *mut T) -> io::Result<()> {
    // SAFETY: the caller's promise.
    checked(unsafe { libc::ioctl(descriptor.as_raw_fd(), request, argument) }.into()).map(drop)
}
