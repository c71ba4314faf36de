//! Hardware resources: what a device may use (`IO_RESOURCE_*`) and what it was given (`CM_*_RESOURCE_*`).
//!
//! Pages: *CM_PARTIAL_RESOURCE_DESCRIPTOR*, *IO_RESOURCE_DESCRIPTOR*; `wdm.h`. The `CM_*` types are packed to 4 bytes.
//! Lists end in one element of an array whose length they state.
//! Members that mingw's older header lacks are marked with `""`.

use crate::constant::constants;
use crate::field::layouts;

layouts! {
    /// One assigned resource: 0x14 bytes, packed to 4.
    CM_PARTIAL_RESOURCE_DESCRIPTOR [size 0x14, align 4] {
        0x00 Type: u8,
        0x01 ShareDisposition: u8,
        0x02 Flags: u16,
        0x04 u: [u8; 0x10],
        0x04 u_Generic_Start = "u.Generic.Start": u64,
        0x0c u_Generic_Length = "u.Generic.Length": u32,
        0x04 u_Port_Start = "u.Port.Start": u64,
        0x0c u_Port_Length = "u.Port.Length": u32,
        0x04 u_Interrupt_Level = "u.Interrupt.Level": u16,
        0x06 u_Interrupt_Group = "u.Interrupt.Group": u16,
        0x08 u_Interrupt_Vector = "u.Interrupt.Vector": u32,
        0x0c u_Interrupt_Affinity = "u.Interrupt.Affinity": u64,
        0x04 u_MessageInterrupt_Raw_Group = "u.MessageInterrupt.Raw.Group": u16,
        0x06 u_MessageInterrupt_Raw_MessageCount = "u.MessageInterrupt.Raw.MessageCount": u16,
        0x08 u_MessageInterrupt_Raw_Vector = "u.MessageInterrupt.Raw.Vector": u32,
        0x0c u_MessageInterrupt_Raw_Affinity = "u.MessageInterrupt.Raw.Affinity": u64,
        0x04 u_MessageInterrupt_Translated_Level = "u.MessageInterrupt.Translated.Level": u16,
        0x06 u_MessageInterrupt_Translated_Group = "u.MessageInterrupt.Translated.Group": u16,
        0x08 u_MessageInterrupt_Translated_Vector = "u.MessageInterrupt.Translated.Vector": u32,
        0x0c u_MessageInterrupt_Translated_Affinity = "u.MessageInterrupt.Translated.Affinity": u64,
        0x04 u_Memory_Start = "u.Memory.Start": u64,
        0x0c u_Memory_Length = "u.Memory.Length": u32,
        0x04 u_Dma_Channel = "u.Dma.Channel": u32,
        0x08 u_Dma_Port = "u.Dma.Port": u32,
        0x0c u_Dma_Reserved1 = "u.Dma.Reserved1": u32,
        0x04 u_DmaV3_Channel = "": u32,
        0x08 u_DmaV3_RequestLine = "": u32,
        0x0c u_DmaV3_TransferWidth = "": u8,
        0x04 u_Connection_Class = "": u8,
        0x05 u_Connection_Type = "": u8,
        0x08 u_Connection_IdLowPart = "": u32,
        0x0c u_Connection_IdHighPart = "": u32,
        0x04 u_DevicePrivate_Data = "u.DevicePrivate.Data": [u32; 3],
        0x04 u_BusNumber_Start = "u.BusNumber.Start": u32,
        0x08 u_BusNumber_Length = "u.BusNumber.Length": u32,
        0x0c u_BusNumber_Reserved = "u.BusNumber.Reserved": u32,
        0x04 u_DeviceSpecificData_DataSize = "u.DeviceSpecificData.DataSize": u32,
        0x08 u_DeviceSpecificData_Reserved1 = "u.DeviceSpecificData.Reserved1": u32,
        0x0c u_DeviceSpecificData_Reserved2 = "u.DeviceSpecificData.Reserved2": u32,
        0x04 u_Memory40_Start = "u.Memory40.Start": u64,
        0x0c u_Memory40_Length40 = "u.Memory40.Length40": u32,
        0x04 u_Memory48_Start = "u.Memory48.Start": u64,
        0x0c u_Memory48_Length48 = "u.Memory48.Length48": u32,
        0x04 u_Memory64_Start = "u.Memory64.Start": u64,
        0x0c u_Memory64_Length64 = "u.Memory64.Length64": u32,
    }

    /// Resources of one bus.
    CM_PARTIAL_RESOURCE_LIST [size 0x1c, align 4] {
        0x00 Version: u16,
        0x02 Revision: u16,
        0x04 Count: u32,
        0x08 PartialDescriptors: CM_PARTIAL_RESOURCE_DESCRIPTOR,
    }

    /// Resources with the bus they are on. `PartialResourceList` makes its size vary.
    CM_FULL_RESOURCE_DESCRIPTOR [size 0x24, align 4] {
        0x00 InterfaceType: u32,
        0x04 BusNumber: u32,
        0x08 PartialResourceList: CM_PARTIAL_RESOURCE_LIST,
    }

    /// All resources of a device.
    CM_RESOURCE_LIST [size 0x28, align 4] {
        0x00 Count: u32,
        0x04 List: CM_FULL_RESOURCE_DESCRIPTOR,
    }

    /// One resource a device could use.
    IO_RESOURCE_DESCRIPTOR [size 0x20, align 8] {
        0x00 Option: u8,
        0x01 Type: u8,
        0x02 ShareDisposition: u8,
        0x03 Spare1: u8,
        0x04 Flags: u16,
        0x06 Spare2: u16,
        0x08 u: [u8; 0x18],
        0x08 u_Port_Length = "u.Port.Length": u32,
        0x0c u_Port_Alignment = "u.Port.Alignment": u32,
        0x10 u_Port_MinimumAddress = "u.Port.MinimumAddress": u64,
        0x18 u_Port_MaximumAddress = "u.Port.MaximumAddress": u64,
        0x08 u_Memory_Length = "u.Memory.Length": u32,
        0x0c u_Memory_Alignment = "u.Memory.Alignment": u32,
        0x10 u_Memory_MinimumAddress = "u.Memory.MinimumAddress": u64,
        0x18 u_Memory_MaximumAddress = "u.Memory.MaximumAddress": u64,
        0x08 u_Interrupt_MinimumVector = "u.Interrupt.MinimumVector": u32,
        0x0c u_Interrupt_MaximumVector = "u.Interrupt.MaximumVector": u32,
        0x10 u_Interrupt_AffinityPolicy = "": u16,
        0x12 u_Interrupt_Group = "": u16,
        0x14 u_Interrupt_PriorityPolicy = "": u32,
        0x18 u_Interrupt_TargetedProcessors = "": u64,
        0x08 u_Memory40_Length40 = "": u32,
        0x0c u_Memory40_Alignment40 = "": u32,
        0x10 u_Memory40_MinimumAddress = "": u64,
        0x18 u_Memory40_MaximumAddress = "": u64,
        0x08 u_Memory48_Length48 = "": u32,
        0x0c u_Memory48_Alignment48 = "": u32,
        0x10 u_Memory48_MinimumAddress = "": u64,
        0x18 u_Memory48_MaximumAddress = "": u64,
        0x08 u_Memory64_Length64 = "": u32,
        0x0c u_Memory64_Alignment64 = "": u32,
        0x10 u_Memory64_MinimumAddress = "": u64,
        0x18 u_Memory64_MaximumAddress = "": u64,
        0x08 u_DmaV3_RequestLine = "": u32,
        0x10 u_DmaV3_Channel = "": u32,
        0x14 u_DmaV3_TransferWidth = "": u32,
        0x08 u_Connection_Class = "": u8,
        0x09 u_Connection_Type = "": u8,
        0x0c u_Connection_IdLowPart = "": u32,
        0x10 u_Connection_IdHighPart = "": u32,
        0x08 u_Dma_MinimumChannel = "u.Dma.MinimumChannel": u32,
        0x0c u_Dma_MaximumChannel = "u.Dma.MaximumChannel": u32,
        0x08 u_Generic_Length = "u.Generic.Length": u32,
        0x0c u_Generic_Alignment = "u.Generic.Alignment": u32,
        0x10 u_Generic_MinimumAddress = "u.Generic.MinimumAddress": u64,
        0x18 u_Generic_MaximumAddress = "u.Generic.MaximumAddress": u64,
        0x08 u_DevicePrivate_Data = "u.DevicePrivate.Data": [u32; 3],
        0x08 u_BusNumber_Length = "u.BusNumber.Length": u32,
        0x0c u_BusNumber_MinBusNumber = "u.BusNumber.MinBusNumber": u32,
        0x10 u_BusNumber_MaxBusNumber = "u.BusNumber.MaxBusNumber": u32,
        0x14 u_BusNumber_Reserved = "u.BusNumber.Reserved": u32,
        0x08 u_ConfigData_Priority = "u.ConfigData.Priority": u32,
        0x0c u_ConfigData_Reserved1 = "u.ConfigData.Reserved1": u32,
        0x10 u_ConfigData_Reserved2 = "u.ConfigData.Reserved2": u32,
    }

    /// One alternative: descriptors that belong together.
    IO_RESOURCE_LIST [size 0x28, align 8] {
        0x00 Version: u16,
        0x02 Revision: u16,
        0x04 Count: u32,
        0x08 Descriptors: IO_RESOURCE_DESCRIPTOR,
    }

    /// The alternatives of a device; `ListSize` is bytes.
    IO_RESOURCE_REQUIREMENTS_LIST [size 0x48, align 8] {
        0x00 ListSize: u32,
        0x04 InterfaceType: u32,
        0x08 BusNumber: u32,
        0x0c SlotNumber: u32,
        0x10 Reserved: [u32; 3],
        0x1c AlternativeLists: u32,
        0x20 List: IO_RESOURCE_LIST,
    }
}

