//! Memory descriptor lists, memory ranges, kinds of memory.
//!
//! Pages: *MDL*, *MEMORY_CACHING_TYPE*, *MmGetPhysicalMemoryRanges*; `wdm.h`. An MDL's page frame numbers follow it.

use crate::field::layouts;
use crate::{DriverPtr, KPROCESS};

layouts! {
    /// A memory descriptor list; `Size` counts it and its page frame numbers.
    MDL [size 0x30, align 8] {
        0x00 Next: DriverPtr<MDL>,
        0x08 Size: i16,
        0x0a MdlFlags: i16,
        0x10 Process: DriverPtr<KPROCESS>,
        0x18 MappedSystemVa: DriverPtr<()>,
        0x20 StartVa: DriverPtr<()>,
        0x28 ByteCount: u32,
        0x2c ByteOffset: u32,
    }

    /// A run of physical memory; zero ends a list of them.
    PHYSICAL_MEMORY_RANGE [size 0x10, align 8] {
        0x00 BaseAddress: u64,
        0x08 NumberOfBytes: i64,
    }

    /// A page of a scattered read or gathered write.
    FILE_SEGMENT_ELEMENT [size 0x8, align 8] {
        0x00 Buffer: DriverPtr<()>,
        0x00 Alignment: u64,
    }
}
