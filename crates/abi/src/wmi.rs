//! Windows Management Instrumentation: what a driver registers, and the blocks that travel.
//!
//! Pages: *WMILIB_CONTEXT*, *WMIREGINFOW*, *WNODE_HEADER*; `wmilib.h` and `wmistr.h`. Times and offsets are as there.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, GUID};

layouts! {
    /// A block a driver offers.
    WMIGUIDREGINFO [size 0x10, align 8] {
        0x00 Guid: DriverPtr<GUID>,
        0x08 InstanceCount: u32,
        0x0c Flags: u32,
    }

    /// What `WmiSystemControl` calls.
    WMILIB_CONTEXT [size 0x40, align 8] {
        0x00 GuidCount: u32,
        0x08 GuidList: DriverPtr<WMIGUIDREGINFO>,
        0x10 QueryWmiRegInfo: DriverPtr<Code>,
        0x18 QueryWmiDataBlock: DriverPtr<Code>,
        0x20 SetWmiDataBlock: DriverPtr<Code>,
        0x28 SetWmiDataItem: DriverPtr<Code>,
        0x30 ExecuteWmiMethod: DriverPtr<Code>,
        0x38 WmiFunctionControl: DriverPtr<Code>,
    }

    /// A block in a registration.
    WMIREGGUIDW [size 0x20, align 8] {
        0x00 Guid: GUID,
        0x10 Flags: u32,
        0x14 InstanceCount: u32,
        0x18 InstanceNameList: u32,
        0x18 BaseNameOffset: u32,
        0x18 Pdo: u64,
        0x18 InstanceInfo: u64,
    }

    /// A registration; `GuidCount` of `WMIREGGUIDW` follow.
    WMIREGINFOW [size 0x18, align 8] {
        0x00 BufferSize: u32,
        0x04 NextWmiRegInfo: u32,
        0x08 RegistryPath: u32,
        0x0c MofResourceName: u32,
        0x10 GuidCount: u32,
    }

    /// What every block starts with.
    WNODE_HEADER [size 0x30, align 8] {
        0x00 BufferSize: u32,
        0x04 ProviderId: u32,
        0x08 HistoricalContext: u64,
        0x08 Version: u32,
        0x0c Linkage: u32,
        0x10 CountLost: u32,
        0x10 KernelHandle: u64,
        0x10 TimeStamp: i64,
        0x18 Guid: GUID,
        0x28 ClientContext: u32,
        0x2c Flags: u32,
    }

    /// All instances of a block.
    WNODE_ALL_DATA [size 0x48, align 8] {
        0x00 WnodeHeader: WNODE_HEADER,
        0x30 DataBlockOffset: u32,
        0x34 InstanceCount: u32,
        0x38 OffsetInstanceNameOffsets: u32,
        0x3c FixedInstanceSize: u32,
        0x3c OffsetInstanceDataAndLength: OFFSETINSTANCEDATAANDLENGTH,
    }

    /// One instance.
    WNODE_SINGLE_INSTANCE [size 0x40, align 8] {
        0x00 WnodeHeader: WNODE_HEADER,
        0x30 OffsetInstanceName: u32,
        0x34 InstanceIndex: u32,
        0x38 DataBlockOffset: u32,
        0x3c SizeDataBlock: u32,
    }

    /// One item of an instance.
    WNODE_SINGLE_ITEM [size 0x48, align 8] {
        0x00 WnodeHeader: WNODE_HEADER,
        0x30 OffsetInstanceName: u32,
        0x34 InstanceIndex: u32,
        0x38 ItemId: u32,
        0x3c DataBlockOffset: u32,
        0x40 SizeDataItem: u32,
    }

    /// A method call.
    WNODE_METHOD_ITEM [size 0x48, align 8] {
        0x00 WnodeHeader: WNODE_HEADER,
        0x30 OffsetInstanceName: u32,
        0x34 InstanceIndex: u32,
        0x38 MethodId: u32,
        0x3c DataBlockOffset: u32,
        0x40 SizeDataBlock: u32,
    }

    /// An event.
    WNODE_EVENT_ITEM [size 0x30, align 8] {
        0x00 WnodeHeader: WNODE_HEADER,
    }

    /// An event whose data must be fetched.
    WNODE_EVENT_REFERENCE [size 0x48, align 8] {
        0x00 WnodeHeader: WNODE_HEADER,
        0x30 TargetGuid: GUID,
        0x40 TargetDataBlockSize: u32,
        0x44 TargetInstanceIndex: u32,
        0x44 TargetInstanceName: u16,
    }

    /// The size the buffer should have had.
    WNODE_TOO_SMALL [size 0x38, align 8] {
        0x00 WnodeHeader: WNODE_HEADER,
        0x30 SizeNeeded: u32,
    }

    /// Where an instance's data lies.
    OFFSETINSTANCEDATAANDLENGTH [size 0x8, align 4] {
        0x00 OffsetInstanceData: u32,
        0x04 LengthInstanceData: u32,
    }
}

