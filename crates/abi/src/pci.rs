//! PCI configuration space and the interfaces a PCI bus driver offers.
//!
//! Pages: *PCI_COMMON_CONFIG*, *PCI_SLOT_NUMBER*, *PCI_CAPABILITIES_HEADER*; `wdm.h`.
//! Capabilities beyond power management, MSI and MSI-X are not laid out here.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr};

layouts! {
    /// Device (bits 0–4) and function (bits 5–7).
    PCI_SLOT_NUMBER [size 0x4, align 4] {
        0x00 u_AsULONG = "u.AsULONG": u32,
    }

    /// The first 64 bytes of configuration space.
    PCI_COMMON_HEADER [size 0x40, align 4] {
        0x00 VendorID: u16,
        0x02 DeviceID: u16,
        0x04 Command: u16,
        0x06 Status: u16,
        0x08 RevisionID: u8,
        0x09 ProgIf: u8,
        0x0a SubClass: u8,
        0x0b BaseClass: u8,
        0x0c CacheLineSize: u8,
        0x0d LatencyTimer: u8,
        0x0e HeaderType: u8,
        0x0f BIST: u8,
        0x10 u_type0_BaseAddresses = "u.type0.BaseAddresses": [u32; 6],
        0x28 u_type0_CIS = "u.type0.CIS": u32,
        0x2c u_type0_SubVendorID = "u.type0.SubVendorID": u16,
        0x2e u_type0_SubSystemID = "u.type0.SubSystemID": u16,
        0x30 u_type0_ROMBaseAddress = "u.type0.ROMBaseAddress": u32,
        0x34 u_type0_CapabilitiesPtr = "u.type0.CapabilitiesPtr": u8,
        0x35 u_type0_Reserved1 = "u.type0.Reserved1": [u8; 3],
        0x38 u_type0_Reserved2 = "u.type0.Reserved2": u32,
        0x3c u_type0_InterruptLine = "u.type0.InterruptLine": u8,
        0x3d u_type0_InterruptPin = "u.type0.InterruptPin": u8,
        0x3e u_type0_MinimumGrant = "u.type0.MinimumGrant": u8,
        0x3f u_type0_MaximumLatency = "u.type0.MaximumLatency": u8,
        0x10 u_type1_BaseAddresses = "u.type1.BaseAddresses": [u32; 2],
        0x18 u_type1_PrimaryBus = "u.type1.PrimaryBus": u8,
        0x19 u_type1_SecondaryBus = "u.type1.SecondaryBus": u8,
        0x1a u_type1_SubordinateBus = "u.type1.SubordinateBus": u8,
        0x1b u_type1_SecondaryLatency = "u.type1.SecondaryLatency": u8,
        0x1c u_type1_IOBase = "u.type1.IOBase": u8,
        0x1d u_type1_IOLimit = "u.type1.IOLimit": u8,
        0x1e u_type1_SecondaryStatus = "u.type1.SecondaryStatus": u16,
        0x20 u_type1_MemoryBase = "u.type1.MemoryBase": u16,
        0x22 u_type1_MemoryLimit = "u.type1.MemoryLimit": u16,
        0x24 u_type1_PrefetchBase = "u.type1.PrefetchBase": u16,
        0x26 u_type1_PrefetchLimit = "u.type1.PrefetchLimit": u16,
        0x28 u_type1_PrefetchBaseUpper32 = "u.type1.PrefetchBaseUpper32": u32,
        0x2c u_type1_PrefetchLimitUpper32 = "u.type1.PrefetchLimitUpper32": u32,
        0x30 u_type1_IOBaseUpper16 = "u.type1.IOBaseUpper16": u16,
        0x32 u_type1_IOLimitUpper16 = "u.type1.IOLimitUpper16": u16,
        0x34 u_type1_CapabilitiesPtr = "u.type1.CapabilitiesPtr": u8,
        0x35 u_type1_Reserved1 = "u.type1.Reserved1": [u8; 3],
        0x38 u_type1_ROMBaseAddress = "u.type1.ROMBaseAddress": u32,
        0x3c u_type1_InterruptLine = "u.type1.InterruptLine": u8,
        0x3d u_type1_InterruptPin = "u.type1.InterruptPin": u8,
        0x3e u_type1_BridgeControl = "u.type1.BridgeControl": u16,
        0x10 u_type2_SocketRegistersBaseAddress = "u.type2.SocketRegistersBaseAddress": u32,
        0x14 u_type2_CapabilitiesPtr = "u.type2.CapabilitiesPtr": u8,
        0x15 u_type2_Reserved = "u.type2.Reserved": u8,
        0x16 u_type2_SecondaryStatus = "u.type2.SecondaryStatus": u16,
        0x18 u_type2_PrimaryBus = "u.type2.PrimaryBus": u8,
        0x19 u_type2_SecondaryBus = "u.type2.SecondaryBus": u8,
        0x1a u_type2_SubordinateBus = "u.type2.SubordinateBus": u8,
        0x1b u_type2_SecondaryLatency = "u.type2.SecondaryLatency": u8,
        0x1c u_type2_Range = "u.type2.Range": [[u32; 2]; 4],
        0x3c u_type2_InterruptLine = "u.type2.InterruptLine": u8,
        0x3d u_type2_InterruptPin = "u.type2.InterruptPin": u8,
        0x3e u_type2_BridgeControl = "u.type2.BridgeControl": u16,
    }

    /// All 256 bytes of configuration space.
    PCI_COMMON_CONFIG [size 0x100, align 4] {
        0x00 VendorID: u16,
        0x02 DeviceID: u16,
        0x04 Command: u16,
        0x06 Status: u16,
        0x08 RevisionID: u8,
        0x09 ProgIf: u8,
        0x0a SubClass: u8,
        0x0b BaseClass: u8,
        0x0c CacheLineSize: u8,
        0x0d LatencyTimer: u8,
        0x0e HeaderType: u8,
        0x0f BIST: u8,
        0x10 u_type0_BaseAddresses = "u.type0.BaseAddresses": [u32; 6],
        0x28 u_type0_CIS = "u.type0.CIS": u32,
        0x2c u_type0_SubVendorID = "u.type0.SubVendorID": u16,
        0x2e u_type0_SubSystemID = "u.type0.SubSystemID": u16,
        0x30 u_type0_ROMBaseAddress = "u.type0.ROMBaseAddress": u32,
        0x34 u_type0_CapabilitiesPtr = "u.type0.CapabilitiesPtr": u8,
        0x35 u_type0_Reserved1 = "u.type0.Reserved1": [u8; 3],
        0x38 u_type0_Reserved2 = "u.type0.Reserved2": u32,
        0x3c u_type0_InterruptLine = "u.type0.InterruptLine": u8,
        0x3d u_type0_InterruptPin = "u.type0.InterruptPin": u8,
        0x3e u_type0_MinimumGrant = "u.type0.MinimumGrant": u8,
        0x3f u_type0_MaximumLatency = "u.type0.MaximumLatency": u8,
        0x10 u_type1_BaseAddresses = "u.type1.BaseAddresses": [u32; 2],
        0x18 u_type1_PrimaryBus = "u.type1.PrimaryBus": u8,
        0x19 u_type1_SecondaryBus = "u.type1.SecondaryBus": u8,
        0x1a u_type1_SubordinateBus = "u.type1.SubordinateBus": u8,
        0x1b u_type1_SecondaryLatency = "u.type1.SecondaryLatency": u8,
        0x1c u_type1_IOBase = "u.type1.IOBase": u8,
        0x1d u_type1_IOLimit = "u.type1.IOLimit": u8,
        0x1e u_type1_SecondaryStatus = "u.type1.SecondaryStatus": u16,
        0x20 u_type1_MemoryBase = "u.type1.MemoryBase": u16,
        0x22 u_type1_MemoryLimit = "u.type1.MemoryLimit": u16,
        0x24 u_type1_PrefetchBase = "u.type1.PrefetchBase": u16,
        0x26 u_type1_PrefetchLimit = "u.type1.PrefetchLimit": u16,
        0x28 u_type1_PrefetchBaseUpper32 = "u.type1.PrefetchBaseUpper32": u32,
        0x2c u_type1_PrefetchLimitUpper32 = "u.type1.PrefetchLimitUpper32": u32,
        0x30 u_type1_IOBaseUpper16 = "u.type1.IOBaseUpper16": u16,
        0x32 u_type1_IOLimitUpper16 = "u.type1.IOLimitUpper16": u16,
        0x34 u_type1_CapabilitiesPtr = "u.type1.CapabilitiesPtr": u8,
        0x35 u_type1_Reserved1 = "u.type1.Reserved1": [u8; 3],
        0x38 u_type1_ROMBaseAddress = "u.type1.ROMBaseAddress": u32,
        0x3c u_type1_InterruptLine = "u.type1.InterruptLine": u8,
        0x3d u_type1_InterruptPin = "u.type1.InterruptPin": u8,
        0x3e u_type1_BridgeControl = "u.type1.BridgeControl": u16,
        0x10 u_type2_SocketRegistersBaseAddress = "u.type2.SocketRegistersBaseAddress": u32,
        0x14 u_type2_CapabilitiesPtr = "u.type2.CapabilitiesPtr": u8,
        0x15 u_type2_Reserved = "u.type2.Reserved": u8,
        0x16 u_type2_SecondaryStatus = "u.type2.SecondaryStatus": u16,
        0x18 u_type2_PrimaryBus = "u.type2.PrimaryBus": u8,
        0x19 u_type2_SecondaryBus = "u.type2.SecondaryBus": u8,
        0x1a u_type2_SubordinateBus = "u.type2.SubordinateBus": u8,
        0x1b u_type2_SecondaryLatency = "u.type2.SecondaryLatency": u8,
        0x1c u_type2_Range = "u.type2.Range": [[u32; 2]; 4],
        0x3c u_type2_InterruptLine = "u.type2.InterruptLine": u8,
        0x3d u_type2_InterruptPin = "u.type2.InterruptPin": u8,
        0x3e u_type2_BridgeControl = "u.type2.BridgeControl": u16,
        0x40 DeviceSpecific: [u8; 192],
    }

    /// What every capability starts with.
    PCI_CAPABILITIES_HEADER [size 0x2, align 1] {
        0x00 CapabilityID: u8,
        0x01 Next: u8,
    }

    /// The power management capability.
    PCI_PM_CAPABILITY [size 0x8, align 2] {
        0x00 Header: PCI_CAPABILITIES_HEADER,
        0x02 PMC_AsUSHORT = "PMC.AsUSHORT": u16,
        0x04 PMCSR_AsUSHORT = "PMCSR.AsUSHORT": u16,
        0x06 PMCSR_BSE_AsUCHAR = "PMCSR_BSE.AsUCHAR": u8,
        0x07 Data: u8,
    }

    /// Masks and retargets MSI-X messages.
    PCI_MSIX_TABLE_CONFIG_INTERFACE [size 0x48, align 8] {
        0x00 Size: u16,
        0x02 Version: u16,
        0x08 Context: DriverPtr<()>,
        0x10 InterfaceReference: DriverPtr<Code>,
        0x18 InterfaceDereference: DriverPtr<Code>,
        0x20 SetTableEntry: DriverPtr<Code>,
        0x28 MaskTableEntry: DriverPtr<Code>,
        0x30 UnmaskTableEntry: DriverPtr<Code>,
        0x38 GetTableEntry: DriverPtr<Code>,
        0x40 GetTableSize: DriverPtr<Code>,
    }
}

