//! What time it is. Follows *KeQuerySystemTimePrecise function*, *KeQueryPerformanceCounter function*, *KeQueryTickCount
//! macro*, *KeStallExecutionProcessor function*.
//!
//! The machine's clock counts nanoseconds since boot; one driver instruction takes one. The clock interrupt comes every
//! 15.625 ms, unless a finer resolution is set (`clock`); time that is not said to be precise is the last tick's.
//! To drivers the computer may have been running longer ([`Platform::uptime`]): interrupt time, ticks and the performance counter that they read are later by that. What
//! time of day it is stays.
//!
//! [`Platform::uptime`]: crate::hal::platform::Platform::uptime

use abi::DriverPtr;
use engine::{Engine, Flow};

use super::clock;
use super::shared_data::polled;
use crate::cx::{Cx, Kernel};
use crate::ke::history;

/// Nanoseconds of the unit of Windows' times.
pub const UNIT: u64 = 100;
/// Units of a millisecond.
pub(crate) const MILLISECOND: u64 = 10_000;
/// Units between two clock interrupts: `KeQueryTimeIncrement`.
pub(crate) const INCREMENT: u64 = 156_250;
/// Nanoseconds between two clock interrupts.
pub const TICK: u64 = INCREMENT * UNIT;
/// System time at boot: 2026-01-01 00:00 UTC, in units since 1601.
pub(crate) const BOOT: u64 = 134_116_992_000_000_000;
/// The performance counter's counts a second.
pub(super) const FREQUENCY: u64 = 10_000_000;

/// How a driver polls time that stands still between ticks.
#[derive(Default)]
pub(crate) struct Polling {
    /// When it was read last.
    pub(crate) last: u64,
    /// How often in a row, with nothing much between.
    pub(crate) reads: u32,
    /// How often a driver has looked how long the computer has been running.
    pub(crate) of_uptime: u64,
}

/// Units since boot.
pub(crate) fn interrupt_time(engine: Engine) -> u64 {
    engine.now() / UNIT
}

/// Units from boot to the last clock tick that was taken.
pub(crate) fn ticked(k: &Kernel) -> u64 {
    history::reads_clock(k);
    k.ke.timing.timers.clock.ticked_at(k.engine.now())
}

/// What `KeQueryInterruptTime` says: as [`ticked`], since the computer has been running.
pub(crate) fn shown(k: &Kernel) -> u64 {
    ticked(k) + k.hal.platform.uptime / UNIT
}

/// What `KeQueryTickCount` says: ticks of the coarsest resolution.
pub(crate) fn ticks(k: &Kernel) -> u64 {
    shown(k) / INCREMENT
}

/// Nanoseconds that the computer has been running, as a driver looks at it.
fn running(cx: &mut Cx<'_>) -> u64 {
    cx.with(|k| {
        k.ke.timing.polling.of_uptime += 1;
        k.engine.now() + k.hal.platform.uptime
    })
}

/// System time when interrupt time was 0, as far as it is known now.
pub(crate) fn boot(k: &Kernel) -> u64 {
    history::reads_clock(k);
    BOOT.saturating_add_signed(k.ke.timing.timers.clock.offset())
}

/// Interrupt time that never comes: some 292 years after boot, so that nanoseconds always fit into 64 bits.
pub(crate) const NEVER: u64 = u64::MAX / UNIT / 2;

/// When something is due, in units of interrupt time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// The time.
    pub time: u64,
    /// It was given as system time, and follows that when it is set.
    pub absolute: bool,
}

impl Due {
    /// Whether the time comes at all.
    pub(crate) const fn comes(self) -> bool {
        self.time < NEVER
    }
}

/// The interrupt time a driver means by a due time: negative is relative, else it is system time.
pub(crate) fn due(k: &Kernel, value: i64) -> Due {
    history::reads_clock(k);
    k.engine.note_due_time(value);
    match u64::try_from(value) {
        Ok(system) => Due { time: system.saturating_sub(boot(k)).min(NEVER), absolute: true },
        // Rounded up, so that nothing is due early.
        Err(_) => {
            let now = k.engine.now().div_ceil(UNIT);
            Due { time: now.saturating_add(value.unsigned_abs()).min(NEVER), absolute: false }
        }
    }
}

/// `KeQuerySystemTimePrecise`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn query_system_precise(cx: &mut Cx<'_>, into: DriverPtr<i64>) -> Flow<()> {
    let time = cx.with(|k| boot(k)) + interrupt_time(cx.engine());
    cx.write(into, time.cast_signed())
}

/// `KeQueryInterruptTimePrecise`: also the performance counter at that time.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn query_interrupt_precise(cx: &mut Cx<'_>, counter: DriverPtr<u64>) -> Flow<u64> {
    cx.with(|k| history::reads_clock(k));
    let now = running(cx);
    if !counter.is_null() {
        cx.write(counter, performance_counter(now))?;
    }
    Ok(now / UNIT)
}

/// `KeQueryUnbiasedInterruptTime`: the machine never sleeps.
///
/// # Errors
/// None of its own.
pub(crate) fn query_unbiased_interrupt(cx: &mut Cx<'_>) -> Flow<u64> {
    Ok(cx.with(|k| {
        clock::look(k);
        k.ke.timing.polling.of_uptime += 1;
        shown(k)
    }))
}

/// `KeQueryTimeIncrement`.
///
/// # Errors
/// None of its own.
pub(crate) fn query_increment(_cx: &mut Cx<'_>) -> Flow<u32> {
    Ok(u32::try_from(INCREMENT).expect("it is small"))
}

const fn performance_counter(now: u64) -> u64 {
    now / (1_000_000_000 / FREQUENCY)
}

/// `KeQueryPerformanceCounter`: the counter, and its frequency if asked.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn query_performance(cx: &mut Cx<'_>, frequency: DriverPtr<i64>) -> Flow<u64> {
    if !frequency.is_null() {
        cx.write(frequency, FREQUENCY.cast_signed())?;
    }
    polled(cx)?;
    Ok(performance_counter(running(cx)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_is_new_year_2026() {
        // Days from 1601 to 2026: 425 years of 365 days, and the leap days.
        let leap_days = 425 / 4 - 425 / 100 + 425 / 400;
        let days: u64 = 425 * 365 + leap_days;
        assert_eq!(BOOT, days * 86_400 * 10_000_000);
    }
}
