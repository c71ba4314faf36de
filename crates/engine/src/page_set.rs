//! A set of page numbers that can be added to in a signal handler: bits for asking, a list for walking, nothing allocated
//! after it was made. On the host's side; untouched parts of it cost no memory.

use std::cell::Cell;
use std::io;

use rustix::mm::{MapFlags, ProtFlags};

use crate::memory::usize_of;

/// Anonymous memory of the host's, given back when it is dropped.
pub(crate) struct Reserved {
    base: u64,
    size: u64,
}

impl Reserved {
    /// `size` bytes, all zero.
    pub(crate) fn new(size: u64) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping wherever the host likes.
        let base =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), usize_of(size), protection, flags)? };
        Ok(Self { base: base as u64, size })
    }

    /// The file's first `size` bytes.
    pub(crate) fn of_file(file: &impl std::os::fd::AsFd, size: u64) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: as above; the file stays as long as it is.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), usize_of(size), protection, flags, file, 0)? };
        Ok(Self { base: base as u64, size })
    }

    /// The address of byte `offset`.
    pub(crate) fn at(&self, offset: u64) -> *mut u8 {
        debug_assert!(offset < self.size);
        (self.base + offset) as *mut u8
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and everybody who reaches into it borrows it.
        let _ = unsafe { rustix::mm::munmap(self.base as *mut _, usize_of(self.size)) };
    }
}

/// The set.
pub(crate) struct PageSet {
    bits: Reserved,
    list: Reserved,
    length: Cell<u64>,
    capacity: u64,
}

impl PageSet {
    /// An empty set of numbers below `capacity`.
    pub(crate) fn new(capacity: u64) -> io::Result<Self> {
        let bits = Reserved::new(capacity.div_ceil(8))?;
        Ok(Self { bits, list: Reserved::new(capacity * 4)?, length: Cell::new(0), capacity })
    }

    fn byte(&self, page: u32) -> &Cell<u8> {
        assert!(u64::from(page) < self.capacity, "no such page");
        // SAFETY: inside the mapping, and only this thread looks at it.
        unsafe { &*self.bits.at(u64::from(page / 8)).cast() }
    }

    pub(crate) fn contains(&self, page: u32) -> bool {
        self.byte(page).get() & 1 << (page % 8) != 0
    }

    /// Adds a page; false if it was there.
    pub(crate) fn insert(&self, page: u32) -> bool {
        let byte = self.byte(page);
        let bit = 1 << (page % 8);
        if byte.get() & bit != 0 {
            return false;
        }
        byte.set(byte.get() | bit);
        let length = self.length.get();
        // SAFETY: each page is in the list once, so the list is as long as the capacity at most.
        unsafe { self.list.at(length * 4).cast::<u32>().write(page) };
        self.length.set(length + 1);
        true
    }

    /// Takes a page out, wherever in the list it is.
    pub(crate) fn remove(&mut self, page: u32) {
        if !self.contains(page) {
            return;
        }
        let byte = self.byte(page);
        byte.set(byte.get() & !(1 << (page % 8)));
        let at = self.as_slice().iter().position(|known| *known == page).expect("it is in the list");
        let last = self.length.get() - 1;
        // SAFETY: both are in the list.
        unsafe {
            let list = self.list.at(0).cast::<u32>();
            list.add(at).write(list.add(usize_of(last)).read());
        }
        self.length.set(last);
    }

    /// The pages in the order they came, but for those that were taken out. Pages that come later are not in the slice.
    pub(crate) fn as_slice(&self) -> &[u32] {
        // SAFETY: so many have been written, and what is written stays until `clear`, which takes `&mut`.
        unsafe { std::slice::from_raw_parts(self.list.base as *const u32, usize_of(self.length.get())) }
    }

    /// Takes out all pages but those that `keep` says.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        let all = self.length.replace(0);
        for index in 0..all {
            // SAFETY: it was in the list, and what is written below is never behind it.
            let page = unsafe { self.list.at(index * 4).cast::<u32>().read() };
            let byte = self.byte(page);
            byte.set(byte.get() & !(1 << (page % 8)));
            if keep(page) {
                self.insert(page);
            }
        }
    }

    /// Empties the set.
    pub(crate) fn clear(&mut self) {
        for page in self.as_slice() {
            self.byte(*page).set(0);
        }
        self.length.set(0);
    }
}
