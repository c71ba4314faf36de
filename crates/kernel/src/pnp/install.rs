//! What an INF installed for a device, as the PnP manager knows it, and the device's keys in the registry.
//!
//! Pages: *Registry Trees and Keys for Devices and Drivers*, *HKLM\SYSTEM\CurrentControlSet\Services Registry Tree* (`Enum`), *INF
//! DDInstall.HW Section*, *INF Version Section*. Reading INF files, and writing what they say into these keys, is the library's business.
//! An INF has the name that Windows publishes it by: `oem0.inf` for the first one that was installed, and so on.

use abi::{NtStatus, REG_MULTI_SZ, REG_RESOURCE_LIST, REG_RESOURCE_REQUIREMENTS_LIST};
use engine::Flow;

use super::capabilities;
use super::node::{Node, NodeId};
use super::resource::{self, Form};
use super::wanted::Requirements;
use crate::cm::access::{self, CLASS, ENUM, SERVICES};
use crate::cx::Cx;
use crate::se::descriptor::Descriptor;
use crate::verdict::Verdict;

/// What was installed for a device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Installation {
    /// The INF as the user names it; empty if there is none.
    pub inf: String,
    /// The function driver's service.
    pub service: String,
    /// The device's description, from the INF's models section.
    pub description: String,
    /// The manufacturer's name.
    pub manufacturer: String,
    /// The setup class's name.
    pub class: String,
    /// The setup class's GUID in braces.
    pub class_guid: String,
    /// The INF's `Provider`.
    pub provider: String,
    /// `DriverVer`'s version: `1.0.0.0`.
    pub version: String,
    /// `DriverVer`'s date: `1-31-2025`.
    pub date: String,
    /// The id in the INF that matched the device.
    pub matching_id: String,
    /// The install section without its decoration, and the decoration: `Card.Install`, `.NT`.
    pub section: [String; 2],
    /// Who may open the device: the property `Security`.
    pub security: Option<Descriptor>,
    /// The services of the device's filters.
    pub filters: Filters,
    /// The services of the filters of each device of the class.
    pub class_filters: Filters,
    /// Resources that the INF has for it.
    pub configuration: Configuration,
}

/// Logical configurations: what an INF says of the resources of a device that is no card. Each may be without lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    /// Those that the device must get.
    pub forced: Requirements,
    /// Those to try instead of what its bus driver reports.
    pub overriding: Requirements,
    /// Those of a device that no bus reports.
    pub basic: Requirements,
}

/// Names of filter drivers' services, each list in the order in which they are attached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filters {
    /// `LowerFilters`: below the function driver.
    pub lower: Vec<String>,
    /// `UpperFilters`: above it.
    pub upper: Vec<String>,
}

/// The keys of a device, as paths from `\Registry`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    /// The device's instance key below `Enum`, for its properties.
    pub instance: String,
    /// The hardware key (`PLUGPLAY_REGKEY_DEVICE`): `Device Parameters` below it.
    pub hardware: String,
    /// The software key (`PLUGPLAY_REGKEY_DRIVER`): the driver's below its class; none before it is installed.
    pub driver: Option<String>,
}

/// The setup class of devices whose INF gives none: `Unknown`.
pub const UNKNOWN_CLASS: &str = "{4d36e97e-e325-11ce-bfc1-08002be10318}";

/// Notes what was installed for a device, and writes it to the device's keys.
///
/// # Errors
/// [`engine::Leave`] if the registry does not take it: a name of the installation cannot be one.
pub fn install(cx: &mut Cx<'_>, id: NodeId, mut installation: Installation) -> Flow<()> {
    if installation.class_guid.is_empty() {
        installation.class_guid = UNKNOWN_CLASS.to_owned();
    }
    cx.with(|k| k.pnp.node_mut(id).installation = Some(installation.clone()));
    let keys = keys(cx, id);
    let mut written = of_device(cx, id, &keys, &installation);
    let inf = cx.with(|k| published(&mut k.pnp.infs, &installation.inf));
    written = written.and_then(|()| of_driver(cx, &keys, &installation, &inf));
    written = written.and_then(|()| of_service(cx, id, &installation.service));
    match written {
        Ok(()) => Ok(()),
        Err(status) => {
            let what = format!("an installation whose names the registry refuses with {status}");
            Err(cx.stop(Verdict::not_implemented(&what)))
        }
    }
}

/// The device's instance key.
fn of_device(cx: &mut Cx<'_>, id: NodeId, keys: &Keys, installation: &Installation) -> Result<(), NtStatus> {
    let answers = cx.with(|k| k.pnp.node(id).answers.clone());
    let driver_name = cx.with(|k| driver_key_name(k.pnp.node(id))).unwrap_or_default();
    let properties = [
        ("DeviceDesc", installation.description.as_str()),
        ("LocationInformation", &answers.location),
        ("Mfg", &installation.manufacturer),
        ("Service", &installation.service),
        ("ClassGUID", &installation.class_guid),
        ("Class", &installation.class),
        ("Driver", &driver_name),
    ];
    for (name, text) in properties.into_iter().filter(|(_, text)| !text.is_empty()) {
        access::set_text(cx, &keys.instance, name, text)?;
    }
    for (name, ids) in [("HardwareID", &answers.hardware_ids), ("CompatibleIDs", &answers.compatible_ids)] {
        access::set(cx, &keys.instance, name, REG_MULTI_SZ, &access::multi_sz(ids))?;
    }
    write_filters(cx, &keys.instance, &installation.filters)?;
    write_filters(cx, &format!(r"{CLASS}\{}", installation.class_guid), &installation.class_filters)?;
    access::set_number(cx, &keys.instance, "ConfigFlags", 0)?;
    access::set_number(cx, &keys.instance, "Capabilities", capability_flags(&answers.capabilities))?;
    let configuration = format!(r"{}\LogConf", keys.instance);
    if !answers.boot_resources.is_empty() {
        access::set(cx, &configuration, "BootConfig", REG_RESOURCE_LIST, &answers.boot_resources)?;
    }
    let Configuration { overriding, basic, forced: _ } = &installation.configuration;
    let basic = if basic.lists.is_empty() { answers.requirements } else { basic.bytes() };
    let overriding = if overriding.lists.is_empty() { Vec::new() } else { overriding.bytes() };
    for (name, list) in [("BasicConfigVector", basic), ("OverrideConfigVector", overriding)] {
        if !list.is_empty() {
            access::set(cx, &configuration, name, REG_RESOURCE_REQUIREMENTS_LIST, &list)?;
        }
    }
    access::create(cx, &keys.hardware).map(|_| ())
}

