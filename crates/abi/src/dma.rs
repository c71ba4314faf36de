//! DMA: the adapter and its operations, scatter/gather lists, what a device says of itself.
//!
//! Pages: *DEVICE_DESCRIPTION*, *DMA_OPERATIONS*, *SCATTER_GATHER_LIST*; `wdm.h`.
//! An adapter object is a `DMA_ADAPTER` with whatever the kernel keeps behind it.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr};

layouts! {
    /// How a caller of `IoGetDmaAdapter` describes the device, in versions 0 to 3.
    DEVICE_DESCRIPTION [size 0x40, align 8, mingw_ends_at 0x28 "mingw knows versions up to 2"] {
        0x00 Version: u32,
        0x04 Master: u8,
        0x05 ScatterGather: u8,
        0x06 DemandMode: u8,
        0x07 AutoInitialize: u8,
        0x08 Dma32BitAddresses: u8,
        0x09 IgnoreCount: u8,
        0x0a Reserved1: u8,
        0x0b Dma64BitAddresses: u8,
        0x0c BusNumber: u32,
        0x10 DmaChannel: u32,
        0x14 InterfaceType: u32,
        0x18 DmaWidth: u32,
        0x1c DmaSpeed: u32,
        0x20 MaximumLength: u32,
        0x24 DmaPort: u32,
        0x28 DmaAddressWidth: u32,
        0x2c DmaControllerInstance: u32,
        0x30 DmaRequestLine: u32,
        0x38 DeviceAddress: u64,
    }

    /// An adapter, as a driver sees it.
    DMA_ADAPTER [size 0x10, align 8] {
        0x00 Version: u16,
        0x02 Size: u16,
        0x08 DmaOperations: DriverPtr<DMA_OPERATIONS>,
    }

    /// An adapter's routines. `Size` tells how many: versions 1 and 2 end before `GetDmaAdapterInfo`.
    DMA_OPERATIONS [size 0x140, align 8, mingw_ends_at 0x80 "mingw has versions 1 and 2 only"] {
        0x000 Size: u32,
        0x008 PutDmaAdapter: DriverPtr<Code>,
        0x010 AllocateCommonBuffer: DriverPtr<Code>,
        0x018 FreeCommonBuffer: DriverPtr<Code>,
        0x020 AllocateAdapterChannel: DriverPtr<Code>,
        0x028 FlushAdapterBuffers: DriverPtr<Code>,
        0x030 FreeAdapterChannel: DriverPtr<Code>,
        0x038 FreeMapRegisters: DriverPtr<Code>,
        0x040 MapTransfer: DriverPtr<Code>,
        0x048 GetDmaAlignment: DriverPtr<Code>,
        0x050 ReadDmaCounter: DriverPtr<Code>,
        0x058 GetScatterGatherList: DriverPtr<Code>,
        0x060 PutScatterGatherList: DriverPtr<Code>,
        0x068 CalculateScatterGatherList: DriverPtr<Code>,
        0x070 BuildScatterGatherList: DriverPtr<Code>,
        0x078 BuildMdlFromScatterGatherList: DriverPtr<Code>,
        0x080 GetDmaAdapterInfo: DriverPtr<Code>,
        0x088 GetDmaTransferInfo: DriverPtr<Code>,
        0x090 InitializeDmaTransferContext: DriverPtr<Code>,
        0x098 AllocateCommonBufferEx: DriverPtr<Code>,
        0x0a0 AllocateAdapterChannelEx: DriverPtr<Code>,
        0x0a8 ConfigureAdapterChannel: DriverPtr<Code>,
        0x0b0 CancelAdapterChannel: DriverPtr<Code>,
        0x0b8 MapTransferEx: DriverPtr<Code>,
        0x0c0 GetScatterGatherListEx: DriverPtr<Code>,
        0x0c8 BuildScatterGatherListEx: DriverPtr<Code>,
        0x0d0 FlushAdapterBuffersEx: DriverPtr<Code>,
        0x0d8 FreeAdapterObject: DriverPtr<Code>,
        0x0e0 CancelMappedTransfer: DriverPtr<Code>,
        0x0e8 AllocateDomainCommonBuffer: DriverPtr<Code>,
        0x0f0 FlushDmaBuffer: DriverPtr<Code>,
        0x0f8 JoinDmaDomain: DriverPtr<Code>,
        0x100 LeaveDmaDomain: DriverPtr<Code>,
        0x108 GetDmaDomain: DriverPtr<Code>,
        0x110 AllocateCommonBufferWithBounds: DriverPtr<Code>,
        0x118 AllocateCommonBufferVector: DriverPtr<Code>,
        0x120 GetCommonBufferFromVectorByIndex: DriverPtr<Code>,
        0x128 FreeCommonBufferFromVector: DriverPtr<Code>,
        0x130 FreeCommonBufferVector: DriverPtr<Code>,
        0x138 CreateCommonBufferFromMdl: DriverPtr<Code>,
    }

    /// One run of a transfer.
    SCATTER_GATHER_ELEMENT [size 0x18, align 8] {
        0x00 Address: u64,
        0x08 Length: u32,
        0x10 Reserved: u64,
    }

    /// A transfer's runs. (`sizeof` is 0x10 in newer kits, where `Elements` has no stated length.)
    SCATTER_GATHER_LIST [size 0x28, align 8] {
        0x00 NumberOfElements: u32,
        0x08 Reserved: u64,
        0x10 Elements: SCATTER_GATHER_ELEMENT,
    }

    /// Further parameters of `CreateCommonBufferFromMdl`.
    DMA_COMMON_BUFFER_EXTENDED_CONFIGURATION [size 0x28, align 8, not_in_mingw "mingw's kit ends before DMA version 3"] {
        0x00 ConfigType: u32,
        0x08 LogicalAddressLimits_MinimumAddress = "LogicalAddressLimits.MinimumAddress": u64,
        0x10 LogicalAddressLimits_MaximumAddress = "LogicalAddressLimits.MaximumAddress": u64,
        0x08 SubSection_Offset = "SubSection.Offset": u64,
        0x10 SubSection_Length = "SubSection.Length": u32,
        0x08 HardwareAccessType: u32,
        0x08 Reserved: [u64; 4],
    }

    /// Answer of `GetDmaAdapterInfo`.
    DMA_ADAPTER_INFO [size 0x18, align 4, not_in_mingw "mingw's kit ends before DMA version 3"] {
        0x00 Version: u32,
        0x04 V1_ReadDmaCounterAvailable = "V1.ReadDmaCounterAvailable": u32,
        0x08 V1_ScatterGatherLimit = "V1.ScatterGatherLimit": u32,
        0x0c V1_DmaAddressWidth = "V1.DmaAddressWidth": u32,
        0x10 V1_Flags = "V1.Flags": u32,
        0x14 V1_MinimumTransferUnit = "V1.MinimumTransferUnit": u32,
    }

    /// Answer of `GetDmaTransferInfo`.
    DMA_TRANSFER_INFO [size 0x14, align 4, not_in_mingw "mingw's kit ends before DMA version 3"] {
        0x00 Version: u32,
        0x04 V1_MapRegisterCount = "V1.MapRegisterCount": u32,
        0x08 V1_ScatterGatherElementCount = "V1.ScatterGatherElementCount": u32,
        0x0c V1_ScatterGatherListSize = "V1.ScatterGatherListSize": u32,
        0x04 V2_MapRegisterCount = "V2.MapRegisterCount": u32,
        0x08 V2_ScatterGatherElementCount = "V2.ScatterGatherElementCount": u32,
        0x0c V2_ScatterGatherListSize = "V2.ScatterGatherListSize": u32,
        0x10 V2_LogicalPageCount = "V2.LogicalPageCount": u32,
    }
}

