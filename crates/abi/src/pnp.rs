//! Plug and Play: capabilities, relations, interfaces between drivers, notifications.
//!
//! Pages: *DEVICE_CAPABILITIES*, *DEVICE_RELATIONS*, *INTERFACE*, *BUS_INTERFACE_STANDARD*,
//! *IoRegisterPlugPlayNotification*; `wdm.h`. Resources are in `resource`.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DEVICE_OBJECT, DriverPtr, FILE_OBJECT, GUID, UNICODE_STRING};

layouts! {
    /// What a device can do. `DeviceState` is indexed by system power state.
    DEVICE_CAPABILITIES [size 0x40, align 4] {
        0x00 Size: u16,
        0x02 Version: u16,
        0x04 Bits = "": u32,
        0x08 Address: u32,
        0x0c UINumber: u32,
        0x10 DeviceState: [u32; 7],
        0x2c SystemWake: u32,
        0x30 DeviceWake: u32,
        0x34 D1Latency: u32,
        0x38 D2Latency: u32,
        0x3c D3Latency: u32,
    }

    /// Devices related to one; the caller frees it and dereferences each.
    DEVICE_RELATIONS [size 0x10, align 8] {
        0x00 Count: u32,
        0x08 Objects: DriverPtr<DEVICE_OBJECT>,
    }

    /// What every interface between drivers starts with.
    INTERFACE [size 0x20, align 8] {
        0x00 Size: u16,
        0x02 Version: u16,
        0x08 Context: DriverPtr<()>,
        0x10 InterfaceReference: DriverPtr<Code>,
        0x18 InterfaceDereference: DriverPtr<Code>,
    }

    /// A bus driver's interface for its children.
    BUS_INTERFACE_STANDARD [size 0x40, align 8] {
        0x00 Size: u16,
        0x02 Version: u16,
        0x08 Context: DriverPtr<()>,
        0x10 InterfaceReference: DriverPtr<Code>,
        0x18 InterfaceDereference: DriverPtr<Code>,
        0x20 TranslateBusAddress: DriverPtr<Code>,
        0x28 GetDmaAdapter: DriverPtr<Code>,
        0x30 SetBusData: DriverPtr<Code>,
        0x38 GetBusData: DriverPtr<Code>,
    }

    /// Asks the bus to enumerate this device again.
    REENUMERATE_SELF_INTERFACE_STANDARD [size 0x28, align 8] {
        0x00 Size: u16,
        0x02 Version: u16,
        0x08 Context: DriverPtr<()>,
        0x10 InterfaceReference: DriverPtr<Code>,
        0x18 InterfaceDereference: DriverPtr<Code>,
        0x20 SurpriseRemoveAndReenumerateSelf: DriverPtr<Code>,
    }

    /// Where a device sits.
    PNP_LOCATION_INTERFACE [size 0x28, align 8] {
        0x00 Size: u16,
        0x02 Version: u16,
        0x08 Context: DriverPtr<()>,
        0x10 InterfaceReference: DriverPtr<Code>,
        0x18 InterfaceDereference: DriverPtr<Code>,
        0x20 GetLocationString: DriverPtr<Code>,
    }

    /// What device to look for.
    PCI_DEVICE_PRESENCE_PARAMETERS [size 0x18, align 4] {
        0x00 Size: u32,
        0x04 Flags: u32,
        0x08 VendorID: u16,
        0x0a DeviceID: u16,
        0x0c RevisionID: u8,
        0x0e SubVendorID: u16,
        0x10 SubSystemID: u16,
        0x12 BaseClass: u8,
        0x13 SubClass: u8,
        0x14 ProgIf: u8,
    }

    /// Whether a PCI device is there.
    PCI_DEVICE_PRESENT_INTERFACE [size 0x30, align 8] {
        0x00 Size: u16,
        0x02 Version: u16,
        0x08 Context: DriverPtr<()>,
        0x10 InterfaceReference: DriverPtr<Code>,
        0x18 InterfaceDereference: DriverPtr<Code>,
        0x20 IsDevicePresent: DriverPtr<Code>,
        0x28 IsDevicePresentEx: DriverPtr<Code>,
    }

    /// Answer of `IRP_MN_QUERY_BUS_INFORMATION`.
    PNP_BUS_INFORMATION [size 0x18, align 4] {
        0x00 BusTypeGuid: GUID,
        0x10 LegacyBusType: u32,
        0x14 BusNumber: u32,
    }

    /// What every notification starts with.
    PLUGPLAY_NOTIFICATION_HEADER [size 0x14, align 4] {
        0x00 Version: u16,
        0x02 Size: u16,
        0x04 Event: GUID,
    }

    /// An interface came or went.
    DEVICE_INTERFACE_CHANGE_NOTIFICATION [size 0x30, align 8] {
        0x00 Version: u16,
        0x02 Size: u16,
        0x04 Event: GUID,
        0x14 InterfaceClassGuid: GUID,
        0x28 SymbolicLinkName: DriverPtr<UNICODE_STRING>,
    }

    /// A device is about to go, or stays.
    TARGET_DEVICE_REMOVAL_NOTIFICATION [size 0x20, align 8] {
        0x00 Version: u16,
        0x02 Size: u16,
        0x04 Event: GUID,
        0x18 FileObject: DriverPtr<FILE_OBJECT>,
    }

    /// A driver's own event.
    TARGET_DEVICE_CUSTOM_NOTIFICATION [size 0x28, align 8] {
        0x00 Version: u16,
        0x02 Size: u16,
        0x04 Event: GUID,
        0x18 FileObject: DriverPtr<FILE_OBJECT>,
        0x20 NameBufferOffset: i32,
        0x24 CustomDataBuffer: u8,
    }

    /// The machine was docked or undocked.
    HWPROFILE_CHANGE_NOTIFICATION [size 0x14, align 4] {
        0x00 Version: u16,
        0x02 Size: u16,
        0x04 Event: GUID,
    }

    /// Names a device property.
    DEVPROPKEY [size 0x14, align 4] {
        0x00 fmtid: GUID,
        0x10 pid: u32,
    }
}

