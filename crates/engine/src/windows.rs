//! The addresses of a machine: one window for each kind of memory.
//!
//! What driver code may see lies at constant addresses. What is the host's (heap, page table, host stacks, and the mappings by which
//! code cache and dispatch table are written) lies at another place in each process ([`Hidden`]): a driver's stray or hostile access
//! cannot be aimed at it, and one that misses ends the run.
//!
//! Each window starts at a multiple of 4 GiB, so "is it ours, and what is it" is a look at the upper half of an
//! address; but for the scratch page, which lies low, above a fixed program and its heap. The range 1001'0000'0000 –
//! 2AAA'0000'0000 is free of the host's own mappings under every layout of address randomisation. User addresses lie below all of the kernel's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A range of addresses of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

impl Window {
    /// Whether `address` lies inside.
    #[must_use]
    pub const fn contains(self, address: u64) -> bool {
        address.wrapping_sub(self.base) < self.size
    }

    /// The first address behind it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.base + self.size
    }
}

const GIB: u64 = 1 << 30;

/// The windows that hold memory of drivers and applications: what the checked translation has a shadow of.
pub(crate) const DRIVER_MEMORY: [Window; 3] = [SYSTEM, IMAGES, USER];

/// User-mode addresses of the machine's processes.
pub const USER: Window = Window { base: 0x1010_0000_0000, size: 64 * GIB };
/// Device memory as applications have it mapped: below all of the kernel's, above their own. As [`DEVICE`], never accessible.
pub const USER_DEVICE: Window = Window { base: 0x1030_0000_0000, size: 4 * GIB };
/// Driver images and the pseudo-images whose exports are the kernel's. Nothing here is ever executable.
pub const IMAGES: Window = Window { base: 0x2000_0000_0000, size: GIB };
/// Translated code, in the same 4 GiB as the images: a 32-bit displacement reaches both ways.
pub(crate) const CACHE: Window = Window { base: 0x2000_6000_0000, size: GIB / 4 };
/// One page of scratch memory for translated code, below 2 GiB: where an operand is a plain address, a load of what was stored
/// just before costs Intel's processors nothing, and 5 cycles where it is relative to the instruction. AMD's have [`SCRATCH_READ`].
pub(crate) const SCRATCH: Window = Window { base: 0x7000_0000, size: 0x1000 };
/// The scratch page once more, never writable, where a displacement of translated code reaches it: what AMD's processors load
/// for nothing after a store.
pub(crate) const SCRATCH_READ: Window = Window { base: 0x2000_5F00_0000, size: SCRATCH.size };
/// Original address → translated address: 8 bytes (jump entry, return entry) for each byte of the images' 4 GiB.
pub(crate) const TABLE: Window = Window { base: 0x2000_7000_0000, size: 32 * GIB };
/// Device memory as drivers map it. Never accessible: every access is a call-out.
pub const DEVICE: Window = Window { base: 0x2010_0000_0000, size: 4 * GIB };
/// System memory of the machine: pool, driver stacks, processor blocks, system mappings of MDLs.
pub const SYSTEM: Window = Window { base: 0x2020_0000_0000, size: 64 * GIB };
/// The heap of the machine's Rust side: kernel, device and rule state.
pub(crate) const HEAP: Hidden = Hidden { offset: 0, size: 16 * GIB };
/// The machine's page table.
pub(crate) const PAGES: Hidden = Hidden { offset: 32 * GIB, size: GIB / 4 };
/// Host stacks of strands.
pub(crate) const STACKS: Hidden = Hidden { offset: 48 * GIB, size: 32 * GIB };
/// [`CACHE`] once more, as it is written.
pub(crate) const CACHE_WRITTEN: Hidden = Hidden { offset: 96 * GIB, size: CACHE.size };
/// The part of [`TABLE`] that has entries, as it is written.
pub(crate) const TABLE_WRITTEN: Hidden = Hidden { offset: 112 * GIB, size: 8 * IMAGES.size };
/// All of them, with room between.
const HIDDEN: u64 = 128 * GIB;
/// Where they may lie. A checked translation's test of an address here looks [`MARKS`] above it, where nothing is.
const HIDING_PLACES: Window = Window { base: 0x2430_0000_0000, size: 0x05C0_0000_0000 };

/// A window that lies elsewhere in each process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hidden {
    /// From where all of them begin.
    offset: u64,
    pub(crate) size: u64,
}

/// Where the hidden windows begin: nowhere, until [`hide`] has said so.
static HIDDEN_BASE: AtomicU64 = AtomicU64::new(HIDING_PLACES.base);

impl Hidden {
    /// First address.
    #[inline]
    pub(crate) fn base(self) -> u64 {
        HIDDEN_BASE.load(Relaxed) + self.offset
    }

    /// Whether `address` lies inside.
    #[inline]
    pub(crate) fn contains(self, address: u64) -> bool {
        address.wrapping_sub(self.base()) < self.size
    }

