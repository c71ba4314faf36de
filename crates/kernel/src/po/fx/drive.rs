//! Calling a driver back: on the thread of who asked, or on one of the power manager's.
//!
//! Pages: *PoFxActivateComponent function*, *PoFxIdleComponent function* (which thread), *ComponentActiveConditionCallback* and its neighbours (at
//! DISPATCH_LEVEL or below). Routines for one component never run beside each other; those for different components, and those about the device's
//! power, may. What an answer of the driver's leads to is called by the thread that made the call back, if the answer came within, else by a thread of
//! the power manager: no page says where; a driver may hold a lock when it answers. Routines about the device's power are always called by such a
//! thread, at PASSIVE_LEVEL.

use abi::{Code, DriverPtr, NtStatus};
use engine::{Flow, StrandId};

use super::next::{self, DeviceStep, Step};
use super::{Condition, Device, Power, changed, event_of};
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::io::routine;
use crate::ke::history;
use crate::ke::time::{self, Due};
use crate::ke::wait::{self, Timeout};
use crate::ke::{self, thread};

/// A call that is to be made: the routine is null where the driver has none, and has nothing to answer then.
struct Call {
    role: Role,
    routine: DriverPtr<Code>,
    arguments: [u64; 3],
}

/// Now, in 100 ns.
fn now(k: &Kernel) -> u64 {
    history::reads_clock(k);
    time::interrupt_time(k.engine)
}

/// The strand whose code runs now.
pub(super) fn current(k: &Kernel) -> StrandId {
    k.ke.processor().thread
}

/// Notes since when all components of a device are idle.
pub(super) fn note_idle(k: &mut Kernel, handle: u64) {
    let now = now(k);
    if let Some(device) = k.po.fx.get_mut(&handle) {
        next::note_idle(device, now);
    }
}

/// Makes the calls for a component that are due, one after the other, on this thread; the rest is left to a thread of the power manager.
/// `blocking` is whether this thread waits for the component.
pub(super) fn component(cx: &mut Cx<'_>, handle: u64, index: usize, blocking: bool) -> Flow<()> {
    while let Some(call) = cx.with(|k| begin(k, handle, index, blocking)) {
        make(cx, handle, Some(index), &call)?;
    }
    tell_moved(cx, handle)?;
    look(cx, handle)
}

/// Whether a call for a component is due.
pub(super) fn is_due(k: &Kernel, handle: u64, index: usize) -> bool {
    k.po.fx.get(&handle).is_some_and(|device| next::of_component(device, index, false).is_some())
}

/// What is to be done next with a component begins: what a driver has no routine for has happened at once.
fn begin(k: &mut Kernel, handle: u64, index: usize, blocking: bool) -> Option<Call> {
    let (strand, now) = (current(k), now(k));
    let device = k.po.fx.get_mut(&handle)?;
    loop {
        let step = next::of_component(device, index, blocking)?;
        let (role, routine, state) = match step {
            Step::Active => (Role::ComponentActiveConditionCallback, device.routines.active, 0),
            Step::Idle => (Role::ComponentIdleConditionCallback, device.routines.idle, 0),
            Step::State(state) => (Role::ComponentIdleStateCallback, device.routines.idle_state, state),
        };
        let component = &mut device.components[index];
        let answered = routine.is_null();
        match step {
            Step::Active => component.condition = Condition::Active,
            Step::Idle if answered => {
                component.condition = Condition::Idle;
                device.release_providers(index);
            }
            Step::Idle => component.condition = Condition::Idling,
            Step::State(state) if answered => component.state = state,
            Step::State(state) => component.changing = Some(state),
        }
        next::note_idle(device, now);
        device.moved = true;
        if !answered {
            device.components[index].driven = Some(strand);
            device.inside.push(strand);
            let arguments = [device.context, index as u64, state.into()];
            return Some(Call { role, routine, arguments });
        }
    }
}

/// A call about the device's power begins; also when nothing is to be done before a time.
fn begin_device(k: &mut Kernel, handle: u64) -> Option<Result<Call, u64>> {
    let (strand, now) = (current(k), now(k));
    let device = k.po.fx.get_mut(&handle)?;
    let (role, routine) = match next::of_device(device, now)? {
        DeviceStep::Until(due) => return Some(Err(due)),
        DeviceStep::NotRequired => {
            device.power = Power::Dropping;
            (Role::DevicePowerNotRequiredCallback, device.routines.not_required)
        }
        DeviceStep::Required if device.routines.required.is_null() => {
            device.is_on();
            device.moved = true;
            next::note_idle(device, now);
            return begin_device(k, handle);
        }
        DeviceStep::Required => {
            (device.power, device.owed) = (Power::Rising, device.owed + 1);
            (Role::DevicePowerRequiredCallback, device.routines.required)
        }
    };
    device.busy = true;
    device.inside.push(strand);
    Some(Ok(Call { role, routine, arguments: [device.context, 0, 0] }))
}

/// Calls the driver, and wakes threads that wait for a change.
fn make(cx: &mut Cx<'_>, handle: u64, index: Option<usize>, call: &Call) -> Flow<()> {
    changed(cx, handle)?;
    let called = routine::call(cx, call.role, call.routine, handle, &call.arguments);
    cx.with(|k| {
        let strand = current(k);
        let Some(device) = k.po.fx.get_mut(&handle) else { return };
        match index {
            Some(index) => device.components[index].driven = None,
            None => device.busy = false,
        }
        leave(device, strand);
    });
    called?;
    changed(cx, handle)
}

