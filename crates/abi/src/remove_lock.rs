//! Remove locks.
//!
//! Page: *Using Remove Locks*; `wdm.h`. A driver built with `DBG` has the larger, checked form; the `RemlockSize` that
//! `IoInitializeRemoveLockEx` is given tells which.

use crate::field::layouts;
use crate::{DriverPtr, KEVENT, LIST_ENTRY};

layouts! {
    /// What both forms share.
    IO_REMOVE_LOCK_COMMON_BLOCK [size 0x20, align 8] {
        0x00 Removed: u8,
        0x01 Reserved: [u8; 3],
        0x04 IoCount: i32,
        0x08 RemoveEvent: KEVENT,
    }

    /// What the checked form adds.
    IO_REMOVE_LOCK_DBG_BLOCK [size 0x58, align 8] {
        0x00 Signature: i32,
        0x04 HighWatermark: i32,
        0x08 MaxLockedTicks: i64,
        0x10 AllocateTag: i32,
        0x18 LockList: LIST_ENTRY,
        0x28 Spin: u64,
        0x30 LowMemoryCount: i32,
        0x34 Reserved1: [u32; 4],
        0x48 Reserved2: DriverPtr<()>,
        0x50 Blocks: DriverPtr<()>,
    }

    /// A remove lock of a free build.
    IO_REMOVE_LOCK [size 0x20, align 8] {
        0x00 Common: IO_REMOVE_LOCK_COMMON_BLOCK,
    }

    /// A remove lock of a checked build. Microsoft calls it `IO_REMOVE_LOCK`, too.
    IO_REMOVE_LOCK_CHECKED [size 0x78, align 8, not_in_mingw "has no name of its own: IO_REMOVE_LOCK where DBG is 1"] {
        0x00 Common: IO_REMOVE_LOCK_COMMON_BLOCK,
        0x20 Dbg: IO_REMOVE_LOCK_DBG_BLOCK,
    }
}
