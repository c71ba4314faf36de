//! Directed power: the system tells drivers to power their devices down, and up again, whatever they are doing.
//!
//! Pages: *PO_FX_DIRECTED_POWER_DOWN_CALLBACK*, *PO_FX_DIRECTED_POWER_UP_CALLBACK*, *PoFxCompleteDirectedPowerDown function*, *Introduction to the
//! Directed Power Management Framework*. A device that is down stays so: components that its driver activates become active when it was directed up and
//! is reported to be on. A transition that is under way for another reason ends first. *It does not* decide by itself when to direct a device (a script
//! does), nor does it direct the children of a device before it, or skip devices whose components have F-states. How long a driver may take is on no page: as long as
//! for a power request.

use abi::{DEVICE_OBJECT, DriverPtr, NtStatus, PowerDeviceD0};
use engine::Flow;

use super::report::Answer;
use super::{Directed, Power, component, drive, of_device, report};
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ke::wait::Timeout;
use crate::ke::{thread, time};
use crate::pnp::NodeId;
use crate::pnp::node::State;
use crate::po::overdue::PATIENCE;

/// Directs a device down, or up again, and waits for its driver's answer. `NOT_SUPPORTED` for a device that is not registered with both routines,
/// `INVALID_DEVICE_STATE` for one that is there already. On a thread of the system's, at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver.
pub fn direct(cx: &mut Cx<'_>, id: NodeId, down: bool) -> Flow<NtStatus> {
    let handle = cx.with(|k| {
        let handle = of_device(k, id.pdo())?;
        let device = &k.po.fx[&handle];
        let has_both = !device.routines.directed_up.is_null() && !device.routines.directed_down.is_null();
        (device.started && !device.gone && has_both).then_some(handle)
    });
    let Some(handle) = handle else { return Ok(NtStatus::NOT_SUPPORTED) };
    let from = if down { Directed::Up } else { Directed::Down };
    if cx.with(|k| k.po.fx[&handle].directed != from || k.po.fx[&handle].sleeps) {
        return Ok(NtStatus::INVALID_DEVICE_STATE);
    }
    let quiet = |cx: &mut Cx<'_>| drive::look(cx, handle);
    drive::wait_until(cx, handle, Timeout::Never, quiet, |k| {
        let device = &k.po.fx[&handle];
        !device.busy && matches!(device.power, Power::On | Power::Dropped)
    })?;
    let called = cx.with(|k| {
        let device = k.po.fx.get_mut(&handle)?;
        let routine = if down { device.routines.directed_down } else { device.routines.directed_up };
        device.directed = if down { Directed::Lowering } else { Directed::Raising };
        device.asked = false;
        device.owed += u32::from(!down);
        Some((routine, device.context))
    });
    let Some((routine, context)) = called else { return Ok(NtStatus::NO_SUCH_DEVICE) };
    let role = if down { Role::DirectedPowerDownCallback } else { Role::DirectedPowerUpCallback };
    let call = move |cx: &mut Cx<'_>| drive::call(cx, handle, role, routine, &[context, 0]);
    thread::spawn(cx, "power manager", Box::new(call))?;
    let to = if down { Directed::Down } else { Directed::Up };
    let none = |_: &mut Cx<'_>| Ok(());
    let patience = Timeout::At(cx.with(|k| time::due(k, PATIENCE)));
    if !drive::wait_until(cx, handle, patience, none, |k| k.po.fx[&handle].directed == to)? {
        return Err(report::overdue(cx, handle, role));
    }
    let is_there = cx.with(|k| k.po.fx.get(&handle).is_some_and(|device| device.directed == to));
    Ok(if is_there { NtStatus::SUCCESS } else { NtStatus::NO_SUCH_DEVICE })
}

/// The driver says that a directed transition is done. Bug check 0x9F with 6 is for one that "did not complete its Directed Power Transition callback successfully"; what
/// that is no page says. Ours: the card is where it was, and its power was not requested since the routine was called. A driver whose request was refused has done
/// what it could, and so has one whose device is being removed.
pub(super) fn judge(cx: &mut Cx<'_>, handle: u64, down: bool) -> Flow<()> {
    let undone = cx.with(|k| {
        let device = k.po.fx.get(&handle)?;
        let is_asked = device.directed == if down { Directed::Lowering } else { Directed::Raising };
        let node = k.pnp.nodes.get(&NodeId(device.pdo.address)).filter(|node| node.card().is_some())?;
        let is_down = node.power != PowerDeviceD0;
        let stays = node.state == State::Started && !device.gone;
        (is_asked && !device.asked && stays && is_down != down).then_some(())
    });
    match undone {
        Some(()) => Err(report::not_done(cx, handle, down)),
        None => Ok(()),
    }
}

/// Whether a device is directed down, or on its way there or back.
pub(crate) fn is_any_down(k: &Kernel) -> bool {
    k.po.fx.values().any(|device| device.directed != Directed::Up)
}

/// A request for the power of a device's stack is made.
pub(crate) fn note_request(k: &mut Kernel, pdo: DriverPtr<DEVICE_OBJECT>) {
    if let Some(device) = of_device(k, pdo).and_then(|handle| k.po.fx.get_mut(&handle)) {
        device.asked = true;
    }
}

/// `PoFxCompleteDirectedPowerDown`.
///
/// # Errors
/// A verdict on the handle.
pub fn complete_power_down(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    report::check(cx, "PoFxCompleteDirectedPowerDown", handle)?;
    judge(cx, handle, true)?;
    component::answer(cx, handle, Answer::DirectedDown, |device| {
        (device.directed == Directed::Lowering).then(|| device.directed = Directed::Down)
    })
}
