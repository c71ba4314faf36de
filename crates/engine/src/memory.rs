//! The machine's memory: physical pages in one file, mapped into the windows; and the accessors through which the
//! kernel reaches memory that a driver named.
//!
//! Physical memory is a sparse `memfd` in which a page's offset is its physical address, so one page can appear at
//! several virtual addresses (an MDL's system mapping of a user buffer). No page is ever executable for the host;
//! which ones a driver may execute is remembered here and asked by the translator.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::windows::{IMAGES, PAGE, SYSTEM, USER, Window};

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

/// The machine's memory.
pub(crate) struct Memory {
    file: OwnedFd,
    executable: RefCell<BTreeSet<u64>>,
    /// Pages that are executable and writable.
    writable_code: RefCell<BTreeSet<u64>>,
}

impl Memory {
    pub(crate) fn new() -> std::io::Result<Self> {
        let file = rustix::fs::memfd_create("dirql-ram", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, PHYSICAL)?;
        Ok(Self { file, executable: RefCell::default(), writable_code: RefCell::default() })
    }

    /// Maps `length` bytes of physical memory at `physical` to `address`. All are multiples of a page.
    pub(crate) fn map(&self, address: u64, physical: u64, length: u64, protection: Protection) {
        check(address, length);
        assert!(physical.is_multiple_of(PAGE) && physical + length <= PHYSICAL, "no such physical memory");
        // SAFETY: the range lies in a window of the machine, where nothing of the host's is.
        unsafe {
            rustix::mm::mmap(
                address as *mut _,
                usize_of(length),
                host(protection),
                MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE,
                &self.file,
                physical,
            )
        }
        .expect("mapping the machine's memory");
        self.remember(address, length, protection);
    }

    /// Takes the mapping away; accesses fault from now on.
    pub(crate) fn unmap(&self, address: u64, length: u64) {
        check(address, length);
        reserve(Window { base: address, size: length }, ProtFlags::empty(), MapFlags::FIXED)
            .expect("unmapping the machine's memory");
        self.remember(address, length, Protection::NONE);
    }

    /// Changes what may be done with mapped pages.
    pub(crate) fn protect(&self, address: u64, length: u64, protection: Protection) {
        check(address, length);
        let flags = MprotectFlags::from_bits_retain(host(protection).bits());
        // SAFETY: as in `map`.
        unsafe { rustix::mm::mprotect(address as *mut _, usize_of(length), flags) }
            .expect("protecting the machine's memory");
        self.remember(address, length, protection);
    }

    /// Whether driver code may run from the page that holds `address`.
    pub(crate) fn executable(&self, address: u64) -> bool {
        self.executable.borrow().contains(&(address & !(PAGE - 1)))
    }

    /// Whether driver code may both run from the page that holds `address` and write to it.
    pub(crate) fn writable(&self, address: u64) -> bool {
        self.writable_code.borrow().contains(&(address & !(PAGE - 1)))
    }

    fn remember(&self, address: u64, length: u64, protection: Protection) {
        let writable = protection.execute && protection.write;
        for page in (address..address + length).step_by(usize_of(PAGE)) {
            note(&self.executable, page, protection.execute);
            note(&self.writable_code, page, writable);
        }
    }
}

fn note(pages: &RefCell<BTreeSet<u64>>, page: u64, is: bool) {
    if is {
        pages.borrow_mut().insert(page);
    } else if !pages.borrow().is_empty() {
        pages.borrow_mut().remove(&page);
    }
}

fn check(address: u64, length: u64) {
    let inside = [USER, IMAGES, SYSTEM].iter().any(|w| w.contains(address) && length <= w.end() - address);
    assert!(inside && address.is_multiple_of(PAGE) && length.is_multiple_of(PAGE) && length > 0);
}

fn host(protection: Protection) -> ProtFlags {
    let mut flags = ProtFlags::empty();
    flags.set(ProtFlags::READ, protection.read);
    flags.set(ProtFlags::WRITE, protection.write);
    flags
}

/// Reserves a window at its constant address.
pub(crate) fn reserve(window: Window, protection: ProtFlags, how: MapFlags) -> std::io::Result<()> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | how;
    // SAFETY: either the kernel refuses because something is there, or the range is one of the machine's windows.
    unsafe { rustix::mm::mmap_anonymous(window.base as *mut _, usize_of(window.size), protection, flags) }?;
    Ok(())
}

/// Whether the kernel may follow a driver's pointer to here: RAM of the machine, and nothing of ours.
pub(crate) fn is_driver_memory(address: u64, bytes: u64) -> bool {
    [SYSTEM, IMAGES, USER].iter().any(|w| w.contains(address) && bytes <= w.end() - address)
}

std::arch::global_asm!(
    // Copies rdx bytes from rsi to rdi; a fault inside resumes at the fix-up, and the answer is 1.
    ".global dirql_ram_copy",
    ".global dirql_ram_copy_end",
    ".global dirql_ram_copy_fixup",
    "dirql_ram_copy:",
    "cmp rdx, 8",
    "je 3f",
    "cmp rdx, 4",
    "je 2f",
    "mov rcx, rdx",
    "rep movsb",
    "xor eax, eax",
    "ret",
    "2: mov eax, [rsi]",
    "mov [rdi], eax",
    "xor eax, eax",
    "ret",
    "3: mov rax, [rsi]",
    "mov [rdi], rax",
    "xor eax, eax",
    "ret",
    "dirql_ram_copy_end:",
    "dirql_ram_copy_fixup:",
    "mov eax, 1",
    "ret",
);

unsafe extern "sysv64" {
    fn dirql_ram_copy(to: *mut u8, from: *const u8, bytes: usize) -> u32;
    static dirql_ram_copy_end: u8;
    static dirql_ram_copy_fixup: u8;
}

/// If `rip` lies in an accessor: where to go on after a fault there.
pub(crate) fn fixup(rip: u64) -> Option<u64> {
    let start = dirql_ram_copy as *const () as u64;
    let end = (&raw const dirql_ram_copy_end) as u64;
    (start..end).contains(&rip).then_some((&raw const dirql_ram_copy_fixup) as u64)
}

/// Copies driver memory to `into`.
pub(crate) fn read(address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
    let bad = BadAddress { address, write: false };
    if !is_driver_memory(address, into.len() as u64) {
        return Err(bad);
    }
    // SAFETY: the destination is a slice of ours; a source that is not mapped ends in the fix-up.
    match unsafe { dirql_ram_copy(into.as_mut_ptr(), address as *const u8, into.len()) } {
        0 => Ok(()),
        _ => Err(bad),
    }
}

/// Copies `from` to driver memory.
pub(crate) fn write(address: u64, from: &[u8]) -> Result<(), BadAddress> {
    let bad = BadAddress { address, write: true };
    if !is_driver_memory(address, from.len() as u64) {
        return Err(bad);
    }
    // SAFETY: the destination lies in the windows that hold driver memory only; where it may not be written, the
    // fault ends in the fix-up.
    let copy = || unsafe { dirql_ram_copy(address as *mut u8, from.as_ptr(), from.len()) };
    if copy() == 0 {
        return Ok(());
    }
    let last = address + (from.len() as u64).saturating_sub(1);
    let translator = &crate::machine::state().translator;
    if (translator.written(address) | translator.written(last)) && copy() == 0 { Ok(()) } else { Err(bad) }
}

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on x86-64")]
pub(crate) const fn usize_of(n: u64) -> usize {
    n as usize
}
