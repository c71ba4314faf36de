//! Timer objects and time-outs. Follows *KeSetTimerEx function*, *KeCancelTimer function*, *Timer Objects and DPCs*,
//! *Timer Accuracy*.
//!
//! A timer never expires early: it does so at the first clock tick at or after its due time, at DISPATCH_LEVEL on the
//! processor that set it. Coalescable timers use none of their tolerance.

use std::collections::BTreeMap;

use abi::{DISPATCHER_HEADER, DriverPtr, KDPC, KTIMER, NtStatus};
use engine::{Flow, StrandId};

use super::dispatcher::{self, Kind};
use super::time::{self, TICK, UNIT};
use super::{dpc, irql};
use crate::cx::{Cx, Kernel};
use crate::verdict::Verdict;
use crate::witness;

const TIMERS: &[Kind] = &[Kind::NotificationTimer, Kind::SynchronizationTimer];

/// What becomes due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// A KTIMER.
    Timer {
        at: u64,
        /// The moment when a driver set it.
        set: u64,
    },
    /// A wait of this thread.
    Timeout(StrandId),
}

/// Interrupt time in units of 100 ns, then the order of setting.
type Key = (u64, u64);

/// All timers that are set and all time-outs of waits, by due time.
pub(crate) struct TimerQueue {
    due: BTreeMap<Key, (Due, usize)>,
    timers: BTreeMap<u64, Key>,
    timeouts: BTreeMap<StrandId, Key>,
    /// Threads of the outside world by when they wake, in nanoseconds: exact, whatever the clock's ticks.
    alarms: BTreeMap<Key, StrandId>,
    sequence: u64,
    /// When the clock finds the first of `due`, in nanoseconds; `NEVER` if there is none.
    next_tick: u64,
    /// When the first of `alarms` rings; `NEVER` if there is none.
    next_alarm: u64,
}

/// Later than any time.
const NEVER: u64 = u64::MAX;

impl Default for TimerQueue {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
            timers: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            alarms: BTreeMap::new(),
            sequence: 0,
            next_tick: NEVER,
            next_alarm: NEVER,
        }
    }
}

impl TimerQueue {
    /// After every change of `due` or `alarms`.
    fn look_ahead(&mut self) {
        self.next_tick = self.due.keys().next().map_or(NEVER, |(due, _)| found(*due));
        self.next_alarm = self.alarms.keys().next().map_or(NEVER, |(time, _)| *time);
    }

    fn add(&mut self, due: u64, what: Due, processor: usize) -> Key {
        self.sequence += 1;
        let key = (due, self.sequence);
        self.due.insert(key, (what, processor));
        self.look_ahead();
        key
    }

    fn add_timer(&mut self, due: u64, at: u64, processor: usize, set: u64) {
        let key = self.add(due, Due::Timer { at, set }, processor);
        self.timers.insert(at, key);
    }

    /// The moment when this timer was set, if it is.
    pub(crate) fn set_at(&self, timer: u64) -> Option<u64> {
        match self.due.get(self.timers.get(&timer)?)?.0 {
            Due::Timer { set, .. } => Some(set),
            Due::Timeout(_) => None,
        }
    }

    fn cancel_timer(&mut self, timer: u64) -> bool {
        let Some(key) = self.timers.remove(&timer) else { return false };
        let was_set = self.due.remove(&key).is_some();
        self.look_ahead();
        was_set
    }

    /// A wait of `strand` ends at `due`.
    pub(crate) fn add_timeout(&mut self, due: u64, strand: StrandId, processor: usize) {
        let key = self.add(due, Due::Timeout(strand), processor);
        self.timeouts.insert(strand, key);
    }

    /// The wait ended otherwise.
    pub(crate) fn cancel_timeout(&mut self, strand: StrandId) {
        if let Some(key) = self.timeouts.remove(&strand) {
            self.due.remove(&key);
            self.look_ahead();
        }
    }

    /// The next thing due on `processor` at interrupt time `now`.
    fn next(&self, now: u64, processor: usize) -> Option<Key> {
        let mut due = self.due.range(..=(now, u64::MAX));
        due.find(|(_, (_, whose))| *whose == processor).map(|(key, _)| *key)
    }

    fn take(&mut self, key: Key) -> Option<Due> {
        let (due, _) = self.due.remove(&key)?;
        self.look_ahead();
        match due {
            Due::Timer { at, .. } => self.timers.remove(&at),
            Due::Timeout(strand) => self.timeouts.remove(&strand),
        };
        Some(due)
    }

    /// `strand` wakes at `time`, in nanoseconds.
    pub(crate) fn add_alarm(&mut self, time: u64, strand: StrandId) {
        self.sequence += 1;
        self.alarms.insert((time, self.sequence), strand);
        self.look_ahead();
    }

