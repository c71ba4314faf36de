//! Stopping a device so that its resources can be given anew, and starting it again. What hangs on it is asked and stopped before it, and
//! started after it.
//!
//! Pages: *Stopping a Device to Rebalance Resources*, *IRP_MN_QUERY_STOP_DEVICE*, *IRP_MN_STOP_DEVICE*,
//! *IRP_MN_CANCEL_STOP_DEVICE*. It is started with the resources it had, or with others ([`elsewhere`]). From the stopped state
//! Windows knows two ways only: `IRP_MN_START_DEVICE`, and if that fails (or the card is pulled out) `IRP_MN_SURPRISE_REMOVAL`.

use abi::{DRIVER_OBJECT, IRP_MN_CANCEL_STOP_DEVICE, IRP_MN_QUERY_STOP_DEVICE, IRP_MN_STOP_DEVICE, NtStatus};
use engine::Flow;

use super::enumerate::tell;
use super::lock::exclusively;
use super::node::{self, NodeId, State};
use super::request::ask;
use super::start::{self, StartFailure, Started};
use super::{elsewhere, install, installer, remove, remove_check, surprise, tree, usage};
use crate::cx::Cx;
use crate::io;

/// Asks the device's drivers whether it can be stopped; if not, tells them that it will not be.
///
/// # Errors
/// A verdict on a driver of the stack.
pub fn query_stop(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    exclusively(cx, |cx| ask_stop(cx, id))
}

fn ask_stop(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    if node::state(cx, id) != State::Started {
        return Ok(NtStatus::INVALID_DEVICE_STATE);
    }
    let all = in_state(cx, id, State::Started);
    for (asked, one) in all.iter().enumerate() {
        let status = ask_one(cx, *one)?;
        if !status.is_success() {
            take_back(cx, &all[..asked])?;
            return Ok(status);
        }
    }
    Ok(NtStatus::SUCCESS)
}

/// The device and all below it that are in a state, children first.
fn in_state(cx: &mut Cx<'_>, id: NodeId, state: State) -> Vec<NodeId> {
    let all = cx.with(|k| tree::from_below(k, id));
    all.into_iter().filter(|one| node::state(cx, *one) == state).collect()
}

/// Devices that have agreed to be stopped go on.
fn take_back(cx: &mut Cx<'_>, agreed: &[NodeId]) -> Flow<()> {
    for &one in agreed.iter().rev() {
        send_cancel(cx, one)?;
        cx.with(|k| k.pnp.node_mut(one).state = State::Started);
    }
    Ok(())
}

/// Asks the drivers of one device.
fn ask_one(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    tell(cx, id, "query stop");
    let answer = ask(cx, id, IRP_MN_QUERY_STOP_DEVICE, [0; 4])?;
    usage::judge_query(cx, id, "IRP_MN_QUERY_STOP_DEVICE", answer.status)?;
    if answer.status.is_success() {
        cx.with(|k| k.pnp.node_mut(id).state = State::StopPending);
    } else {
        send_cancel(cx, id)?;
    }
    Ok(answer.status)
}

/// Takes a successful [`query_stop`] back.
///
/// # Errors
/// As [`query_stop`].
pub fn cancel_stop(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    exclusively(cx, |cx| {
        if node::state(cx, id) != State::StopPending {
            return Ok(NtStatus::INVALID_DEVICE_STATE);
        }
        let agreed = in_state(cx, id, State::StopPending);
        take_back(cx, &agreed)?;
        Ok(NtStatus::SUCCESS)
    })
}

fn send_cancel(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    tell(cx, id, "cancel stop");
    ask(cx, id, IRP_MN_CANCEL_STOP_DEVICE, [0; 4])?;
    Ok(())
}

/// Stops the device, asking first if [`query_stop`] has not.
///
/// # Errors
/// As [`query_stop`]; also what the driver still holds of the device's resources.
pub fn stop(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    exclusively(cx, |cx| {
        if node::state(cx, id) == State::Started {
            let status = ask_stop(cx, id)?;
            if !status.is_success() {
                return Ok(status);
            }
        }
        if node::state(cx, id) != State::StopPending {
            return Ok(NtStatus::INVALID_DEVICE_STATE);
        }
        send_stop(cx, id)?;
        Ok(NtStatus::SUCCESS)
    })
}

