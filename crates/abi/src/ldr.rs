//! The loader's entry for an image, which `DRIVER_OBJECT::DriverSection` points to.
//!
//! In no header: the layout is that of Windows' public symbols. Drivers walk the list and read the name.

use crate::field::layouts;
use crate::{Code, DriverPtr, LIST_ENTRY, UNICODE_STRING};

layouts! {
    /// A loaded kernel image.
    KLDR_DATA_TABLE_ENTRY [size 0xa0, align 8, not_in_mingw "in no header; from public symbols"] {
        0x00 InLoadOrderLinks: LIST_ENTRY,
        0x10 ExceptionTable: DriverPtr<()>,
        0x18 ExceptionTableSize: u32,
        0x20 GpValue: DriverPtr<()>,
        0x28 NonPagedDebugInfo: DriverPtr<()>,
        0x30 DllBase: DriverPtr<()>,
        0x38 EntryPoint: DriverPtr<Code>,
        0x40 SizeOfImage: u32,
        0x48 FullDllName: UNICODE_STRING,
        0x58 BaseDllName: UNICODE_STRING,
        0x68 Flags: u32,
        0x6c LoadCount: u16,
        0x70 SectionPointer: DriverPtr<()>,
        0x78 CheckSum: u32,
        0x80 CoverageSection: DriverPtr<()>,
        0x88 LoadedImports: DriverPtr<()>,
        0x98 SizeOfImageNotRounded: u32,
        0x9c TimeDateStamp: u32,
    }
}
