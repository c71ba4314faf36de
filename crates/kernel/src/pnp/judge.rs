//! What a device stack may answer to the PnP manager, and what it may not.
//!
//! Pages: *IRP_MN_REMOVE_DEVICE*, *IRP_MN_SURPRISE_REMOVAL*, *IRP_MN_CANCEL_REMOVE_DEVICE*, *IRP_MN_CANCEL_STOP_DEVICE*,
//! *IRP_MN_STOP_DEVICE* ("must not fail"), rule *PnpRemove*, *Bug Check 0xC9* (22E).

use abi::{
    IRP_MN_CANCEL_REMOVE_DEVICE, IRP_MN_CANCEL_STOP_DEVICE, IRP_MN_QUERY_REMOVE_DEVICE,
    IRP_MN_QUERY_STOP_DEVICE, IRP_MN_REMOVE_DEVICE, IRP_MN_START_DEVICE, IRP_MN_STOP_DEVICE,
    IRP_MN_SURPRISE_REMOVAL, NtStatus,
};
use engine::Flow;

use super::node::NodeId;
use crate::cx::Cx;
use crate::io::system_request::Answer;
use crate::io::violation::request_name;
use crate::verdict::Verdict;

/// The name of a minor function the PnP manager sends.
pub(super) const fn name(minor: u8) -> &'static str {
    match minor {
        IRP_MN_START_DEVICE => "IRP_MN_START_DEVICE",
        IRP_MN_QUERY_STOP_DEVICE => "IRP_MN_QUERY_STOP_DEVICE",
        IRP_MN_CANCEL_STOP_DEVICE => "IRP_MN_CANCEL_STOP_DEVICE",
        IRP_MN_STOP_DEVICE => "IRP_MN_STOP_DEVICE",
        IRP_MN_QUERY_REMOVE_DEVICE => "IRP_MN_QUERY_REMOVE_DEVICE",
        IRP_MN_CANCEL_REMOVE_DEVICE => "IRP_MN_CANCEL_REMOVE_DEVICE",
        IRP_MN_REMOVE_DEVICE => "IRP_MN_REMOVE_DEVICE",
        IRP_MN_SURPRISE_REMOVAL => "IRP_MN_SURPRISE_REMOVAL",
        _ => "a PnP query",
    }
}

/// Requests that change the device's state, which every driver of the stack must see unless one fails it.
const fn is_for_all(minor: u8) -> bool {
    matches!(
        minor,
        IRP_MN_START_DEVICE
            | IRP_MN_QUERY_STOP_DEVICE
            | IRP_MN_CANCEL_STOP_DEVICE
            | IRP_MN_STOP_DEVICE
            | IRP_MN_QUERY_REMOVE_DEVICE
            | IRP_MN_CANCEL_REMOVE_DEVICE
            | IRP_MN_REMOVE_DEVICE
            | IRP_MN_SURPRISE_REMOVAL
    )
}

/// Requests that no driver may fail.
const fn must_succeed(minor: u8) -> bool {
    matches!(
        minor,
        IRP_MN_CANCEL_STOP_DEVICE
            | IRP_MN_STOP_DEVICE
            | IRP_MN_CANCEL_REMOVE_DEVICE
            | IRP_MN_REMOVE_DEVICE
            | IRP_MN_SURPRISE_REMOVAL
    )
}

/// A power request of this kind has come back from a stack: the bus driver must have seen it, unless it failed.
///
/// # Errors
/// As [`Cx::verify`].
pub(crate) fn power_answer(cx: &mut Cx<'_>, id: NodeId, minor: u8, kind: u32, status: NtStatus) -> Flow<()> {
    let device = cx.with(|k| {
        let node = k.pnp.nodes.get(&id)?;
        let seen = node.power_seen[usize::from(kind != abi::SystemPowerState)];
        (!seen && status.is_success()).then(|| node.name.clone())
    });
    let Some(device) = device else { return Ok(()) };
    let whose = if kind == abi::SystemPowerState { "system" } else { "device" };
    let message = format!(
        "{} for a {whose} state of {device} was completed with {status} by a driver of its stack and never passed down to the bus driver",
        request_name(abi::IRP_MJ_POWER, minor)
    );
    let verdict = Verdict::verifier("power-request-not-passed-down", message);
    cx.verify(verdict.bug_check(0xC9, [0x231, 0, id.0, 0]))
}

/// Judges the answer of a stack.
///
/// # Errors
/// A verdict: the request must not fail and did, or it succeeded and never reached the bus driver.
pub(super) fn answer(cx: &mut Cx<'_>, id: NodeId, minor: u8, answer: Answer) -> Flow<()> {
    let (name, seen, device) = cx.with(|k| {
        let node = k.pnp.node(id);
        (name(minor), node.seen, node.name.clone())
    });
    if must_succeed(minor) && !answer.status.is_success() {
        let message = format!(
            "{name} of {device} was completed with {}; it must not fail (a driver that does nothing for it sets STATUS_SUCCESS and passes it down)",
            answer.status
        );
        let verdict = Verdict::error("pnp-request-failed", message);
        // The run-time rule speaks of remove, surprise removal and the two cancels.
        let ruled = minor != IRP_MN_STOP_DEVICE;
        let verdict = if ruled { verdict.bug_check(0xC4, [0x4_3006, 0, id.0, 0]) } else { verdict };
        // What the bus driver has seen is done, whatever was made of its answer: Windows does not look at the status.
        if !seen {
            return Err(cx.stop(verdict));
        }
        cx.verify(verdict.as_verifier())?;
    }
    if answer.status == NtStatus::NOT_SUPPORTED && !seen {
        let message = format!(
            "{name} of {device} was completed with {} by a driver of its stack, and never passed down to the bus driver: a driver passes down what it does not know, as it is",
            answer.status
        );
        let verdict = Verdict::verifier("pnp-minor-answered", message);
        cx.verify(verdict.bug_check(0xC9, [0x22D, 0, id.0, 0]))?;
    }
    if is_for_all(minor) && answer.status.is_success() && !seen {
        let message = format!(
            "{name} of {device} was completed with {} by a driver of its stack and never passed down to the bus driver",
            answer.status
        );
        let verdict = Verdict::error("pnp-request-not-passed-down", message);
        return Err(cx.stop(verdict.bug_check(0xC9, [0x22E, 0, id.0, 0])));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_fail_is_what_the_documentation_says() {
        let all: Vec<u8> = (0..=0x19).filter(|minor| must_succeed(*minor)).collect();
        assert_eq!(all, [2, 3, 4, 6, 0x17]);
        assert!(all.iter().all(|minor| is_for_all(*minor)));
    }
}
