//! The system clock: when it ticks, which time it reported last, and how far it has been set. Follows
//! *ExSetTimerResolution function*, *ExQueryTimerResolution function*, *KeQueryTimeIncrement function*, *High-Resolution
//! Timers*, *Timer Accuracy*.
//!
//! Ticks come at multiples of the resolution since boot. The tick *count* and `KeQueryTimeIncrement` stay those of the coarsest
//! one, so that their product is the time, whatever the resolution. Processor 0 takes the clock's interrupt for all: while it
//! is at CLOCK_LEVEL or above, or has interrupts disabled, the reported time stands still from the first look on, and has caught
//! up when the interrupt comes.

use abi::{DriverPtr, KTIMER};
use engine::Flow;

use super::time::{INCREMENT, UNIT};
use crate::cx::{Cx, Kernel};
use crate::ke::history;
use crate::ke::levels::irql::CLOCK_LEVEL;

/// Units between two ticks at the finest: 1 ms.
pub(super) const FINEST: u64 = 10_000;

/// When the clock ticks and what it says. All times are in units of 100 ns.
pub(crate) struct Clock {
    /// Between two ticks.
    interval: u64,
    /// A tick that was no multiple of `interval`: no time before it is reported any more.
    base: u64,
    /// Processor 0 does not take the interrupt: the last tick it took.
    held: Option<u64>,
    /// How far the system time was set forward.
    offset: i64,
    /// How many want a finer resolution.
    requests: u32,
}

impl Default for Clock {
    fn default() -> Self {
        Self { interval: INCREMENT, base: 0, held: None, offset: 0, requests: 0 }
    }
}

impl Clock {
    /// The last tick at or before `now`, in nanoseconds, as far as it was taken.
    pub(super) fn ticked_at(&self, now: u64) -> u64 {
        self.held.unwrap_or_else(|| self.came_at(now))
    }

    /// The same for what is driven by the finest resolution.
    pub(super) fn finely_ticked_at(&self, now: u64) -> u64 {
        self.held.unwrap_or_else(|| self.finely_came_at(now))
    }

    /// The last tick that came, taken or not.
    pub(super) fn came_at(&self, now: u64) -> u64 {
        (now / UNIT / self.interval * self.interval).max(self.base)
    }

    /// The same at the finest resolution.
    pub(super) fn finely_came_at(&self, now: u64) -> u64 {
        (now / UNIT / FINEST * FINEST).max(self.base)
    }

    /// At which tick what is due at this interrupt time is found, in nanoseconds; `u64::MAX` if that never comes.
    pub(crate) fn found(&self, due: u64, finely: bool) -> u64 {
        if due >= super::time::NEVER {
            return u64::MAX;
        }
        let interval = if finely { FINEST } else { self.interval };
        let tick = if due <= self.base { due } else { due.div_ceil(interval).saturating_mul(interval) };
        tick.saturating_mul(UNIT)
    }

    /// The first tick after `now`, in nanoseconds.
    pub(crate) fn next_tick(&self, now: u64) -> u64 {
        (now / UNIT / self.interval + 1) * self.interval * UNIT
    }

    /// The clock has ticked between two of its usual ticks.
    pub(super) fn ticks_at(&mut self, time: u64) {
        self.base = self.base.max(time);
    }

    /// Whether processor 0 keeps its interrupt waiting.
    #[inline]
    pub(in crate::ke) const fn stands_still(&self) -> bool {
        self.held.is_some()
    }

    /// How far the system time was set forward.
    pub(crate) const fn offset(&self) -> i64 {
        self.offset
    }
}

/// Whether processor 0 takes the clock's interrupt.
fn is_taken(k: &Kernel) -> bool {
    k.level_of(0) < CLOCK_LEVEL && k.ke.processors[0].interrupts_enabled
}

