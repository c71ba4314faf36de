//! Properties of the unified device property model, of devices and of device interfaces: what drivers set, and what the system knows by itself.
//!
//! Pages: *IoSetDevicePropertyData function*, *IoGetDevicePropertyData function*, *IoSetDeviceInterfacePropertyData function*,
//! *IoGetDeviceInterfacePropertyData function*, *DEVPROPKEY structure*, *Device Properties*, *Device Interface Properties*. As since Windows 8 each locale is one of its own. Of the
//! system's those are known that `IoGetDeviceProperty` has; a driver that sets one of them hides it. All is in memory.

use std::collections::BTreeMap;

use abi::{
    DEVICE_OBJECT, DEVPROPKEY, DevicePropertyAddress, DevicePropertyBusNumber, DevicePropertyBusTypeGuid,
    DevicePropertyClassName, DevicePropertyCompatibleIDs, DevicePropertyDeviceDescription,
    DevicePropertyEnumeratorName, DevicePropertyHardwareID, DevicePropertyLegacyBusType,
    DevicePropertyLocationInformation, DevicePropertyManufacturer, DevicePropertyPhysicalDeviceObjectName,
    DriverPtr, NtStatus, UNICODE_STRING,
};
use engine::Flow;

use super::node::{self, NodeId};
use super::property;
use crate::cx::{Cx, Kernel};
use crate::io::interface;
use crate::{ob, wmi};

/// `DEVPROP_TYPE_UINT32`, `DEVPROP_TYPE_GUID`, `DEVPROP_TYPE_STRING`, `DEVPROP_TYPE_STRING_LIST`.
const UINT32: u32 = 0x07;
const GUID: u32 = 0x0D;
const STRING: u32 = 0x12;
const STRING_LIST: u32 = 0x2012;

/// The format of `DEVPKEY_Device_DeviceDesc` and its like.
const SYSTEM: &str = "{A45C254E-DF1C-4EFD-8020-67D146A850E0}";

/// The system's properties: the number behind that format, `DeviceProperty*`, and the type.
const KNOWN: [(u32, u32, u32); 12] = [
    (2, DevicePropertyDeviceDescription, STRING),
    (3, DevicePropertyHardwareID, STRING_LIST),
    (4, DevicePropertyCompatibleIDs, STRING_LIST),
    (9, DevicePropertyClassName, STRING),
    (13, DevicePropertyManufacturer, STRING),
    (15, DevicePropertyLocationInformation, STRING),
    (16, DevicePropertyPhysicalDeviceObjectName, STRING),
    (21, DevicePropertyBusTypeGuid, GUID),
    (22, DevicePropertyLegacyBusType, UINT32),
    (23, DevicePropertyBusNumber, UINT32),
    (24, DevicePropertyEnumeratorName, STRING),
    (30, DevicePropertyAddress, UINT32),
];

/// `DEVPKEY_Device_FriendlyName` behind it.
const FRIENDLY_NAME: u32 = 14;

/// The format of `DEVPKEY_DeviceInterface_Enabled` (3) and `…_ClassGuid` (4).
const INTERFACE: &str = "{026E516E-B814-414B-83CD-856D6FEF4822}";
const ENABLED: u32 = 3;
const CLASS: u32 = 4;
/// `DEVPROP_TYPE_BOOLEAN`.
const BOOLEAN: u32 = 0x11;

/// What has properties.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Owner {
    /// A device.
    Device(NodeId),
    /// A device interface, by its name in lower case; it need not be registered.
    Interface(String),
}

/// A property in a locale.
type Key = (Owner, wmi::Guid, u32, u32);

/// What drivers have set: the type and the value.
#[derive(Default)]
pub(crate) struct Properties(BTreeMap<Key, (u32, Vec<u8>)>);

fn key(cx: &mut Cx<'_>, owner: Owner, key: DriverPtr<DEVPROPKEY>, locale: u32) -> Flow<Key> {
    let format: wmi::Guid = cx.read((key + DEVPROPKEY::fmtid).cast())?;
    Ok((owner, format, cx.read(key + DEVPROPKEY::pid)?, locale))
}

/// The value that a property has in no locale, as an installation finds it: `DEVPROP_TYPE_*` and the bytes.
pub fn installed(cx: &mut Cx<'_>, owner: &Owner, format: wmi::Guid, number: u32) -> Option<(u32, Vec<u8>)> {
    let key = (owner.clone(), format, number, 0);
    let own = cx.with(|k| k.pnp.properties.0.get(&key).cloned());
    own.or_else(|| match owner {
        Owner::Device(id) => systems(cx, *id, format, number),
        Owner::Interface(_) => None,
    })
}

/// The text of `DEVPKEY_Device_FriendlyName`, if an INF or a driver has set it.
pub(super) fn friendly_name(k: &Kernel, id: NodeId) -> Option<String> {
    let key = (Owner::Device(id), wmi::parse_guid(SYSTEM)?, FRIENDLY_NAME, 0);
    let (STRING, bytes) = k.pnp.properties.0.get(&key)? else { return None };
    let (units, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> =
        units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units).ok()
}

/// What an installation makes of a property: the type and the bytes, or nothing. Source: *INF AddProperty Directive*.
pub fn install(cx: &mut Cx<'_>, owner: Owner, format: wmi::Guid, number: u32, value: Option<(u32, Vec<u8>)>) {
    cx.with(|k| {
        let key = (owner, format, number, 0);
        match value {
            Some(value) => k.pnp.properties.0.insert(key, value),
            None => k.pnp.properties.0.remove(&key),
        }
    });
}

