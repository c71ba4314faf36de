//! Who keeps the system from going to sleep by itself.
//!
//! Pages: *PoRegisterSystemState function*, *PoSetSystemState function*, *PoUnregisterSystemState function*, *PoCreatePowerRequest function*,
//! *PoSetPowerRequest function*, *PoClearPowerRequest function*, *PoDeletePowerRequest function*, *COUNTED_REASON_CONTEXT structure*. A machine
//! does not go to sleep by itself: a script says that its time of idleness has passed (`power idle`). That time is ten minutes, as far as
//! `PoSetSystemState` is concerned, whose page does not say for how long it counts. `power s3` sends the system to sleep regardless.

use std::collections::BTreeMap;

use abi::{COUNTED_REASON_CONTEXT, DEVICE_OBJECT, DriverPtr, NtStatus, PowerSystemSleeping3};
use engine::{Flow, Leave};

use super::system;
use crate::cx::{Cx, Kernel};
use crate::io::violation::device_name;
use crate::ke::time;
use crate::ldr::symbols;
use crate::mm::pool;
use crate::ob;
use crate::pnp::enumerate;
use crate::verdict::Verdict;

/// Bytes of an object; drivers see nothing of it.
const SIZE: u64 = 0x20;
/// `ES_SYSTEM_REQUIRED`.
const SYSTEM_REQUIRED: u32 = 1;
/// `ES_CONTINUOUS`.
const CONTINUOUS: u32 = 0x8000_0000;
/// `PowerRequestSystemRequired`: the one type that drivers have.
const REQUEST_SYSTEM_REQUIRED: u32 = 1;
/// `DIAGNOSTIC_REASON_SIMPLE_STRING`.
const SIMPLE: u32 = 1;
/// For how long `PoSetSystemState` counts, in 100 ns.
const IDLE_TIME: u64 = 10 * 60 * 10_000_000;
/// Characters of a reason that are kept.
const LONGEST_REASON: usize = 120;

/// A power request object.
struct Request {
    device: u64,
    /// Of its device, and why.
    who: String,
    count: u32,
}

/// Who keeps the system awake.
#[derive(Default)]
pub(crate) struct State {
    /// The states given to `PoRegisterSystemState`, by its handles, and by whom.
    registered: BTreeMap<u64, (u32, String)>,
    /// When `PoSetSystemState` said last that the system is required, and by whom.
    set: Option<(u64, String)>,
    requests: BTreeMap<u64, Request>,
}

/// `PoRegisterSystemState`: the registration, which may be an old one with other flags; 0 without memory.
///
/// # Errors
/// A verdict if it is no registration.
pub fn register(cx: &mut Cx<'_>, handle: u64, flags: u32) -> Flow<u64> {
    let who = caller(cx);
    if handle != 0 {
        expect(cx, "PoRegisterSystemState", handle, |state| state.registered.contains_key(&handle))?;
    }
    let at = match handle {
        0 => pool::allocate::<()>(cx, pool::Kind::NonPaged, SIZE, pool::tag(b"PoSy"))?.address,
        known => known,
    };
    if at != 0 {
        cx.with(|k| k.po.awake.registered.insert(at, (flags, who)));
    }
    if flags & CONTINUOUS == 0 {
        set_state(cx, flags)?;
    }
    Ok(at)
}

/// `PoUnregisterSystemState`.
///
/// # Errors
/// As [`register`].
pub fn unregister(cx: &mut Cx<'_>, handle: u64) -> Flow<()> {
    expect(cx, "PoUnregisterSystemState", handle, |state| state.registered.remove(&handle).is_some())?;
    pool::free(cx, DriverPtr::<()>::new(handle))
}

/// `PoSetSystemState`.
///
/// # Errors
/// None of its own.
pub fn set_state(cx: &mut Cx<'_>, flags: u32) -> Flow<()> {
    if flags & SYSTEM_REQUIRED != 0 {
        cx.reads_clock();
        let (now, who) = (time::interrupt_time(cx.engine()), caller(cx));
        cx.with(|k| k.po.awake.set = Some((now, who)));
    }
    Ok(())
}