/// Gives a started device other resources because its requirements have changed: stopped first if it asks for that (`PNP_DEVICE_FAILED`),
/// else with a start request as it runs ("supplying a different set of resources than the device is currently using").
pub(super) fn rebalance(cx: &mut Cx<'_>, id: NodeId, stopped: bool) -> Flow<()> {
    if stopped {
        if !ask_stop(cx, id)?.is_success() {
            return Ok(());
        }
        send_stop(cx, id)?;
    }
    // What the stack asks for now; if it cannot be met, the device keeps what it had.
    if let Ok(resources) = start::assign(cx, id)? {
        cx.with(|k| k.pnp.node_mut(id).resources = resources);
    }
    // There is nothing that it needs and has not got: other places are all that can change.
    elsewhere::give(cx, id);
    if stopped {
        let _ = restart_while_locked(cx, id)?;
        return Ok(());
    }
    let status = start::send_start(cx, id)?;
    if !status.is_success() {
        let _ = fail(cx, id, status)?;
    }
    Ok(())
}

/// A device that ran does not start again: its drivers get IRP_MN_SURPRISE_REMOVAL.
fn fail(cx: &mut Cx<'_>, id: NodeId, status: NtStatus) -> Flow<StartFailure> {
    let failed = StartFailure { step: "IRP_MN_START_DEVICE", status, why: String::new() };
    start::note_problem(cx, id, &failed);
    surprise::surprise_while_locked(cx, id, false)?;
    Ok(failed)
}

/// Stops the device, and before it what hangs on it and has agreed.
fn send_stop(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    in_state(cx, id, State::StopPending).into_iter().try_for_each(|one| stop_one(cx, one))
}

fn stop_one(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    tell(cx, id, "stop");
    ask(cx, id, IRP_MN_STOP_DEVICE, [0; 4])?;
    remove_check::after_stop(cx, id);
    cx.with(|k| k.pnp.node_mut(id).state = State::Stopped);
    Ok(())
}

/// Starts a stopped device again, or enables one whose drivers were removed. If a stopped one does not start, its drivers get IRP_MN_SURPRISE_REMOVAL, and are removed when the last file on it is
/// closed.
///
/// # Errors
/// As [`start::start`].
pub fn restart(cx: &mut Cx<'_>, id: NodeId) -> Flow<Started> {
    exclusively(cx, |cx| match node::state(cx, id) {
        State::Enumerated => enable(cx, id),
        _ => restart_while_locked(cx, id),
    })
}

/// A device whose drivers were removed gets them again, as when a user enables what he has disabled. Drivers that have no other device are none that
/// go on: Windows would have unloaded them.
fn enable(cx: &mut Cx<'_>, id: NodeId) -> Flow<Started> {
    let removed = cx.with(|k| {
        let node = k.pnp.node(id);
        node.added_last.clone().filter(|_| node.problem.is_none())
    });
    let refused =
        |why: String| Err(StartFailure { step: "start", status: NtStatus::INVALID_DEVICE_STATE, why });
    let removed = removed.filter(|_| !remove::is_deleted(cx, id));
    let Some(drivers) = removed else {
        return Ok(refused("no driver was removed from the device".to_owned()));
    };
    for &driver in drivers.lower.iter().chain([&drivers.function]).chain(&drivers.upper) {
        if !driver.is_null() && cx.read(driver + DRIVER_OBJECT::DeviceObject)?.is_null() {
            let (name, service) = (cx.with(|k| k.pnp.node(id).name.clone()), io::driver::service(cx, driver));
            installer::note(
                cx,
                format!(
                    "{name}: not enabled again: Windows has unloaded {service}, which has no other device, and would load it again; that is not implemented by dirql"
                ),
            );
            return Ok(refused(format!("{service} has no device any more")));
        }
    }
    start::start_while_locked(cx, id, &drivers)
}

/// As [`restart`].
pub(super) fn restart_while_locked(cx: &mut Cx<'_>, id: NodeId) -> Flow<Started> {
    let state = node::state(cx, id);
    if state != State::Stopped {
        let why = format!("the device is {}", state.name());
        return Ok(Err(StartFailure { step: "restart", status: NtStatus::INVALID_DEVICE_STATE, why }));
    }
    let status = start::send_start(cx, id)?;
    if status.is_success() {
        cx.with(|k| k.pnp.node_mut(id).state = State::Started);
        install::write_control(cx, id);
        // A child that does not start again fails alone.
        for child in cx.with(|k| tree::children(k, Some(id))) {
            if node::state(cx, child) == State::Stopped {
                let _ = restart_while_locked(cx, child)?;
            }
        }
        return Ok(Ok(()));
    }
    fail(cx, id, status).map(Err)
}
