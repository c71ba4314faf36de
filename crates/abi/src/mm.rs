//! Memory descriptor lists.
//!
//! Page: *MDL*; `wdm.h`. The array of page frame numbers follows the structure.

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
}
