//! The constant addresses of a machine: one window for each kind of memory.
//!
//! Each window starts at a multiple of 4 GiB, so "is it ours, and what is it" is a look at the upper half of an
//! address. The range 1001'0000'0000 – 2AAA'0000'0000 is free of the host's own mappings under every layout of address
//! randomisation. User addresses lie below all of the kernel's.

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

/// User-mode addresses of the machine's processes.
pub const USER: Window = Window { base: 0x1010_0000_0000, size: 64 * GIB };
/// Driver images and the pseudo-images whose exports are the kernel's. Nothing here is ever executable.
pub const IMAGES: Window = Window { base: 0x2000_0000_0000, size: GIB };
/// Translated code, in the same 4 GiB as the images: a 32-bit displacement reaches both ways.
pub(crate) const CACHE: Window = Window { base: 0x2000_6000_0000, size: GIB / 4 };
/// One page of scratch memory for translated code.
pub(crate) const SCRATCH: Window = Window { base: 0x2000_7000_0000, size: 0x1000 };
/// Original address → translated address: 8 bytes (jump entry, return entry) for each byte of the images' 4 GiB.
pub(crate) const TABLE: Window = Window { base: 0x2001_0000_0000, size: 32 * GIB };
/// Device memory as drivers map it. Never accessible: every access is a call-out.
pub const DEVICE: Window = Window { base: 0x2010_0000_0000, size: 4 * GIB };
/// System memory of the machine: pool, driver stacks, processor blocks, system mappings of MDLs.
pub const SYSTEM: Window = Window { base: 0x2020_0000_0000, size: 64 * GIB };
/// The heap of the machine's Rust side: kernel, device and rule state.
pub(crate) const HEAP: Window = Window { base: 0x2040_0000_0000, size: 16 * GIB };
/// Host stacks of strands.
pub(crate) const STACKS: Window = Window { base: 0x2050_0000_0000, size: 16 * GIB };
/// `KUSER_SHARED_DATA`, where every Windows puts it and no Linux process can map it: reads are call-outs.
pub const SHARED_DATA: Window = Window { base: 0xFFFF_F780_0000_0000, size: 0x1000 };

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;
