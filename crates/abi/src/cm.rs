//! Registry keys and values, as `ZwQueryKey` and `ZwQueryValueKey` return them.
//!
//! Pages: *KEY_VALUE_PARTIAL_INFORMATION* and its neighbours; `wdm.h`. Names and data follow; lengths are bytes.

use crate::constant::constants;
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

constants! {
    u32 {
        // Types of value.
        REG_NONE = 0;
        REG_SZ = 1;
        REG_EXPAND_SZ = 2;
        REG_BINARY = 3;
        REG_DWORD = 4;
        REG_DWORD_LITTLE_ENDIAN = 4;
        REG_DWORD_BIG_ENDIAN = 5;
        REG_LINK = 6;
        REG_MULTI_SZ = 7;
        REG_RESOURCE_LIST = 8;
        REG_FULL_RESOURCE_DESCRIPTOR = 9;
        REG_RESOURCE_REQUIREMENTS_LIST = 10;
        REG_QWORD = 11;
        REG_QWORD_LITTLE_ENDIAN = 11;
    }
    u32 {
        // How a key is created, and what came of it.
        REG_OPTION_NON_VOLATILE = 0x0;
        REG_OPTION_VOLATILE = 0x1;
        REG_OPTION_CREATE_LINK = 0x2;
        REG_OPTION_BACKUP_RESTORE = 0x4;
        REG_OPTION_OPEN_LINK = 0x8;
        REG_CREATED_NEW_KEY = 0x1;
        REG_OPENED_EXISTING_KEY = 0x2;
    }
    u32 {
        // Rights.
        KEY_QUERY_VALUE = 0x1;
        KEY_SET_VALUE = 0x2;
        KEY_CREATE_SUB_KEY = 0x4;
        KEY_ENUMERATE_SUB_KEYS = 0x8;
        KEY_NOTIFY = 0x10;
        KEY_CREATE_LINK = 0x20;
        KEY_WOW64_32KEY = 0x200;
        KEY_WOW64_64KEY = 0x100;
        KEY_READ = 0x0002_0019;
        KEY_WRITE = 0x0002_0006;
        KEY_EXECUTE = 0x0002_0019;
        KEY_ALL_ACCESS = 0x000f_003f;
    }
    u32 {
        // What a key or value is asked for.
        KeyBasicInformation = 0;
        KeyNodeInformation = 1;
        KeyFullInformation = 2;
        KeyNameInformation = 3;
        KeyCachedInformation = 4;
        KeyFlagsInformation = 5;
        KeyVirtualizationInformation = 6;
        KeyHandleTagsInformation = 7;
        KeyTrustInformation = 8;
        KeyLayerInformation = 9;
        MaxKeyInfoClass = 10;
        KeyValueBasicInformation = 0;
        KeyValueFullInformation = 1;
        KeyValuePartialInformation = 2;
        KeyValueFullInformationAlign64 = 3;
        KeyValuePartialInformationAlign64 = 4;
        KeyValueLayerInformation = 5;
        MaxKeyValueInfoClass = 6;
    }
}
