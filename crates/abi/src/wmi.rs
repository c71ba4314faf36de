//! Windows Management Instrumentation: what a driver registers, and the blocks that travel.
//!
//! Pages: *WMILIB_CONTEXT*, *WMIREGINFOW*, *WNODE_HEADER*; `wmilib.h` and `wmistr.h`. Times and offsets are as there.

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

    /// A registration.
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
