//! Names and numbers of instances, for drivers that build and look for them.
//!
//! Pages: *IoWMIAllocateInstanceIds function*, *IoWMISuggestInstanceName function*, *IoWMIDeviceObjectToProviderId function*,
//! *IoWMIDeviceObjectToInstanceName function*, *IoWMIHandleToInstanceName function*. No page says what a suggested name looks like: it is the device's description, or its
//! instance path without one, and the last part of the symbolic link. The instance of a device is the first that it has registered of the block.

use abi::{DEVICE_OBJECT, DriverPtr, FILE_OBJECT, GUID, NtStatus, UNICODE_STRING};
use engine::Flow;

use super::provider::{Names, Provider};
use super::{Guid, block};
use crate::cx::Cx;
use crate::io::stack;
use crate::mm::pool;
use crate::ob::handle::{self, Handle, Mode};
use crate::ob::{self, Kind};
use crate::pnp;

/// Bytes of the longest counted string.
const LONGEST: u16 = 0xFFFE;

impl Provider {
    /// The static name of an instance of a block.
    pub(super) fn name_of(&self, guid: &Guid, index: u32) -> Option<String> {
        let block = self.blocks.iter().find(|block| block.guid == *guid)?;
        match &block.names {
            Names::Static(names) => names.get(index as usize).cloned(),
            Names::Dynamic => None,
        }
    }
}

/// `IoWMIAllocateInstanceIds`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn allocate_ids(
    cx: &mut Cx<'_>,
    guid: DriverPtr<GUID>,
    count: u32,
    first: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let guid: Guid = cx.read(guid.cast())?;
    let given = cx.with(|k| {
        let given = k.wmi.instance_ids.entry(guid).or_default();
        let first = *given;
        *given = first.checked_add(count)?;
        Some(first)
    });
    let Some(given) = given else { return Ok(NtStatus::INSUFFICIENT_RESOURCES) };
    cx.write(first, given)?;
    Ok(NtStatus::SUCCESS)
}

/// `IoWMIDeviceObjectToProviderId`; 0 for a device that is not registered.
///
/// # Errors
/// None.
pub(crate) fn provider_id(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<u32> {
    Ok(cx.with(|k| k.wmi.of_device(device.address).map_or(0, |provider| provider.id)))
}

/// `IoWMISuggestInstanceName`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn suggest(
    cx: &mut Cx<'_>,
    pdo: DriverPtr<DEVICE_OBJECT>,
    link: DriverPtr<UNICODE_STRING>,
    combine: bool,
    name: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let device = if pdo.is_null() { None } else { describe(cx, pdo) };
    let link = ob::string::read(cx, link)?;
    let link = link.rsplit('\\').next().filter(|part| !part.is_empty()).map(str::to_owned);
    let suggested = match (device, link) {
        (Some(device), Some(link)) if combine => format!("{device}_{link}"),
        _ if combine => return Ok(NtStatus::INVALID_PARAMETER),
        (Some(device), _) => device,
        (None, Some(link)) => link,
        (None, None) => return Ok(NtStatus::INVALID_PARAMETER),
    };
    give(cx, name, &suggested)
}

fn describe(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) -> Option<String> {
    let device = pnp::devices(cx).into_iter().find(|device| device.id.0 == pdo.address)?;
    let description = device.answers.description;
    Some(if description.is_empty() { device.instance_path } else { description })
}

/// A counted string in paged pool, which the calling driver frees.
fn give(cx: &mut Cx<'_>, to: DriverPtr<UNICODE_STRING>, name: &str) -> Flow<NtStatus> {
    let bytes = ob::string::encode(name);
    let size = u16::try_from(bytes.len()).unwrap_or(LONGEST);
    let tag = pool::tag(b"WmiN");
    let buffer: DriverPtr<u16> = pool::allocate_for_caller(cx, pool::Kind::Paged, size.into(), tag)?;
    if buffer.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.write_bytes(buffer.address, &bytes[..size.into()])?;
    ob::string::describe(cx, to, buffer, size)?;
    Ok(NtStatus::SUCCESS)
}

/// The name of the first instance that one of these devices has registered of a block.
fn of_devices(
    cx: &mut Cx<'_>,
    guid: Guid,
    devices: &[u64],
    name: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let found = cx.with(|k| {
        let mut own = k.wmi.providers.iter().filter(|provider| devices.contains(&provider.device));
        own.find_map(|provider| provider.name_of(&guid, 0))
    });
    match found {
        Some(found) => give(cx, name, &found),
        None => Ok(NtStatus::WMI_INSTANCE_NOT_FOUND),
    }
}

/// `IoWMIDeviceObjectToInstanceName`.
///
/// # Errors
/// A verdict if a pointer is bad or the object is none.
pub(crate) fn of_device(
    cx: &mut Cx<'_>,
    object: u64,
    device: DriverPtr<DEVICE_OBJECT>,
    name: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let guid = block::guid_of(cx, "IoWMIDeviceObjectToInstanceName", object)?;
    of_devices(cx, guid, &[device.address], name)
}

/// `IoWMIHandleToInstanceName`: of the devices of the stack that the file is open on.
///
/// # Errors
/// As [`of_device`].
pub(crate) fn of_handle(
    cx: &mut Cx<'_>,
    object: u64,
    file: u64,
    name: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let guid = block::guid_of(cx, "IoWMIHandleToInstanceName", object)?;
    let entry = match handle::reference(cx, Handle(file), Some(Kind::File), 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let file: DriverPtr<FILE_OBJECT> = DriverPtr::new(entry.object);
    let mut device = cx.read(file + FILE_OBJECT::DeviceObject)?;
    device = cx.with(|k| stack::bottom(k, device));
    let mut devices = Vec::new();
    while !device.is_null() && !devices.contains(&device.address) {
        devices.push(device.address);
        device = cx.read(device + DEVICE_OBJECT::AttachedDevice)?;
    }
    ob::object::dereference(cx, file)?;
    of_devices(cx, guid, &devices, name)
}
