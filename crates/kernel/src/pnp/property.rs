//! `IoGetDeviceProperty`: what the PnP manager knows about a device.
//!
//! Pages: *IoGetDeviceProperty function*, *IoGetDeviceNumaNode function*. Values come from the bus driver's answers at enumeration and from the installation.
//! *Overview of Container IDs*: a device whose bus driver names no container is in its parent's, unless it is `Removable`; the computer's is that of what is
//! on no other device. A friendly name is there if an INF or a driver has set it. Ids that Windows makes up for removable devices, and device numbers in the user interface beyond the slot are not there.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    DEVICE_CAPABILITIES, DEVICE_OBJECT, DevicePropertyAddress, DevicePropertyAllocatedResources,
    DevicePropertyBootConfiguration, DevicePropertyBootConfigurationTranslated, DevicePropertyBusNumber,
    DevicePropertyBusTypeGuid, DevicePropertyClassGuid, DevicePropertyClassName, DevicePropertyCompatibleIDs,
    DevicePropertyContainerID, DevicePropertyDeviceDescription, DevicePropertyDriverKeyName,
    DevicePropertyEnumeratorName, DevicePropertyFriendlyName, DevicePropertyHardwareID,
    DevicePropertyInstallState, DevicePropertyLegacyBusType, DevicePropertyLocationInformation,
    DevicePropertyManufacturer, DevicePropertyPhysicalDeviceObjectName, DevicePropertyRemovalPolicy,
    DevicePropertyResourceRequirements, DevicePropertyUINumber, DriverPtr, NtStatus,
};
use engine::Flow;

use super::bus_pnp::multiple;
use super::node::{self, Node, NodeId};
use super::resource::{self, Form};
use super::{capabilities, enumerate, install, property_data};
use crate::cx::{Cx, Kernel};
use crate::ob;

/// `IoGetDeviceProperty`: the value into the buffer; always how long it is.
///
/// # Errors
/// A verdict if `device` is no physical device object, or a pointer is bad.
pub(crate) fn get(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    property: u32,
    length: u32,
    buffer: DriverPtr<()>,
    needed: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let id = node::of_pdo(cx, "IoGetDeviceProperty", device)?;
    let value = match value(cx, id, property) {
        Ok(value) => value,
        Err(status) => {
            cx.write(needed, 0)?;
            return Ok(status);
        }
    };
    let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
    cx.write(needed, bytes)?;
    if bytes > length {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    cx.write_bytes(buffer.address, &value)?;
    Ok(NtStatus::SUCCESS)
}

/// The value of a property, or why it has none.
pub(super) fn value(cx: &mut Cx<'_>, id: NodeId, property: u32) -> Result<Vec<u8>, NtStatus> {
    if property == DevicePropertyBootConfigurationTranslated {
        let available = enumerate::available(cx, id);
        let bus = cx.with(|k| k.pnp.node(id).bus());
        let platform = cx.with(|k| k.hal.platform);
        return Ok(resource::list(&available, bus, Form::Translated(platform)));
    }
    cx.with(|k| {
        let node = k.pnp.node(id);
        let text = match property {
            DevicePropertyPhysicalDeviceObjectName => {
                k.ob.objects.get(id.0).and_then(|object| object.path.clone())
            }
            DevicePropertyContainerID => container(k, id),
            DevicePropertyFriendlyName => property_data::friendly_name(k, id),
            _ => text(node, property),
        };
        let found = text
            .map(|text| ob::string::encode(&text))
            .or_else(|| list(node, property))
            .or_else(|| number(node, property))
            .or_else(|| block(node, property));
        match found {
            Some(value) => Ok(value),
            None if property <= DevicePropertyContainerID => Err(NtStatus::OBJECT_NAME_NOT_FOUND),
            None => Err(NtStatus::INVALID_PARAMETER_2),
        }
    })
}

/// The container of what is in the computer, and of the computer.
const COMPUTER: &str = "{00000000-0000-0000-FFFF-FFFFFFFFFFFF}";

/// The container that a device is in.
fn container(k: &Kernel, id: NodeId) -> Option<String> {
    let node = k.pnp.node(id);
    if !node.answers.container.is_empty() {
        return Some(node.answers.container.clone());
    }
    if capabilities::flags(&node.answers.capabilities) & DEVICE_CAPABILITIES::Removable != 0 {
        return None;
    }
    node.parent.map_or_else(|| Some(COMPUTER.to_owned()), |parent| container(k, parent))
}

fn text(node: &Node, property: u32) -> Option<String> {
    let installed = node.installation.as_ref();
    match property {
        DevicePropertyDeviceDescription => {
            Some(installed.map_or_else(|| node.answers.description.clone(), |i| i.description.clone()))
        }
        DevicePropertyLocationInformation => Some(node.answers.location.clone()),
        DevicePropertyEnumeratorName => node.answers.device_id.split('\\').next().map(str::to_owned),
        DevicePropertyClassName => installed.map(|i| i.class.clone()),
        DevicePropertyClassGuid => installed.map(|i| i.class_guid.clone()),
        DevicePropertyManufacturer => installed.map(|i| i.manufacturer.clone()),
        DevicePropertyDriverKeyName => install::driver_key_name(node),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

fn list(node: &Node, property: u32) -> Option<Vec<u8>> {
    match property {
        DevicePropertyHardwareID => Some(multiple(&node.answers.hardware_ids)),
        DevicePropertyCompatibleIDs => Some(multiple(&node.answers.compatible_ids)),
        _ => None,
    }
}

fn number(node: &Node, property: u32) -> Option<Vec<u8>> {
    let part = |bytes: &[u8], at: u64, length: usize| {
        let at = usize::try_from(at).ok()?;
        bytes.get(at..at + length).map(<[u8]>::to_vec)
    };
    match property {
        DevicePropertyBusTypeGuid => part(&node.answers.bus, 0, 16),
        DevicePropertyLegacyBusType => part(&node.answers.bus, 16, 4),
        DevicePropertyBusNumber => part(&node.answers.bus, 20, 4),
        DevicePropertyAddress => part(&node.answers.capabilities, DEVICE_CAPABILITIES::Address.offset(), 4),
        DevicePropertyUINumber => part(&node.answers.capabilities, DEVICE_CAPABILITIES::UINumber.offset(), 4),
        // InstallStateInstalled; a device without a driver needs a reinstallation, state 1.
        DevicePropertyInstallState => Some(u32::from(node.installation.is_none()).to_le_bytes().to_vec()),
        // RemovalPolicyExpectNoRemoval.
        DevicePropertyRemovalPolicy => Some(1_u32.to_le_bytes().to_vec()),
        _ => None,
    }
}

fn block(node: &Node, property: u32) -> Option<Vec<u8>> {
    let bytes = match property {
        DevicePropertyBootConfiguration => node.answers.boot_resources.clone(),
        DevicePropertyResourceRequirements => node.answers.requirements.clone(),
        DevicePropertyAllocatedResources if !node.resources.is_empty() => {
            resource::list(&node.resources, node.bus(), Form::Raw)
        }
        _ => Vec::new(),
    };
    (!bytes.is_empty()).then_some(bytes)
}

/// `IoGetDeviceNumaNode`: there is one node, as on a system without this architecture.
///
/// # Errors
/// A verdict if the pointer to the number is bad.
pub(crate) fn numa_node(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    number: DriverPtr<u16>,
) -> Flow<NtStatus> {
    if !cx.with(|k| node::is_physical(k, device)) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    cx.write(number, 0)?;
    Ok(NtStatus::SUCCESS)
}
