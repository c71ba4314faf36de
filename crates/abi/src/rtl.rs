//! Strings and versions: what the runtime library (`Rtl`) takes and returns.
//!
//! Pages: *UNICODE_STRING*, *OSVERSIONINFOEXW*, *RTL_QUERY_REGISTRY_TABLE*; `wdm.h`. `LARGE_INTEGER` is `i64` here.

use crate::DriverPtr;
use crate::field::layouts;

layouts! {
    /// A counted string of UTF-16; `Length` and `MaximumLength` are bytes.
    UNICODE_STRING [size 0x10, align 8] {
        0x00 Length: u16,
        0x02 MaximumLength: u16,
        0x08 Buffer: DriverPtr<u16>,
    }
}
