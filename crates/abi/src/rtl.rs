//! Strings, versions, times, tables: what the runtime library (`Rtl`) takes and returns.
//!
//! Pages: *UNICODE_STRING*, *OSVERSIONINFOEXW*, *RTL_QUERY_REGISTRY_TABLE*; `wdm.h`, tables in `ntddk.h`.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, LIST_ENTRY};

layouts! {
    /// A counted string of UTF-16; `Length` and `MaximumLength` are bytes.
    UNICODE_STRING [size 0x10, align 8] {
        0x00 Length: u16,
        0x02 MaximumLength: u16,
        0x08 Buffer: DriverPtr<u16>,
    }

    /// A counted string of bytes: `ANSI_STRING`, `OEM_STRING`.
    STRING [size 0x10, align 8] {
        0x00 Length: u16,
        0x02 MaximumLength: u16,
        0x08 Buffer: DriverPtr<u8>,
    }

    /// A time taken apart.
    TIME_FIELDS [size 0x10, align 2] {
        0x00 Year: i16,
        0x02 Month: i16,
        0x04 Day: i16,
        0x06 Hour: i16,
        0x08 Minute: i16,
        0x0a Second: i16,
        0x0c Milliseconds: i16,
        0x0e Weekday: i16,
    }

    /// A version of Windows.
    OSVERSIONINFOW [size 0x114, align 4] {
        0x000 dwOSVersionInfoSize: u32,
        0x004 dwMajorVersion: u32,
        0x008 dwMinorVersion: u32,
        0x00c dwBuildNumber: u32,
        0x010 dwPlatformId: u32,
        0x014 szCSDVersion: [u16; 128],
    }

    /// A version of Windows, with service pack and product.
    OSVERSIONINFOEXW [size 0x11c, align 4] {
        0x000 dwOSVersionInfoSize: u32,
        0x004 dwMajorVersion: u32,
        0x008 dwMinorVersion: u32,
        0x00c dwBuildNumber: u32,
        0x010 dwPlatformId: u32,
        0x014 szCSDVersion: [u16; 128],
        0x114 wServicePackMajor: u16,
        0x116 wServicePackMinor: u16,
        0x118 wSuiteMask: u16,
        0x11a wProductType: u8,
        0x11b wReserved: u8,
    }

    /// One line of what `RtlQueryRegistryValues` is to do.
    RTL_QUERY_REGISTRY_TABLE [size 0x38, align 8] {
        0x00 QueryRoutine: DriverPtr<Code>,
        0x08 Flags: u32,
        0x10 Name: DriverPtr<u16>,
        0x18 EntryContext: DriverPtr<()>,
        0x20 DefaultType: u32,
        0x28 DefaultData: DriverPtr<()>,
        0x30 DefaultLength: u32,
    }

    /// A bit map.
    RTL_BITMAP [size 0x10, align 8] {
        0x00 SizeOfBitMap: u32,
        0x08 Buffer: DriverPtr<u32>,
    }

    /// A node of a red-black tree.
    RTL_BALANCED_NODE [size 0x18, align 8] {
        0x00 Children: [DriverPtr<RTL_BALANCED_NODE>; 2],
        0x00 Left: DriverPtr<RTL_BALANCED_NODE>,
        0x08 Right: DriverPtr<RTL_BALANCED_NODE>,
        0x10 ParentValue: u64,
    }

    /// A node of a splay tree.
    RTL_SPLAY_LINKS [size 0x18, align 8] {
        0x00 Parent: DriverPtr<RTL_SPLAY_LINKS>,
        0x08 LeftChild: DriverPtr<RTL_SPLAY_LINKS>,
        0x10 RightChild: DriverPtr<RTL_SPLAY_LINKS>,
    }

    /// A table of prefixes, opaque to drivers.
    UNICODE_PREFIX_TABLE [size 0x18, align 8, not_in_mingw "of ntifs.h, which is not among the headers compared with"] {
        0x00 NodeTypeCode: u16,
        0x02 NameLength: u16,
        0x08 NextPrefixTree: DriverPtr<UNICODE_PREFIX_TABLE_ENTRY>,
        0x10 LastNextEntry: DriverPtr<UNICODE_PREFIX_TABLE_ENTRY>,
    }

    /// One of its entries.
    UNICODE_PREFIX_TABLE_ENTRY [size 0x38, align 8, not_in_mingw "of ntifs.h, which is not among the headers compared with"] {
        0x00 NodeTypeCode: u16,
        0x02 NameLength: u16,
        0x08 NextPrefixTree: DriverPtr<UNICODE_PREFIX_TABLE_ENTRY>,
        0x10 CaseMatch: DriverPtr<UNICODE_PREFIX_TABLE_ENTRY>,
        0x18 Links: RTL_SPLAY_LINKS,
        0x30 Prefix: DriverPtr<UNICODE_STRING>,
    }

    /// The same for strings of bytes.
    PREFIX_TABLE [size 0x10, align 8, not_in_mingw "of ntifs.h, which is not among the headers compared with"] {
        0x00 NodeTypeCode: u16,
        0x02 NameLength: u16,
        0x08 NextPrefixTree: DriverPtr<PREFIX_TABLE_ENTRY>,
    }

    /// One of its entries.
    PREFIX_TABLE_ENTRY [size 0x30, align 8, not_in_mingw "of ntifs.h, which is not among the headers compared with"] {
        0x00 NodeTypeCode: u16,
        0x02 NameLength: u16,
        0x08 NextPrefixTree: DriverPtr<PREFIX_TABLE_ENTRY>,
        0x10 Links: RTL_SPLAY_LINKS,
        0x28 Prefix: DriverPtr<STRING>,
    }

    /// A generic table over a splay tree.
    RTL_GENERIC_TABLE [size 0x48, align 8] {
        0x00 TableRoot: DriverPtr<RTL_SPLAY_LINKS>,
        0x08 InsertOrderList: LIST_ENTRY,
        0x18 OrderedPointer: DriverPtr<LIST_ENTRY>,
        0x20 WhichOrderedElement: u32,
        0x24 NumberGenericTableElements: u32,
        0x28 CompareRoutine: DriverPtr<Code>,
        0x30 AllocateRoutine: DriverPtr<Code>,
        0x38 FreeRoutine: DriverPtr<Code>,
        0x40 TableContext: DriverPtr<()>,
    }

    /// A node of an AVL tree.
    RTL_BALANCED_LINKS [size 0x20, align 8] {
        0x00 Parent: DriverPtr<RTL_BALANCED_LINKS>,
        0x08 LeftChild: DriverPtr<RTL_BALANCED_LINKS>,
        0x10 RightChild: DriverPtr<RTL_BALANCED_LINKS>,
        0x18 Balance: u8,
        0x19 Reserved: [u8; 3],
    }

    /// A generic table over an AVL tree.
    RTL_AVL_TABLE [size 0x68, align 8] {
        0x00 BalancedRoot: RTL_BALANCED_LINKS,
        0x20 OrderedPointer: DriverPtr<()>,
        0x28 WhichOrderedElement: u32,
        0x2c NumberGenericTableElements: u32,
        0x30 DepthOfTree: u32,
        0x38 RestartKey: DriverPtr<RTL_BALANCED_LINKS>,
        0x40 DeleteCount: u32,
        0x48 CompareRoutine: DriverPtr<Code>,
        0x50 AllocateRoutine: DriverPtr<Code>,
        0x58 FreeRoutine: DriverPtr<Code>,
        0x60 TableContext: DriverPtr<()>,
    }
}

