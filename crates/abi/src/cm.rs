//! Registry keys and values, as `ZwQueryKey` and `ZwQueryValueKey` return them.
//!
//! Pages: *KEY_VALUE_PARTIAL_INFORMATION* and its neighbours; `wdm.h`. Names and data follow; lengths are bytes.

use crate::field::layouts;
use crate::{DriverPtr, UNICODE_STRING};

layouts! {
    /// A key's name.
    KEY_BASIC_INFORMATION [size 0x18, align 8] {
        0x00 LastWriteTime: i64,
        0x08 TitleIndex: u32,
        0x0c NameLength: u32,
        0x10 Name: u16,
    }

    /// A key's name and class.
    KEY_NODE_INFORMATION [size 0x20, align 8] {
        0x00 LastWriteTime: i64,
        0x08 TitleIndex: u32,
        0x0c ClassOffset: u32,
        0x10 ClassLength: u32,
        0x14 NameLength: u32,
        0x18 Name: u16,
    }

    /// A key's class and what it holds.
    KEY_FULL_INFORMATION [size 0x30, align 8] {
        0x00 LastWriteTime: i64,
        0x08 TitleIndex: u32,
        0x0c ClassOffset: u32,
        0x10 ClassLength: u32,
        0x14 SubKeys: u32,
        0x18 MaxNameLen: u32,
        0x1c MaxClassLen: u32,
        0x20 Values: u32,
        0x24 MaxValueNameLen: u32,
        0x28 MaxValueDataLen: u32,
        0x2c Class: u16,
    }

    /// For `ZwSetInformationKey`.
    KEY_WRITE_TIME_INFORMATION [size 0x8, align 8] {
        0x00 LastWriteTime: i64,
    }

    /// A value's name.
    KEY_VALUE_BASIC_INFORMATION [size 0x10, align 4] {
        0x00 TitleIndex: u32,
        0x04 Type: u32,
        0x08 NameLength: u32,
        0x0c Name: u16,
    }

    /// A value's name and data.
    KEY_VALUE_FULL_INFORMATION [size 0x18, align 4] {
        0x00 TitleIndex: u32,
        0x04 Type: u32,
        0x08 DataOffset: u32,
        0x0c DataLength: u32,
        0x10 NameLength: u32,
        0x14 Name: u16,
    }

    /// A value's data.
    KEY_VALUE_PARTIAL_INFORMATION [size 0x10, align 4] {
        0x00 TitleIndex: u32,
        0x04 Type: u32,
        0x08 DataLength: u32,
        0x0c Data: u8,
    }

    /// A value's data, for callers that need it aligned to 8.
    KEY_VALUE_PARTIAL_INFORMATION_ALIGN64 [size 0xc, align 4] {
        0x00 Type: u32,
        0x04 DataLength: u32,
        0x08 Data: u8,
    }

    /// One answer of `ZwQueryMultipleValueKey`.
    KEY_VALUE_ENTRY [size 0x18, align 8] {
        0x00 ValueName: DriverPtr<UNICODE_STRING>,
        0x08 DataLength: u32,
        0x0c DataOffset: u32,
        0x10 Type: u32,
    }
}
