//! What a driver asks of its components, and answers.
//!
//! Pages: *PoFxActivateComponent function*, *PoFxIdleComponent function*, *PoFxCompleteIdleCondition function*, *PoFxCompleteIdleState function*,
//! *PoFxSetComponentLatency function*, *PoFxSetComponentResidency function*, *PoFxSetComponentWake function*. Without a flag the framework decides which
//! thread calls the driver back: this is the choice `po.fx_thread`, the caller's by default. While its active condition callback runs a component
//! is active already, but a caller that waits for it waits for that call too.

use abi::{PO_FX_FLAG_ASYNC_ONLY, PO_FX_FLAG_BLOCKING};
use engine::Flow;

use super::report::Answer;
use super::{Component, Condition, Device, drive, report};
use crate::cx::{Cx, Kernel};
use crate::ke;
use crate::ke::irql::DISPATCH_LEVEL;
use crate::ke::wait::Timeout;

/// Which thread is to call the driver back for what it asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// The caller's, which waits.
    Blocking,
    /// One of the power manager's.
    Elsewhere,
    /// Whichever: this is a choice.
    Either,
}

/// Flags that may not be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BadFlags {
    /// `PO_FX_FLAG_BLOCKING` at DISPATCH_LEVEL.
    Raised,
    /// `PO_FX_FLAG_BLOCKING` and `PO_FX_FLAG_ASYNC_ONLY`.
    Both,
}

impl BadFlags {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Both => "with PO_FX_FLAG_BLOCKING and PO_FX_FLAG_ASYNC_ONLY, of which one may be given",
            Self::Raised => "with PO_FX_FLAG_BLOCKING at DISPATCH_LEVEL, where it may not wait",
        }
    }
}

impl Manner {
    /// What these flags say at the caller's level.
    pub(super) fn of(cx: &mut Cx<'_>, flags: u32) -> Result<Self, BadFlags> {
        match (flags & PO_FX_FLAG_BLOCKING != 0, flags & PO_FX_FLAG_ASYNC_ONLY != 0) {
            (true, true) => Err(BadFlags::Both),
            (true, false) if ke::irql::current(cx) >= DISPATCH_LEVEL => Err(BadFlags::Raised),
            (true, false) => Ok(Self::Blocking),
            (false, true) => Ok(Self::Elsewhere),
            (false, false) => Ok(Self::Either),
        }
    }

    /// Whether the caller's thread makes a call that can be made now.
    pub(super) fn is_here(self, cx: &mut Cx<'_>) -> bool {
        match self {
            Self::Blocking => true,
            Self::Elsewhere => false,
            Self::Either => cx.choose("po.fx_thread", 2) == 0,
        }
    }
}

fn manner(cx: &mut Cx<'_>, ddi: &str, handle: u64, component: u32, flags: u32) -> Flow<Manner> {
    Manner::of(cx, flags).map_err(|bad| report::illegal_flags(cx, ddi, handle, component, bad))
}

/// `PoFxActivateComponent`.
///
/// # Errors
/// A verdict on the parameters, or of what the driver's routines do.
pub(crate) fn activate(cx: &mut Cx<'_>, handle: u64, component: u32, flags: u32) -> Flow<()> {
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
pub(crate) fn idle(cx: &mut Cx<'_>, handle: u64, component: u32, flags: u32) -> Flow<()> {
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

/// Whether a component has come to a condition, and no other thread still runs the driver's callback for it.
fn is_settled(k: &Kernel, handle: u64, index: usize, condition: Condition) -> bool {
    let component = &k.po.fx[&handle].components[index];
    let is_told = component.driven.is_none_or(|strand| strand == drive::current(k));
    component.condition == condition && is_told
}

/// What was asked for is begun: here, or by a thread of the power manager.
fn go_on(cx: &mut Cx<'_>, handle: u64, index: usize, manner: Manner) -> Flow<()> {
    let is_due = cx.with(|k| drive::is_due(k, handle, index));
    if is_due && manner.is_here(cx) {
        return drive::component(cx, handle, index, false);
    }
    drive::advance(cx, handle)
}

/// `PoFxCompleteIdleCondition`.
///
/// # Errors
/// A verdict on the parameters, or if the driver's idle condition callback was not called.
pub(crate) fn complete_idle_condition(cx: &mut Cx<'_>, handle: u64, component: u32) -> Flow<()> {
    let index = report::check_component(cx, "PoFxCompleteIdleCondition", handle, component)?;
    answer(cx, handle, Answer::IdleCondition(component), |device| {
        if device.components[index].condition != Condition::Idling {
            return None;
        }
        device.components[index].condition = Condition::Idle;
        device.release_providers(index);
        Some(())
    })
}

/// `PoFxCompleteIdleState`.
///
/// # Errors
/// A verdict on the parameters.
pub(crate) fn complete_idle_state(cx: &mut Cx<'_>, handle: u64, component: u32) -> Flow<()> {
    let index = report::check_component(cx, "PoFxCompleteIdleState", handle, component)?;
    answer(cx, handle, Answer::IdleState(component), |device| {
        let component = &mut device.components[index];
        component.state = component.changing.take()?;
        Some(())
    })
}

/// The driver answers what it was asked: `take` notes that, and is none if it was not asked.
pub(super) fn answer(
    cx: &mut Cx<'_>,
    handle: u64,
    answer: Answer,
    take: impl FnOnce(&mut Device) -> Option<()>,
) -> Flow<()> {
    match cx.with(|k| take(k.po.fx.get_mut(&handle)?)) {
        None => report::not_outstanding(cx, handle, answer),
        Some(()) => answered(cx, handle),
    }
}

/// The driver has answered: the thread that made the call goes on, or a thread of the power manager does.
pub(super) fn answered(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    cx.with(|k| drive::note_idle(k, handle));
    drive::advance(cx, handle)
}

/// `PoFxSetComponentLatency`: in 100 ns.
///
/// # Errors
/// A verdict on the parameters.
pub(crate) fn set_latency(cx: &mut Cx<'_>, handle: u64, component: u32, latency: u64) -> Flow<()> {
    set(cx, "PoFxSetComponentLatency", handle, component, |component| component.latency = latency)
}

/// `PoFxSetComponentResidency`: in 100 ns.
///
/// # Errors
/// A verdict on the parameters.
pub(crate) fn set_residency(cx: &mut Cx<'_>, handle: u64, component: u32, residency: u64) -> Flow<()> {
    set(cx, "PoFxSetComponentResidency", handle, component, |component| component.residency = residency)
}

/// `PoFxSetComponentWake`.
///
/// # Errors
/// A verdict on the parameters.
pub(crate) fn set_wake(cx: &mut Cx<'_>, handle: u64, component: u32, wake: bool) -> Flow<()> {
    set(cx, "PoFxSetComponentWake", handle, component, |component| component.wake = wake)
}

/// The driver says how its component is to be treated from now on.
fn set(
    cx: &mut Cx<'_>,
    ddi: &str,
    handle: u64,
    component: u32,
    change: impl FnOnce(&mut Component),
) -> Flow<()> {
    let index = report::check_component(cx, ddi, handle, component)?;
    cx.with(|k| k.po.fx.get_mut(&handle).map(|device| change(&mut device.components[index])));
    drive::advance(cx, handle)
}
