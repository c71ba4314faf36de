//! What an INF installed for a device, as the PnP manager knows it, and the device's keys in the registry.
//!
//! Pages: *Registry Trees and Keys for Devices and Drivers*, *INF DDInstall.HW Section*. Reading INF files, and writing what they say
//! into these keys, is the library's business.

use engine::Flow;

use super::node::NodeId;
use crate::cx::Cx;

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

/// The keys of a device, as paths from `\Registry\Machine`.
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

/// Notes what was installed for a device.
///
/// # Errors
/// None of its own.
pub fn install(cx: &mut Cx<'_>, id: NodeId, mut installation: Installation) -> Flow<()> {
    if installation.class_guid.is_empty() {
        installation.class_guid = UNKNOWN_CLASS.to_owned();
    }
    cx.with(|k| k.pnp.node_mut(id).installation = Some(installation));
    Ok(())
}

/// The keys of a device.
#[must_use]
pub fn keys(cx: &mut Cx<'_>, id: NodeId) -> Keys {
    cx.with(|k| {
        let node = k.pnp.node(id);
        let instance = format!(r"System\CurrentControlSet\Enum\{}", node.instance_path());
        Keys {
            hardware: format!(r"{instance}\Device Parameters"),
            instance,
            driver: driver_key_name(node)
                .map(|name| format!(r"System\CurrentControlSet\Control\Class\{name}")),
        }
    })
}

/// `{class}\0000`, as `DevicePropertyDriverKeyName` tells it: one number for each device of the machine.
pub(super) fn driver_key_name(node: &super::node::Node) -> Option<String> {
    let installation = node.installation.as_ref()?;
    Some(format!(r"{}\{:04}", installation.class_guid, node.number - 1))
}