constants! {
    u32 {
        // `DEVICE_DESCRIPTION::Version`.
        DEVICE_DESCRIPTION_VERSION = 0x0;
        DEVICE_DESCRIPTION_VERSION1 = 0x1;
        DEVICE_DESCRIPTION_VERSION2 = 0x2;
    }
    u32, not_in_mingw "newer than mingw's kit" {
        DEVICE_DESCRIPTION_VERSION3 = 3;
        DMA_ADAPTER_INFO_VERSION1 = 1;
        DMA_TRANSFER_INFO_VERSION1 = 1;
        DMA_TRANSFER_INFO_VERSION2 = 2;
        ADAPTER_INFO_SYNCHRONOUS_CALLBACK = 1;
        ADAPTER_INFO_API_BYPASS = 2;
        DMA_SYNCHRONOUS_CALLBACK = 1;
        DMA_TRANSFER_CONTEXT_VERSION1 = 1;
        // `DMA_COMMON_BUFFER_EXTENDED_CONFIGURATION::ConfigType`.
        CommonBufferConfigTypeLogicalAddressLimits = 0;
        CommonBufferConfigTypeSubSection = 1;
        CommonBufferConfigTypeHardwareAccessPermissions = 2;
        // `DMA_COMMON_BUFFER_EXTENDED_CONFIGURATION::HardwareAccessType`.
        CommonBufferHardwareAccessReadOnly = 0;
        CommonBufferHardwareAccessWriteOnly = 1;
        CommonBufferHardwareAccessReadWrite = 2;
    }
    u64, not_in_mingw "newer than mingw's kit" {
        // Bytes of a transfer context.
        DMA_TRANSFER_CONTEXT_SIZE_V1 = 128;
    }
    u32 {
        // Width of a system DMA channel.
        Width8Bits = 0;
        Width16Bits = 1;
        Width32Bits = 2;
        Width64Bits = 3;
        WidthNoWrap = 4;
        MaximumDmaWidth = 5;
    }
    u32 {
        // Speed of a system DMA channel.
        Compatible = 0;
        TypeA = 1;
        TypeB = 2;
        TypeC = 3;
        TypeF = 4;
        MaximumDmaSpeed = 5;
    }
}
