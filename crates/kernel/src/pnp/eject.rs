//! A device is ejected: its drivers are removed, and with them those of its ejection relations; then its bus driver gets IRP_MN_EJECT.
//!
//! Pages: *IoRequestDeviceEject function*, *IRP_MN_EJECT*, *IRP_MN_QUERY_DEVICE_RELATIONS* ("EjectionRelations Request": they "receive an
//! IRP_MN_REMOVE_DEVICE IRP (not an IRP_MN_EJECT IRP)"), *IRP_MN_SET_LOCK*, *Code 47* of *Device Manager Error Messages*. Where they are silent: a device that is locked
//! stays (`STATUS_DEVICE_BUSY`); one that cannot be ejected by software is prepared for it only. Its bus driver is asked whether it is still
//! there: if it is, it stays without drivers.

use abi::{DEVICE_CAPABILITIES, IRP_MN_EJECT, IRP_MN_SET_LOCK, NtStatus};
use engine::Flow;

use super::enumerate::tell;
use super::lock::exclusively;
use super::node::{self, NodeId, State};
use super::problem::{Code, Problem};
use super::related::{self, Kind};
use super::{capabilities, relations, remove, request};
use crate::cx::Cx;

/// Ejects a device, as a user asks for it. On a system thread at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver.
pub fn eject(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    exclusively(cx, |cx| while_locked(cx, id))
}

/// As [`eject`], by one who has the device's state to itself.
///
/// # Errors
/// As [`eject`].
pub(super) fn while_locked(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    if node::state(cx, id) != State::Started {
        return Ok(NtStatus::INVALID_DEVICE_STATE);
    }
    tell(cx, id, "eject");
    if cx.with(|k| k.pnp.node(id).locked) {
        tell(cx, id, "no eject of the locked");
        return Ok(NtStatus::DEVICE_BUSY);
    }
    let mut going = related::ask(cx, id, Kind::Ejection)?;
    let removed = remove::remove_while_locked(cx, id, &going)?;
    if !removed.is_success() {
        tell(cx, id, "no eject of");
        return Ok(removed);
    }
    going.push(id);
    let mut status = NtStatus::SUCCESS;
    if cx.with(|k| can(k.pnp.node(id).answers.capabilities.as_slice(), DEVICE_CAPABILITIES::EjectSupported)) {
        // Its function and filter drivers are gone: the bus driver alone has it.
        status = request::ask(cx, id, IRP_MN_EJECT, [0; 4])?.status;
        look_again(cx, &going)?;
    }
    for one in going {
        if node::state(cx, one) == State::Enumerated {
            cx.with(|k| k.pnp.node_mut(one).problem = Some(Problem::new(Code::HeldForEject, "")));
        }
    }
    Ok(status)
}

/// The parents of devices that are to be gone are asked for their children.
fn look_again(cx: &mut Cx<'_>, gone: &[NodeId]) -> Flow<()> {
    let mut parents: Vec<NodeId> = Vec::new();
    for one in gone.iter().rev() {
        let parent = cx.with(|k| k.pnp.node(*one).parent);
        parents.extend(parent.filter(|parent| !parents.contains(parent)));
    }
    for parent in parents {
        if node::state(cx, parent) == State::Started {
            relations::query(cx, parent)?;
        }
    }
    Ok(())
}

/// Locks a device in its slot (`IRP_MN_SET_LOCK`), or unlocks it. On a system thread at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver.
pub fn set_lock(cx: &mut Cx<'_>, id: NodeId, lock: bool) -> Flow<NtStatus> {
    exclusively(cx, |cx| {
        let (can, state) = cx.with(|k| {
            let node = k.pnp.node(id);
            (can(&node.answers.capabilities, DEVICE_CAPABILITIES::LockSupported), node.state)
        });
        if !can {
            return Ok(NtStatus::NOT_SUPPORTED);
        }
        if state != State::Started {
            return Ok(NtStatus::INVALID_DEVICE_STATE);
        }
        tell(cx, id, if lock { "lock" } else { "unlock" });
        let status = request::ask(cx, id, IRP_MN_SET_LOCK, [lock.into(), 0, 0, 0])?.status;
        if status.is_success() {
            cx.with(|k| k.pnp.node_mut(id).locked = lock);
        }
        Ok(status)
    })
}

/// Whether these capabilities have a bit.
fn can(capabilities: &[u8], bit: u32) -> bool {
    capabilities::flags(capabilities) & bit != 0
}
