//! The whole system goes to sleep and wakes: every started device gets the query and the set request; children sleep before their parents, and
//! a device with power relations before these ([`pnp::related`]).
//!
//! Pages: *System Power States*, *System Power Actions*, *IRP_MN_QUERY_POWER*, *IRP_MN_SET_POWER*, *Handling IRP_MN_SET_POWER for System Power
//! States*, *IoRegisterShutdownNotification function* ("called before the power manager sends an IRP_MN_SET_POWER request for
//! PowerSystemShutdown"). Cards have no power from S3 on, and no auxiliary power but
//! for PME#. Hibernation's files and wake signals are not modelled.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    IRP_MJ_POWER, IRP_MN_QUERY_POWER, IRP_MN_SET_POWER, NtStatus, PowerActionHibernate, PowerActionNone,
    PowerActionShutdown, PowerActionSleep, PowerSystemHibernate, PowerSystemShutdown, PowerSystemSleeping3,
    PowerSystemUnspecified, PowerSystemWorking, SystemPowerState,
};
use engine::Flow;

use super::level::PowerFlags;
use super::{fx, watchdog};
use crate::cx::{Cx, Kernel};
use crate::ex::callback;
use crate::io::system_request::{Request, send};
use crate::pnp::{self, NodeId, enumerate, node};
use crate::verdict::Verdict;
use crate::{io, ke};

/// Takes the system to `state` (`PowerSystem*`). On a system thread, at PASSIVE_LEVEL. If a device refuses to leave the
/// working state, those asked before are sent back to the working state, and its status is returned.
///
/// # Errors
/// A verdict on a driver.
pub fn set(cx: &mut Cx<'_>, state: u32) -> Flow<NtStatus> {
    pnp::exclusively_asleep_too(cx, |cx| go_to(cx, state))
}

fn go_to(cx: &mut Cx<'_>, state: u32) -> Flow<NtStatus> {
    enumerate::step(cx, "system power state", name(state));
    let mut devices = cx.with(|k| pnp::related::in_power_order(k));
    cx.with(|k| k.po.action = action(state));
    if state == PowerSystemWorking {
        cx.with(|k| {
            if loses_power(k.po.asleep) {
                pnp::card_power::system_wakes(k);
            }
        });
        ke::interrupt::deliver(cx)?;
        tell(cx, &devices, state)?;
        cx.with(|k| k.po.asleep = PowerSystemUnspecified);
        callback::power_state(cx, true)?;
        pnp::lock::awake(cx)?;
        return Ok(NtStatus::SUCCESS);
    }
    // What others need goes last.
    devices.reverse();
    for (asked, id) in devices.iter().enumerate() {
        let status = ask(cx, *id, IRP_MN_QUERY_POWER, state)?;
        if !status.is_success() {
            tell(cx, &devices[..=asked], PowerSystemWorking)?;
            cx.with(|k| k.po.action = PowerActionNone);
            return Ok(status);
        }
    }
    callback::power_state(cx, false)?;
    if state == PowerSystemShutdown {
        io::shutdown::shut_down(cx)?;
    }
    tell(cx, &devices, state)?;
    cx.with(|k| {
        (k.po.asleep, k.po.action) = (state, PowerActionNone);
        if loses_power(state) {
            pnp::card_power::system_sleeps(k);
        }
    });
    ke::interrupt::deliver(cx)?;
    Ok(NtStatus::SUCCESS)
}

/// Whether the system sleeps: it can wake.
#[must_use]
pub fn sleeps(k: &Kernel) -> bool {
    k.po.asleep != PowerSystemUnspecified && !is_off(k)
}

/// Whether the system was shut down: nothing happens to its drivers any more.
#[must_use]
pub fn is_off(k: &Kernel) -> bool {
    k.po.asleep == PowerSystemShutdown
}

fn tell(cx: &mut Cx<'_>, devices: &[NodeId], state: u32) -> Flow<()> {
    for id in devices {
        match state {
            PowerSystemWorking => fx::system::before_working(cx, id.pdo()),
            _ => fx::system::before_sleep(cx, id.pdo())?,
        }
        let status = ask(cx, *id, IRP_MN_SET_POWER, state)?;
        if !status.is_success() && !cx.with(|k| k.po.refused.contains(&id.0)) {
            let device = cx.with(|k| k.pnp.node(*id).name.clone());
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
    let action = action(state).into();
    let request = Request {
        parameters: [context(state).into(), SystemPowerState.into(), state.into(), action],
        status: NtStatus::NOT_SUPPORTED,
        level: PowerFlags::of(cx, id.pdo())?.level(cx, minor),
        ..Request::new(IRP_MJ_POWER, minor)
    };
    cx.with(|k| node::power_asked(k, id, SystemPowerState));
    let status = watchdog::watch(cx, id.0, |cx| send(cx, id.pdo(), &request))?.status;
    pnp::judge::power_answer(cx, id, minor, SystemPowerState, status)?;
    Ok(status)
}

/// Whether cards have no power in a state of the system: from S3 on.
const fn loses_power(state: u32) -> bool {
    matches!(state, PowerSystemSleeping3..=PowerSystemShutdown)
}

/// The reason of a transition to `state`, which devices get with it.
const fn action(state: u32) -> u32 {
    match state {
        PowerSystemWorking => PowerActionNone,
        PowerSystemHibernate => PowerActionHibernate,
        PowerSystemShutdown => PowerActionShutdown,
        _ => PowerActionSleep,
    }
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
