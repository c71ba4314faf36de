//! Strings, versions, times, tables: what the runtime library (`Rtl`) takes and returns.
//!
//! Pages: *UNICODE_STRING*, *OSVERSIONINFOEXW*, *RTL_QUERY_REGISTRY_TABLE*; `wdm.h`, tables in `ntddk.h`.

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

    /// A globally unique identifier.
    GUID [size 0x10, align 4] {
        0x00 Data1: u32,
        0x04 Data2: u16,
        0x06 Data3: u16,
        0x08 Data4: [u8; 8],
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
