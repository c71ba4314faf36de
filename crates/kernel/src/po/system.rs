//! The whole system goes to sleep and wakes: every started device is asked, and told.
//!
//! Pages: *System Power States*, *IRP_MN_QUERY_POWER*, *IRP_MN_SET_POWER*, *Handling IRP_MN_SET_POWER for System Power States*. Power
//! really taken from cards, hibernation's files and wake signals are not modelled.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    IRP_MJ_POWER, IRP_MN_QUERY_POWER, IRP_MN_SET_POWER, NtStatus, PowerActionNone, PowerActionShutdown,
    PowerActionSleep, PowerSystemHibernate, PowerSystemShutdown, PowerSystemWorking, SystemPowerState,
};
use engine::Flow;

use crate::cx::Cx;
use crate::event::Event;
use crate::io::send::{Request, send};
use crate::pnp::{self, NodeId, node};
use crate::verdict::Verdict;

/// Takes the system to `state` (`PowerSystem*`). On a system thread, at PASSIVE_LEVEL. If a device refuses to leave the
/// working state, those asked before are told that the system goes on working, and its status is returned.
///
/// # Errors
/// A verdict on a driver.
pub fn set(cx: &mut Cx<'_>, state: u32) -> Flow<NtStatus> {
    cx.emit(Event::Pnp { step: format!("system power state {}", name(state)) });
    let mut devices = started(cx);
    if state == PowerSystemWorking {
        tell(cx, &devices, state)?;
        return Ok(NtStatus::SUCCESS);
    }
    // What was found last sleeps first.
    devices.reverse();
    for (asked, id) in devices.iter().enumerate() {
        let status = ask(cx, *id, IRP_MN_QUERY_POWER, state)?;
        if !status.is_success() {
            tell(cx, &devices[..=asked], PowerSystemWorking)?;
            return Ok(status);
        }
    }
    tell(cx, &devices, state)?;
    Ok(NtStatus::SUCCESS)
}

fn started(cx: &mut Cx<'_>) -> Vec<NodeId> {
    let started = |device: &pnp::Described| device.state == node::State::Started;
    pnp::devices(cx).iter().filter(|device| started(device)).map(|device| device.id).collect()
}

fn tell(cx: &mut Cx<'_>, devices: &[NodeId], state: u32) -> Flow<()> {
    for id in devices {
        let status = ask(cx, *id, IRP_MN_SET_POWER, state)?;
        if !status.is_success() {
            let device = cx.with(|k| k.pnp.node(*id).function.name.clone());
            let message = format!(
                "IRP_MN_SET_POWER of {device} for the system's state {} was completed with {status}; a driver may fail IRP_MN_QUERY_POWER, not this",
                name(state)
            );
            cx.report(Verdict::warning("set-power-failed", message));
        }
    }
    Ok(())
}

fn ask(cx: &mut Cx<'_>, id: NodeId, minor: u8, state: u32) -> Flow<NtStatus> {
    let action = match state {
        PowerSystemWorking => PowerActionNone,
        PowerSystemShutdown => PowerActionShutdown,
        _ => PowerActionSleep,
    };
    let request = Request {
        parameters: [context(state).into(), SystemPowerState.into(), state.into(), action.into()],
        status: NtStatus::NOT_SUPPORTED,
        ..Request::new(IRP_MJ_POWER, minor)
    };
    Ok(send(cx, id.pdo(), &request)?.status)
}

/// `SYSTEM_POWER_STATE_CONTEXT`: target, effective and current state.
const fn context(state: u32) -> u32 {
    state << 8 | state << 12 | PowerSystemWorking << 16
}

fn name(state: u32) -> String {
    match state {
        PowerSystemWorking..=PowerSystemHibernate => format!("S{}", state - PowerSystemWorking),
        PowerSystemShutdown => "S5".to_owned(),
        _ => format!("{state}"),
    }
}
