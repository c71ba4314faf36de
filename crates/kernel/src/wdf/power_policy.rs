//! Whose the power policy of a device is, in whose stack clients of a framework are.
//!
//! Pages: *Power Policy Ownership*, *WdfDeviceInitSetPowerPolicyOwnership function*. A function driver that is a client owns the power policy of its device, and
//! a filter does not, unless it has said otherwise of the WDFDEVICE_INIT that it was given for the device. *It does not* know of devices for which clients get that structure
//! elsewhere than in `EvtDriverDeviceAdd`: children that they report, and control devices.

use std::collections::BTreeMap;

use abi::{DRIVER_OBJECT, DriverPtr};

use super::bind::version_of;
use super::ddis::index_of;
use crate::cx::Kernel;
use crate::pnp::NodeId;

/// The function by which a client says whether it is the owner. Its calls are always the kernel's.
const SET_OWNERSHIP: usize = index_of("WdfDeviceInitSetPowerPolicyOwnership");

/// What clients have said.
#[derive(Default)]
pub(super) struct PowerPolicy {
    /// The device whose driver is adding it now, and that driver.
    adding: Option<(NodeId, u64)>,
    /// The WDFDEVICE_INIT that the driver was given for it.
    init: u64,
    /// Whether a driver owns a device's power policy, where it has said so.
    said: BTreeMap<(NodeId, u64), bool>,
}

/// The `AddDevice` routine of a driver is about to be called for this device.
pub(crate) fn add_begins(k: &mut Kernel, device: NodeId, driver: DriverPtr<DRIVER_OBJECT>) {
    let policy = &mut k.wdf.power_policy;
    policy.adding = Some((device, driver.address));
    policy.init = 0;
    policy.said.remove(&(device, driver.address));
}

/// It has returned.
pub(crate) fn add_ends(k: &mut Kernel) {
    k.wdf.power_policy.adding = None;
}

/// `EvtDriverDeviceAdd` is called with this WDFDEVICE_INIT.
pub(super) fn init_is_given(k: &mut Kernel, init: u64) {
    k.wdf.power_policy.init = init;
}

/// Whether a call of this function of the framework's is to be shown to [`called`].
#[inline]
pub(super) fn is_said_by(index: usize) -> bool {
    index == SET_OWNERSHIP
}

/// A client says by such a call whether it is the owner.
#[cold]
pub(super) fn called(k: &mut Kernel, arguments: [u64; 4]) {
    let [_, init, is_owner, _] = arguments;
    let policy = &mut k.wdf.power_policy;
    if let Some(adding) = policy.adding.filter(|_| init == policy.init) {
        policy.said.insert(adding, is_owner & 0xFF != 0); // a BOOLEAN
    }
}

/// Whether a framework owns the power policy of this device, for a client in its stack. That framework alone asks for the device's power requests, and knows each.
#[must_use]
pub fn is_frameworks(k: &Kernel, device: NodeId) -> bool {
    let node = k.pnp.node(device);
    let owns = |driver: &DriverPtr<DRIVER_OBJECT>| {
        let said = k.wdf.power_policy.said.get(&(device, driver.address)).copied();
        version_of(k, *driver).is_some() && said.unwrap_or(*driver == node.driver)
    };
    node.filters.iter().chain([&node.driver]).any(owns)
}
