//! A driver says that something about its device has changed: Windows asks again, later, on a thread of its own.
//!
//! Pages: *IoInvalidateDeviceState function*, *IRP_MN_QUERY_PNP_DEVICE_STATE*, *IRP_MN_START_DEVICE* ("to a device that is already
//! started"), *IoInvalidateDeviceRelations function*, *IoRequestDeviceEject function*. Ejection and removal relations are not used. A device that
//! was ejected stays without drivers; the children of its parent are asked for.

use abi::{
    BusRelations, DEVICE_CAPABILITIES, DEVICE_OBJECT, DriverPtr, IRP_MN_EJECT, PNP_DEVICE_FAILED,
    PNP_DEVICE_REMOVED, PNP_DEVICE_RESOURCE_REQUIREMENTS_CHANGED,
};
use engine::Flow;

use super::enumerate::{exclusively, tell};
use super::node::{self, NodeId, State};
use super::{capabilities, relations, remove, request, start, stop};
use crate::cx::Cx;
use crate::ke;

/// `IoInvalidateDeviceState`: `IRP_MN_QUERY_PNP_DEVICE_STATE` follows, and what the answer asks for.
///
/// # Errors
/// A verdict if `device` is no physical device object.
pub fn state(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let id = node::of_pdo(cx, "IoInvalidateDeviceState", device)?;
    later(cx, id, |cx, id| {
        tell(cx, id, "query state of");
        let state = start::query_state(cx, id)?;
        act_on(cx, id, state).map(|_| ())
    })
}

/// Does what a started device's `PNP_DEVICE_STATE` asks for. False if the device has been removed, or is being removed.
pub(super) fn act_on(cx: &mut Cx<'_>, id: NodeId, state: u32) -> Flow<bool> {
    let failed = state & PNP_DEVICE_FAILED != 0;
    let changed = state & PNP_DEVICE_RESOURCE_REQUIREMENTS_CHANGED != 0;
    if state & PNP_DEVICE_REMOVED != 0 || failed && !changed {
        remove::surprise_while_locked(cx, id, false)?;
        return Ok(false);
    }
    if changed {
        // "When both flags are set, the device must be stopped before the PnP manager assigns new hardware resources"; with the one
        // alone it may be started as it runs.
        stop::rebalance(cx, id, failed)?;
    }
    Ok(node::state(cx, id) == State::Started)
}

/// `IoInvalidateDeviceRelations`: for bus relations `IRP_MN_QUERY_DEVICE_RELATIONS` follows.
///
/// # Errors
/// A verdict if `device` is no physical device object.
pub fn relations(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, kind: u32) -> Flow<()> {
    let id = node::of_pdo(cx, "IoInvalidateDeviceRelations", device)?;
    if kind != BusRelations {
        return Ok(());
    }
    later(cx, id, relations::query)
}

/// `IoRequestDeviceEject`: the device is removed as by agreement, if its drivers and those who have it open agree; if its capabilities say that
/// it can be ejected, its bus driver is told to.
///
/// # Errors
/// A verdict if `device` is no physical device object.
pub fn request_eject(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let id = node::of_pdo(cx, "IoRequestDeviceEject", device)?;
    later(cx, id, |cx, id| {
        tell(cx, id, "eject");
        if !remove::remove_while_locked(cx, id)?.is_success() {
            tell(cx, id, "no eject of");
        } else if cx.with(|k| can_eject(&k.pnp.node(id).answers.capabilities)) {
            // Its function and filter drivers are gone: the bus driver alone has it.
            request::ask(cx, id, IRP_MN_EJECT, [0; 4])?;
            let parent = cx.with(|k| k.pnp.node(id).parent);
            if let Some(parent) = parent.filter(|parent| node::state(cx, *parent) == State::Started) {
                relations::query(cx, parent)?;
            }
        }
        Ok(())
    })
}

/// Whether these capabilities say `EjectSupported`.
fn can_eject(capabilities: &[u8]) -> bool {
    capabilities::flags(capabilities) & DEVICE_CAPABILITIES::EjectSupported != 0
}

/// Runs `work` on a thread of the PnP manager, if the device is started by then.
fn later(cx: &mut Cx<'_>, id: NodeId, work: fn(&mut Cx<'_>, NodeId) -> Flow<()>) -> Flow<()> {
    let body = move |cx: &mut Cx<'_>| {
        exclusively(cx, |cx| match node::state(cx, id) {
            State::Started => work(cx, id),
            _ => Ok(()),
        })
    };
    ke::thread::spawn(cx, "PnP manager", Box::new(body)).map(|_| ())
}
