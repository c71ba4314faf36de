//! Timer objects and time-outs. Follows *KeSetTimerEx function*, *KeSetCoalescableTimer function*, *KeCancelTimer
//! function*, *Timer Objects and DPCs*, *Timer Accuracy*.
//!
//! A timer never expires early: it does so at the first clock tick at or after its due time, at DISPATCH_LEVEL, by default on the
//! processor that set it (`taker`). How much of its tolerance a coalescable timer uses is a choice; by default none.

use abi::{DISPATCHER_HEADER, DriverPtr, KDPC, KTIMER, NtStatus};
use engine::Flow;

use super::dispatcher::{self, Kind};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind as EventKind};
use crate::ex;
use crate::ke::history;
use crate::ke::irq::dpc;
use crate::ke::levels::irql;
use crate::ke::sched::patience;
use crate::ke::timing::time::{self, Due};
use crate::ke::timing::timer_queue::{Expired, Setting};
use crate::verdict::Verdict;
use crate::witness;

const TIMERS: &[Kind] = &[Kind::NotificationTimer, Kind::SynchronizationTimer];

/// `KeInitializeTimer`.
///
/// # Errors
/// As [`initialize_ex`].
pub(crate) fn initialize(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>) -> Flow<()> {
    initialize_ex(cx, timer, 0)
}

/// `KeInitializeTimerEx`: `kind` 0 is a notification timer, 1 a synchronization timer.
///
/// # Errors
/// A verdict if the pointer is bad, the kind is none, or the timer is set or waited for.
pub(crate) fn initialize_ex(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>, kind: u32) -> Flow<()> {
    let kind = match kind {
        0 => Kind::NotificationTimer,
        1 => Kind::SynchronizationTimer,
        other => {
            let message = format!("KeInitializeTimerEx was called with type {other}; there are 0 and 1");
            return Err(cx.stop(Verdict::error("timer-type", message)));
        }
    };
    if let Some(set) = cx.with(|k| k.ke.timing.timers().set_at(timer.address)) {
        let at = timer.address;
        let message = format!("KeInitializeTimer was called for {at:#x}, which is set and has not expired");
        let verdict = Verdict::error("timer-initialized-while-set", message).related("set", set);
        return Err(cx.stop(verdict.bug_check(0xC7, [0, at, 0, 0])));
    }
    let bytes = size_of::<KTIMER>() as u64;
    dispatcher::set_up(cx, timer.cast(), kind, bytes, 0)?;
    cx.write(timer + KTIMER::DueTime, 0)?;
    cx.write(timer + KTIMER::Period, 0)?;
    cx.write(timer + KTIMER::Dpc, DriverPtr::NULL)
}

/// `KeSetTimer`: returns whether it was set already.
///
/// # Errors
/// As [`set_ex`].
pub(crate) fn set(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>, due: i64, dpc: DriverPtr<KDPC>) -> Flow<bool> {
    set_ex(cx, timer, due, 0, dpc)
}

/// `KeSetCoalescableTimer`: as [`set_ex`], and each time it may come late by as many milliseconds as `tolerable_delay`.
///
/// # Errors
/// As [`set_ex`].
pub(crate) fn set_coalescable(
    cx: &mut Cx<'_>,
    timer: DriverPtr<KTIMER>,
    due: i64,
    period: u32,
    tolerable_delay: u32,
    dpc: DriverPtr<KDPC>,
) -> Flow<bool> {
    if period > i32::MAX.unsigned_abs() || tolerable_delay > i32::MAX.unsigned_abs() {
        let message = format!(
            "KeSetCoalescableTimer was called with period {period} and tolerable delay {tolerable_delay}; neither may be more than MAXLONG"
        );
        cx.report(Verdict::warning("timer-period", message));
    }
    set_for(cx, timer, due, period, tolerable_delay, dpc)
}

/// `KeSetTimerEx`: due in units of 100 ns, negative relative to now, else absolute; then every `period` milliseconds, if
/// that is not 0. Returns whether it was set already; that setting is cancelled.
///
/// # Errors
/// A verdict if it is no timer; [`engine::Leave`] of what runs at once.
pub(crate) fn set_ex(
    cx: &mut Cx<'_>,
    timer: DriverPtr<KTIMER>,
    due: i64,
    period: i32,
    dpc: DriverPtr<KDPC>,
) -> Flow<bool> {
    if period < 0 {
        let message = format!(
            "KeSetTimerEx was called with period {period}; it must not be negative, and counts as {}",
            period.cast_unsigned()
        );
        cx.report(Verdict::warning("timer-period", message));
    }
    set_for(cx, timer, due, period.cast_unsigned(), 0, dpc)
}

fn set_for(
    cx: &mut Cx<'_>,
    timer: DriverPtr<KTIMER>,
    due: i64,
    period: u32,
    tolerance: u32,
    dpc: DriverPtr<KDPC>,
) -> Flow<bool> {
    dispatcher::expect(cx, timer.cast(), "KeSetTimer", TIMERS)?;
    cx.write(timer + KTIMER::Period, period)?;
    cx.write(timer + KTIMER::Dpc, dpc)?;
    let due = cx.with(|k| time::due(k, due));
    let set = witness::moment(cx);
    let units = |milliseconds: u32| u64::from(milliseconds) * time::MILLISECOND;
    let setting = Setting { due, period: units(period), tolerance: units(tolerance), fine: false, set };
    start(cx, timer, setting)
}