constants! {
    u32 {
        // Sizes and limits.
        PCI_TYPE0_ADDRESSES = 0x6;
        PCI_TYPE1_ADDRESSES = 0x2;
        PCI_TYPE2_ADDRESSES = 0x5;
        PCI_COMMON_HDR_LENGTH = 0x40;
        PCI_EXTENDED_CONFIG_LENGTH = 0x1000;
        PCI_MAX_DEVICES = 0x20;
        PCI_MAX_FUNCTION = 0x8;
        PCI_MAX_BRIDGE_NUMBER = 0xff;
    }
    u16 {
        // `VendorID` where there is no device.
        PCI_INVALID_VENDORID = 0xffff;
    }
    u8 {
        // `HeaderType`.
        PCI_MULTIFUNCTION = 0x80;
        PCI_DEVICE_TYPE = 0x0;
        PCI_BRIDGE_TYPE = 0x1;
        PCI_CARDBUS_BRIDGE_TYPE = 0x2;
    }
    u16 {
        // `Command`.
        PCI_ENABLE_IO_SPACE = 0x1;
        PCI_ENABLE_MEMORY_SPACE = 0x2;
        PCI_ENABLE_BUS_MASTER = 0x4;
        PCI_ENABLE_SPECIAL_CYCLES = 0x8;
        PCI_ENABLE_WRITE_AND_INVALIDATE = 0x10;
        PCI_ENABLE_VGA_COMPATIBLE_PALETTE = 0x20;
        PCI_ENABLE_PARITY = 0x40;
        PCI_ENABLE_WAIT_CYCLE = 0x80;
        PCI_ENABLE_SERR = 0x100;
        PCI_ENABLE_FAST_BACK_TO_BACK = 0x200;
        PCI_DISABLE_LEVEL_INTERRUPT = 0x400;
    }
    u16 {
        // `Status`.
        PCI_STATUS_INTERRUPT_PENDING = 0x8;
        PCI_STATUS_CAPABILITIES_LIST = 0x10;
        PCI_STATUS_66MHZ_CAPABLE = 0x20;
        PCI_STATUS_UDF_SUPPORTED = 0x40;
        PCI_STATUS_FAST_BACK_TO_BACK = 0x80;
        PCI_STATUS_DATA_PARITY_DETECTED = 0x100;
        PCI_STATUS_DEVSEL = 0x600;
        PCI_STATUS_SIGNALED_TARGET_ABORT = 0x800;
        PCI_STATUS_RECEIVED_TARGET_ABORT = 0x1000;
        PCI_STATUS_RECEIVED_MASTER_ABORT = 0x2000;
        PCI_STATUS_SIGNALED_SYSTEM_ERROR = 0x4000;
        PCI_STATUS_DETECTED_PARITY_ERROR = 0x8000;
    }
    u32 {
        // Base addresses.
        PCI_ADDRESS_IO_SPACE = 0x1;
        PCI_ADDRESS_MEMORY_TYPE_MASK = 0x6;
        PCI_ADDRESS_MEMORY_PREFETCHABLE = 0x8;
        PCI_ADDRESS_IO_ADDRESS_MASK = 0xffff_fffc;
        PCI_ADDRESS_MEMORY_ADDRESS_MASK = 0xffff_fff0;
        PCI_ADDRESS_ROM_ADDRESS_MASK = 0xffff_f800;
        PCI_TYPE_32BIT = 0x0;
        PCI_TYPE_20BIT = 0x2;
        PCI_TYPE_64BIT = 0x4;
        PCI_ROMADDRESS_ENABLED = 0x1;
    }
    u32 {
        // `Parameters.ReadWriteConfig.WhichSpace`.
        PCI_WHICHSPACE_CONFIG = 0x0;
        PCI_WHICHSPACE_ROM = 0x5269_6350;
    }
    u8 {
        // Capabilities.
        PCI_CAPABILITY_ID_POWER_MANAGEMENT = 0x1;
        PCI_CAPABILITY_ID_AGP = 0x2;
        PCI_CAPABILITY_ID_VPD = 0x3;
        PCI_CAPABILITY_ID_SLOT_ID = 0x4;
        PCI_CAPABILITY_ID_MSI = 0x5;
        PCI_CAPABILITY_ID_CPCI_HOTSWAP = 0x6;
        PCI_CAPABILITY_ID_PCIX = 0x7;
        PCI_CAPABILITY_ID_HYPERTRANSPORT = 0x8;
        PCI_CAPABILITY_ID_VENDOR_SPECIFIC = 0x9;
        PCI_CAPABILITY_ID_DEBUG_PORT = 0xa;
        PCI_CAPABILITY_ID_CPCI_RES_CTRL = 0xb;
        PCI_CAPABILITY_ID_SHPC = 0xc;
        PCI_CAPABILITY_ID_P2P_SSID = 0xd;
        PCI_CAPABILITY_ID_AGP_TARGET = 0xe;
        PCI_CAPABILITY_ID_SECURE = 0xf;
        PCI_CAPABILITY_ID_PCI_EXPRESS = 0x10;
        PCI_CAPABILITY_ID_MSIX = 0x11;
    }
    u8 {
        // Classes of device.
        PCI_CLASS_PRE_20 = 0x0;
        PCI_CLASS_MASS_STORAGE_CTLR = 0x1;
        PCI_CLASS_NETWORK_CTLR = 0x2;
        PCI_CLASS_DISPLAY_CTLR = 0x3;
        PCI_CLASS_MULTIMEDIA_DEV = 0x4;
        PCI_CLASS_MEMORY_CTLR = 0x5;
        PCI_CLASS_BRIDGE_DEV = 0x6;
        PCI_CLASS_SIMPLE_COMMS_CTLR = 0x7;
        PCI_CLASS_BASE_SYSTEM_DEV = 0x8;
        PCI_CLASS_INPUT_DEV = 0x9;
        PCI_CLASS_DOCKING_STATION = 0xa;
        PCI_CLASS_PROCESSOR = 0xb;
        PCI_CLASS_SERIAL_BUS_CTLR = 0xc;
        PCI_CLASS_WIRELESS_CTLR = 0xd;
        PCI_CLASS_INTELLIGENT_IO_CTLR = 0xe;
        PCI_CLASS_SATELLITE_COMMS_CTLR = 0xf;
        PCI_CLASS_ENCRYPTION_DECRYPTION = 0x10;
        PCI_CLASS_DATA_ACQ_SIGNAL_PROC = 0x11;
        PCI_CLASS_NOT_DEFINED = 0xff;
    }
}