/// Bits of [`DEVICE_CAPABILITIES::Bits`], under the names of C's bit-fields.
#[allow(missing_docs, reason = "the members are Microsoft's, under Microsoft's names")]
impl DEVICE_CAPABILITIES {
    pub const DeviceD1: u32 = 1 << 0;
    pub const DeviceD2: u32 = 1 << 1;
    pub const LockSupported: u32 = 1 << 2;
    pub const EjectSupported: u32 = 1 << 3;
    pub const Removable: u32 = 1 << 4;
    pub const DockDevice: u32 = 1 << 5;
    pub const UniqueID: u32 = 1 << 6;
    pub const SilentInstall: u32 = 1 << 7;
    pub const RawDeviceOK: u32 = 1 << 8;
    pub const SurpriseRemovalOK: u32 = 1 << 9;
    pub const WakeFromD0: u32 = 1 << 10;
    pub const WakeFromD1: u32 = 1 << 11;
    pub const WakeFromD2: u32 = 1 << 12;
    pub const WakeFromD3: u32 = 1 << 13;
    pub const HardwareDisabled: u32 = 1 << 14;
    pub const NonDynamic: u32 = 1 << 15;
    pub const WarmEjectSupported: u32 = 1 << 16;
    pub const NoDisplayInUI: u32 = 1 << 17;
    pub const WakeFromInterrupt: u32 = 1 << 19;
    pub const SecureDevice: u32 = 1 << 20;
    pub const ChildOfVgaEnabledBridge: u32 = 1 << 21;
    pub const DecodeIoOnBoot: u32 = 1 << 22;
}