/// Sets a timer, a driver's or the kernel's: returns whether it was set already.
pub(crate) fn start(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>, setting: Setting) -> Flow<bool> {
    let was_set = cx.with(|k| {
        history::reads_clock(k);
        k.ke.timing.timers_mut().cancel_timer(timer.address)
    });
    let Setting { due: Due { time: due, .. }, period, .. } = setting;
    cx.detail(EventKind::TimerSet, || Event::TimerSet { timer: timer.address, due, period });
    cx.write((timer + KTIMER::Header) + DISPATCHER_HEADER::SignalState, 0)?;
    cx.write(timer + KTIMER::DueTime, setting.due.time)?;
    if setting.due.time <= time::interrupt_time(cx.engine()) {
        expire_timer(cx, timer, setting)?;
    } else {
        add(cx, timer, setting);
    }
    irql::settle(cx)?;
    Ok(was_set)
}

/// How late a timer may be, of its tolerance.
fn add(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>, setting: Setting) {
    let late = match setting.tolerance {
        0 => 0,
        most => match cx.choose("ke.timer_tolerance", 3) {
            0 => 0,
            1 => most,
            _ => most / 2,
        },
    };
    cx.with(|k| {
        let processor = k.ke.current;
        k.ke.timing.timers_mut().set_timer(timer.address, setting, late, processor);
        k.ke.invalidate_levels();
    });
}

/// `KeCancelTimer`: whether it was set. A DPC that it has queued already stays queued.
///
/// # Errors
/// A verdict if it is no timer.
pub(crate) fn cancel(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>) -> Flow<bool> {
    dispatcher::expect(cx, timer.cast(), "KeCancelTimer", TIMERS)?;
    Ok(cancel_any(cx, timer))
}

/// Cancels any timer: whether it was set.
pub(crate) fn cancel_any(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>) -> bool {
    let was_set = cx.with(|k| k.ke.timing.timers_mut().cancel_timer(timer.address));
    if was_set {
        cx.detail(EventKind::TimerCancelled, || Event::TimerCancelled { timer: timer.address });
    }
    was_set
}

/// `KeReadStateTimer`: whether it is signaled.
///
/// # Errors
/// A verdict if it is no timer.
pub(crate) fn read_state(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>) -> Flow<bool> {
    dispatcher::expect(cx, timer.cast(), "KeReadStateTimer", TIMERS)?;
    Ok(cx.read((timer + KTIMER::Header) + DISPATCHER_HEADER::SignalState)? != 0)
}

/// A timer of `base..base+length` that is set.
pub(in crate::ke) fn set_in(k: &Kernel, base: u64, length: u64) -> Option<u64> {
    k.ke.timing.timers().set_in(base, length)
}

/// All timers that are set, by address: for `Io` before a driver's code goes.
#[must_use]
pub(crate) fn all_set(k: &Kernel) -> Vec<u64> {
    k.ke.timing.timers().all_set()
}

/// Whether the clock has found something due on processor `index`.
#[inline]
pub(crate) fn is_due(k: &Kernel, index: usize) -> bool {
    k.ke.timing.timers().is_due(k.engine.now(), index)
}

/// Lets everything expire that is due on the current processor; at DISPATCH_LEVEL.
pub(in crate::ke) fn expire(cx: &mut Cx<'_>) -> Flow<()> {
    loop {
        let due = cx.with(|k| {
            history::reads_clock(k);
            let (now, processor) = (k.engine.now(), k.ke.current);
            k.ke.timing.timers_mut().take_due(now, processor)
        });
        match due {
            None => return Ok(()),
            Some(Expired::Timer(timer, setting)) => expire_timer(cx, DriverPtr::new(timer), setting)?,
            Some(Expired::Timeout(strand)) => {
                let ended = cx.with(|k| dispatcher::end_wait(k, strand, NtStatus::TIMEOUT, 0));
                ended.map_err(|broken| dispatcher::stop(cx, DriverPtr::NULL, broken))?;
            }
            // The caller that lets timers expire empties the queue next.
            Some(Expired::Dpcs) => {}
        }
    }
}

/// Wakes the threads of the outside world whose time has come.
pub(crate) fn ring(cx: &mut Cx<'_>) {
    let (now, events) = (cx.engine().now(), cx.next_event());
    let given_up = cx.with(|k| {
        // Mostly none rings.
        if !k.ke.timing.timers().rings(now) {
            return None;
        }
        history::reads_clock(k);
        while let Some(strand) = k.ke.timing.timers_mut().take_alarm(now) {
            // It waits for nothing else, so no list of a driver's can be damaged.
            let _ = dispatcher::end_wait(k, strand, NtStatus::SUCCESS, 0);
        }
        if k.ke.timing.timers().watch_is_over(now) { patience::rings(k, now, events) } else { None }
    });
    if let Some(waited) = given_up {
        patience::give_up(cx, waited);
    }
}

/// The timer is signaled, its DPC or callback queued, and it is set again if it is periodic.
fn expire_timer(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>, setting: Setting) -> Flow<()> {
    if setting.period != 0 && !ex::timer::is_deleted(cx, timer) {
        // Periods that were missed altogether are not made up for; those that come are where they always were.
        let late = time::interrupt_time(cx.engine()).saturating_sub(setting.due.time);
        let next = setting.due.time + (late / setting.period + 1) * setting.period;
        cx.write(timer + KTIMER::DueTime, next)?;
        add(cx, timer, Setting { due: Due { time: next, absolute: false }, ..setting });
    }
    cx.detail(EventKind::TimerFired, || Event::TimerFired { timer: timer.address });
    dispatcher::signal(cx, timer.cast(), 1, 0)?;
    if ex::timer::expired(cx, timer)? {
        return Ok(());
    }
    let dpc = cx.read(timer + KTIMER::Dpc)?;
    if !dpc.is_null() {
        dpc::enqueue(cx, dpc, DriverPtr::NULL, DriverPtr::NULL, true)?;
    }
    Ok(())
}
