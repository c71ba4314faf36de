//! Timers that the system allocates: high-resolution, no-wake, with a callback. Pages: *ExXxxTimer Routines and EX_TIMER
//! Objects*, *ExAllocateTimer function*, *ExSetTimer function*, *ExCancelTimer function*, *ExDeleteTimer function*,
//! *EXT_SET_PARAMETERS structure*, *EXT_DELETE_PARAMETERS structure*, *Deleting a System-Allocated Timer Object*.
//!
//! To a thread that waits it is a timer like any other. No processor sleeps so deeply that a no-wake timer would have to wait for it;
//! how much of its tolerance it uses is a choice all the same.

use abi::{
    Code, DriverPtr, EX_TIMER, EX_TIMER_HIGH_RESOLUTION, EX_TIMER_NO_WAKE, EX_TIMER_NOTIFICATION,
    EXT_DELETE_PARAMETERS, EXT_SET_PARAMETERS, KTIMER,
};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ke::callout::{self, Callout};
use crate::ke::dispatcher::{self, Kind};
use crate::ke::irql::DISPATCH_LEVEL;
use crate::ke::timer_queue::Setting;
use crate::ke::{dpc, irql, time, timer};
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::witness;

/// Bytes of a timer object; drivers see none but the header that makes it waitable.
const SIZE: u32 = 0x90;
/// `EX_TIMER_UNLIMITED_TOLERANCE`.
const UNLIMITED: i64 = -1;
/// What an unlimited tolerance is at most: something always wakes the processor by then.
const AT_MOST: u64 = 1_000 * time::MILLISECOND;

/// What is known of a timer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExTimer {
    /// The driver's routine, or null.
    callback: DriverPtr<Code>,
    context: u64,
    attributes: u32,
    /// The base of the image that allocated it.
    owner: Option<u64>,
    /// It is being deleted: what to call then.
    deleted: Option<Deletion>,
}

impl ExTimer {
    /// The driver's routine, if it has one.
    pub(crate) fn callback(&self) -> Option<u64> {
        (!self.callback.is_null()).then_some(self.callback.address)
    }
}

#[derive(Clone, Copy, Debug)]
struct Deletion {
    callback: DriverPtr<Code>,
    context: u64,
    /// A thread waits for the end, and does what remains.
    waits: bool,
}

/// `ExAllocateTimer`; null if there is no memory.
///
/// # Errors
/// A verdict if the attributes exclude each other.
pub(crate) fn allocate(
    cx: &mut Cx<'_>,
    callback: DriverPtr<Code>,
    context: u64,
    attributes: u32,
) -> Flow<DriverPtr<EX_TIMER>> {
    const BOTH: u32 = EX_TIMER_HIGH_RESOLUTION | EX_TIMER_NO_WAKE;
    if attributes & BOTH == BOTH {
        return Err(wrong(
            cx,
            "ExAllocateTimer was asked for a timer that is both high-resolution and no-wake",
        ));
    }
    let unknown = attributes & !(BOTH | EX_TIMER_NOTIFICATION);
    if unknown != 0 {
        let message = format!("ExAllocateTimer was called with attributes {unknown:#x}, which mean nothing");
        cx.report(Verdict::warning("ex-timer", message));
    }
    let object: DriverPtr<KTIMER> =
        pool::allocate(cx, pool::Kind::NonPaged, SIZE.into(), pool::tag(b"ExTi"))?;
    if object.is_null() {
        return Ok(DriverPtr::NULL);
    }
    let kind = if attributes & EX_TIMER_NOTIFICATION == 0 {
        Kind::SynchronizationTimer
    } else {
        Kind::NotificationTimer
    };
    cx.write_bytes(object.address, &[0; SIZE as usize])?;
    dispatcher::set_up(cx, object.cast(), kind, size_of::<KTIMER>() as u64, 0)?;
    let (owner, _) = pool::caller(cx);
    cx.with(|k| {
        let timer = ExTimer { callback, context, attributes, owner, deleted: None };
        k.ex.timers.insert(object.address, timer);
    });
    Ok(object.cast())
}

