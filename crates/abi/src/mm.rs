//! Memory descriptor lists, memory ranges, kinds of memory.
//!
//! Pages: *MDL*, *MEMORY_CACHING_TYPE*, *MmGetPhysicalMemoryRanges*; `wdm.h`. An MDL's page frame numbers follow it.

use crate::constant::constants;
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

constants! {
    u64 {
        // Pages of memory.
        PAGE_SIZE = 0x1000;
        PAGE_SHIFT = 0xc;
    }
    u16 {
        // `MDL::MdlFlags`.
        MDL_MAPPED_TO_SYSTEM_VA = 0x1;
        MDL_PAGES_LOCKED = 0x2;
        MDL_SOURCE_IS_NONPAGED_POOL = 0x4;
        MDL_ALLOCATED_FIXED_SIZE = 0x8;
        MDL_PARTIAL = 0x10;
        MDL_PARTIAL_HAS_BEEN_MAPPED = 0x20;
        MDL_IO_PAGE_READ = 0x40;
        MDL_WRITE_OPERATION = 0x80;
        MDL_PARENT_MAPPED_SYSTEM_VA = 0x100;
        MDL_FREE_EXTRA_PTES = 0x200;
        MDL_DESCRIBES_AWE = 0x400;
        MDL_IO_SPACE = 0x800;
        MDL_NETWORK_HEADER = 0x1000;
        MDL_MAPPING_CAN_FAIL = 0x2000;
        MDL_ALLOCATED_MUST_SUCCEED = 0x4000;
        MDL_INTERNAL = 0x8000;
    }
    u16, not_in_mingw "mingw's wdm.h has the bit's older name only" {
        /// The bit of `MDL_ALLOCATED_MUST_SUCCEED`, since Windows 8.
        MDL_PAGE_CONTENTS_INVARIANT = 0x4000;
    }
    u32 {
        // How memory is cached.
        MmNonCached = 0;
        MmCached = 1;
        MmWriteCombined = 2;
        MmHardwareCoherentCached = 3;
        MmNonCachedUnordered = 4;
        MmUSWCCached = 5;
        MmMaximumCacheType = 6;
        MmNotMapped = 0xffff_ffff;
    }
    u32 {
        // What `MmProbeAndLockPages` locks for.
        IoReadAccess = 0;
        IoWriteAccess = 1;
        IoModifyAccess = 2;
    }
    u32 {
        // Page priorities; the upper bits forbid writing or executing.
        LowPagePriority = 0;
        NormalPagePriority = 16;
        HighPagePriority = 32;
    }
    u32, not_in_mingw "newer than mingw's kit" {
        MdlMappingNoWrite = 0x8000_0000;
        MdlMappingNoExecute = 0x4000_0000;
        MdlMappingWithGuardPtes = 0x2000_0000;
    }
    u32 {
        // For `MmAllocatePagesForMdlEx`.
        MM_DONT_ZERO_ALLOCATION = 0x1;
        MM_ALLOCATE_FROM_LOCAL_NODE_ONLY = 0x2;
        MM_ALLOCATE_FULLY_REQUIRED = 0x4;
        MM_ALLOCATE_NO_WAIT = 0x8;
        MM_ALLOCATE_PREFER_CONTIGUOUS = 0x10;
        MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS = 0x20;
    }
    u32 {
        // For `MmMapIoSpaceEx` and sections.
        PAGE_NOACCESS = 0x1;
        PAGE_READONLY = 0x2;
        PAGE_READWRITE = 0x4;
        PAGE_WRITECOPY = 0x8;
        PAGE_EXECUTE = 0x10;
        PAGE_EXECUTE_READ = 0x20;
        PAGE_EXECUTE_READWRITE = 0x40;
        PAGE_EXECUTE_WRITECOPY = 0x80;
        PAGE_GUARD = 0x100;
        PAGE_NOCACHE = 0x200;
        PAGE_WRITECOMBINE = 0x400;
        MEM_COMMIT = 0x1000;
        MEM_RESERVE = 0x2000;
        MEM_RELEASE = 0x8000;
        MEM_DECOMMIT = 0x4000;
        MEM_FREE = 0x1_0000;
        MEM_PRIVATE = 0x2_0000;
        MEM_MAPPED = 0x4_0000;
        MEM_RESET = 0x8_0000;
        MEM_TOP_DOWN = 0x10_0000;
        MEM_LARGE_PAGES = 0x2000_0000;
        SEC_RESERVE = 0x0400_0000;
        SEC_COMMIT = 0x0800_0000;
        SEC_LARGE_PAGES = 0x8000_0000;
        SECTION_QUERY = 0x1;
        SECTION_MAP_WRITE = 0x2;
        SECTION_MAP_READ = 0x4;
        SECTION_MAP_EXECUTE = 0x8;
        SECTION_EXTEND_SIZE = 0x10;
        SECTION_ALL_ACCESS = 0x000f_001f;
        ViewShare = 0x1;
        ViewUnmap = 0x2;
    }
    u32, not_in_mingw "of winnt.h, not of its kit" {
        // Attributes of sections: pages *CreateFileMapping* and *ZwCreateSection*.
        SEC_BASED = 0x20_0000;
        SEC_NO_CHANGE = 0x40_0000;
        SEC_FILE = 0x80_0000;
        SEC_IMAGE = 0x100_0000;
        SEC_NOCACHE = 0x1000_0000;
        SEC_WRITECOMBINE = 0x4000_0000;
    }
    u32 {
        // `MmQuerySystemSize`.
        MmSmallSystem = 0;
        MmMediumSystem = 1;
        MmLargeSystem = 2;
    }
}
