//! Object names, handles and object callbacks.
//!
//! Pages: *OBJECT_ATTRIBUTES*, *ObRegisterCallbacks*; `wdm.h` and `ntifs.h`.

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

    /// What a pre-operation callback is told.
    OB_PRE_OPERATION_INFORMATION [size 0x28, align 8] {
        0x00 Operation: u32,
        0x04 Flags: u32,
        0x08 Object: DriverPtr<()>,
        0x10 ObjectType: DriverPtr<()>,
        0x18 CallContext: DriverPtr<()>,
        0x20 Parameters: DriverPtr<()>,
    }

    /// What a post-operation callback is told.
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
