//! `IoReportDetectedDevice`, `IoReportRootDevice`: a driver reports a device that no bus does.
//!
//! Pages: *IoReportDetectedDevice function*, *IoReportRootDevice function*, *INTERFACE_TYPE enumeration*. What is detected counts as started, its resources
//! are claimed for it, and the driver that has reported it is its function driver. A root device is found, and gets its drivers by INF, once the
//! system has started, or later on a thread of the PnP manager's. *They do not* match a device with one that the PCI bus has found, ask a function
//! driver for more ids, or make a device on the next start of the system.

use abi::{DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, IO_RESOURCE_REQUIREMENTS_LIST, IRP_MJ_PNP, NtStatus};
use engine::Flow;

use super::install::{self, Installation};
use super::lock::exclusively;
use super::node::{Node, NodeId, Origin, State};
use super::{claim, relations, request, root, tree};
use crate::cx::{Cx, Kernel};
use crate::{io, ke, ldr};

/// More bytes no list of requirements has.
const LONGEST: u64 = 0x1_0000;

/// Names of `INTERFACE_TYPE` from 0 on.
const INTERFACES: [&str; 17] = [
    "Internal",
    "Isa",
    "Eisa",
    "MicroChannel",
    "TurboChannel",
    "PCIBus",
    "VMEBus",
    "NuBus",
    "PCMCIABus",
    "CBus",
    "MPIBus",
    "MPSABus",
    "ProcessorInternal",
    "InternalPowerBus",
    "PNPISABus",
    "PNPBus",
    "Vmcs",
];

/// `IoReportDetectedDevice`.
///
/// # Errors
/// A verdict if a pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn report(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    _bus_type: u32,
    _bus: u32,
    _slot: u32,
    list: u64,
    requirements: DriverPtr<IO_RESOURCE_REQUIREMENTS_LIST>,
    assigned: bool,
    device: DriverPtr<DriverPtr<DEVICE_OBJECT>>,
) -> Flow<NtStatus> {
    if !cx.with(|k| k.io.drivers.contains_key(&driver.address)) {
        return Ok(NtStatus::INVALID_PARAMETER_1);
    }
    let service = io::driver::service(cx, driver);
    let boot_resources = match list {
        0 => Vec::new(),
        list => {
            let length = request::resource_list_length(cx, list)?;
            cx.read_bytes(list, length)?
        }
    };
    let requirements = match requirements.address {
        0 => Vec::new(),
        at => match request::requirements_length(cx, at)? {
            length if length > LONGEST => return Ok(NtStatus::INVALID_PARAMETER),
            length => cx.read_bytes(at, length)?,
        },
    };
    let interface = interface(&boot_resources);
    let what = root::Device {
        device_id: format!(r"ROOT\{}", service.to_ascii_uppercase()),
        hardware_ids: Vec::new(),
        compatible_ids: vec![format!(r"DETECTED{interface}\{service}"), format!(r"DETECTED\{service}")],
        boot_resources,
        requirements,
    };
    // It is the caller's to give a physical device object, or the PnP manager's to make one.
    let given = cx.read(device)?;
    if !given.is_null() && !cx.with(|k| k.io.devices.contains(given.address)) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let pdo = if given.is_null() { root::new_device(cx)? } else { given };
    if !assigned && !what.boot_resources.is_empty() {
        let claimed = claim::for_detected(cx, driver, pdo, list, what.boot_resources.len())?;
        if !claimed.is_success() {
            if given.is_null() {
                io::device::delete(cx, pdo)?;
            }
            return Ok(claimed);
        }
    }
    let id = if given.is_null() { root::own(cx, pdo, what)? } else { adopt(cx, pdo)? };
    cx.with(|k| {
        let node = k.pnp.node_mut(id);
        (node.state, node.driver, node.detected) = (State::Started, driver, true);
    });
    install::install(cx, id, Installation { service, ..Installation::default() })?;
    cx.write(device, pdo)?;
    Ok(NtStatus::SUCCESS)
}

