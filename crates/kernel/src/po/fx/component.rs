//! What a driver asks of its components, and answers.
//!
//! Pages: *PoFxActivateComponent function*, *PoFxIdleComponent function*, *PoFxCompleteIdleCondition function*, *PoFxCompleteIdleState function*,
//! *PoFxSetComponentLatency function*, *PoFxSetComponentResidency function*, *PoFxSetComponentWake function*. Without a flag the framework decides which
//! thread calls the driver back: this is the choice `po.fx_thread`, the caller's by default. A component is active while its driver is being told so, but
//! a caller who waits for it waits for that call too.

use abi::{PO_FX_FLAG_ASYNC_ONLY, PO_FX_FLAG_BLOCKING};
use engine::Flow;

use super::report::Answer;
use super::{Condition, drive, report};
use crate::cx::{Cx, Kernel};
use crate::ke;
use crate::ke::wait::Timeout;

/// How a transition is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Blocking,
    Elsewhere,
    Either,
}

fn manner(cx: &mut Cx<'_>, ddi: &str, handle: u64, component: u32, flags: u32) -> Flow<Manner> {
    let is_blocking = flags & PO_FX_FLAG_BLOCKING != 0;
    let is_elsewhere = flags & PO_FX_FLAG_ASYNC_ONLY != 0;
    match (is_blocking, is_elsewhere) {
        (true, true) => Err(report::illegal_flags(cx, ddi, handle, component, true)),
        (true, false) if ke::irql::current(cx) >= 2 => {
            Err(report::illegal_flags(cx, ddi, handle, component, false))
        }
        (true, false) => Ok(Manner::Blocking),
        (false, true) => Ok(Manner::Elsewhere),
        (false, false) => Ok(Manner::Either),
    }
}

/// `PoFxActivateComponent`.
///
/// # Errors
/// A verdict on the parameters, or of what the driver's routines do.
pub fn activate(cx: &mut Cx<'_>, handle: u64, component: u32, flags: u32) -> Flow<()> {
    let ddi = "PoFxActivateComponent";
    let index = report::check_component(cx, ddi, handle, component)?;
    let manner = manner(cx, ddi, handle, component, flags)?;
    cx.with(|k| k.po.fx.get_mut(&handle).map(|device| device.activate(index, true)));
    if manner != Manner::Blocking {
        return go_on(cx, handle, index, manner);
    }
    let blocks = |k: &mut Kernel, change: i32| {
        let component = k.po.fx.get_mut(&handle).map(|device| &mut device.components[index]);
        component.map(|component| component.blocking = component.blocking.wrapping_add_signed(change))
    };
    cx.with(|k| blocks(k, 1));
    let act = |cx: &mut Cx<'_>| drive::component(cx, handle, index, true);
    let is_active = |k: &mut Kernel| is_settled(k, handle, index, Condition::Active);
    drive::wait_until(cx, handle, Timeout::Never, act, is_active)?;
    cx.with(|k| blocks(k, -1));
    drive::advance(cx, handle)
}

/// `PoFxIdleComponent`.
///
/// # Errors
/// As [`activate`]; also if the driver has not activated it as often.
pub fn idle(cx: &mut Cx<'_>, handle: u64, component: u32, flags: u32) -> Flow<()> {
    let ddi = "PoFxIdleComponent";
    let index = report::check_component(cx, ddi, handle, component)?;
    let manner = manner(cx, ddi, handle, component, flags)?;
    let is_balanced = cx.with(|k| {
        let component = &mut k.po.fx.get_mut(&handle)?.components[index];
        component.own = component.own.checked_sub(1)?;
        Some(())
    });
    if is_balanced.is_none() {
        return Err(report::idle_without_active(cx, handle, component));
    }
    if manner != Manner::Blocking {
        return go_on(cx, handle, index, manner);
    }
    let act = |cx: &mut Cx<'_>| drive::component(cx, handle, index, false);
    let is_idle = |k: &mut Kernel| {
        k.po.fx[&handle].components[index].is_wanted() || is_settled(k, handle, index, Condition::Idle)
    };
    drive::wait_until(cx, handle, Timeout::Never, act, is_idle).map(|_| ())
}

