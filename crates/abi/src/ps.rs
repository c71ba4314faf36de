//! What process, thread and image callbacks receive.
//!
//! Pages: *PS_CREATE_NOTIFY_INFO*, *IMAGE_INFO*; `ntddk.h`.

use crate::field::layouts;
use crate::{CLIENT_ID, DriverPtr, FILE_OBJECT, NtStatus, UNICODE_STRING};

layouts! {
    /// A process that is being created.
    PS_CREATE_NOTIFY_INFO [size 0x48, align 8] {
        0x00 Size: u64,
        0x08 Flags: u32,
        0x10 ParentProcessId: u64,
        0x18 CreatingThreadId: CLIENT_ID,
        0x28 FileObject: DriverPtr<FILE_OBJECT>,
        0x30 ImageFileName: DriverPtr<UNICODE_STRING>,
        0x38 CommandLine: DriverPtr<UNICODE_STRING>,
        0x40 CreationStatus: NtStatus,
    }

    /// An image that was mapped.
    IMAGE_INFO [size 0x28, align 8] {
        0x00 Properties: u32,
        0x08 ImageBase: DriverPtr<()>,
        0x10 ImageSelector: u32,
        0x18 ImageSize: u64,
        0x20 ImageSectionNumber: u32,
    }
}