constants! {
    u32 {
        // Kinds of relation.
        BusRelations = 0;
        EjectionRelations = 1;
        PowerRelations = 2;
        RemovalRelations = 3;
        TargetDeviceRelation = 4;
        SingleBusRelations = 5;
        TransportRelations = 6;
    }
    u32 {
        // Kinds of id.
        BusQueryDeviceID = 0;
        BusQueryHardwareIDs = 1;
        BusQueryCompatibleIDs = 2;
        BusQueryInstanceID = 3;
        BusQueryDeviceSerialNumber = 4;
        BusQueryContainerID = 5;
    }
    u32 {
        // Kinds of text.
        DeviceTextDescription = 0;
        DeviceTextLocationInformation = 1;
    }
    u32 {
        // Kinds of usage.
        DeviceUsageTypeUndefined = 0;
        DeviceUsageTypePaging = 1;
        DeviceUsageTypeHibernation = 2;
        DeviceUsageTypeDumpFile = 3;
        DeviceUsageTypeBoot = 4;
        DeviceUsageTypePostDisplay = 5;
        DeviceUsageTypeGuestAssigned = 6;
    }
    u32 {
        // `PNP_DEVICE_STATE`.
        PNP_DEVICE_DISABLED = 0x1;
        PNP_DEVICE_DONT_DISPLAY_IN_UI = 0x2;
        PNP_DEVICE_FAILED = 0x4;
        PNP_DEVICE_REMOVED = 0x8;
        PNP_DEVICE_RESOURCE_REQUIREMENTS_CHANGED = 0x10;
        PNP_DEVICE_NOT_DISABLEABLE = 0x20;
    }
    u32, not_in_mingw "newer than mingw's kit" {
        PNP_DEVICE_DISCONNECTED = 0x40;
    }
    u32 {
        // For `IoGetDeviceProperty`.
        DevicePropertyDeviceDescription = 0;
        DevicePropertyHardwareID = 1;
        DevicePropertyCompatibleIDs = 2;
        DevicePropertyBootConfiguration = 3;
        DevicePropertyBootConfigurationTranslated = 4;
        DevicePropertyClassName = 5;
        DevicePropertyClassGuid = 6;
        DevicePropertyDriverKeyName = 7;
        DevicePropertyManufacturer = 8;
        DevicePropertyFriendlyName = 9;
        DevicePropertyLocationInformation = 10;
        DevicePropertyPhysicalDeviceObjectName = 11;
        DevicePropertyBusTypeGuid = 12;
        DevicePropertyLegacyBusType = 13;
        DevicePropertyBusNumber = 14;
        DevicePropertyEnumeratorName = 15;
        DevicePropertyAddress = 16;
        DevicePropertyUINumber = 17;
        DevicePropertyInstallState = 18;
        DevicePropertyRemovalPolicy = 19;
        DevicePropertyResourceRequirements = 20;
        DevicePropertyAllocatedResources = 21;
        DevicePropertyContainerID = 22;
    }
    u32 {
        // For `IoOpenDeviceRegistryKey`.
        PLUGPLAY_REGKEY_DEVICE = 1;
        PLUGPLAY_REGKEY_DRIVER = 2;
        PLUGPLAY_REGKEY_CURRENT_HWPROFILE = 4;
    }
    u16 {
        // Versions.
        PCI_DEVICE_PRESENT_INTERFACE_VERSION = 1;
    }
    u32 {
        // `PCI_DEVICE_PRESENCE_PARAMETERS::Flags`.
        PCI_USE_SUBSYSTEM_IDS = 0x1;
        PCI_USE_REVISION = 0x2;
        PCI_USE_VENDEV_IDS = 0x4;
        PCI_USE_CLASS_SUBCLASS = 0x8;
        PCI_USE_PROGIF = 0x10;
        PCI_USE_LOCAL_BUS = 0x20;
        PCI_USE_LOCAL_DEVICE = 0x40;
    }
    u32 {
        // For `IoGetDeviceInterfaces`.
        DEVICE_INTERFACE_INCLUDE_NONACTIVE = 0x1;
    }
}
