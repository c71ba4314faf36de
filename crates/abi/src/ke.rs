//! Dispatcher objects, lists and the processor's structures.

use crate::field::layouts;
use crate::DriverPtr;

layouts! {
    /// Doubly linked list head or entry.
    LIST_ENTRY [size 0x10, align 8] {
        0x00 Flink: DriverPtr<LIST_ENTRY>,
        0x08 Blink: DriverPtr<LIST_ENTRY>,
    }
}
