//! What belongs to one processor: its control region, its number, its affinity.
//!
//! Pages: *PROCESSOR_NUMBER*, *GROUP_AFFINITY*; `ntddk.h` for `KPCR`. GS points at the control region in kernel mode.
//! Of the control block (`KPRCB`) only what inlined code reads is here.

use crate::constant::constants;
use crate::field::layouts;
use crate::{DriverPtr, KSPIN_LOCK_QUEUE, KTHREAD, NtStatus};

layouts! {
    /// A processor by group and number in the group.
    PROCESSOR_NUMBER [size 0x4, align 2] {
        0x00 Group: u16,
        0x02 Number: u8,
        0x03 Reserved: u8,
    }

    /// A set of processors of one group.
    GROUP_AFFINITY [size 0x10, align 8] {
        0x00 Mask: u64,
        0x08 Group: u16,
        0x0a Reserved: [u16; 3],
    }

    /// What a processor-change callback receives.
    KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT [size 0x10, align 4] {
        0x00 State: u32,
        0x04 NtNumber: u32,
        0x08 Status: NtStatus,
        0x0c ProcNumber: PROCESSOR_NUMBER,
    }

    /// A thread's information block; the control region starts with its shape.
    NT_TIB [size 0x38, align 8] {
        0x00 ExceptionList: DriverPtr<()>,
        0x08 StackBase: DriverPtr<()>,
        0x10 StackLimit: DriverPtr<()>,
        0x18 SubSystemTib: DriverPtr<()>,
        0x20 FiberData: DriverPtr<()>,
        0x20 Version: u32,
        0x28 ArbitraryUserPointer: DriverPtr<()>,
        0x30 Self_ = "Self": DriverPtr<NT_TIB>,
    }

    /// The processor control region, at GS base.
    KPCR [size 0x1a8, align 8, mingw_ends_at 0x178 "only the part before the control block is in headers"] {
        0x00 NtTib: NT_TIB,
        0x00 GdtBase: DriverPtr<()>,
        0x08 TssBase: DriverPtr<()>,
        0x10 UserRsp: u64,
        0x18 Self_ = "Self": DriverPtr<KPCR>,
        0x20 CurrentPrcb: DriverPtr<KPRCB>,
        0x28 LockArray: DriverPtr<KSPIN_LOCK_QUEUE>,
        0x30 Used_Self: DriverPtr<()>,
        0x38 IdtBase: DriverPtr<()>,
        0x50 Irql: u8,
        0x51 SecondLevelCacheAssociativity: u8,
        0x52 ObsoleteNumber: u8,
        0x60 MajorVersion: u16,
        0x62 MinorVersion: u16,
        0x64 StallScaleFactor: u32,
        0xbc SecondLevelCacheSize: u32,
        0x108 KdVersionBlock: DriverPtr<()>,
        0x180 Prcb: KPRCB,
    }

    /// The head of the processor control block, which lies inside the control region.
    KPRCB [size 0x28, align 8, not_in_mingw "in no header; compilers and macros read these members by offset"] {
        0x00 MxCsr: u32,
        0x04 LegacyNumber: u8,
        0x06 InterruptRequest: u8,
        0x07 IdleHalt: u8,
        0x08 CurrentThread: DriverPtr<KTHREAD>,
        0x10 NextThread: DriverPtr<KTHREAD>,
        0x18 IdleThread: DriverPtr<KTHREAD>,
        0x24 Number: u32,
    }
}

constants! {
    u32 {
        // What a processor-change callback hears of.
        KeProcessorAddStartNotify = 0;
        KeProcessorAddCompleteNotify = 1;
        KeProcessorAddFailureNotify = 2;
    }
    u16 {
        // Limits and wildcards.
        ALL_PROCESSOR_GROUPS = 0xffff;
        MAXIMUM_PROC_PER_GROUP = 0x40;
    }
}