/// `PoCreatePowerRequest`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn create_request(
    cx: &mut Cx<'_>,
    request: DriverPtr<u64>,
    device: DriverPtr<DEVICE_OBJECT>,
    reason: DriverPtr<COUNTED_REASON_CONTEXT>,
) -> Flow<NtStatus> {
    cx.write(request, 0)?;
    if device.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    cx.read(device + DEVICE_OBJECT::Type)?;
    let mut who = device_name(cx, device);
    if let Some(reason) = simple_reason(cx, reason)? {
        who = format!("{who}: {reason}");
    }
    let at = pool::allocate::<()>(cx, pool::Kind::NonPaged, SIZE, pool::tag(b"PoRq"))?.address;
    if at == 0 {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.with(|k| k.po.awake.requests.insert(at, Request { device: device.address, who, count: 0 }));
    cx.write(request, at)?;
    Ok(NtStatus::SUCCESS)
}

/// The one string of a reason, if it is one.
fn simple_reason(cx: &mut Cx<'_>, reason: DriverPtr<COUNTED_REASON_CONTEXT>) -> Flow<Option<String>> {
    if reason.is_null() || cx.read(reason + COUNTED_REASON_CONTEXT::Flags)? != SIMPLE {
        return Ok(None);
    }
    let text = ob::string::read(cx, reason + COUNTED_REASON_CONTEXT::SimpleString)?;
    Ok(Some(text.chars().take(LONGEST_REASON).collect()))
}

/// `PoSetPowerRequest`.
///
/// # Errors
/// A verdict if it is no power request object.
pub fn set_request(cx: &mut Cx<'_>, request: u64, kind: u32) -> Flow<NtStatus> {
    count(cx, "PoSetPowerRequest", (request, kind), |count| count.checked_add(1))
}

/// `PoClearPowerRequest`. Of one that is not set no page says anything: it fails.
///
/// # Errors
/// As [`set_request`].
pub fn clear_request(cx: &mut Cx<'_>, request: u64, kind: u32) -> Flow<NtStatus> {
    count(cx, "PoClearPowerRequest", (request, kind), |count| count.checked_sub(1))
}

fn count(
    cx: &mut Cx<'_>,
    ddi: &str,
    (request, kind): (u64, u32),
    change: fn(u32) -> Option<u32>,
) -> Flow<NtStatus> {
    let counted = cx.with(|k| {
        let known = k.po.awake.requests.get_mut(&request)?;
        if kind != REQUEST_SYSTEM_REQUIRED {
            return Some(NtStatus::NOT_SUPPORTED);
        }
        Some(match change(known.count) {
            Some(count) => {
                known.count = count;
                NtStatus::SUCCESS
            }
            None => NtStatus::UNSUCCESSFUL,
        })
    });
    counted.ok_or_else(|| unknown(cx, ddi, request))
}

/// `PoDeletePowerRequest`.
///
/// # Errors
/// As [`set_request`].
pub fn delete_request(cx: &mut Cx<'_>, request: u64) -> Flow<()> {
    expect(cx, "PoDeletePowerRequest", request, |state| state.requests.remove(&request).is_some())?;
    pool::free(cx, DriverPtr::<()>::new(request))
}

/// The device goes: its power requests should be gone.
pub(crate) fn device_deleted(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) {
    let left = cx.with(|k| k.po.awake.requests.values().filter(|left| left.device == device.address).count());
    if left > 0 {
        let name = device_name(cx, device);
        let message = format!("IoDeleteDevice on {name}, which has {left} power request object(s)");
        cx.report(Verdict::warning("power-request-outlives-device", message));
    }
}

/// The system has been idle for long enough to go to sleep: it does, if no driver keeps it awake. On a system thread, at PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver.
pub fn idle(cx: &mut Cx<'_>) -> Flow<NtStatus> {
    cx.reads_clock();
    let now = time::interrupt_time(cx.engine());
    match cx.with(|k| keeper(k, now)) {
        Some(who) => {
            enumerate::step(cx, "the system stays awake for", who);
            Ok(NtStatus::DEVICE_BUSY)
        }
        None => system::set(cx, PowerSystemSleeping3),
    }
}

/// One that keeps the system awake.
fn keeper(k: &Kernel, now: u64) -> Option<String> {
    let state = &k.po.awake;
    let continuous = |(flags, _): &&(u32, String)| flags & CONTINUOUS != 0 && flags & SYSTEM_REQUIRED != 0;
    let registered = state.registered.values().find(continuous).map(|(_, who)| who);
    let set = state.set.as_ref().filter(|(at, _)| now < at + IDLE_TIME).map(|(_, who)| who);
    let requested = state.requests.values().find(|request| request.count > 0).map(|request| &request.who);
    registered.or(set).or(requested).cloned()
}

/// Who calls, for people.
fn caller(cx: &mut Cx<'_>) -> String {
    match cx.engine().caller() {
        Some(caller) => symbols::describe_return(cx, caller.rip),
        None => "the system".to_owned(),
    }
}

/// That a driver means what is there.
fn expect(cx: &mut Cx<'_>, ddi: &str, object: u64, is_there: impl Fn(&mut State) -> bool) -> Flow<()> {
    if cx.with(|k| is_there(&mut k.po.awake)) { Ok(()) } else { Err(unknown(cx, ddi, object)) }
}

#[cold]
fn unknown(cx: &mut Cx<'_>, ddi: &str, object: u64) -> Leave {
    let message =
        format!("{ddi} was called with {object:#x}, which is no such object of the power manager's");
    cx.stop(Verdict::error("not-a-power-object", message))
}
