//! Executive support: lookaside lists, sequenced lists, mutexes, resources, work items, zones.
//!
//! Pages: *Using Lookaside Lists*, *ERESOURCE*, *FAST_MUTEX*; `wdm.h`, zones in `ntddk.h`. Before Windows 11 22H2
//! allocation from a lookaside list is inlined into the driver, so its counters are the driver's.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, KEVENT, KSEMAPHORE, KTHREAD, LIST_ENTRY, SINGLE_LIST_ENTRY};

/// A work item of a device. Opaque: `IoSizeofWorkItem` tells how much room one takes.
pub enum IO_WORKITEM {}

/// A timer of `ExAllocateTimer`. Opaque.
pub enum EX_TIMER {}

layouts! {
    /// Entry of a sequenced list; 16-byte aligned.
    SLIST_ENTRY [size 0x10, align 16] {
        0x00 Next: DriverPtr<SLIST_ENTRY>,
    }

    /// Head of a sequenced list; 16-byte aligned. `Alignment` holds the depth (bits 0–15) and the sequence (16–63),
    /// `Region` the first entry's address, whose low four bits are zero and used otherwise.
    SLIST_HEADER [size 0x10, align 16] {
        0x00 Alignment: u64,
        0x08 Region: u64,
    }

    /// What the old lookaside lists consist of.
    GENERAL_LOOKASIDE [size 0x80, align 64] {
        0x00 ListHead: SLIST_HEADER,
        0x00 SingleListHead: SINGLE_LIST_ENTRY,
        0x10 Depth: u16,
        0x12 MaximumDepth: u16,
        0x14 TotalAllocates: u32,
        0x18 AllocateMisses: u32,
        0x18 AllocateHits: u32,
        0x1c TotalFrees: u32,
        0x20 FreeMisses: u32,
        0x20 FreeHits: u32,
        0x24 Type: u32,
        0x28 Tag: u32,
        0x2c Size: u32,
        0x30 AllocateEx: DriverPtr<Code>,
        0x30 Allocate: DriverPtr<Code>,
        0x38 FreeEx: DriverPtr<Code>,
        0x38 Free: DriverPtr<Code>,
        0x40 ListEntry: LIST_ENTRY,
        0x50 LastTotalAllocates: u32,
        0x54 LastAllocateMisses: u32,
        0x54 LastAllocateHits: u32,
        0x58 Future: [u32; 2],
    }

    /// A lookaside list of pageable memory.
    PAGED_LOOKASIDE_LIST [size 0x80, align 64] {
        0x00 L: GENERAL_LOOKASIDE,
    }

    /// A lookaside list of non-pageable memory.
    NPAGED_LOOKASIDE_LIST [size 0x80, align 64] {
        0x00 L: GENERAL_LOOKASIDE,
    }

    /// What `LOOKASIDE_LIST_EX` consists of.
    GENERAL_LOOKASIDE_POOL [size 0x60, align 16] {
        0x00 ListHead: SLIST_HEADER,
        0x00 SingleListHead: SINGLE_LIST_ENTRY,
        0x10 Depth: u16,
        0x12 MaximumDepth: u16,
        0x14 TotalAllocates: u32,
        0x18 AllocateMisses: u32,
        0x18 AllocateHits: u32,
        0x1c TotalFrees: u32,
        0x20 FreeMisses: u32,
        0x20 FreeHits: u32,
        0x24 Type: u32,
        0x28 Tag: u32,
        0x2c Size: u32,
        0x30 AllocateEx: DriverPtr<Code>,
        0x30 Allocate: DriverPtr<Code>,
        0x38 FreeEx: DriverPtr<Code>,
        0x38 Free: DriverPtr<Code>,
        0x40 ListEntry: LIST_ENTRY,
        0x50 LastTotalAllocates: u32,
        0x54 LastAllocateMisses: u32,
        0x54 LastAllocateHits: u32,
        0x58 Future: [u32; 2],
    }

    /// A lookaside list with the driver's own allocator.
    LOOKASIDE_LIST_EX [size 0x60, align 16] {
        0x00 L: GENERAL_LOOKASIDE_POOL,
    }

    /// A fast mutex.
    FAST_MUTEX [size 0x38, align 8] {
        0x00 Count: i32,
        0x08 Owner: DriverPtr<KTHREAD>,
        0x10 Contention: u32,
        0x18 Event: KEVENT,
        0x30 OldIrql: u32,
    }

    /// An owner of a resource.
    OWNER_ENTRY [size 0x10, align 8] {
        0x00 OwnerThread: u64,
        0x08 TableSize: u32,
    }

    /// A reader-writer lock.
    ERESOURCE [size 0x68, align 8] {
        0x00 SystemResourcesList: LIST_ENTRY,
        0x10 OwnerTable: DriverPtr<OWNER_ENTRY>,
        0x18 ActiveCount: i16,
        0x1a Flag: u16,
        0x20 SharedWaiters: DriverPtr<KSEMAPHORE>,
        0x28 ExclusiveWaiters: DriverPtr<KEVENT>,
        0x30 OwnerEntry: OWNER_ENTRY,
        0x40 ActiveEntries: u32,
        0x44 ContentionCount: u32,
        0x48 NumberOfSharedWaiters: u32,
        0x4c NumberOfExclusiveWaiters: u32,
        0x50 Reserved2: DriverPtr<()>,
        0x58 Address: DriverPtr<()>,
        0x58 CreatorBackTraceIndex: u64,
        0x60 SpinLock: u64,
    }

    /// Run-down protection.
    EX_RUNDOWN_REF [size 0x8, align 8] {
        0x00 Count: u64,
        0x00 Ptr: DriverPtr<()>,
    }

    /// A work item of the executive's own.
    WORK_QUEUE_ITEM [size 0x20, align 8] {
        0x00 List: LIST_ENTRY,
        0x10 WorkerRoutine: DriverPtr<Code>,
        0x18 Parameter: DriverPtr<()>,
    }

    /// Head of a zone's segment.
    ZONE_SEGMENT_HEADER [size 0x10, align 8] {
        0x00 SegmentList: SINGLE_LIST_ENTRY,
        0x08 Reserved: DriverPtr<()>,
    }

    /// A zone: blocks of one size, cut from segments.
    ZONE_HEADER [size 0x18, align 8] {
        0x00 FreeList: SINGLE_LIST_ENTRY,
        0x08 SegmentList: SINGLE_LIST_ENTRY,
        0x10 BlockSize: u32,
        0x14 TotalSegmentSize: u32,
    }

    /// For `ExSetTimer`.
    EXT_SET_PARAMETERS [size 0x10, align 8] {
        0x00 Version: u32,
        0x04 Reserved: u32,
        0x08 NoWakeTolerance: i64,
    }

    /// For `ExDeleteTimer`.
    EXT_DELETE_PARAMETERS [size 0x18, align 8] {
        0x00 Version: u32,
        0x04 Reserved: u32,
        0x08 DeleteCallback: DriverPtr<Code>,
        0x10 DeleteContext: DriverPtr<()>,
    }

    /// One extension of `ExAllocatePool3`; `Bits` holds the type (bits 0–7) and whether it is optional (bit 8).
    POOL_EXTENDED_PARAMETER [size 0x10, align 8, not_in_mingw "mingw's kit ends before ExAllocatePool3"] {
        0x00 Bits = "": u64,
        0x08 Reserved2: u64,
        0x08 Reserved3: DriverPtr<()>,
        0x08 Priority: u32,
        0x08 SecurePoolParams: DriverPtr<()>,
        0x08 PreferredNode: u32,
    }
}

