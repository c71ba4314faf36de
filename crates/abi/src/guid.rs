//! Globally unique identifiers that drivers and the kernel agree on.
//!
//! Pages: *GUID*, *IoRegisterPlugPlayNotification*, *IRP_MN_QUERY_INTERFACE*; `wdmguid.h`. Classes of device interface
//! are the drivers' own.

use core::fmt;

use crate::field::layouts;

layouts! {
    /// A globally unique identifier.
    GUID [size 0x10, align 4] {
        0x00 Data1: u32,
        0x04 Data2: u16,
        0x06 Data3: u16,
        0x08 Data4: [u8; 8],
    }
}

impl GUID {
    /// The identifier written `{data1-data2-data3-…}`, with `data4` the last sixteen digits as one number.
    #[must_use]
    pub const fn new(data1: u32, data2: u16, data3: u16, data4: u64) -> Self {
        let (a, b, c, d) =
            (data1.to_le_bytes(), data2.to_le_bytes(), data3.to_le_bytes(), data4.to_be_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }
}

impl GUID {
    /// Whether both are the same, where constants are made.
    #[must_use]
    pub const fn is(&self, other: &Self) -> bool {
        u128::from_le_bytes(self.0) == u128::from_le_bytes(other.0)
    }
}

/// As the registry and INF files write it: `{4d36e97d-e325-11ce-bfc1-08002be10318}`.
impl fmt::Display for GUID {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, j, k, rest @ ..] = self.0;
        let data1 = u32::from_le_bytes([a, b, c, d]);
        let (data2, data3) = (u16::from_le_bytes([e, g]), u16::from_le_bytes([h, i]));
        write!(f, "{{{data1:08x}-{data2:04x}-{data3:04x}-{j:02x}{k:02x}-")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("}")
    }
}

impl fmt::Debug for GUID {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! guids {
    ($($name:ident = $data1:literal, $data2:literal, $data3:literal, $data4:literal;)*) => {
        $(
            #[allow(missing_docs, reason = "the identifier is Microsoft's, under Microsoft's name")]
            pub const $name: GUID = GUID::new($data1, $data2, $data3, $data4);
        )*

        /// The identifiers this crate names.
        pub const NAMED_GUIDS: &[(&str, GUID)] = &[$((stringify!($name), $name)),*];
    };
}

guids! {
    // Events of Plug and Play notifications.
    GUID_DEVICE_INTERFACE_ARRIVAL = 0xcb3a4004, 0x46f0, 0x11d0, 0xb08f00609713053f;
    GUID_DEVICE_INTERFACE_REMOVAL = 0xcb3a4005, 0x46f0, 0x11d0, 0xb08f00609713053f;
    GUID_TARGET_DEVICE_QUERY_REMOVE = 0xcb3a4006, 0x46f0, 0x11d0, 0xb08f00609713053f;
    GUID_TARGET_DEVICE_REMOVE_CANCELLED = 0xcb3a4007, 0x46f0, 0x11d0, 0xb08f00609713053f;
    GUID_TARGET_DEVICE_REMOVE_COMPLETE = 0xcb3a4008, 0x46f0, 0x11d0, 0xb08f00609713053f;
    GUID_PNP_CUSTOM_NOTIFICATION = 0xaca73f8e, 0x8d23, 0x11d1, 0xac7d0000f87571d0;
    GUID_PNP_POWER_NOTIFICATION = 0xc2cf0660, 0xeb7a, 0x11d1, 0xbd7f0000f87571d0;
    GUID_HWPROFILE_QUERY_CHANGE = 0xcb3a4001, 0x46f0, 0x11d0, 0xb08f00609713053f;
    GUID_HWPROFILE_CHANGE_CANCELLED = 0xcb3a4002, 0x46f0, 0x11d0, 0xb08f00609713053f;
    GUID_HWPROFILE_CHANGE_COMPLETE = 0xcb3a4003, 0x46f0, 0x11d0, 0xb08f00609713053f;
    // Interfaces between drivers, for `IRP_MN_QUERY_INTERFACE`.
    GUID_BUS_INTERFACE_STANDARD = 0x496b8280, 0x6f25, 0x11d0, 0xbeaf08002be2092f;
    GUID_PCI_BUS_INTERFACE_STANDARD = 0x496b8281, 0x6f25, 0x11d0, 0xbeaf08002be2092f;
    GUID_PCI_DEVICE_PRESENT_INTERFACE = 0xd1b82c26, 0xbf49, 0x45ef, 0xb21671cbd7889b57;
    GUID_PNP_LOCATION_INTERFACE = 0x70211b0e, 0x0afb, 0x47db, 0xafc1410bf842497a;
    GUID_ACPI_INTERFACE_STANDARD = 0xb091a08a, 0xba97, 0x11d0, 0xbd1400aa00b7b32a;
    GUID_TRANSLATOR_INTERFACE_STANDARD = 0x6c154a92, 0xaacf, 0x11d0, 0x8d2a00a0c906b244;
    GUID_ARBITER_INTERFACE_STANDARD = 0xe644f185, 0x8c0e, 0x11d0, 0xbecf08002be2092f;
    GUID_INT_ROUTE_INTERFACE_STANDARD = 0x70941bf4, 0x0073, 0x11d1, 0xa09e00c04fc340b1;
    GUID_LEGACY_DEVICE_DETECTION_STANDARD = 0x50feb0de, 0x596a, 0x11d2, 0xa5b80000f81a4619;
    // Kinds of bus, for `PNP_BUS_INFORMATION`.
    GUID_BUS_TYPE_INTERNAL = 0x1530ea73, 0x086b, 0x11d1, 0xa09f00c04fc340b1;
    GUID_BUS_TYPE_PCMCIA = 0x09343630, 0xaf9f, 0x11d0, 0x92e90000f81e1b30;
    GUID_BUS_TYPE_PCI = 0xc8ebdfb0, 0xb510, 0x11d0, 0x80e500a0c92542e3;
    GUID_BUS_TYPE_ISAPNP = 0xe676f854, 0xd87d, 0x11d0, 0x92b200a0c9055fc5;
    GUID_BUS_TYPE_EISA = 0xddc35509, 0xf3fc, 0x11d0, 0xa5370000f8753ed1;
    GUID_BUS_TYPE_MCA = 0x1c75997a, 0xdc33, 0x11d0, 0x92b200a0c9055fc5;
    GUID_BUS_TYPE_USB = 0x9d7debbc, 0xc85d, 0x11d1, 0x9eb4006008c3a19a;
    GUID_BUS_TYPE_HID = 0xeeaf37d0, 0x1963, 0x47c4, 0xaa4872476db7cf49;
    GUID_BUS_TYPE_1394 = 0xf74e73eb, 0x9ac5, 0x45eb, 0xbe4d772cc71ddfb3;
}
