//! Device interfaces: names by which a class of devices is found, made from class, device and reference string.
//!
//! Pages: *IoRegisterDeviceInterface function*, *IoSetDeviceInterfaceState function*, *IoGetDeviceInterfaces function*,
//! *Registering a Device Interface*. Interface registry keys are not here; notifications of interfaces are `pnp::notify`'s.

use std::collections::BTreeMap;

use abi::{DEVICE_OBJECT, DriverPtr, GUID, NtStatus, UNICODE_STRING};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::mm::pool;
use crate::ob::names::Target;
use crate::{ob, pnp};

/// One interface of one device.
#[derive(Clone, Debug)]
struct Interface {
    /// `{…}` in lower case.
    class: String,
    device: u64,
    /// As its driver was given it: names are compared without regard to case, and kept as they are.
    name: String,
    /// The link without its reference string, which opens the device.
    link: String,
    enabled: bool,
}

/// All registered interfaces, by symbolic link name in lower case.
#[derive(Default)]
pub(crate) struct Interfaces {
    by_name: BTreeMap<String, Interface>,
}

const TAG: u32 = pool::tag(b"PnpI");
/// `DEVICE_INTERFACE_INCLUDE_NONACTIVE`.
const INCLUDE_NONACTIVE: u32 = 1;
/// The instance of a device whose driver is not here.
const FOREIGN: &str = r"ROOT\UNKNOWN\0000";

/// `{4d36e978-e325-11ce-bfc1-08002be10318}` of a GUID in memory.
fn text(guid: &[u8; 16]) -> String {
    let first = u32::from_le_bytes([guid[0], guid[1], guid[2], guid[3]]);
    let second = u16::from_le_bytes([guid[4], guid[5]]);
    let third = u16::from_le_bytes([guid[6], guid[7]]);
    let tail: String = guid[10..].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{{first:08x}-{second:04x}-{third:04x}-{:02x}{:02x}-{tail}}}", guid[8], guid[9])
}

pub(crate) fn read_class(cx: &mut Cx<'_>, class: DriverPtr<GUID>) -> Flow<String> {
    let bytes: [u8; 16] = cx.read(class.cast())?;
    Ok(text(&bytes))
}

/// The link of an interface: `\??\PCI#VEN_…#3&…#{class}`.
fn link_name(instance: &str, class: &str) -> String {
    format!("\\??\\{}#{class}", instance.replace('\\', "#"))
}

/// `IoRegisterDeviceInterface`: the name goes to `link`, in pool that the caller frees.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn register(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    class: DriverPtr<GUID>,
    reference: DriverPtr<UNICODE_STRING>,
    link: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let Some(instance) = cx.with(|k| pnp::instance_path(k, device)) else {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    };
    let class = read_class(cx, class)?;
    let reference = ob::string::read(cx, reference)?;
    if reference.contains(['\\', '/']) {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    }
    let base = link_name(&instance, &class);
    let name = if reference.is_empty() { base.clone() } else { format!("{base}\\{reference}") };
    cx.with(|k| {
        let (device, key) = (device.address, name.to_lowercase());
        let interface = Interface { class, device, name: name.clone(), link: base, enabled: false };
        k.io.interfaces.by_name.entry(key).or_insert(interface);
    });
    if give(cx, link, &name)? { Ok(NtStatus::SUCCESS) } else { Ok(NtStatus::INSUFFICIENT_RESOURCES) }
}

/// A counted string in paged pool that the calling driver frees.
fn give(cx: &mut Cx<'_>, to: DriverPtr<UNICODE_STRING>, name: &str) -> Flow<bool> {
    let bytes = ob::string::encode(name);
    let Ok(size) = u16::try_from(bytes.len()) else {
        return Ok(false);
    };
    let buffer: DriverPtr<u16> = pool::allocate_for_caller(cx, pool::Kind::Paged, size.into(), TAG)?;
    if buffer.is_null() {
        return Ok(false);
    }
    cx.write_bytes(buffer.address, &bytes)?;
    ob::string::describe(cx, to, buffer, size)?;
    Ok(true)
}