constants! {
    u32 {
        // For `ExInitializeLookasideListEx`.
        EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL = 0x1;
        EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE = 0x2;
    }
    u16 {
        // Depths of lookaside lists.
        EX_MAXIMUM_LOOKASIDE_DEPTH_BASE = 256;
        EX_MAXIMUM_LOOKASIDE_DEPTH_LIMIT = 1024;
    }
    u32 {
        // Queues of work items.
        CriticalWorkQueue = 0;
        DelayedWorkQueue = 1;
        HyperCriticalWorkQueue = 2;
        NormalWorkQueue = 3;
        BackgroundWorkQueue = 4;
        RealTimeWorkQueue = 5;
        SuperCriticalWorkQueue = 6;
        MaximumWorkQueue = 7;
        CustomPriorityWorkQueue = 32;
    }
    u32 {
        // For `ExAllocateTimer`.
        EX_TIMER_HIGH_RESOLUTION = 4;
        EX_TIMER_NO_WAKE = 8;
        EX_TIMER_NOTIFICATION = 0x8000_0000;
    }
    u16 {
        // `ERESOURCE::Flag`.
        ResourceNeverExclusive = 0x10;
        ResourceReleaseByOtherThread = 0x20;
        ResourceOwnedExclusive = 0x80;
    }
}