/// `ExSetTimer`: due in units of 100 ns, negative relative to now, else absolute; then every `period` units, if that is not 0.
/// Returns whether it was set already; that setting is cancelled.
///
/// # Errors
/// A verdict if it is no timer or an argument is none; [`engine::Leave`] of what runs at once.
pub(crate) fn set(
    cx: &mut Cx<'_>,
    timer: DriverPtr<EX_TIMER>,
    due: i64,
    period: i64,
    parameters: DriverPtr<EXT_SET_PARAMETERS>,
) -> Flow<bool> {
    let known = expect(cx, timer, "ExSetTimer")?;
    let fine = known.attributes & EX_TIMER_HIGH_RESOLUTION != 0;
    if fine && due >= 0 {
        let message = "ExSetTimer was called with an absolute due time for a high-resolution timer";
        return Err(wrong(cx, message));
    }
    let period = match u64::try_from(period) {
        Ok(period) if period <= u64::from(i32::MAX.unsigned_abs()) => period,
        _ => {
            let message = format!("ExSetTimer was called with period {period}; it goes from 0 to MAXLONG");
            return Err(wrong(cx, &message));
        }
    };
    let tolerance = if parameters.is_null() { 0 } else { tolerance(cx, parameters)? };
    let tolerance = if known.attributes & EX_TIMER_NO_WAKE == 0 { 0 } else { tolerance };
    let due = cx.with(|k| time::due(k, due));
    let set = witness::moment(cx);
    timer::start(cx, timer.cast(), Setting { due, period, tolerance, fine, set })
}

fn tolerance(cx: &mut Cx<'_>, parameters: DriverPtr<EXT_SET_PARAMETERS>) -> Flow<u64> {
    let tolerance = cx.read(parameters + EXT_SET_PARAMETERS::NoWakeTolerance)?;
    let version = cx.read(parameters + EXT_SET_PARAMETERS::Version)?;
    let reserved = cx.read(parameters + EXT_SET_PARAMETERS::Reserved)?;
    if (version, reserved) != (0, 0) {
        let message = "ExSetTimer was given parameters that ExInitializeSetTimerParameters has not set up";
        return Err(wrong(cx, message));
    }
    match u64::try_from(tolerance) {
        Ok(tolerance) => Ok(tolerance),
        Err(_) if tolerance == UNLIMITED => Ok(AT_MOST),
        Err(_) => {
            let message = format!("ExSetTimer was called with NoWakeTolerance {tolerance}");
            Err(wrong(cx, &message))
        }
    }
}

/// `ExCancelTimer`: whether it was set. A callback that it has queued already stays queued.
///
/// # Errors
/// A verdict if it is no timer.
pub(crate) fn cancel(cx: &mut Cx<'_>, timer: DriverPtr<EX_TIMER>, parameters: DriverPtr<()>) -> Flow<bool> {
    expect(cx, timer, "ExCancelTimer")?;
    if !parameters.is_null() {
        let message = "ExCancelTimer was called with parameters; drivers must pass NULL".to_owned();
        cx.report(Verdict::warning("ex-timer", message));
    }
    Ok(timer::cancel_any(cx, timer.cast()))
}

/// `ExDeleteTimer`: whether it was cancelled. The timer goes when nothing of it is set, queued or running any more.
///
/// # Errors
/// A verdict if it is no timer, or is to be waited for without being cancelled or where nothing may wait.
pub(crate) fn delete(
    cx: &mut Cx<'_>,
    timer: DriverPtr<EX_TIMER>,
    cancel: bool,
    wait: bool,
    parameters: DriverPtr<EXT_DELETE_PARAMETERS>,
) -> Flow<bool> {
    expect(cx, timer, "ExDeleteTimer")?;
    if wait && !cancel {
        return Err(wrong(cx, "ExDeleteTimer was called with Wait and without Cancel"));
    }
    if wait {
        dpc::check_may_wait(cx, "ExDeleteTimer")?;
    }
    let (callback, context) = if parameters.is_null() {
        (DriverPtr::NULL, 0)
    } else {
        let callback = cx.read(parameters + EXT_DELETE_PARAMETERS::DeleteCallback)?;
        (callback, cx.read(parameters + EXT_DELETE_PARAMETERS::DeleteContext)?.address)
    };
    let cancelled = cancel && timer::cancel_any(cx, timer.cast());
    let busy = cx.with(|k| {
        if let Some(known) = k.ex.timers.get_mut(&timer.address) {
            known.deleted = Some(Deletion { callback, context, waits: wait });
        }
        k.ke.timing.timers().is_set(timer.address) || dpc::is_active(k, timer.address)
    });
    if wait {
        dpc::wait_until_over(cx, timer.address)?;
        finish(cx, timer)?;
    } else if !busy && cx.choose("ex.timer_delete", 2) == 0 {
        finish(cx, timer)?;
    } else if !busy {
        dpc::enqueue_for_timer(cx, timer.address, dpc::By::ExDelete);
    }
    irql::settle(cx)?;
    Ok(cancelled)
}