    /// A thread whose alarm rings at `now` or has rung; it is taken out.
    fn take_alarm(&mut self, now: u64) -> Option<StrandId> {
        if self.next_alarm > now {
            return None;
        }
        let (_, strand) = self.alarms.pop_first()?;
        self.look_ahead();
        Some(strand)
    }

    /// When the clock will find something due next, or somebody wakes, in nanoseconds.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<u64> {
        let next = self.next_tick.min(self.next_alarm);
        (next != NEVER).then_some(next)
    }

    /// The same, past what is due already and waits for a level to fall.
    pub(crate) fn deadline_after(&self, now: u64) -> Option<u64> {
        let due = self.due.range((now / UNIT / time::INCREMENT * time::INCREMENT, 0)..);
        let due = due.map(|((due, _), _)| found(*due)).find(|time| *time > now);
        due.into_iter().chain(self.alarms.keys().next().map(|(time, _)| *time)).min()
    }
}

/// At which tick the clock finds what is due at this interrupt time, in nanoseconds.
fn found(due: u64) -> u64 {
    due.saturating_mul(UNIT).div_ceil(TICK).saturating_mul(TICK)
}

/// `KeInitializeTimer`.
///
/// # Errors
/// As [`initialize_ex`].
pub fn initialize(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>) -> Flow<()> {
    initialize_ex(cx, timer, 0)
}

