//! A driver says that something about its device has changed: Windows asks again, later, on a thread of its own.
//!
//! Pages: *IoInvalidateDeviceState function*, *IRP_MN_QUERY_PNP_DEVICE_STATE*, *IRP_MN_START_DEVICE* ("to a device that is already
//! started"), *IoInvalidateDeviceRelations function*, *IoRequestDeviceEject function*.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    BusRelations, DEVICE_OBJECT, DriverPtr, NtStatus, PNP_DEVICE_DISABLED, PNP_DEVICE_FAILED,
    PNP_DEVICE_REMOVED, PNP_DEVICE_RESOURCE_REQUIREMENTS_CHANGED, PowerRelations,
};
use engine::Flow;

use super::enumerate::tell;
use super::lock::exclusively;
use super::node::{self, NodeId, State};
use super::problem::{Code, Problem};
use super::{eject, related, relations, start, stop, surprise};
use crate::cx::Cx;
use crate::ke;

/// `IoInvalidateDeviceState`: `IRP_MN_QUERY_PNP_DEVICE_STATE` follows, and what the answer asks for.
///
/// # Errors
/// A verdict if `device` is no physical device object.
pub(crate) fn state(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
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
    let problem = match state {
        _ if state & PNP_DEVICE_DISABLED != 0 => Some(Code::HardwareDisabled),
        _ if failed && !changed => Some(Code::FailedPostStart),
        _ => None,
    };
    if state & PNP_DEVICE_REMOVED != 0 || problem.is_some() {
        let why = format!("it answered {}", start::state_names(state));
        cx.with(|k| k.pnp.node_mut(id).problem = problem.map(|code| Problem::new(code, why)));
        surprise::surprise_while_locked(cx, id, false)?;
        return Ok(false);
    }
    if changed {
        // "When both flags are set, the device must be stopped before the PnP manager assigns new hardware resources"; with the one
        // alone it may be started as it runs.
        stop::rebalance(cx, id, failed)?;
    }
    Ok(node::state(cx, id) == State::Started)
}

/// `IoInvalidateDeviceRelations`: for bus relations and power relations `IRP_MN_QUERY_DEVICE_RELATIONS` follows; others are asked for when they are needed.
///
/// # Errors
/// A verdict if `device` is no physical device object.
pub(crate) fn relations(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, kind: u32) -> Flow<()> {
    let id = node::of_pdo(cx, "IoInvalidateDeviceRelations", device)?;
    match kind {
        BusRelations => later(cx, id, relations::query),
        PowerRelations => later(cx, id, related::query_power),
        _ => Ok(()),
    }
}

/// `IoSynchronousInvalidateDeviceRelations`: the same, and it returns when the drivers have been asked and new children are started. Windows exports it, and no page describes it:
/// ours are `UNSUCCESSFUL` for a device that is not started, and that relations which are asked for when they are needed are not asked for. Who calls it within a Plug and Play
/// request waits for itself.
///
/// # Errors
/// As [`relations()`].
pub(crate) fn relations_now(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, kind: u32) -> Flow<NtStatus> {
    let id = node::of_pdo(cx, "IoSynchronousInvalidateDeviceRelations", device)?;
    ke::thread::wait_for_system(cx, "PnP manager", move |cx| {
        exclusively(cx, |cx| {
            if node::state(cx, id) != State::Started {
                return Ok(NtStatus::UNSUCCESSFUL);
            }
            match kind {
                BusRelations => relations::query(cx, id)?,
                PowerRelations => related::query_power(cx, id)?,
                _ => {}
            }
            Ok(NtStatus::SUCCESS)
        })
    })
}

/// `IoRequestDeviceEject`: the device is ejected, later.
///
/// # Errors
/// A verdict if `device` is no physical device object.
pub(crate) fn request_eject(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let id = node::of_pdo(cx, "IoRequestDeviceEject", device)?;
    later(cx, id, |cx, id| eject::while_locked(cx, id).map(|_| ()))
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
