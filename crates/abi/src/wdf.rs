//! The Windows Driver Frameworks' loader, `WDFLDR.SYS`: what a framework, its class extensions and their clients hand to it.
//!
//! No page of Microsoft's has these structures; their layouts are facts of clients and frameworks as they are compiled, of all versions of KMDF 1.x.

use crate::field::layouts;
use crate::{Code, DRIVER_OBJECT, DriverPtr, GUID, UNICODE_STRING};

layouts! {
    /// A version of a framework: major, minor, build.
    WDF_VERSION [size 0xc, align 4, not_in_mingw "of the frameworks' loader"] {
        0x00 Major: u32,
        0x04 Minor: u32,
        0x08 Build: u32,
    }

    /// What a client asks for. `FuncTable` is its own array, or where the framework leaves the address of its table.
    WDF_BIND_INFO [size 0x30, align 8, not_in_mingw "of the frameworks' loader"] {
        0x00 Size: u32,
        0x08 Component: DriverPtr<u16>,
        0x10 Version: WDF_VERSION,
        0x1c FuncCount: u32,
        0x20 FuncTable: DriverPtr<u64>,
        0x28 Module: u64,
    }

    /// The same of a client that runs on older frameworks than it was built for.
    WDF_BIND_INFO2 [size 0x58, align 8, not_in_mingw "of the frameworks' loader"] {
        0x00 Size = "Info.Size": u32,
        0x30 MinimumVersionRequired: DriverPtr<u32>,
        0x38 ClientVersionHigherThanFramework: DriverPtr<u8>,
        0x40 FuncCountPtr: DriverPtr<u32>,
        0x48 StructCountPtr: DriverPtr<u32>,
        0x50 StructTable: DriverPtr<u64>,
    }

    /// What a framework registers.
    WDF_LIBRARY_INFO [size 0x38, align 8, not_in_mingw "of the frameworks' loader"] {
        0x00 Size: u32,
        0x08 LibraryCommission: DriverPtr<Code>,
        0x10 LibraryDecommission: DriverPtr<Code>,
        0x18 LibraryRegisterClient: DriverPtr<Code>,
        0x20 LibraryUnregisterClient: DriverPtr<Code>,
        0x28 Version: WDF_VERSION,
    }

    /// Who a client is, for its framework.
    CLIENT_INFO [size 0x18, align 8, not_in_mingw "of the frameworks' loader"] {
        0x00 Size: u32,
        0x08 RegistryPath: DriverPtr<UNICODE_STRING>,
        0x10 DriverObject: DriverPtr<DRIVER_OBJECT>,
    }

    /// What a client asks of a class extension.
    WDF_CLASS_BIND_INFO [size 0x50, align 8, not_in_mingw "of the frameworks' loader"] {
        0x00 Size: u32,
        0x08 ClassName: DriverPtr<u16>,
        0x10 Version: WDF_VERSION,
        0x20 FunctionTable: DriverPtr<u64>,
        0x28 FunctionTableCount: u32,
        0x30 ClassBindInfo: u64,
        0x38 ClientBindClass: DriverPtr<Code>,
        0x40 ClientUnbindClass: DriverPtr<Code>,
        0x48 ClassModule: u64,
    }

    /// What a class extension registers.
    WDF_CLASS_LIBRARY_INFO [size 0x30, align 8, not_in_mingw "of the frameworks' loader"] {
        0x00 Size: u32,
        0x04 Version: WDF_VERSION,
        0x10 ClassLibraryInitialize: DriverPtr<Code>,
        0x18 ClassLibraryDeinitialize: DriverPtr<Code>,
        0x20 ClassLibraryBindClient: DriverPtr<Code>,
        0x28 ClassLibraryUnbindClient: DriverPtr<Code>,
    }

    /// What a client knows of its framework: the first part of `WDF_DRIVER_GLOBALS`.
    WDF_COMPONENT_GLOBALS [size 0x38, align 8, not_in_mingw "of the frameworks' loader"] {
        0x00 Driver: u64,
        0x08 DriverFlags: u32,
        0x0c DriverTag: u32,
        0x10 DriverName: [u8; 32],
        0x30 DisplaceDriverUnload: u8,
    }

    /// Which functions a caller wants of the loader.
    WDF_INTERFACE_HEADER [size 0x10, align 8, not_in_mingw "of the frameworks' loader"] {
        0x00 InterfaceType: DriverPtr<GUID>,
        0x08 InterfaceSize: u32,
    }

    /// The loader's own functions.
    WDF_LOADER_INTERFACE [size 0x30, align 8, not_in_mingw "of the frameworks' loader"] {
        0x00 Header: WDF_INTERFACE_HEADER,
        0x10 RegisterLibrary: DriverPtr<Code>,
        0x18 VersionBind: DriverPtr<Code>,
        0x20 VersionUnbind: DriverPtr<Code>,
        0x28 DiagnosticsValueByNameAsULONG: DriverPtr<Code>,
    }
}

/// Functions of KMDF 1.13: of a client that has as many, or fewer, the array is its own; later ones get the address of the framework's.
pub const WDF_MOST_COPIED_FUNCTIONS: u32 = 438;

/// Of `WdfLdrQueryInterface`: the loader's own functions.
pub const GUID_WDF_LOADER_INTERFACE_STANDARD: GUID =
    GUID::new(0x4921_5dff, 0xf5ac, 0x4901, 0x8588_ab3d_540f_6021);