/// Sets a property of its owner; without data it goes.
fn put(cx: &mut Cx<'_>, key: Key, kind: u32, size: u32, data: DriverPtr<()>) -> Flow<NtStatus> {
    if data.is_null() {
        let was = cx.with(|k| k.pnp.properties.0.remove(&key)).is_some();
        return Ok(if was { NtStatus::SUCCESS } else { NtStatus::OBJECT_NAME_NOT_FOUND });
    }
    let bytes = cx.read_bytes(data.address, size.into())?;
    cx.with(|k| k.pnp.properties.0.insert(key, (kind, bytes)));
    Ok(NtStatus::SUCCESS)
}

/// Where a property goes that a driver asks for: room, data, the size that is needed, and the type.
type Into = (u32, DriverPtr<()>, DriverPtr<u32>, DriverPtr<u32>);

/// Tells a property.
fn hand_out(
    cx: &mut Cx<'_>,
    found: Option<(u32, Vec<u8>)>,
    (size, data, needed, kind): Into,
) -> Flow<NtStatus> {
    let Some((found_kind, bytes)) = found else {
        cx.write(needed, 0)?;
        return Ok(NtStatus::OBJECT_NAME_NOT_FOUND);
    };
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    cx.write(needed, length)?;
    if length > size {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    cx.write_bytes(data.address, &bytes)?;
    cx.write(kind, found_kind)?;
    Ok(NtStatus::SUCCESS)
}

/// `IoSetDevicePropertyData`: without data the property goes.
///
/// # Errors
/// A verdict if `device` is no physical device object, or a pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn set(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    name: DriverPtr<DEVPROPKEY>,
    locale: u32,
    _flags: u32,
    kind: u32,
    size: u32,
    data: DriverPtr<()>,
) -> Flow<NtStatus> {
    let id = node::of_pdo(cx, "IoSetDevicePropertyData", device)?;
    let key = key(cx, Owner::Device(id), name, locale)?;
    put(cx, key, kind, size, data)
}

/// `IoGetDevicePropertyData`.
///
/// # Errors
/// As [`set`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn get(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    name: DriverPtr<DEVPROPKEY>,
    locale: u32,
    _flags: u32,
    size: u32,
    data: DriverPtr<()>,
    needed: DriverPtr<u32>,
    kind: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let id = node::of_pdo(cx, "IoGetDevicePropertyData", device)?;
    let key = key(cx, Owner::Device(id), name, locale)?;
    let own = cx.with(|k| k.pnp.properties.0.get(&key).cloned());
    let found = match own {
        Some(found) => Some(found),
        None => systems(cx, id, key.1, key.2),
    };
    hand_out(cx, found, (size, data, needed, kind))
}

/// The interface that a driver names, in lower case, with its class and whether it is enabled.
fn interface(cx: &mut Cx<'_>, link: DriverPtr<UNICODE_STRING>) -> Flow<Option<(String, String, bool)>> {
    let name = ob::string::read(cx, link)?.to_lowercase();
    Ok(cx.with(|k| interface::described(k, &name)).map(|(class, enabled)| (name, class, enabled)))
}

/// `IoSetDeviceInterfacePropertyData`: without data the property goes. An interface that is not registered is not found.
///
/// # Errors
/// A verdict if a pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn set_of_interface(
    cx: &mut Cx<'_>,
    link: DriverPtr<UNICODE_STRING>,
    name: DriverPtr<DEVPROPKEY>,
    locale: u32,
    _flags: u32,
    kind: u32,
    size: u32,
    data: DriverPtr<()>,
) -> Flow<NtStatus> {
    let Some((link, ..)) = interface(cx, link)? else { return Ok(NtStatus::OBJECT_NAME_NOT_FOUND) };
    let key = key(cx, Owner::Interface(link), name, locale)?;
    put(cx, key, kind, size, data)
}

/// `IoGetDeviceInterfacePropertyData`.
///
/// # Errors
/// As [`set_of_interface`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn get_of_interface(
    cx: &mut Cx<'_>,
    link: DriverPtr<UNICODE_STRING>,
    name: DriverPtr<DEVPROPKEY>,
    locale: u32,
    _flags: u32,
    size: u32,
    data: DriverPtr<()>,
    needed: DriverPtr<u32>,
    kind: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let Some((link, class, enabled)) = interface(cx, link)? else {
        return Ok(NtStatus::OBJECT_NAME_NOT_FOUND);
    };
    let key = key(cx, Owner::Interface(link), name, locale)?;
    let own = cx.with(|k| k.pnp.properties.0.get(&key).cloned());
    let systems = match key.2 {
        _ if wmi::parse_guid(INTERFACE) != Some(key.1) => None,
        // `DEVPROP_TRUE` and `DEVPROP_FALSE`.
        ENABLED => Some((BOOLEAN, vec![if enabled { 0xFF } else { 0 }])),
        CLASS => wmi::parse_guid(&class).map(|guid| (GUID, guid.to_vec())),
        _ => None,
    };
    hand_out(cx, own.or(systems), (size, data, needed, kind))
}

fn systems(cx: &mut Cx<'_>, id: NodeId, format: wmi::Guid, number: u32) -> Option<(u32, Vec<u8>)> {
    let (_, property, kind) =
        KNOWN.into_iter().find(|(known, ..)| *known == number && wmi::parse_guid(SYSTEM) == Some(format))?;
    Some((kind, property::value(cx, id, property).ok()?))
}
