//! Stopping a device so that its resources can be given anew, and starting it again.
//!
//! Pages: *Stopping a Device to Rebalance Resources*, *IRP_MN_QUERY_STOP_DEVICE*, *IRP_MN_STOP_DEVICE*,
//! *IRP_MN_CANCEL_STOP_DEVICE*. It is started with the resources it had: there is nothing to rebalance yet.

use abi::{IRP_MN_CANCEL_STOP_DEVICE, IRP_MN_QUERY_STOP_DEVICE, IRP_MN_STOP_DEVICE, NtStatus};
use engine::Flow;

use super::enumerate::{exclusively, tell};
use super::node::{self, NodeId, State};
use super::request::ask;
use super::start::{self, StartFailure, Started};
use super::{leftovers, remove};
use crate::cx::Cx;

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
    tell(cx, id, "query stop");
    let answer = ask(cx, id, IRP_MN_QUERY_STOP_DEVICE, [0; 4])?;
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
        send_cancel(cx, id)?;
        cx.with(|k| k.pnp.node_mut(id).state = State::Started);
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
        tell(cx, id, "stop");
        ask(cx, id, IRP_MN_STOP_DEVICE, [0; 4])?;
        leftovers::after_stop(cx, id, "IRP_MN_STOP_DEVICE")?;
        cx.with(|k| {
            let node = k.pnp.node_mut(id);
            node.state = State::Stopped;
        });
        Ok(NtStatus::SUCCESS)
    })
}

/// Starts a stopped device again; one that fails is removed.
///
/// # Errors
/// As [`start::start`].
pub fn restart(cx: &mut Cx<'_>, id: NodeId) -> Flow<Started> {
    exclusively(cx, |cx| {
        let state = node::state(cx, id);
        if state != State::Stopped {
            let why = format!("the device is {}", state.name());
            return Ok(Err(StartFailure { step: "restart", status: NtStatus::INVALID_DEVICE_STATE, why }));
        }
        let status = start::send_start(cx, id)?;
        if status.is_success() {
            cx.with(|k| k.pnp.node_mut(id).state = State::Started);
            return Ok(Ok(()));
        }
        remove::send_remove(cx, id)?;
        Ok(Err(StartFailure { step: "IRP_MN_START_DEVICE", status, why: String::new() }))
    })
}
