//! What the framework does next with a device and its components: decisions only, nothing is called.
//!
//! Pages: *PoFxActivateComponent function*, *PoFxIdleComponent function*, *ComponentIdleStateCallback*, *PoFxSetComponentLatency function*,
//! *PoFxSetComponentResidency function*, *PoFxSetComponentWake function*, *DevicePowerNotRequiredCallback*. An idle component goes to its deepest F-state
//! whose transition latency is not above what its driver tolerates, whose residency requirement is not above how long its driver expects it to stay
//! idle, and, if it is armed to wake, from which it can: Windows weighs nominal power as well, in a way that no page tells. A state of an unknown time
//! (`PO_FX_UNKNOWN_TIME`) is never chosen. From one low-power F-state to another it goes by F0. A device need not stay in D0 once all its components are
//! idle and in the F-state that suits them, for as long as its driver has asked for.

use abi::PO_FX_UNKNOWN_TIME;

use super::{Component, Condition, Device, Power};

/// What is to be done with a component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The active condition callback.
    Active,
    /// The idle condition callback.
    Idle,
    /// Its driver is to take it to an F-state.
    State(u32),
}

/// What is to be done with the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeviceStep {
    /// DevicePowerRequired: it must be in D0.
    Required,
    /// DevicePowerNotRequired: it need not.
    NotRequired,
    /// Nothing before this time, in 100 ns.
    Until(u64),
}

/// The F-state that suits a component that is idle.
pub(super) fn idle_state(component: &Component) -> u32 {
    let suits = |(index, state): (u32, &super::IdleState)| {
        let is_known = state.latency != PO_FX_UNKNOWN_TIME && state.residency != PO_FX_UNKNOWN_TIME;
        let wakes = !component.wake || index <= component.deepest_wakeable;
        let suits = state.latency <= component.latency && state.residency <= component.residency;
        (is_known && wakes && suits).then_some(index)
    };
    (0..).zip(&component.states).filter_map(suits).last().unwrap_or(0)
}

/// The next step of a component; none while its driver has not answered the last, or while it has to wait for something else. `blocking` is whether a
/// caller asks that waits for it.
pub(super) fn of_component(device: &Device, index: usize, blocking: bool) -> Option<Step> {
    let component = &device.components[index];
    let waits = component.driven.is_some() || component.changing.is_some();
    if device.gone || waits || component.condition == Condition::Idling {
        return None;
    }
    match (component.condition, component.is_wanted()) {
        (Condition::Active, true) => None,
        (Condition::Active, false) => Some(Step::Idle),
        _ if device.is_kept_in_f0(component) && component.state != 0 => Some(Step::State(0)),
        _ if device.power != Power::On || device.is_suspended() => None,
        (_, true) => {
            let is_active = |provider: &usize| device.components[*provider].condition == Condition::Active;
            let has_providers = component.providers.iter().all(is_active);
            let is_left = component.blocking > 0 && !blocking;
            let step = if component.state == 0 { Step::Active } else { Step::State(0) };
            (has_providers && !is_left).then_some(step)
        }
        (_, false) if device.is_kept_in_f0(component) => None,
        (_, false) => {
            let suits = idle_state(component);
            let goes_up = component.state != 0 && component.state != suits;
            (component.state != suits).then_some(Step::State(if goes_up { 0 } else { suits }))
        }
    }
}

/// Whether a component is idle and nothing is to be done with it.
fn is_settled(device: &Device, component: &Component) -> bool {
    let suits = if device.is_kept_in_f0(component) { 0 } else { idle_state(component) };
    component.condition == Condition::Idle
        && !component.is_wanted()
        && component.changing.is_none()
        && component.driven.is_none()
        && component.state == suits
}

/// The next step of the device, at a time in 100 ns.
pub(super) fn of_device(device: &Device, now: u64) -> Option<DeviceStep> {
    if device.gone || device.busy || device.is_suspended() {
        return None;
    }
    match device.power {
        Power::On if device.started && !device.routines.not_required.is_null() => {
            if !device.components.iter().all(|component| is_settled(device, component)) {
                return None;
            }
            let due = device.idle_since.unwrap_or(now).saturating_add(device.idle_timeout);
            Some(if due <= now { DeviceStep::NotRequired } else { DeviceStep::Until(due) })
        }
        Power::Dropped if device.components.iter().any(Component::is_wanted) => Some(DeviceStep::Required),
        _ => None,
    }
}

/// Notes since when all components are idle.
pub(super) fn note_idle(device: &mut Device, now: u64) {
    let is_idle = |component: &Component| component.condition == Condition::Idle && !component.is_wanted();
    device.idle_since = match device.components.iter().all(is_idle) {
        true => device.idle_since.or(Some(now)),
        false => None,
    };
}