/// `IoSetDeviceInterfaceState`: an enabled interface can be opened by its name. To enable one takes memory, which there may not be: the page names no
/// such failure, and drivers look at the status.
///
/// # Errors
/// A verdict if the string is bad.
pub fn set_state(cx: &mut Cx<'_>, name: DriverPtr<UNICODE_STRING>, enable: bool) -> Flow<NtStatus> {
    let name = ob::string::read(cx, name)?.to_lowercase();
    let is_off = cx.with(|k| k.io.interfaces.by_name.get(&name).is_some_and(|known| !known.enabled));
    if enable && is_off && cx.choose("fault.call", 2) == 1 {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let changed = cx.with(|k| {
        let Some(interface) = k.io.interfaces.by_name.get_mut(&name) else {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        };
        match (interface.enabled, enable) {
            (true, true) => return Err(NtStatus::OBJECT_NAME_EXISTS),
            (false, false) => return Err(NtStatus::OBJECT_NAME_NOT_FOUND),
            _ => interface.enabled = enable,
        }
        let (link, device) = (interface.link.clone(), interface.device);
        let changed = (interface.class.clone(), interface.name.clone());
        match set_link(k, &link, device) {
            NtStatus::SUCCESS => Ok(changed),
            status => Err(status),
        }
    });
    match changed {
        Ok((class, name)) => {
            pnp::notify::queue::interface_changed(cx, class, name, enable)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// The link exists while one of the interfaces that share it (they differ in their reference strings) is enabled.
fn set_link(k: &mut Kernel, link: &str, device: u64) -> NtStatus {
    let wanted = k.io.interfaces.by_name.values().any(|other| other.link == link && other.enabled);
    let there = k.ob.names.resolve_link(link).ok();
    match (wanted, there) {
        (true, None) => {
            let Some(target) = k.ob.objects.get(device).and_then(|object| object.path.clone()) else {
                return NtStatus::INVALID_DEVICE_REQUEST;
            };
            k.ob.names.insert(link, Target::Link(target)).err().unwrap_or(NtStatus::SUCCESS)
        }
        (false, Some(found)) => {
            k.ob.names.remove(&found.path);
            NtStatus::SUCCESS
        }
        _ => NtStatus::SUCCESS,
    }
}

/// A device that has no driver here gets or loses an interface of this class: its name, if that changes anything. It opens nothing.
pub(crate) fn set_foreign(k: &mut Kernel, class: &str, enable: bool) -> Option<String> {
    let name = link_name(FOREIGN, class);
    let interface = k.io.interfaces.by_name.entry(name.to_lowercase()).or_insert_with(|| Interface {
        class: class.to_owned(),
        device: 0,
        name: name.clone(),
        link: name.clone(),
        enabled: false,
    });
    let changes = std::mem::replace(&mut interface.enabled, enable) != enable;
    changes.then_some(name)
}

/// The class of a registered interface, `{…}`, and whether it is enabled; its name is in lower case.
pub(crate) fn described(k: &Kernel, name: &str) -> Option<(String, bool)> {
    k.io.interfaces.by_name.get(name).map(|interface| (interface.class.clone(), interface.enabled))
}

/// The interfaces of a class, as names, e.g. for a test bench to open: enabled ones, or all.
#[must_use]
pub fn of_class(k: &Kernel, class: &str, device: Option<u64>, all: bool) -> Vec<String> {
    let interfaces = k.io.interfaces.by_name.values();
    interfaces
        .filter(|interface| {
            interface.class == class.to_lowercase()
                && (all || interface.enabled)
                && device.is_none_or(|device| device == interface.device)
        })
        .map(|interface| interface.name.clone())
        .collect()
}

/// Disables all enabled interfaces of a device; their classes and names.
pub fn disable_device(k: &mut Kernel, device: DriverPtr<DEVICE_OBJECT>) -> Vec<(String, String)> {
    let interfaces = k.io.interfaces.by_name.values_mut();
    let enabled = interfaces.filter(|interface| interface.device == device.address && interface.enabled);
    let disabled: Vec<(String, String, String)> = enabled
        .map(|interface| {
            interface.enabled = false;
            (interface.class.clone(), interface.name.clone(), interface.link.clone())
        })
        .collect();
    for (.., link) in &disabled {
        // Nothing uses it any more, so it can only be removed.
        let _ = set_link(k, link, device.address);
    }
    disabled.into_iter().map(|(class, name, _)| (class, name)).collect()
}

/// Disables and forgets what a device registered: its physical device object goes.
pub fn forget_device(k: &mut Kernel, device: DriverPtr<DEVICE_OBJECT>) {
    let links: Vec<String> = {
        let interfaces = k.io.interfaces.by_name.values();
        interfaces.filter(|i| i.device == device.address).map(|i| i.link.clone()).collect()
    };
    k.io.interfaces.by_name.retain(|_, interface| interface.device != device.address);
    for link in links {
        // Nothing uses it any more, so it can only be removed.
        let _ = set_link(k, &link, device.address);
    }
}

/// `IoGetDeviceInterfaceAlias`: the interface of another class that the same device has by the same reference string.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn alias(
    cx: &mut Cx<'_>,
    name: DriverPtr<UNICODE_STRING>,
    class: DriverPtr<GUID>,
    alias: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let name = ob::string::read(cx, name)?.to_lowercase();
    let class = read_class(cx, class)?;
    let found = cx.with(|k| {
        let known = k.io.interfaces.by_name.get(&name)?;
        let reference = |interface: &Interface| interface.name[interface.link.len()..].to_lowercase();
        let mut all = k.io.interfaces.by_name.values();
        let alias = all.find(|other| {
            other.device == known.device && other.class == class && reference(other) == reference(known)
        });
        Some(alias.map(|alias| alias.name.clone()))
    });
    match found {
        None => Ok(NtStatus::INVALID_HANDLE),
        Some(None) => Ok(NtStatus::OBJECT_NAME_NOT_FOUND),
        Some(Some(found)) if give(cx, alias, &found)? => Ok(NtStatus::SUCCESS),
        Some(Some(_)) => Ok(NtStatus::INSUFFICIENT_RESOURCES),
    }
}

/// `IoGetDeviceInterfaces`: the names, each ended by a zero, all by another, in pool that the caller frees.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn get(
    cx: &mut Cx<'_>,
    class: DriverPtr<GUID>,
    device: DriverPtr<DEVICE_OBJECT>,
    flags: u32,
    list: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let class = read_class(cx, class)?;
    if !device.is_null() && !cx.with(|k| pnp::is_physical(k, device)) {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    }
    let only = (!device.is_null()).then_some(device.address);
    let names = cx.with(|k| of_class(k, &class, only, flags & INCLUDE_NONACTIVE != 0));
    let mut bytes: Vec<u8> = names.iter().flat_map(|name| ob::string::encode(name)).collect();
    bytes.extend([0, 0]);
    let buffer: DriverPtr<()> = pool::allocate_for_caller(cx, pool::Kind::Paged, bytes.len() as u64, TAG)?;
    if buffer.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.write_bytes(buffer.address, &bytes)?;
    cx.write(list, buffer.address)?;
    Ok(NtStatus::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_named_after_device_and_class() {
        let guid =
            [0x1e, 0x6c, 0x2a, 0x8f, 0xb7, 0x53, 0x09, 0x4d, 0x9c, 0x41, 0x1d, 0x6e, 0x0a, 0x72, 0xb8, 0x35];
        let class = text(&guid);
        assert_eq!(class, "{8f2a6c1e-53b7-4d09-9c41-1d6e0a72b835}");
        let name = link_name("PCI\\VEN_10B5&DEV_9050\\3&11583659&0&48", &class);
        assert_eq!(
            name,
            "\\??\\PCI#VEN_10B5&DEV_9050#3&11583659&0&48#{8f2a6c1e-53b7-4d09-9c41-1d6e0a72b835}"
        );
    }
}