constants! {
    u8 {
        // `CM_PARTIAL_RESOURCE_DESCRIPTOR::Type`.
        CmResourceTypeNull = 0;
        CmResourceTypePort = 1;
        CmResourceTypeInterrupt = 2;
        CmResourceTypeMemory = 3;
        CmResourceTypeDma = 4;
        CmResourceTypeDeviceSpecific = 5;
        CmResourceTypeBusNumber = 6;
        CmResourceTypeMemoryLarge = 7;
        CmResourceTypeNonArbitrated = 128;
        CmResourceTypeConfigData = 128;
        CmResourceTypeDevicePrivate = 129;
        CmResourceTypePcCardConfig = 130;
        CmResourceTypeMfCardConfig = 131;
    }
    u8, not_in_mingw "newer than mingw's kit" {
        CmResourceTypeConnection = 132;
    }
    u8 {
        // `ShareDisposition`.
        CmResourceShareUndetermined = 0;
        CmResourceShareDeviceExclusive = 1;
        CmResourceShareDriverExclusive = 2;
        CmResourceShareShared = 3;
    }
    u16 {
        // `Flags`, by type.
        CM_RESOURCE_PORT_MEMORY = 0x0;
        CM_RESOURCE_PORT_IO = 0x1;
        CM_RESOURCE_PORT_10_BIT_DECODE = 0x4;
        CM_RESOURCE_PORT_12_BIT_DECODE = 0x8;
        CM_RESOURCE_PORT_16_BIT_DECODE = 0x10;
        CM_RESOURCE_PORT_POSITIVE_DECODE = 0x20;
        CM_RESOURCE_PORT_PASSIVE_DECODE = 0x40;
        CM_RESOURCE_PORT_WINDOW_DECODE = 0x80;
        CM_RESOURCE_PORT_BAR = 0x100;
        CM_RESOURCE_INTERRUPT_LEVEL_SENSITIVE = 0x0;
        CM_RESOURCE_INTERRUPT_LATCHED = 0x1;
        CM_RESOURCE_INTERRUPT_MESSAGE = 0x2;
        CM_RESOURCE_INTERRUPT_POLICY_INCLUDED = 0x4;
        CM_RESOURCE_INTERRUPT_LEVEL_LATCHED_BITS = 0x1;
        CM_RESOURCE_MEMORY_READ_WRITE = 0x0;
        CM_RESOURCE_MEMORY_READ_ONLY = 0x1;
        CM_RESOURCE_MEMORY_WRITE_ONLY = 0x2;
        CM_RESOURCE_MEMORY_WRITEABILITY_MASK = 0x3;
        CM_RESOURCE_MEMORY_PREFETCHABLE = 0x4;
        CM_RESOURCE_MEMORY_COMBINEDWRITE = 0x8;
        CM_RESOURCE_MEMORY_24 = 0x10;
        CM_RESOURCE_MEMORY_CACHEABLE = 0x20;
        CM_RESOURCE_MEMORY_WINDOW_DECODE = 0x40;
        CM_RESOURCE_MEMORY_BAR = 0x80;
        CM_RESOURCE_MEMORY_LARGE = 0xe00;
        CM_RESOURCE_MEMORY_LARGE_40 = 0x200;
        CM_RESOURCE_MEMORY_LARGE_48 = 0x400;
        CM_RESOURCE_MEMORY_LARGE_64 = 0x800;
        CM_RESOURCE_DMA_8 = 0x0;
        CM_RESOURCE_DMA_16 = 0x1;
        CM_RESOURCE_DMA_32 = 0x2;
        CM_RESOURCE_DMA_8_AND_16 = 0x4;
        CM_RESOURCE_DMA_BUS_MASTER = 0x8;
        CM_RESOURCE_DMA_TYPE_A = 0x10;
        CM_RESOURCE_DMA_TYPE_B = 0x20;
        CM_RESOURCE_DMA_TYPE_F = 0x40;
    }
    u16, not_in_mingw "newer than mingw's kit" {
        CM_RESOURCE_INTERRUPT_SECONDARY_INTERRUPT = 0x10;
        CM_RESOURCE_INTERRUPT_WAKE_HINT = 0x20;
    }
    u32 {
        // The vector that asks for messages.
        CM_RESOURCE_INTERRUPT_MESSAGE_TOKEN = 0xffff_fffe;
    }
    u8 {
        // `IO_RESOURCE_DESCRIPTOR::Option`.
        IO_RESOURCE_PREFERRED = 0x1;
        IO_RESOURCE_DEFAULT = 0x2;
        IO_RESOURCE_ALTERNATIVE = 0x8;
    }
    u32 {
        // `PriorityPolicy`.
        IrqPriorityUndefined = 0;
        IrqPriorityLow = 1;
        IrqPriorityNormal = 2;
        IrqPriorityHigh = 3;
    }
    u16 {
        // `AffinityPolicy`.
        IrqPolicyMachineDefault = 0;
        IrqPolicyAllCloseProcessors = 1;
        IrqPolicyOneCloseProcessor = 2;
        IrqPolicyAllProcessorsInMachine = 3;
        IrqPolicySpecifiedProcessors = 4;
        IrqPolicySpreadMessagesAcrossAllProcessors = 5;
    }
}
