//! Event objects. Follows *KeInitializeEvent function*, *KeSetEvent function*, *KeClearEvent function*, *KePulseEvent
//! function* and *Event Objects*.

use abi::{DISPATCHER_HEADER, DriverPtr, KEVENT};
use engine::Flow;

use super::dispatcher::{self, Kind};
use super::processor::APC_LEVEL;
use super::{irql, plain_wait};
use crate::cx::Cx;
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
/// A verdict if it is no event, or with `wait` above APC_LEVEL; [`engine::Leave`] of what runs at once.
pub fn set(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>, increment: i32, wait: bool) -> Flow<i32> {
    if !wait && let Some(before) = cx.with(|k| plain_wait::signal(k, event.cast(), boost(increment))) {
        irql::settle(cx)?;
        return Ok(before);
    }
    dispatcher::expect(cx, event.cast(), "KeSetEvent", EVENTS)?;
    let before = dispatcher::signal(cx, event.cast(), 1, boost(increment))?;
    finish(cx, wait, "KeSetEvent")?;
    Ok(before)
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
pub fn reset(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>) -> Flow<i32> {
    reset_as(cx, event, "KeResetEvent")
}

fn reset_as(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>, what: &str) -> Flow<i32> {
    dispatcher::expect(cx, event.cast(), what, EVENTS)?;
    let state = (event + KEVENT::Header) + DISPATCHER_HEADER::SignalState;
    let before = cx.read(state)?;
    cx.write(state, 0)?;
    Ok(before)
}

/// `KePulseEvent`: lets go whom a set event would let go, and leaves it not signaled; returns the previous state.
///
/// # Errors
/// As [`set`].
pub fn pulse(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>, increment: i32, wait: bool) -> Flow<i32> {
    dispatcher::expect(cx, event.cast(), "KePulseEvent", EVENTS)?;
    let before = dispatcher::signal(cx, event.cast(), 1, boost(increment))?;
    cx.write((event + KEVENT::Header) + DISPATCHER_HEADER::SignalState, 0)?;
    finish(cx, wait, "KePulseEvent")?;
    Ok(before)
}

/// `KeReadStateEvent`.
///
/// # Errors
/// A verdict if it is no event.
pub fn read_state(cx: &mut Cx<'_>, event: DriverPtr<KEVENT>) -> Flow<i32> {
    dispatcher::expect(cx, event.cast(), "KeReadStateEvent", EVENTS)?;
    cx.read((event + KEVENT::Header) + DISPATCHER_HEADER::SignalState)
}

/// A priority increment: 0–15.
pub(crate) fn boost(increment: i32) -> u8 {
    u8::try_from(increment.clamp(0, 15)).unwrap_or(0)
}

/// After a signal: lets others run, unless the caller said that it waits next; then nobody comes between.
///
/// # Errors
/// A verdict with `wait` above APC_LEVEL; [`engine::Leave`] of what runs at once.
pub(crate) fn finish(cx: &mut Cx<'_>, wait: bool, what: &str) -> Flow<()> {
    if !wait {
        return irql::settle(cx);
    }
    let irql = irql::current(cx);
    if irql > APC_LEVEL {
        let message =
            format!("{what} was called with Wait TRUE at IRQL {irql}; it may be at most {APC_LEVEL}");
        let verdict = Verdict::error("irql-too-high", message);
        return Err(cx.stop(verdict.bug_check(0xC4, [0x2_0016, irql.into(), 0, 0])));
    }
    cx.with(|k| {
        k.ke.processor_mut().wait_next = true;
        k.ke.unsettled();
    });
    Ok(())
}