/// `KeInitializeTimerEx`: `kind` 0 is a notification timer, 1 a synchronization timer.
///
/// # Errors
/// A verdict if the pointer is bad, the kind is none, or the timer is set or waited for.
pub fn initialize_ex(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>, kind: u32) -> Flow<()> {
    let kind = match kind {
        0 => Kind::NotificationTimer,
        1 => Kind::SynchronizationTimer,
        other => {
            let message = format!("KeInitializeTimerEx was called with type {other}; there are 0 and 1");
            return Err(cx.stop(Verdict::error("timer-type", message)));
        }
    };
    if let Some(set) = cx.with(|k| k.ke.timers.set_at(timer.address)) {
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
pub fn set(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>, due: i64, dpc: DriverPtr<KDPC>) -> Flow<bool> {
    set_ex(cx, timer, due, 0, dpc)
}

/// `KeSetCoalescableTimer`.
///
/// # Errors
/// As [`set_ex`].
pub fn set_coalescable(
    cx: &mut Cx<'_>,
    timer: DriverPtr<KTIMER>,
    due: i64,
    period: u32,
    _tolerable_delay: u32,
    dpc: DriverPtr<KDPC>,
) -> Flow<bool> {
    set_ex(cx, timer, due, i32::try_from(period).unwrap_or(i32::MAX), dpc)
}

/// `KeSetTimerEx`: due in units of 100 ns, negative relative to now, else absolute; then every `period` milliseconds, if
/// that is not 0. Returns whether it was set already; that setting is cancelled.
///
/// # Errors
/// A verdict if it is no timer or the period is negative; [`engine::Leave`] of what runs at once.
pub fn set_ex(
    cx: &mut Cx<'_>,
    timer: DriverPtr<KTIMER>,
    due: i64,
    period: i32,
    dpc: DriverPtr<KDPC>,
) -> Flow<bool> {
    dispatcher::expect(cx, timer.cast(), "KeSetTimer", TIMERS)?;
    let Ok(period) = u32::try_from(period) else {
        let message = format!("KeSetTimerEx was called with period {period}; it must not be negative");
        return Err(cx.stop(Verdict::error("timer-period", message)));
    };
    let due = time::due(cx.engine(), due);
    let set = witness::moment(cx);
    let was_set = cx.with(|k| k.ke.timers.cancel_timer(timer.address));
    cx.write((timer + KTIMER::Header) + DISPATCHER_HEADER::SignalState, 0)?;
    cx.write(timer + KTIMER::DueTime, due)?;
    cx.write(timer + KTIMER::Period, period)?;
    cx.write(timer + KTIMER::Dpc, dpc)?;
    if due <= time::interrupt_time(cx.engine()) {
        expire_timer(cx, timer, due, set)?;
    } else {
        cx.with(|k| {
            let processor = k.ke.current;
            k.ke.timers.add_timer(due, timer.address, processor, set);
            k.ke.unsettled();
        });
    }
    irql::settle(cx)?;
    Ok(was_set)
}

/// `KeCancelTimer`: whether it was set. A DPC that it has queued already stays queued.
///
/// # Errors
/// A verdict if it is no timer.
pub fn cancel(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>) -> Flow<bool> {
    dispatcher::expect(cx, timer.cast(), "KeCancelTimer", TIMERS)?;
    Ok(cx.with(|k| k.ke.timers.cancel_timer(timer.address)))
}

/// `KeReadStateTimer`: whether it is signaled.
///
/// # Errors
/// A verdict if it is no timer.
pub fn read_state(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>) -> Flow<bool> {
    dispatcher::expect(cx, timer.cast(), "KeReadStateTimer", TIMERS)?;
    Ok(cx.read((timer + KTIMER::Header) + DISPATCHER_HEADER::SignalState)? != 0)
}

/// A timer of `base..base+length` that is set.
pub(crate) fn set_in(k: &Kernel, base: u64, length: u64) -> Option<u64> {
    k.ke.timers.timers.range(base..base.saturating_add(length)).next().map(|(&timer, _)| timer)
}

/// All timers that are set, by address: for `Io` before a driver's code goes.
#[must_use]
pub fn all_set(k: &Kernel) -> Vec<u64> {
    k.ke.timers.timers.keys().copied().collect()
}

/// Whether the clock has found something due on processor `index`.
pub(crate) fn is_due(k: &Kernel, index: usize) -> bool {
    let now = k.engine.now();
    k.ke.timers.next_tick <= now && k.ke.timers.next(time::ticked_at(now), index).is_some()
}

/// Lets everything expire that is due on the current processor; at DISPATCH_LEVEL.
pub(crate) fn expire(cx: &mut Cx<'_>) -> Flow<()> {
    loop {
        let due = cx.with(|k| {
            let now = k.engine.now();
            if k.ke.timers.next_tick > now {
                return None;
            }
            let key = k.ke.timers.next(time::ticked_at(now), k.ke.current)?;
            Some((key.0, k.ke.timers.take(key)?))
        });
        match due {
            None => return Ok(()),
            Some((due, Due::Timer { at, set })) => expire_timer(cx, DriverPtr::new(at), due, set)?,
            Some((_, Due::Timeout(strand))) => {
                let ended = cx.with(|k| dispatcher::end_wait(k, strand, NtStatus::TIMEOUT, 0));
                ended.map_err(|broken| dispatcher::stop(cx, DriverPtr::NULL, broken))?;
            }
        }
    }
}

/// Wakes the threads of the outside world whose time has come.
pub(crate) fn ring(cx: &mut Cx<'_>) {
    let now = cx.engine().now();
    cx.with(|k| {
        while let Some(strand) = k.ke.timers.take_alarm(now) {
            // It waits for nothing else, so no list of a driver's can be damaged.
            let _ = dispatcher::end_wait(k, strand, NtStatus::SUCCESS, 0);
        }
    });
}

/// The timer is signaled, its DPC queued, and it is set again if it is periodic. A driver set it at the moment `set`.
fn expire_timer(cx: &mut Cx<'_>, timer: DriverPtr<KTIMER>, due: u64, set: u64) -> Flow<()> {
    let period = cx.read(timer + KTIMER::Period)?;
    let dpc = cx.read(timer + KTIMER::Dpc)?;
    if period != 0 {
        // A period that was missed altogether is not made up for.
        let step = u64::from(period) * time::MILLISECOND;
        let next = due.max(time::interrupt_time(cx.engine()).saturating_sub(step)) + step;
        cx.write(timer + KTIMER::DueTime, next)?;
        cx.with(|k| {
            let processor = k.ke.current;
            k.ke.timers.add_timer(next, timer.address, processor, set);
            k.ke.unsettled();
        });
    }
    dispatcher::signal(cx, timer.cast(), 1, 0)?;
    if !dpc.is_null() {
        dpc::enqueue(cx, dpc, DriverPtr::NULL, DriverPtr::NULL, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_found_due_at_the_first_tick_at_or_after_its_time() {
        let mut queue = TimerQueue::default();
        assert_eq!(queue.deadline(), None);
        queue.add_timer(156_250, 0x1000, 0, 0);
        assert_eq!(queue.deadline(), Some(TICK), "due exactly at a tick");
        assert!(queue.cancel_timer(0x1000) && !queue.cancel_timer(0x1000));
        queue.add_timer(156_251, 0x1000, 0, 0);
        assert_eq!(queue.deadline(), Some(2 * TICK));
    }

    #[test]
    fn equal_due_times_expire_in_the_order_of_setting_each_on_its_processor() {
        let mut queue = TimerQueue::default();
        queue.add_timer(10, 0x2000, 0, 0);
        queue.add_timeout(10, StrandId(7), 1);
        queue.add_timer(10, 0x1000, 0, 0);
        assert_eq!(queue.next(9, 0), None);
        let first = queue.next(10, 0).unwrap();
        assert_eq!(queue.take(first), Some(Due::Timer { at: 0x2000, set: 0 }));
        let second = queue.next(10, 0).unwrap();
        assert_eq!(queue.take(second), Some(Due::Timer { at: 0x1000, set: 0 }));
        assert_eq!(queue.next(10, 0), None);
        let other = queue.next(10, 1).unwrap();
        assert_eq!(queue.take(other), Some(Due::Timeout(StrandId(7))));
    }
}
