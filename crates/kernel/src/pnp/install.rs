//! What an INF installed for a device, as the PnP manager knows it, and the device's keys in the registry.
//!
//! Pages: *Registry Trees and Keys for Devices and Drivers*, *INF DDInstall.HW Section*. Reading INF files, and writing what they say
//! into these keys, is the library's business.

use abi::REG_MULTI_SZ;
use engine::Flow;

use super::node::{Node, NodeId};
use crate::cm::access::{self, CLASS, ENUM};
use crate::cx::Cx;
use crate::verdict::Verdict;

/// What was installed for a device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Installation {
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
    let (answers, service) = cx.with(|k| {
        let node = k.pnp.node_mut(id);
        let service = installation.service.clone();
        node.installation = Some(installation.clone());
        (node.answers.clone(), service)
    });
    let keys = keys(cx, id);
    let driver_name = cx.with(|k| driver_key_name(k.pnp.node(id))).unwrap_or_default();
    let properties = [
        ("DeviceDesc", installation.description.as_str()),
        ("LocationInformation", &answers.location),
        ("Mfg", &installation.manufacturer),
        ("Service", &service),
        ("ClassGUID", &installation.class_guid),
        ("Class", &installation.class),
        ("Driver", &driver_name),
    ];
    let mut written = Ok(());
    for (name, text) in properties.into_iter().filter(|(_, text)| !text.is_empty()) {
        written = written.and_then(|()| access::set_text(cx, &keys.instance, name, text));
    }
    for (name, ids) in [("HardwareID", &answers.hardware_ids), ("CompatibleIDs", &answers.compatible_ids)] {
        let ids = access::multi_sz(ids);
        written = written.and_then(|()| access::set(cx, &keys.instance, name, REG_MULTI_SZ, &ids));
    }
    written = written.and_then(|()| access::create(cx, &keys.hardware).map(|_| ()));
    if let Some(driver) = &keys.driver {
        let description = &installation.description;
        written = written.and_then(|()| access::set_text(cx, driver, "DriverDesc", description));
        written =
            written.and_then(|()| access::set_text(cx, driver, "ProviderName", &installation.manufacturer));
    }
    match written {
        Ok(()) => Ok(()),
        Err(status) => {
            let what = format!("an installation whose names the registry refuses with {status}");
            Err(cx.stop(Verdict::not_implemented(&what)))
        }
    }
}

/// The keys of a device.
#[must_use]
pub fn keys(cx: &mut Cx<'_>, id: NodeId) -> Keys {
    cx.with(|k| {
        let node = k.pnp.node(id);
        let instance = format!(r"{ENUM}\{}", node.instance_path());
        Keys {
            hardware: format!(r"{instance}\Device Parameters"),
            instance,
            driver: driver_key_name(node).map(|name| format!(r"{CLASS}\{name}")),
        }
    })
}

/// `{class}\0000`, as `DevicePropertyDriverKeyName` tells it: one number for each device of the machine.
pub(super) fn driver_key_name(node: &Node) -> Option<String> {
    let installation = node.installation.as_ref()?;
    Some(format!(r"{}\{:04}", installation.class_guid, node.number - 1))
}
