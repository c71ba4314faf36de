//! Object names, handles and object callbacks.
//!
//! Pages: *OBJECT_ATTRIBUTES*, *ObRegisterCallbacks*; `wdm.h` and `ntifs.h`.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, NtStatus, UNICODE_STRING};

layouts! {
    /// What names an object to open or create.
    OBJECT_ATTRIBUTES [size 0x30, align 8] {
        0x00 Length: u32,
        0x08 RootDirectory: u64,
        0x10 ObjectName: DriverPtr<UNICODE_STRING>,
        0x18 Attributes: u32,
        0x20 SecurityDescriptor: DriverPtr<()>,
        0x28 SecurityQualityOfService: DriverPtr<()>,
    }

    /// An object's name.
    OBJECT_NAME_INFORMATION [size 0x10, align 8] {
        0x00 Name: UNICODE_STRING,
    }

    /// What a handle grants.
    OBJECT_HANDLE_INFORMATION [size 0x8, align 4] {
        0x00 HandleAttributes: u32,
        0x04 GrantedAccess: u32,
    }

    /// A process and a thread by id.
    CLIENT_ID [size 0x10, align 8] {
        0x00 UniqueProcess: u64,
        0x08 UniqueThread: u64,
    }

    /// One object type's callbacks.
    OB_OPERATION_REGISTRATION [size 0x20, align 8] {
        0x00 ObjectType: DriverPtr<DriverPtr<()>>,
        0x08 Operations: u32,
        0x10 PreOperation: DriverPtr<Code>,
        0x18 PostOperation: DriverPtr<Code>,
    }

    /// What `ObRegisterCallbacks` is given.
    OB_CALLBACK_REGISTRATION [size 0x28, align 8] {
        0x00 Version: u16,
        0x02 OperationRegistrationCount: u16,
        0x08 Altitude: UNICODE_STRING,
        0x18 RegistrationContext: DriverPtr<()>,
        0x20 OperationRegistration: DriverPtr<OB_OPERATION_REGISTRATION>,
    }

    /// What a pre-operation callback receives.
    OB_PRE_OPERATION_INFORMATION [size 0x28, align 8] {
        0x00 Operation: u32,
        0x04 Flags: u32,
        0x08 Object: DriverPtr<()>,
        0x10 ObjectType: DriverPtr<()>,
        0x18 CallContext: DriverPtr<()>,
        0x20 Parameters: DriverPtr<()>,
    }

    /// What a post-operation callback receives.
    OB_POST_OPERATION_INFORMATION [size 0x30, align 8] {
        0x00 Operation: u32,
        0x04 Flags: u32,
        0x08 Object: DriverPtr<()>,
        0x10 ObjectType: DriverPtr<()>,
        0x18 CallContext: DriverPtr<()>,
        0x20 ReturnStatus: NtStatus,
        0x28 Parameters: DriverPtr<()>,
    }
}

constants! {
    u32 {
        // `OBJECT_ATTRIBUTES::Attributes`.
        OBJ_INHERIT = 0x2;
        OBJ_PERMANENT = 0x10;
        OBJ_EXCLUSIVE = 0x20;
        OBJ_CASE_INSENSITIVE = 0x40;
        OBJ_OPENIF = 0x80;
        OBJ_OPENLINK = 0x100;
        OBJ_KERNEL_HANDLE = 0x200;
        OBJ_FORCE_ACCESS_CHECK = 0x400;
        OBJ_VALID_ATTRIBUTES = 0x1ff2;
    }
    u32 {
        // `OB_OPERATION`.
        OB_OPERATION_HANDLE_CREATE = 0x1;
        OB_OPERATION_HANDLE_DUPLICATE = 0x2;
    }
    u32 {
        // Directories and links.
        DIRECTORY_QUERY = 0x1;
        DIRECTORY_TRAVERSE = 0x2;
        DIRECTORY_CREATE_OBJECT = 0x4;
        DIRECTORY_CREATE_SUBDIRECTORY = 0x8;
        DIRECTORY_ALL_ACCESS = 0x000f_000f;
        SYMBOLIC_LINK_QUERY = 0x1;
        SYMBOLIC_LINK_ALL_ACCESS = 0x000f_0001;
    }
}