/// The filters among the values of a device's or a class's key.
fn write_filters(cx: &mut Cx<'_>, key: &str, filters: &Filters) -> Result<(), NtStatus> {
    for (name, services) in [("LowerFilters", &filters.lower), ("UpperFilters", &filters.upper)] {
        if !services.is_empty() {
            access::set(cx, key, name, REG_MULTI_SZ, &access::multi_sz(services))?;
        }
    }
    Ok(())
}

/// `CM_DEVCAP_*` of a `DEVICE_CAPABILITIES`: its bits from `LockSupported` to `SurpriseRemovalOK`, then `HardwareDisabled` and `NonDynamic`.
fn capability_flags(capabilities: &[u8]) -> u32 {
    let bits = capabilities::flags(capabilities);
    bits >> 2 & 0xFF | bits >> 6 & 0x300
}

/// The name that an INF is published by: one number for each, in the order in which they are installed.
fn published(infs: &mut Vec<String>, own: &str) -> String {
    if own.is_empty() {
        return String::new();
    }
    let known = infs.iter().position(|inf| inf.eq_ignore_ascii_case(own));
    let number = known.unwrap_or_else(|| {
        infs.push(own.to_owned());
        infs.len() - 1
    });
    format!("oem{number}.inf")
}

/// The driver's software key.
fn of_driver(cx: &mut Cx<'_>, keys: &Keys, installation: &Installation, inf: &str) -> Result<(), NtStatus> {
    let Some(driver) = &keys.driver else { return Ok(()) };
    access::set_text(cx, driver, "DriverDesc", &installation.description)?;
    let [section, decoration] = &installation.section;
    let properties = [
        ("ProviderName", installation.provider.as_str()),
        ("DriverVersion", &installation.version),
        ("DriverDate", &installation.date),
        ("MatchingDeviceId", &installation.matching_id),
        ("InfPath", inf),
        ("InfSection", section),
        ("InfSectionExt", decoration),
    ];
    for (name, text) in properties.into_iter().filter(|(_, text)| !text.is_empty()) {
        access::set_text(cx, driver, name, text)?;
    }
    Ok(())
}

/// The list of the service's devices: `Enum` below its key, which is made anew at each boot.
fn of_service(cx: &mut Cx<'_>, id: NodeId, service: &str) -> Result<(), NtStatus> {
    let list = format!(r"{SERVICES}\{service}\Enum");
    let path = cx.with(|k| k.pnp.node(id).instance_path());
    if access::has_text(cx, &list, &path) {
        return Ok(());
    }
    access::create_volatile(cx, &list)?;
    let count = access::number(cx, &list, "Count").unwrap_or(0);
    access::set_text(cx, &list, &count.to_string(), &path)?;
    access::set_number(cx, &list, "Count", count + 1)?;
    access::set_number(cx, &list, "NextInstance", count + 1)
}

/// What a device was started with, and by whom: `Control` below its instance key, for as long as it runs.
pub(super) fn write_control(cx: &mut Cx<'_>, id: NodeId) {
    let (key, service, resources) = cx.with(|k| {
        let node = k.pnp.node(id);
        let key = format!(r"{}\Control", instance_key(node));
        let service = k.io.drivers.get(&node.driver.address).map(|driver| driver.service.clone());
        let list = resource::list(&node.resources, node.bus(), Form::Raw);
        (key, service.unwrap_or_default(), (!node.resources.is_empty()).then_some(list))
    });
    // All names are the machine's own: the registry takes them.
    let _ = access::create_volatile(cx, &key);
    let _ = access::set_text(cx, &key, "ActiveService", &service);
    if let Some(resources) = resources {
        let _ = access::set(cx, &key, "AllocConfig", REG_RESOURCE_LIST, &resources);
    }
}

/// The keys of a device.
#[must_use]
pub fn keys(cx: &mut Cx<'_>, id: NodeId) -> Keys {
    cx.with(|k| {
        let node = k.pnp.node(id);
        Keys {
            hardware: hardware_key(node),
            instance: instance_key(node),
            driver: driver_key_name(node).map(|name| format!(r"{CLASS}\{name}")),
        }
    })
}

/// The device's instance key.
fn instance_key(node: &Node) -> String {
    format!(r"{ENUM}\{}", node.instance_path())
}

/// Its hardware key.
pub(super) fn hardware_key(node: &Node) -> String {
    format!(r"{}\Device Parameters", instance_key(node))
}

/// `{class}\0000`, as `DevicePropertyDriverKeyName` tells it: one number for each device of the machine.
pub(super) fn driver_key_name(node: &Node) -> Option<String> {
    let installation = node.installation.as_ref()?;
    Some(format!(r"{}\{:04}", installation.class_guid, node.number - 1))
}
