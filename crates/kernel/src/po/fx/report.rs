//! What drivers do wrong with the framework.
//!
//! Pages: *Bug Check 0xA0 INTERNAL_POWER_ERROR* (600, 608, 613, 614), *Bug Check 0x9F DRIVER_POWER_STATE_FAILURE* (5, 6), *PoFxRegisterDevice function*, *PoFxUnregisterDevice function*,
//! *PoFxIssueComponentPerfStateChange function*. Its parameters that are structures of the framework's are the handle, which is as opaque. No page says
//! what Windows does with a handle that is none: its memory is whatever it is.

use abi::{DEVICE_OBJECT, DriverPtr};
use engine::Flow;

use super::component::BadFlags;
use crate::cx::Cx;
use crate::event::Role;
use crate::io::violation;
use crate::pnp::NodeId;
use crate::verdict::Verdict;

/// `INTERNAL_POWER_ERROR`.
const CODE: u32 = 0xA0;

/// A request that the driver is to answer, as parameter 4 of 613 numbers them; no number for what it does not have.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    NotRequired,
    PoweredOn,
    IdleCondition(u32),
    IdleState(u32),
    DirectedDown,
}

/// How a device is called.
fn name(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) -> String {
    let name = cx.with(|k| k.pnp.nodes.get(&NodeId(pdo.address)).map(|node| node.name.clone()));
    name.unwrap_or_else(|| violation::device_name(cx, pdo))
}

/// How the device of a registration is called.
pub(super) fn name_of(cx: &mut Cx<'_>, handle: u64) -> String {
    match cx.with(|k| k.po.fx.get(&handle).map(|device| device.pdo)) {
        Some(pdo) => name(cx, pdo),
        None => format!("the registration {handle:#x}"),
    }
}

/// The handle must be of a registration; while the driver takes that back, routines that are running may still answer.
pub(super) fn check(cx: &mut Cx<'_>, ddi: &str, handle: u64) -> Flow<()> {
    if cx.with(|k| k.po.fx.contains_key(&handle)) {
        return Ok(());
    }
    Err(bad_handle(cx, ddi, handle))
}

/// A handle that is of no registration, or is taken back already.
pub(super) fn bad_handle(cx: &mut Cx<'_>, ddi: &str, handle: u64) -> engine::Leave {
    let message =
        format!("{ddi} was given the handle {handle:#x}, which is of no device that is registered with PoFx");
    cx.stop(Verdict::error("pofx-bad-handle", message))
}

/// The handle must be of a registration, and the index of a component.
pub(super) fn check_component(cx: &mut Cx<'_>, ddi: &str, handle: u64, component: u32) -> Flow<usize> {
    check(cx, ddi, handle)?;
    let count = cx.with(|k| k.po.fx[&handle].components.len());
    if (component as usize) < count {
        return Ok(component as usize);
    }
    let device = name_of(cx, handle);
    let message = format!("{ddi} was called for component {component} of {device}, which has {count}");
    let verdict = Verdict::error("pofx-illegal-parameter", message);
    let is_transition = matches!(ddi, "PoFxActivateComponent" | "PoFxIdleComponent");
    let verdict = match is_transition {
        true => verdict.bug_check(CODE, [0x614, handle, component.into(), 2]),
        false => verdict,
    };
    Err(cx.stop(verdict))
}

/// Flags of an activation that may not be.
pub(super) fn illegal_flags(
    cx: &mut Cx<'_>,
    ddi: &str,
    handle: u64,
    component: u32,
    bad: BadFlags,
) -> engine::Leave {
    let device = name_of(cx, handle);
    let message = format!("{ddi} was called for component {component} of {device} {}", bad.text());
    let parameters = [0x614, handle, component.into(), u64::from(bad == BadFlags::Both)];
    cx.stop(Verdict::error("pofx-illegal-parameter", message).bug_check(CODE, parameters))
}

/// A device is registered once more.
pub(super) fn registered_twice(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>) -> engine::Leave {
    let device = name(cx, pdo);
    let message = format!(
        "PoFxRegisterDevice was called for {device}, which is registered already: PoFxUnregisterDevice first"
    );
    cx.stop(Verdict::error("pofx-registered-twice", message).bug_check(CODE, [0x600, pdo.address, 0, 0]))
}

/// `PoFxIdleComponent` without an activation that it takes back.
pub(super) fn idle_without_active(cx: &mut Cx<'_>, handle: u64, component: u32) -> engine::Leave {
    let device = name_of(cx, handle);
    let message = format!(
        "PoFxIdleComponent was called for component {component} of {device}, which its driver has not activated, or has idled as often already"
    );
    cx.stop(Verdict::error("pofx-idle-without-active", message).bug_check(CODE, [0x608, handle, 0, 0]))
}

