//! `PoFx*`: the runtime power management framework. What is known of each device that a driver has registered, and of its components.
//!
//! Pages: *Overview of the Power Management Framework*, *Component-Level Power Management*, *Introduction to the Directed Power Management Framework*.
//! [`register`] takes registrations, [`component`] what drivers ask of components; [`next`] says what is to be done next, [`drive`] calls drivers;
//! [`device`] is the device's power, [`system`] what happens when the system sleeps, [`directed`] directed power, [`perf`] performance states,
//! [`report`] the verdicts. There is no platform extension plug-in: the framework decides alone, no power domain is shared, and no request for power
//! control ever comes to a driver.

pub(crate) mod component;
pub(crate) mod device;
pub mod directed;
mod drive;
mod next;
pub(crate) mod perf;
pub(crate) mod register;
mod report;
pub(crate) mod system;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use abi::{Code, DEVICE_OBJECT, DriverPtr, KEVENT};
use engine::{Flow, StrandId};

pub(crate) use report::after_remove;

use crate::cx::{Cx, Kernel};
use crate::ke;

/// Registrations by their handles: the address of a block that holds an event, which is set whenever something has changed while a thread waits.
pub(crate) type Devices = BTreeMap<u64, Device>;

/// A registered device.
pub(crate) struct Device {
    pub(crate) pdo: DriverPtr<DEVICE_OBJECT>,
    pub(crate) routines: Routines,
    /// `DeviceContext`.
    pub(crate) context: u64,
    pub(crate) components: Vec<Component>,
    pub(crate) power: Power,
    pub(crate) directed: Directed,
    /// A request for its power has been made since it was directed last.
    pub(crate) asked: bool,
    /// Power management has been started.
    pub(crate) started: bool,
    /// The system sleeps, or the driver has not said yet that its device is on again.
    pub(crate) sleeps: bool,
    /// The framework has activated all components because the system is about to sleep.
    pub(crate) held: bool,
    /// A request for a lower device state was sent, and the driver has not said since that the device is on.
    pub(crate) lowered: bool,
    /// Requests to wait for a wake signal that are under way.
    pub(crate) waits: u32,
    /// How often the driver is still to say that the device is on.
    pub(crate) owed: u32,
    /// `PoFxSetDeviceIdleTimeout`, in 100 ns.
    pub(crate) idle_timeout: u64,
    /// Since when all components are idle, in 100 ns.
    pub(crate) idle_since: Option<u64>,
    /// A thread of the power manager is about to look at what is to be done.
    pub(crate) looks: bool,
    /// Something has happened that threads that wait are to hear of.
    pub(crate) moved: bool,
    /// A routine about the device's power is running.
    pub(crate) busy: bool,
    /// Threads in the driver's routines.
    pub(crate) inside: Vec<StrandId>,
    /// Threads that wait for something to change.
    pub(crate) waiting: Vec<StrandId>,
    /// The driver has taken the registration back.
    pub(crate) gone: bool,
}

/// The routines of a registration; null where the driver has none.
#[derive(Clone, Copy)]
pub(crate) struct Routines {
    pub(crate) active: DriverPtr<Code>,
    pub(crate) idle: DriverPtr<Code>,
    pub(crate) idle_state: DriverPtr<Code>,
    pub(crate) required: DriverPtr<Code>,
    pub(crate) not_required: DriverPtr<Code>,
    pub(crate) directed_up: DriverPtr<Code>,
    pub(crate) directed_down: DriverPtr<Code>,
}

/// Which callback on the device's power the driver got last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    /// It has to stay there.
    On,
    /// DevicePowerNotRequired was called, and the driver has not answered.
    Dropping,
    /// It has answered: the device may be in a lower state.
    Dropped,
    /// DevicePowerRequired was called, and the driver has not reported D0.
    Rising,
}

/// Directed power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Directed {
    /// The device is not directed.
    Up,
    /// The power-down callback was called, and the driver has not answered.
    Lowering,
    /// It is down until the power-up callback.
    Down,
    /// The power-up callback was called, and the driver has not reported that it is on.
    Raising,
}

/// The condition of a component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Condition {
    /// Its driver may access it.
    Active,
    /// The idle condition callback was called, and the driver has not answered.
    Idling,
    /// Its driver must not access it.
    Idle,
}

/// An F-state, as its driver describes it; times in 100 ns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleState {
    pub(crate) latency: u64,
    pub(crate) residency: u64,
}

