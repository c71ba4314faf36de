//! Plug and Play: capabilities, relations, interfaces between drivers, notifications.
//!
//! Pages: *DEVICE_CAPABILITIES*, *DEVICE_RELATIONS*, *INTERFACE*, *BUS_INTERFACE_STANDARD*,
//! *IoRegisterPlugPlayNotification*; `wdm.h`. Resources are in `resource`.

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