    /// The first address behind it.
    #[inline]
    pub(crate) fn end(self) -> u64 {
        self.base() + self.size
    }

    /// The window, as it lies in this process.
    #[inline]
    pub(crate) fn window(self) -> Window {
        Window { base: self.base(), size: self.size }
    }
}

/// Places the hidden windows, by a random number: once in a process, before the first machine.
pub(crate) fn hide(random: u64) {
    const STEP: u64 = 2 << 20;
    let places = (HIDING_PLACES.size - HIDDEN) / STEP;
    HIDDEN_BASE.store(HIDING_PLACES.base + random % places * STEP, Relaxed);
}
/// Distance from a byte of driver memory to its mark (see `shadow`). It is chosen so that what lies this far from
/// anything of ours, and of the host's, is not mapped: a check of a stray address faults instead of passing. Neither
/// distance is a multiple of a page: a processor takes a load whose address ends as that of a store just before it for
/// a load of what was stored, and waits (the checked code of calls took 62 times the native's, and takes 6).
pub(crate) const MARKS: u64 = 0x0A00_0000_0740;
/// Distance from a byte of driver memory to the byte that says whether it was ever stored.
pub(crate) const STORED: u64 = 0x0060_0000_0B40;
/// `KUSER_SHARED_DATA`, where every Windows puts it and no Linux process can map it: reads are call-outs.
pub const SHARED_DATA: Window = Window { base: 0xFFFF_F780_0000_0000, size: 0x1000 };

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;

/// Whether an access there is a call-out: device memory, wherever it is mapped, and `KUSER_SHARED_DATA`.
#[must_use]
pub const fn is_call_out(address: u64) -> bool {
    DEVICE.contains(address) || USER_DEVICE.contains(address) || SHARED_DATA.contains(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is mapped in a checked machine's process, as far as this file says.
    fn mapped() -> Vec<Window> {
        let shadow = |distance: u64| {
            DRIVER_MEMORY.into_iter().map(move |w| Window { base: w.base + distance, size: w.size })
        };
        let ours =
            [USER, USER_DEVICE, IMAGES, CACHE, SCRATCH, SCRATCH_READ, TABLE, DEVICE, SYSTEM, HIDING_PLACES];
        ours.into_iter().chain(shadow(MARKS)).chain(shadow(STORED)).collect()
    }

    fn overlap(a: Window, b: Window) -> bool {
        a.base < b.end() && b.base < a.end()
    }

    #[test]
    fn windows_and_shadows_do_not_overlap_and_lie_in_the_free_range() {
        let all = mapped();
        for (index, window) in all.iter().enumerate() {
            if *window == SCRATCH {
                // Above where a fixed program and its heap may lie, below what MAP_32BIT and sign extension reach.
                assert!(window.base >= 0x6000_0000 && window.end() < 0x8000_0000);
                assert!(all[index + 1..].iter().all(|other| !overlap(*window, *other)));
                continue;
            }
            assert!(window.base >= 0x1001_0000_0000 && window.end() <= 0x2AAA_0000_0000, "{window:x?}");
            assert!(all[index + 1..].iter().all(|other| !overlap(*window, *other)), "{window:x?}");
        }
    }

    #[test]
    fn hidden_windows_keep_apart_and_to_their_places() {
        let all = [HEAP, PAGES, STACKS, CACHE_WRITTEN, TABLE_WRITTEN];
        for random in [0, 1, u64::MAX, 0x1234_5678_9ABC_DEF0] {
            hide(random);
            for (index, window) in all.iter().enumerate() {
                let window = window.window();
                assert!(window.base >= HIDING_PLACES.base && window.end() <= HIDING_PLACES.end());
                assert!(all[index + 1..].iter().all(|other| !overlap(window, other.window())));
            }
        }
    }

    #[test]
    fn nothing_lies_in_the_page_behind_what_a_view_may_leave() {
        for window in [USER, SYSTEM] {
            let behind = Window { base: window.end(), size: PAGE };
            assert!(mapped().iter().all(|other| !overlap(behind, *other)), "{window:x?}");
        }
    }

    #[test]
    fn a_check_of_our_own_memory_reads_nothing_that_is_mapped() {
        // Where the host maps things upwards with an unlimited stack; and its program, libraries and stack.
        let hosts = [(0x2AAA_0000_0000, 0x2CAA_0000_0000), (0x5555_0000_0000, 0x8000_0000_0000)];
        let hosts = hosts.map(|(base, end)| Window { base, size: end - base });
        for own in mapped().into_iter().filter(|w| !DRIVER_MEMORY.contains(w)) {
            let checked = Window { base: own.base + MARKS, size: own.size };
            assert!(mapped().iter().chain(&hosts).all(|other| !overlap(checked, *other)), "{own:x?}");
        }
    }
}