/// Whether a component has come to a condition, and whoever was told so by another thread has been told.
fn is_settled(k: &Kernel, handle: u64, index: usize, condition: Condition) -> bool {
    let component = &k.po.fx[&handle].components[index];
    let is_told = component.driven.is_none_or(|strand| strand == drive::current(k));
    component.condition == condition && is_told
}

/// What was asked for is begun: here, or by a thread of the power manager.
fn go_on(cx: &mut Cx<'_>, handle: u64, index: usize, manner: Manner) -> Flow<()> {
    let is_due = cx.with(|k| drive::is_due(k, handle, index));
    if is_due && manner == Manner::Either && cx.choose("po.fx_thread", 2) == 0 {
        return drive::component(cx, handle, index, false);
    }
    drive::advance(cx, handle)
}

/// `PoFxCompleteIdleCondition`.
///
/// # Errors
/// A verdict on the parameters, or if the driver was not told that the component is idle.
pub fn complete_idle_condition(cx: &mut Cx<'_>, handle: u64, component: u32) -> Flow<()> {
    let index = report::check_component(cx, "PoFxCompleteIdleCondition", handle, component)?;
    let is_outstanding = cx.with(|k| {
        let device = k.po.fx.get_mut(&handle)?;
        if device.components[index].condition != Condition::Idling {
            return None;
        }
        device.components[index].condition = Condition::Idle;
        device.release_providers(index);
        Some(())
    });
    match is_outstanding {
        None => report::not_outstanding(cx, handle, Answer::IdleCondition(component)),
        Some(()) => answered(cx, handle),
    }
}

/// `PoFxCompleteIdleState`.
///
/// # Errors
/// A verdict on the parameters.
pub fn complete_idle_state(cx: &mut Cx<'_>, handle: u64, component: u32) -> Flow<()> {
    let index = report::check_component(cx, "PoFxCompleteIdleState", handle, component)?;
    let is_outstanding = cx.with(|k| {
        let component = &mut k.po.fx.get_mut(&handle)?.components[index];
        component.state = component.changing.take()?;
        Some(())
    });
    match is_outstanding {
        None => report::not_outstanding(cx, handle, Answer::IdleState(component)),
        Some(()) => answered(cx, handle),
    }
}

/// The driver has answered: whoever made the call goes on, or a thread of the power manager does.
pub(super) fn answered(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    cx.with(|k| drive::note_idle(k, handle));
    drive::advance(cx, handle)
}

/// `PoFxSetComponentLatency`: in 100 ns.
///
/// # Errors
/// A verdict on the parameters.
pub fn set_latency(cx: &mut Cx<'_>, handle: u64, component: u32, latency: u64) -> Flow<()> {
    let index = report::check_component(cx, "PoFxSetComponentLatency", handle, component)?;
    cx.with(|k| k.po.fx.get_mut(&handle).map(|device| device.components[index].latency = latency));
    drive::advance(cx, handle)
}

/// `PoFxSetComponentResidency`: in 100 ns.
///
/// # Errors
/// A verdict on the parameters.
pub fn set_residency(cx: &mut Cx<'_>, handle: u64, component: u32, residency: u64) -> Flow<()> {
    let index = report::check_component(cx, "PoFxSetComponentResidency", handle, component)?;
    cx.with(|k| k.po.fx.get_mut(&handle).map(|device| device.components[index].residency = residency));
    drive::advance(cx, handle)
}

/// `PoFxSetComponentWake`.
///
/// # Errors
/// A verdict on the parameters.
pub fn set_wake(cx: &mut Cx<'_>, handle: u64, component: u32, wake: bool) -> Flow<()> {
    let index = report::check_component(cx, "PoFxSetComponentWake", handle, component)?;
    cx.with(|k| k.po.fx.get_mut(&handle).map(|device| device.components[index].wake = wake));
    drive::advance(cx, handle)
}