/// A counted string of bytes in the system's code page.
pub type ANSI_STRING = STRING;
/// A counted string of bytes in the OEM code page.
pub type OEM_STRING = STRING;

constants! {
    u32 {
        // `RtlQueryRegistryValues`: where.
        RTL_REGISTRY_ABSOLUTE = 0x0;
        RTL_REGISTRY_SERVICES = 0x1;
        RTL_REGISTRY_CONTROL = 0x2;
        RTL_REGISTRY_WINDOWS_NT = 0x3;
        RTL_REGISTRY_DEVICEMAP = 0x4;
        RTL_REGISTRY_USER = 0x5;
        RTL_REGISTRY_MAXIMUM = 0x6;
        RTL_REGISTRY_HANDLE = 0x4000_0000;
        RTL_REGISTRY_OPTIONAL = 0x8000_0000;
    }
    u32 {
        // `RTL_QUERY_REGISTRY_TABLE::Flags`.
        RTL_QUERY_REGISTRY_SUBKEY = 0x1;
        RTL_QUERY_REGISTRY_TOPKEY = 0x2;
        RTL_QUERY_REGISTRY_REQUIRED = 0x4;
        RTL_QUERY_REGISTRY_NOVALUE = 0x8;
        RTL_QUERY_REGISTRY_NOEXPAND = 0x10;
        RTL_QUERY_REGISTRY_DIRECT = 0x20;
        RTL_QUERY_REGISTRY_DELETE = 0x40;
    }
    u32, not_in_mingw "newer than mingw's kit" {
        RTL_QUERY_REGISTRY_TYPECHECK = 0x100;
        RTL_QUERY_REGISTRY_TYPECHECK_SHIFT = 0x18;
    }
    u32 {
        // `RtlDuplicateUnicodeString`.
        RTL_DUPLICATE_UNICODE_STRING_NULL_TERMINATE = 1;
        RTL_DUPLICATE_UNICODE_STRING_ALLOCATE_NULL_STRING = 2;
    }
    u32 {
        // `RtlVerifyVersionInfo`.
        VER_MINORVERSION = 0x1;
        VER_MAJORVERSION = 0x2;
        VER_BUILDNUMBER = 0x4;
        VER_PLATFORMID = 0x8;
        VER_SERVICEPACKMINOR = 0x10;
        VER_SERVICEPACKMAJOR = 0x20;
        VER_SUITENAME = 0x40;
        VER_PRODUCT_TYPE = 0x80;
        VER_EQUAL = 0x1;
        VER_GREATER = 0x2;
        VER_GREATER_EQUAL = 0x3;
        VER_LESS = 0x4;
        VER_LESS_EQUAL = 0x5;
        VER_AND = 0x6;
        VER_OR = 0x7;
        VER_PLATFORM_WIN32_NT = 0x2;
    }
    u8 {
        // `OSVERSIONINFOEXW::wProductType`.
        VER_NT_WORKSTATION = 0x1;
        VER_NT_DOMAIN_CONTROLLER = 0x2;
        VER_NT_SERVER = 0x3;
    }
}