constants! {
    u32 {
        // `IoWMIRegistrationControl`.
        WMIREG_ACTION_REGISTER = 1;
        WMIREG_ACTION_DEREGISTER = 2;
        WMIREG_ACTION_REREGISTER = 3;
        WMIREG_ACTION_UPDATE_GUIDS = 4;
        WMIREG_ACTION_BLOCK_IRPS = 5;
    }
    u32 {
        // Flags of a block.
        WMIREG_FLAG_EXPENSIVE = 0x1;
        WMIREG_FLAG_INSTANCE_LIST = 0x4;
        WMIREG_FLAG_INSTANCE_BASENAME = 0x8;
        WMIREG_FLAG_INSTANCE_PDO = 0x20;
        WMIREG_FLAG_REMOVE_GUID = 0x0001_0000;
        WMIREG_FLAG_TRACED_GUID = 0x0008_0000;
        WMIREG_FLAG_TRACE_CONTROL_GUID = 0x1000;
        WMIREG_FLAG_EVENT_ONLY_GUID = 0x40;
    }
    u32 {
        // `WNODE_HEADER::Flags`.
        WNODE_FLAG_ALL_DATA = 0x1;
        WNODE_FLAG_SINGLE_INSTANCE = 0x2;
        WNODE_FLAG_SINGLE_ITEM = 0x4;
        WNODE_FLAG_EVENT_ITEM = 0x8;
        WNODE_FLAG_FIXED_INSTANCE_SIZE = 0x10;
        WNODE_FLAG_TOO_SMALL = 0x20;
        WNODE_FLAG_INSTANCES_SAME = 0x40;
        WNODE_FLAG_STATIC_INSTANCE_NAMES = 0x80;
        WNODE_FLAG_INTERNAL = 0x100;
        WNODE_FLAG_USE_TIMESTAMP = 0x200;
        WNODE_FLAG_PERSIST_EVENT = 0x400;
        WNODE_FLAG_EVENT_REFERENCE = 0x2000;
        WNODE_FLAG_ANSI_INSTANCENAMES = 0x4000;
        WNODE_FLAG_METHOD_ITEM = 0x8000;
        WNODE_FLAG_PDO_INSTANCE_NAMES = 0x0001_0000;
        WNODE_FLAG_TRACED_GUID = 0x0002_0000;
        WNODE_FLAG_LOG_WNODE = 0x0004_0000;
        WNODE_FLAG_USE_GUID_PTR = 0x0008_0000;
        WNODE_FLAG_USE_MOF_PTR = 0x0010_0000;
        WNODE_FLAG_NO_HEADER = 0x0020_0000;
        WNODE_FLAG_SEND_DATA_BLOCK = 0x0040_0000;
        WNODE_FLAG_VERSIONED_PROPERTIES = 0x0080_0000;
        WNODE_FLAG_SEVERITY_MASK = 0xff00_0000;
    }
    u32 {
        // What `WmiSystemControl` says of an IRP.
        IrpProcessed = 0;
        IrpNotCompleted = 1;
        IrpNotWmi = 2;
        IrpForward = 3;
    }
    u32 {
        // What `WmiFunctionControl` receives.
        WmiEventControl = 0;
        WmiDataBlockControl = 1;
    }
}
