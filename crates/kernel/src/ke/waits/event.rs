//! Event objects. Follows *KeInitializeEvent function*, *KeSetEvent function*, *KeClearEvent function*, *KePulseEvent
//! function* and *Event Objects*.

use abi::{DISPATCHER_HEADER, DriverPtr, KEVENT};
use engine::Flow;

use super::dispatcher::{self, Kind};
use super::wait_fast;
use crate::cx::Cx;
use crate::event::Kind as EventKind;
use crate::ke::levels::irql::{self, APC_LEVEL};
use crate::mm::space::Zone;
use crate::verdict::Verdict;

const EVENTS: &[Kind] = &[Kind::NotificationEvent, Kind::SynchronizationEvent];

/// `KeInitializeEvent`: `kind` 0 is a notification event, 1 a synchronization event.
///
/// # Errors
/// A verdict if the pointer is bad, the kind is none, or a thread waits for the event.
pub fn initialize(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>, kind: u32, signaled: bool) -> Flow<()> {
    let kind = match kind {
        0 => Kind::NotificationEvent,
        1 => Kind::SynchronizationEvent,
        other => {
            let message = format!("KeInitializeEvent was called with type {other}; there are 0 and 1");
            return Err(cx.stop(Verdict::error("event-type", message)));
        }
    };
    dispatcher::set_up(cx, event.cast(), kind, size_of::<KEVENT>() as u64, signaled.into())
}

/// `KeSetEvent`: signals; returns the previous state. With `wait`, the caller's next call is a wait.
///
/// # Errors
/// A verdict if it is no event; with Driver Verifier's DDI checks, with `wait` above APC_LEVEL too; [`engine::Leave`] of what runs at once.
pub fn set(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>, increment: i32, wait: bool) -> Flow<i32> {
    if !wait
        && !cx.nt().wants(EventKind::Signalled)
        && let Some(before) = cx.with(|k| wait_fast::signal(k, event.cast(), boost(increment)))
    {
        irql::settle(cx)?;
        return Ok(before);
    }
    dispatcher::expect(cx, event.cast(), "KeSetEvent", EVENTS)?;
    check_stack(cx, event)?;
    if wait {
        check_wait(cx)?;
    }
    let before = dispatcher::signal(cx, event.cast(), 1, boost(increment))?;
    finish(cx, wait)?;
    Ok(before)
}

/// An event that no thread waits for, on the stack of a thread that has no driver code on it: the routine whose local variable it was has returned. *Not found*: the same on
/// the stack of a thread that runs another routine of a driver.
fn check_stack(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>) -> Flow<()> {
    let address = event.address;
    if Zone::of(address) != Some(Zone::Stacks) || cx.with(|k| k.ke.waits.waits.get(&address).is_some()) {
        return Ok(());
    }
    let owner = cx.with(|k| {
        let owner = k.ke.sched.threads().iter().find(|thread| thread.has_on_stack(address))?;
        Some((owner.strand, owner.name.clone()))
    });
    let Some((_, name)) = owner.filter(|(strand, _)| cx.engine().callers_of(*strand).is_empty()) else {
        return Ok(());
    };
    let message = format!(
        "KeSetEvent was called for {address:#x}, a local variable of a routine that has returned, on the stack of the thread {name}"
    );
    Err(cx.stop(Verdict::error("event-on-dead-stack", message)))
}

/// `KeClearEvent`.
///
/// # Errors
/// A verdict if it is no event.
pub fn clear(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>) -> Flow<()> {
    dispatcher::expect(cx, event.cast(), "KeClearEvent", EVENTS)?;
    cx.write((event + KEVENT::Header) + DISPATCHER_HEADER::SignalState, 0)
}

/// `KeResetEvent`: as [`clear`]; returns the previous state.
///
/// # Errors
/// As [`clear`].
pub(crate) fn reset(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>) -> Flow<i32> {
    reset_as(cx, event, "KeResetEvent")
}

fn reset_as(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>, what: &str) -> Flow<i32> {
    dispatcher::expect(cx, event.cast(), what, EVENTS)?;
    let state = (event + KEVENT::Header) + DISPATCHER_HEADER::SignalState;
    let before = cx.read(state)?;
    cx.write(state, 0)?;
    Ok(before)
}

/// Its page allows KeSetEvent with `Wait` up to APC_LEVEL. The wait that follows may take no time at DISPATCH_LEVEL, as that behind
/// KePulseEvent, whose page says so: only Driver Verifier (IrqlKeSetEvent) stops here.
fn check_wait(cx: &mut Cx<'_>) -> Flow<()> {
    let irql = irql::current(cx);
    if irql <= APC_LEVEL {
        return Ok(());
    }
    let message =
        format!("KeSetEvent was called with Wait TRUE at IRQL {irql}; it may be at most {APC_LEVEL}");
    cx.verify(Verdict::verifier("irql-too-high", message).bug_check(0xC4, [0x2_0016, irql.into(), 0, 0]))
}

/// `KePulseEvent`: lets go the threads that a set event would let go, and leaves it not signaled; returns the previous state.
///
/// # Errors
/// As [`set`].
pub(crate) fn pulse(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>, increment: i32, wait: bool) -> Flow<i32> {
    dispatcher::expect(cx, event.cast(), "KePulseEvent", EVENTS)?;
    let before = dispatcher::signal(cx, event.cast(), 1, boost(increment))?;
    cx.write((event + KEVENT::Header) + DISPATCHER_HEADER::SignalState, 0)?;
    finish(cx, wait)?;
    Ok(before)
}

/// `KeReadStateEvent`.
///
/// # Errors
/// A verdict if it is no event.
pub(crate) fn read_state(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>) -> Flow<i32> {
    dispatcher::expect(cx, event.cast(), "KeReadStateEvent", EVENTS)?;
    cx.read((event + KEVENT::Header) + DISPATCHER_HEADER::SignalState)
}

/// A priority increment: 0–15.
pub(crate) fn boost(increment: i32) -> u8 {
    u8::try_from(increment.clamp(0, 15)).unwrap_or(0)
}

/// After a signal: lets others run, unless the caller said that it waits next; then no other thread comes between.
///
/// # Errors
/// [`engine::Leave`] of what runs at once.
pub(crate) fn finish(cx: &mut Cx<'_>, wait: bool) -> Flow<()> {
    if !wait {
        return irql::settle(cx);
    }
    cx.with(|k| {
        k.ke.processor_mut().wait_next = true;
        k.ke.invalidate_levels();
    });
    Ok(())
}