/// The driver answers what it was not asked. Only for three of the answers Windows' bug check is documented; the others pass.
pub(super) fn not_outstanding(cx: &mut Cx<'_>, handle: u64, answer: Answer) -> Flow<()> {
    let device = name_of(cx, handle);
    let (ddi, component, operation, asked) = match answer {
        Answer::NotRequired => {
            ("PoFxCompleteDevicePowerNotRequired", 0, Some(0), "DevicePowerNotRequiredCallback".to_owned())
        }
        Answer::PoweredOn => {
            let asked = "DevicePowerRequiredCallback, DirectedPowerUpCallback or a request for S0";
            ("PoFxReportDevicePoweredOn", 0, Some(1), asked.to_owned())
        }
        Answer::IdleCondition(component) => {
            let asked = format!("ComponentIdleConditionCallback of component {component}");
            ("PoFxCompleteIdleCondition", component, Some(2), asked)
        }
        Answer::IdleState(component) => {
            let asked = format!("ComponentIdleStateCallback of component {component}");
            ("PoFxCompleteIdleState", component, None, asked)
        }
        Answer::DirectedDown => {
            ("PoFxCompleteDirectedPowerDown", 0, None, "DirectedPowerDownCallback".to_owned())
        }
    };
    let message = format!("{ddi} was called for {device}, and no {asked} waits for it");
    let verdict = Verdict::error("pofx-nothing-outstanding", message);
    match operation {
        Some(operation) => {
            Err(cx.stop(verdict.bug_check(CODE, [0x613, handle, component.into(), operation])))
        }
        None => {
            cx.report(verdict.as_warning());
            Ok(())
        }
    }
}

/// The driver has not answered a directed transition.
pub(super) fn overdue(cx: &mut Cx<'_>, handle: u64, role: Role) -> engine::Leave {
    let device = name_of(cx, handle);
    let answer = match role {
        Role::DirectedPowerDownCallback => "PoFxCompleteDirectedPowerDown",
        _ => "PoFxReportDevicePoweredOn",
    };
    let message =
        format!("{role} of {device} was called ten minutes ago, and {answer} has not been called for it");
    let pdo = cx.with(|k| k.po.fx.get(&handle).map_or(0, |device| device.pdo.address));
    cx.stop(Verdict::error("directed-power-overdue", message).bug_check(0x9F, [5, pdo, handle, 0]))
}

/// The driver has answered a directed transition that has not been made.
pub(super) fn not_done(cx: &mut Cx<'_>, handle: u64, down: bool) -> engine::Leave {
    let device = name_of(cx, handle);
    let (answer, role, state) = if down {
        ("PoFxCompleteDirectedPowerDown", "DirectedPowerDownCallback", "still in D0")
    } else {
        ("PoFxReportDevicePoweredOn", "DirectedPowerUpCallback", "not in D0")
    };
    let message = format!(
        "{answer} was called for {device}, which is {state}: no device power request has been made since {role} was called"
    );
    let verdict = Verdict::error("directed-power-not-done", message);
    cx.stop(verdict.bug_check(0x9F, [6, handle, u64::from(down), 0]))
}

/// A driver asks for a change of a performance state that it may not ask for: `what` says why.
pub(super) fn perf(cx: &mut Cx<'_>, handle: u64, component: u32, what: &str) -> engine::Leave {
    let device = name_of(cx, handle);
    let message =
        format!("a change of a performance state was asked for component {component} of {device}, {what}");
    cx.stop(Verdict::error("pofx-perf-change", message))
}

/// The drivers of a device have completed its removal: its registration must be gone. It is taken back, as its callbacks cannot be called any more.
///
/// # Errors
/// The verdict.
pub(crate) fn after_remove(cx: &mut Cx<'_>, pdo: DriverPtr<DEVICE_OBJECT>, service: &str) -> Flow<()> {
    let Some(handle) = cx.with(|k| super::of_device(k, pdo)) else { return Ok(()) };
    // Who takes it back just now waits for routines that are running.
    if cx.with(|k| k.po.fx[&handle].gone) {
        return Ok(());
    }
    let device = name(cx, pdo);
    let message = format!(
        "{service} completed IRP_MN_REMOVE_DEVICE of {device}, which is still registered with PoFx and would be called back: PoFxUnregisterDevice"
    );
    Err(cx.stop(Verdict::error("pofx-still-registered", message)))
}
