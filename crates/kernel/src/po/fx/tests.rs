//! Decisions about components and devices.

use abi::{DriverPtr, PO_FX_UNKNOWN_TIME};

use super::next::{self, DeviceStep, Step};
use super::{Component, Condition, Device, Directed, IdleState, Power, Routines};

fn component(states: &[(u64, u64)]) -> Component {
    let states = states.iter().map(|&(latency, residency)| IdleState { latency, residency }).collect();
    Component { condition: Condition::Idle, ..Component::new(states, 1, Vec::new()) }
}

fn device(components: Vec<Component>) -> Device {
    let routine = DriverPtr::new(0x1000);
    let routines = Routines {
        active: routine,
        idle: routine,
        idle_state: routine,
        required: routine,
        not_required: routine,
        directed_up: routine,
        directed_down: routine,
    };
    Device { started: true, ..Device::new(DriverPtr::NULL, routines, 0, components) }
}

const STATES: [(u64, u64); 3] = [(0, 0), (10, 100), (100, 1000)];

#[test]
fn the_deepest_state_within_what_is_tolerated_is_chosen() {
    for (latency, residency, wake, chosen) in [
        (u64::MAX, u64::MAX, false, 2),
        (100, 1000, false, 2),
        (99, 1000, false, 1),
        (100, 999, false, 1),
        (9, u64::MAX, false, 0),
        (u64::MAX, 99, false, 0),
        (u64::MAX, u64::MAX, true, 1),
    ] {
        let component = Component { latency, residency, wake, ..component(&STATES) };
        assert_eq!(next::idle_state(&component), chosen, "{latency} {residency} {wake}");
    }
    let unknown = component(&[(0, 0), (10, PO_FX_UNKNOWN_TIME), (PO_FX_UNKNOWN_TIME, 10)]);
    assert_eq!(next::idle_state(&unknown), 0);
}

#[test]
fn from_one_low_state_to_another_it_goes_by_the_full_one() {
    let tolerant = Component { state: 2, latency: 10, ..component(&STATES) };
    let mut device = device(vec![tolerant]);
    assert_eq!(next::of_component(&device, 0, false), Some(Step::State(0)));
    device.components[0].state = 0;
    assert_eq!(next::of_component(&device, 0, false), Some(Step::State(1)));
    device.components[0].state = 1;
    assert_eq!(next::of_component(&device, 0, false), None);
}

#[test]
fn a_component_is_left_to_the_caller_that_waits_for_it() {
    let device = device(vec![Component { own: 1, blocking: 1, ..component(&STATES) }]);
    assert_eq!(next::of_component(&device, 0, false), None);
    assert_eq!(next::of_component(&device, 0, true), Some(Step::Active));
}

#[test]
fn a_component_waits_for_those_it_depends_on_which_are_activated_once_for_it() {
    let dependent = Component { providers: vec![1], ..component(&STATES) };
    let mut device = device(vec![dependent, component(&STATES)]);
    device.activate(0, true);
    device.activate(0, true);
    assert_eq!((device.components[0].own, device.components[1].inner), (2, 1));
    assert_eq!(next::of_component(&device, 0, false), None);
    assert_eq!(next::of_component(&device, 1, false), Some(Step::Active));
    device.components[1].condition = Condition::Active;
    assert_eq!(next::of_component(&device, 0, false), Some(Step::Active));
    device.release_providers(0);
    assert_eq!(device.components[1].inner, 1, "it is still wanted");
    device.components[0].own = 0;
    device.release_providers(0);
    assert_eq!(device.components[1].inner, 0);
}

#[test]
fn a_device_leaves_d0_when_its_components_are_where_they_stay_and_its_time_is_over() {
    let mut device = device(vec![component(&STATES)]);
    assert_eq!(next::of_device(&device, 50), None, "its component goes to F2 first");
    device.components[0].state = 2;
    assert_eq!(next::of_device(&device, 50), Some(DeviceStep::NotRequired));
    (device.idle_since, device.idle_timeout) = (Some(40), 30);
    assert_eq!(next::of_device(&device, 50), Some(DeviceStep::Until(70)));
    assert_eq!(next::of_device(&device, 70), Some(DeviceStep::NotRequired));
    device.directed = Directed::Down;
    assert_eq!(next::of_device(&device, 70), None);
    (device.directed, device.power) = (Directed::Up, Power::Dropped);
    assert_eq!(next::of_device(&device, 70), None);
    device.components[0].own = 1;
    assert_eq!(next::of_device(&device, 70), Some(DeviceStep::Required));
    assert_eq!(next::of_component(&device, 0, false), None, "it is not in D0");
}