/// A component of a device.
pub(crate) struct Component {
    pub(crate) states: Vec<IdleState>,
    pub(crate) deepest_wakeable: u32,
    /// `PO_FX_COMPONENT_FLAG_F0_ON_DX`.
    pub(crate) f0_on_dx: bool,
    /// The components it depends on.
    pub(crate) providers: Vec<usize>,
    /// Activations by the driver that it has not taken back.
    pub(crate) own: u32,
    /// Activations by the framework: until power management is started, by components that depend on it, by the system that is about to sleep.
    pub(crate) inner: u32,
    /// It has activated its providers.
    pub(crate) holds_providers: bool,
    pub(crate) condition: Condition,
    /// Its F-state.
    pub(crate) state: u32,
    /// The F-state of the last idle state callback, which the driver has not completed.
    pub(crate) changing: Option<u32>,
    /// The thread in one of its driver's routines for it.
    pub(crate) driven: Option<StrandId>,
    /// Threads that wait with `PO_FX_FLAG_BLOCKING` for it to become active: they call the routines themselves.
    pub(crate) blocking: u32,
    /// `PoFxSetComponentLatency`; all is tolerated before.
    pub(crate) latency: u64,
    /// `PoFxSetComponentResidency`; it stays idle for ever before.
    pub(crate) residency: u64,
    /// `PoFxSetComponentWake`.
    pub(crate) wake: bool,
    pub(crate) perf: Option<perf::States>,
}

impl Component {
    /// As its driver describes it; active, and all is tolerated.
    fn new(states: Vec<IdleState>, deepest_wakeable: u32, providers: Vec<usize>) -> Self {
        Self {
            states,
            deepest_wakeable,
            f0_on_dx: false,
            providers,
            own: 0,
            inner: 0,
            holds_providers: false,
            condition: Condition::Active,
            state: 0,
            changing: None,
            driven: None,
            blocking: 0,
            latency: u64::MAX,
            residency: u64::MAX,
            wake: false,
            perf: None,
        }
    }

    /// Whether it is to be active.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.own > 0 || self.inner > 0
    }
}

impl Device {
    /// As it is registered.
    fn new(
        pdo: DriverPtr<DEVICE_OBJECT>,
        routines: Routines,
        context: u64,
        components: Vec<Component>,
    ) -> Self {
        Self {
            pdo,
            routines,
            context,
            components,
            power: Power::On,
            directed: Directed::Up,
            asked: false,
            started: false,
            sleeps: false,
            held: false,
            lowered: false,
            waits: 0,
            owed: 0,
            idle_timeout: 0,
            idle_since: None,
            looks: false,
            moved: false,
            busy: false,
            inside: Vec::new(),
            waiting: Vec::new(),
            gone: false,
        }
    }

    /// Whether its components stay as they are: the device is, or was, on its way down for another reason than that they are idle.
    pub(crate) fn is_suspended(&self) -> bool {
        self.sleeps || self.directed != Directed::Up
    }

    /// Whether a component is to be in F0 for the sake of the device's state, however idle it is.
    pub(crate) fn is_kept_in_f0(&self, component: &Component) -> bool {
        component.f0_on_dx && (self.lowered || self.waits > 0)
    }

    /// A component is activated once more, by the driver or by the framework. Its providers are activated with the first of these.
    pub(crate) fn activate(&mut self, index: usize, by_driver: bool) {
        let component = &mut self.components[index];
        let count = if by_driver { &mut component.own } else { &mut component.inner };
        *count += 1;
        if !component.holds_providers {
            component.holds_providers = true;
            for provider in component.providers.clone() {
                self.activate(provider, false);
            }
        }
    }

    /// The driver has said that the device is in D0, with all its components on.
    pub(crate) fn is_on(&mut self) {
        for component in &mut self.components {
            if component.condition == Condition::Idle && component.changing.is_none() {
                component.state = 0;
            }
        }
        if self.power != Power::Dropping {
            self.power = Power::On;
        }
        self.idle_since = None;
        self.lowered = false;
    }

    /// A component has become idle, and is to stay so: what it depends on need not be active for it.
    pub(crate) fn release_providers(&mut self, index: usize) {
        if self.components[index].is_wanted() || !std::mem::take(&mut self.components[index].holds_providers)
        {
            return;
        }
        for provider in self.components[index].providers.clone() {
            self.components[provider].inner -= 1;
        }
    }
}

/// The registration of a device, by its physical device object.
pub(crate) fn of_device(k: &Kernel, pdo: DriverPtr<DEVICE_OBJECT>) -> Option<u64> {
    k.po.fx.iter().find(|(_, device)| device.pdo == pdo).map(|(handle, _)| *handle)
}

/// The event of a registration.
const fn event_of(handle: u64) -> DriverPtr<KEVENT> {
    DriverPtr::new(handle)
}

/// Something has changed: threads that wait look again.
fn changed(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    if cx.with(|k| k.po.fx.get(&handle).is_some_and(|device| !device.waiting.is_empty())) {
        ke::event::set(cx, event_of(handle), 0, false)?;
    }
    Ok(())
}