/// The node of a device whose physical device object is the caller's own.
fn adopt(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) -> Flow<NodeId> {
    let id = NodeId(pdo.address);
    crate::ob::object::reference(cx, pdo)?;
    cx.with(|k| {
        let number = k.pnp.next_number();
        let name = tree::free_name(k, "detected");
        k.pnp.nodes.insert(id, Node::new(name, Origin::Child, None, number));
    });
    super::enumerate::ask_who(cx, id)?;
    Ok(id)
}

/// The bus that a `CM_RESOURCE_LIST` names first.
fn interface(list: &[u8]) -> &'static str {
    let word =
        |at: usize| list.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let first = word(0).filter(|count| *count > 0).and_then(|_| word(4));
    let name = first.and_then(|kind| INTERFACES.get(usize::try_from(kind).ok()?));
    name.unwrap_or(&INTERFACES[0])
}

/// `IoReportRootDevice`: one device for each driver, however often it is reported.
///
/// # Errors
/// [`engine::Leave`] if the machine ends meanwhile.
pub fn report_root(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<NtStatus> {
    if !cx.with(|k| k.io.drivers.contains_key(&driver.address)) {
        return Ok(NtStatus::INVALID_PARAMETER_1);
    }
    let service = io::driver::service(cx, driver);
    let (known, has_started) = cx.with(|k| {
        // It may have been installed before.
        let own = root::Device::with_id(&format!(r"ROOT\{service}"));
        let is_it = |node: &Node| matches!(&node.origin, Origin::Root(device) if device.hardware_ids == own.hardware_ids);
        let known = k.pnp.reported.contains(&service) || k.pnp.nodes.values().any(is_it);
        if !known {
            k.pnp.reported.push(service.clone());
        }
        (known, k.pnp.has_started)
    });
    if !known && has_started {
        let body = move |cx: &mut Cx<'_>| bring_up(cx, &service);
        ke::thread::spawn(cx, "PnP manager", Box::new(body))?;
    }
    Ok(NtStatus::SUCCESS)
}

/// The drivers that are there from the beginning are loaded: the root devices that they have reported are found now.
///
/// # Errors
/// A verdict on a driver of one of these.
pub fn settle(cx: &mut Cx<'_>) -> Flow<()> {
    let reported = cx.with(|k| {
        k.pnp.has_started = true;
        k.pnp.reported.clone()
    });
    reported.iter().try_for_each(|service| bring_up(cx, service))
}

fn bring_up(cx: &mut Cx<'_>, service: &str) -> Flow<()> {
    exclusively(cx, |cx| {
        let id = root::add(cx, root::Device::with_id(&format!(r"ROOT\{service}")))?;
        relations::drive(cx, id)
    })
}

/// Whether the driver that runs a detected device answers Plug and Play requests: else the device stays as it is.
///
/// # Errors
/// As reading its driver object.
pub fn answers(cx: &mut Cx<'_>, id: NodeId) -> Flow<bool> {
    let driver = cx.with(|k| k.pnp.node(id).driver);
    if driver.is_null() {
        return Ok(false);
    }
    let routine = cx.read((driver + DRIVER_OBJECT::MajorFunction).element(IRP_MJ_PNP.into()))?;
    Ok(routine != ldr::internal_address("IopInvalidDeviceRequest"))
}

/// A driver is gone: what it has detected has no driver.
pub(crate) fn forget_driver(k: &mut Kernel, driver: u64) {
    let detected = |node: &&mut Node| node.detected && node.driver.address == driver;
    for node in k.pnp.nodes.values_mut().filter(detected) {
        node.forget_drivers();
        node.state = State::Enumerated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_that_of_the_first_bus_in_the_list() {
        assert_eq!(interface(&[1, 0, 0, 0, 1, 0, 0, 0]), "Isa");
        assert_eq!(interface(&[1, 0, 0, 0, 5, 0, 0, 0]), "PCIBus");
        assert_eq!(interface(&[0, 0, 0, 0, 5, 0, 0, 0]), "Internal", "no bus");
        assert_eq!(interface(&[]), "Internal");
        assert_eq!(interface(&[1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]), "Internal", "none that is known");
    }
}
