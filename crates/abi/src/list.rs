//! Linked lists: drivers link and unlink with inlined code, so the kernel finds what they left in memory.
//!
//! Page: *Singly and Doubly Linked Lists*; `wdm.h`. Sequenced lists (`SLIST_HEADER`) are with the pools, in `ex`.

use crate::DriverPtr;
use crate::field::layouts;

layouts! {
    /// Doubly linked list head or entry.
    LIST_ENTRY [size 0x10, align 8] {
        0x00 Flink: DriverPtr<LIST_ENTRY>,
        0x08 Blink: DriverPtr<LIST_ENTRY>,
    }

    /// Singly linked list entry.
    SINGLE_LIST_ENTRY [size 0x8, align 8] {
        0x00 Next: DriverPtr<SINGLE_LIST_ENTRY>,
    }
}