/// Called before the time is read, or when a level has fallen: it stands still, or goes on.
pub(crate) fn look(k: &mut Kernel) {
    let (taken, now) = (is_taken(k), k.engine.now());
    if taken == k.ke.timing.timers.clock.held.is_some() {
        history::reads_clock(k);
    }
    let clock = &mut k.ke.timing.timers.clock;
    match (taken, clock.held) {
        (false, None) => {
            clock.held = Some(clock.came_at(now));
            k.ke.invalidate_levels();
        }
        (true, Some(_)) => {
            clock.held = None;
            k.ke.rearm();
        }
        _ => {}
    }
}

/// Whether it stands still.
pub(crate) fn is_held(k: &Kernel) -> bool {
    k.ke.timing.timers.clock.stands_still()
}

/// `ExSetTimerResolution`: units between two ticks from now on.
///
/// # Errors
/// None of its own.
pub(crate) fn set_resolution(cx: &mut Cx<'_>, desired: u32, set: bool) -> Flow<u32> {
    cx.with(|k| history::reads_clock(k));
    let now = cx.engine().now();
    let interval = cx.with(|k| {
        k.ke.timing.timers.change_clock(|clock| {
            clock.ticks_at(clock.came_at(now));
            if set {
                clock.requests = clock.requests.saturating_add(1);
                clock.interval = clock.interval.min(u64::from(desired).max(FINEST));
            } else {
                clock.requests = clock.requests.saturating_sub(1);
                if clock.requests == 0 {
                    clock.interval = INCREMENT;
                }
            }
        });
        k.ke.rearm();
        k.ke.timing.timers.clock.interval
    });
    Ok(u32::try_from(interval).expect("it is at most the increment"))
}

/// `ExQueryTimerResolution`: the coarsest, the finest, that of now.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn query_resolution(
    cx: &mut Cx<'_>,
    maximum: abi::DriverPtr<u32>,
    minimum: abi::DriverPtr<u32>,
    current: abi::DriverPtr<u32>,
) -> Flow<()> {
    let interval = cx.with(|k| k.ke.timing.timers.clock.interval);
    for (into, value) in [(maximum, INCREMENT), (minimum, FINEST), (current, interval)] {
        cx.write(into, u32::try_from(value).expect("it is at most the increment"))?;
    }
    Ok(())
}

/// Sets the system time so many units forward, or back: absolute due times go with it, relative ones do not.
///
/// # Errors
/// A verdict if a timer's memory is gone.
pub fn set_system_time_by(cx: &mut Cx<'_>, units: i64) -> Flow<()> {
    let moved = cx.with(|k| {
        let moved = k.ke.timing.timers.follow_system_time(units);
        k.ke.timing.timers.change_clock(|clock| clock.offset = clock.offset.saturating_add(units));
        k.ke.rearm();
        moved
    });
    write_due_times(cx, &moved)
}

/// The system time was set, and with it these timers' due times.
fn write_due_times(cx: &mut Cx<'_>, moved: &[(u64, u64)]) -> Flow<()> {
    for &(timer, due) in moved {
        cx.write(DriverPtr::<KTIMER>::new(timer) + KTIMER::DueTime, due)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_told_twice_whatever_the_resolution_becomes() {
        let mut clock = Clock { interval: FINEST, ..Clock::default() };
        assert_eq!((clock.ticked_at(17_500_000), clock.next_tick(17_500_000)), (170_000, 18_000_000));
        clock.ticks_at(170_000);
        clock.interval = INCREMENT;
        assert_eq!(clock.ticked_at(18_000_000), 170_000, "not 156,250, which is over");
        assert_eq!(clock.ticked_at(31_250_000), 312_500);
        assert_eq!(clock.found(170_001, false), 31_250_000);
        assert_eq!(clock.found(170_000, false), 17_000_000, "due by a tick that came");
    }

    #[test]
    fn what_wants_the_finest_resolution_is_found_within_a_millisecond() {
        let clock = Clock::default();
        assert_eq!((clock.found(12_345, true), clock.found(12_345, false)), (2_000_000, 15_625_000));
    }
}