/// A routine that is not about one component's condition or the device's need of power is called: directed power, performance states.
pub(super) fn call(
    cx: &mut Cx<'_>,
    handle: u64,
    role: Role,
    routine: DriverPtr<Code>,
    arguments: &[u64],
) -> Flow<()> {
    cx.with(|k| {
        let strand = current(k);
        if let Some(device) = k.po.fx.get_mut(&handle) {
            device.inside.push(strand);
        }
    });
    let called = routine::call(cx, role, routine, handle, arguments);
    cx.with(|k| {
        let strand = current(k);
        if let Some(device) = k.po.fx.get_mut(&handle) {
            leave(device, strand);
        }
    });
    called?;
    changed(cx, handle)
}

fn leave(device: &mut Device, strand: StrandId) {
    if let Some(at) = device.inside.iter().rposition(|inside| *inside == strand) {
        device.inside.remove(at);
    }
}

/// Whether anything is to be done with a device that a thread of the power manager does.
fn is_work(k: &Kernel, handle: u64) -> bool {
    let now = now(k);
    k.po.fx.get(&handle).is_some_and(|device| {
        let has_step = |index| next::of_component(device, index, false).is_some();
        (0..device.components.len()).any(has_step) || next::of_device(device, now).is_some()
    })
}

/// If the device's state has changed without a call, wakes threads that wait for a change.
fn tell_moved(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    let moved = cx.with(|k| Some(std::mem::take(&mut k.po.fx.get_mut(&handle)?.moved)));
    if moved == Some(true) { changed(cx, handle) } else { Ok(()) }
}

/// After a change: wakes threads that wait for it, and has a thread of the power manager look at what is to be done.
pub(super) fn advance(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    changed(cx, handle)?;
    look(cx, handle)
}

/// Has a thread of the power manager look at what is to be done, unless one is about to.
pub(super) fn look(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    let is_needed = cx.with(|k| {
        let is_work = is_work(k, handle);
        let device = k.po.fx.get_mut(&handle)?;
        Some(is_work && !std::mem::replace(&mut device.looks, true))
    });
    if is_needed != Some(true) {
        return Ok(());
    }
    thread::spawn(cx, "power manager", Box::new(move |cx| work(cx, handle))).map(|_| ())
}

/// A thread of the power manager does what is to be done, until nothing is or another one looks.
fn work(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    enum Todo {
        Component(usize, Call),
        Device(Call),
        Until(u64),
    }
    loop {
        if !cx.with(|k| k.po.fx.contains_key(&handle)) {
            return Ok(());
        }
        ke::event::clear(cx, event_of(handle))?;
        let todo = cx.with(|k| {
            let count = k.po.fx.get(&handle).map_or(0, |device| device.components.len());
            let component =
                (0..count).find_map(|index| Some(Todo::Component(index, begin(k, handle, index, false)?)));
            let todo =
                component.or_else(|| Some(begin_device(k, handle)?.map_or_else(Todo::Until, Todo::Device)));
            if let Some(device) = k.po.fx.get_mut(&handle) {
                device.looks = matches!(todo, Some(Todo::Until(_)));
            }
            todo
        });
        tell_moved(cx, handle)?;
        match todo {
            None => return Ok(()),
            Some(Todo::Until(due)) => {
                cx.with(|k| note_waiting(k, handle, true));
                let _ = sleep(cx, handle, Timeout::At(Due { time: due, absolute: false }))?;
                cx.with(|k| note_waiting(k, handle, false));
                changed(cx, handle)?;
                continue;
            }
            // What else is to be done does not wait for this call.
            Some(Todo::Component(index, call)) => {
                look(cx, handle)?;
                make(cx, handle, Some(index), &call)?;
            }
            Some(Todo::Device(call)) => {
                look(cx, handle)?;
                make(cx, handle, None, &call)?;
            }
        }
        let another_looks = cx.with(|k| {
            let device = k.po.fx.get_mut(&handle)?;
            (!std::mem::replace(&mut device.looks, true)).then_some(())
        });
        if another_looks.is_none() {
            return Ok(());
        }
    }
}

/// Notes that this thread waits for a change, or waits no more.
pub(super) fn note_waiting(k: &mut Kernel, handle: u64, waits: bool) {
    let strand = current(k);
    let Some(device) = k.po.fx.get_mut(&handle) else { return };
    if waits {
        device.waiting.push(strand);
    } else if let Some(at) = device.waiting.iter().rposition(|waiting| *waiting == strand) {
        device.waiting.remove(at);
    }
}

/// Waits until something has changed since the event was cleared, or until a time.
pub(super) fn sleep(cx: &mut Cx<'_>, handle: u64, timeout: Timeout) -> Flow<NtStatus> {
    let event = event_of(handle).cast();
    wait::wait(cx, &[event], false, timeout, DriverPtr::NULL, "a wait of the kernel's")
}

/// Waits until `done` says so, or the registration is gone; before each look, `act` does what this thread can do for it. False if the time is over
/// before.
pub(super) fn wait_until(
    cx: &mut Cx<'_>,
    handle: u64,
    timeout: Timeout,
    mut act: impl FnMut(&mut Cx<'_>) -> Flow<()>,
    mut done: impl FnMut(&mut Kernel) -> bool,
) -> Flow<bool> {
    cx.with(|k| note_waiting(k, handle, true));
    let mut is_over = false;
    let is_done = loop {
        ke::event::clear(cx, event_of(handle))?;
        act(cx)?;
        if cx.with(|k| k.po.fx.get(&handle).is_none_or(|device| device.gone) || done(k)) {
            break true;
        }
        if is_over {
            break false;
        }
        is_over = sleep(cx, handle, timeout)? == NtStatus::TIMEOUT;
    };
    cx.with(|k| note_waiting(k, handle, false));
    // Who takes the registration back waits for those who wait.
    changed(cx, handle)?;
    Ok(is_done)
}