/// A timer has expired: its callback is queued if it is one of these. Answers whether it is.
pub(crate) fn expired(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>) -> Flow<bool> {
    let Some(known) = cx.with(|k| k.ex.timers.get(&timer.address).copied()) else { return Ok(false) };
    if !known.callback.is_null() {
        dpc::enqueue_for_timer(cx, timer.address, dpc::By::ExTimer);
    } else if known.deleted.is_some() {
        dpc::enqueue_for_timer(cx, timer.address, dpc::By::ExDelete);
    }
    Ok(true)
}

/// Whether the timer is being deleted, so that it is not set again.
pub(crate) fn is_deleted(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>) -> bool {
    cx.with(|k| k.ex.timers.get(&timer.address).is_some_and(|known| known.deleted.is_some()))
}

/// What was queued for a timer runs: its callback, and if it is being deleted its end. At DISPATCH_LEVEL.
pub(crate) fn call(cx: &mut Cx<'_>, timer: DriverPtr<EX_TIMER>, expired: bool) -> Flow<()> {
    let Some(known) = cx.with(|k| k.ex.timers.get(&timer.address).copied()) else { return Ok(()) };
    if expired {
        let call = Callout {
            role: Role::ExTimerCallback,
            routine: known.callback,
            object: timer.address,
            floor: DISPATCH_LEVEL,
        };
        let base = cx.with(|k| k.ke.processor().dpc_stack);
        callout::asynchronous(cx, &call, base, &[timer.address, known.context])?;
    }
    // The callback may have set or deleted it.
    let ends = cx.with(|k| {
        let deleted = k.ex.timers.get(&timer.address).and_then(|known| known.deleted);
        let active = k.ke.timing.timers().is_set(timer.address) || dpc::is_queued(k, timer.address);
        deleted.is_some_and(|deletion| !deletion.waits) && !active
    });
    if ends { finish(cx, timer) } else { Ok(()) }
}

/// The timer is gone, and the driver's callback for that is called.
fn finish(cx: &mut Cx<'_>, timer: DriverPtr<EX_TIMER>) -> Flow<()> {
    let deletion = cx.with(|k| k.ex.timers.remove(&timer.address)).and_then(|known| known.deleted);
    pool::free(cx, timer.cast::<()>())?;
    match deletion {
        Some(Deletion { callback, context, .. }) if !callback.is_null() => {
            callout::call_routine(cx, Role::ExTimerDeleteCallback, callback, timer.address, &[context])
                .map(|_| ())
        }
        _ => Ok(()),
    }
}

fn expect(cx: &mut Cx<'_>, timer: DriverPtr<EX_TIMER>, what: &str) -> Flow<ExTimer> {
    match cx.with(|k| k.ex.timers.get(&timer.address).copied()) {
        Some(known) if known.deleted.is_none() => Ok(known),
        Some(_) => {
            let message = format!("{what} was called for {:#x}, which is being deleted", timer.address);
            Err(wrong(cx, &message))
        }
        None => {
            let message = format!(
                "{what} was called for {:#x}, which is no timer of ExAllocateTimer (any more)",
                timer.address
            );
            Err(wrong(cx, &message))
        }
    }
}

fn wrong(cx: &mut Cx<'_>, message: &str) -> engine::Leave {
    cx.stop(Verdict::error("ex-timer", message.to_owned()))
}

/// A timer that is set or queued and whose callback `has` says goes: for `Io` before a driver's code goes.
pub(crate) fn still_called(k: &Kernel, has: impl Fn(u64) -> bool) -> Option<u64> {
    let mut timers = k.ex.timers.iter().filter(|(_, known)| has(known.callback.address));
    let active = |timer: u64| k.ke.timing.timers().is_set(timer) || dpc::is_active(k, timer);
    timers.find(|(timer, _)| active(**timer)).map(|(&timer, _)| timer)
}

/// Timers that the image at `driver` allocated and did not delete. One that is deleted goes by itself, when nothing of it runs any more; only if that calls the
/// driver it must be waited for.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<u64> {
    let goes = |known: &ExTimer| known.deleted.is_some_and(|deletion| deletion.callback.is_null());
    cx.with(|k| {
        let own = k.ex.timers.iter().filter(|(_, known)| known.owner == Some(driver) && !goes(known));
        own.map(|(&timer, _)| timer).collect()
    })
}
