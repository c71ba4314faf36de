//! Performance counters, version 2: what a provider registers, its data, and what it is asked. `wdm.h`, pages *PCW_REGISTRATION_INFORMATION*,
//! *PCW_COUNTER_DESCRIPTOR*, *PCW_DATA*, *PCW_MASK_INFORMATION*, *PCW_CALLBACK_TYPE*.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, KEVENT, UNICODE_STRING};

layouts! {
    /// Where a counter lies in the data of an instance.
    PCW_COUNTER_DESCRIPTOR [size 0x8, align 2, not_in_mingw "mingw's kit has no performance counters"] {
        0x0 Id: u16,
        0x2 StructIndex: u16,
        0x4 Offset: u16,
        0x6 Size: u16,
    }

    /// A block of data.
    PCW_DATA [size 0x10, align 8, not_in_mingw "mingw's kit has no performance counters"] {
        0x0 Data: u64,
        0x8 Size: u32,
    }

    /// What a provider registers. `Flags` is of version 2.
    PCW_REGISTRATION_INFORMATION [size 0x38, align 8, not_in_mingw "mingw's kit has no performance counters"] {
        0x00 Version: u32,
        0x08 Name: DriverPtr<UNICODE_STRING>,
        0x10 CounterCount: u32,
        0x18 Counters: DriverPtr<PCW_COUNTER_DESCRIPTOR>,
        0x20 Callback: DriverPtr<Code>,
        0x28 CallbackContext: u64,
        0x30 Flags: u32,
    }

    /// What is enumerated or collected.
    PCW_MASK_INFORMATION [size 0x28, align 8, not_in_mingw "mingw's kit has no performance counters"] {
        0x00 CounterMask: u64,
        0x08 InstanceMask: DriverPtr<UNICODE_STRING>,
        0x10 InstanceId: u32,
        0x14 CollectMultiple: u8,
        0x18 Buffer: u64,
        0x20 CancelEvent: DriverPtr<KEVENT>,
    }
}

constants! {
    u32, not_in_mingw "mingw's kit has no performance counters" {
        PCW_VERSION_1 = 0x100;
        PCW_VERSION_2 = 0x200;
        PCW_ANY_INSTANCE_ID = 0xFFFF_FFFF;
        PcwRegistrationSiloNeutral = 1;
    }
    u32, not_in_mingw "mingw's kit has no performance counters" {
        PcwCallbackAddCounter = 0;
        PcwCallbackRemoveCounter = 1;
        PcwCallbackEnumerateInstances = 2;
        PcwCallbackCollectData = 3;
    }
}
