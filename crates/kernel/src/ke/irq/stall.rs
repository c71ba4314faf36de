//! Time that passes on a processor while nothing is done there, up to a given time. Follows *KeStallExecutionProcessor function*.
//! *Not measured*: what a routine does otherwise. How fast a processor is, no driver decides.

use engine::Flow;

use super::{interrupt, watchdog};
use crate::cx::Cx;
use crate::ke::levels::irql::{self, CLOCK_LEVEL, DISPATCH_LEVEL};
use crate::ke::sched::slice::charge;
use crate::verdict::Verdict;

/// A busy wait that is longer than this should not be one, in microseconds.
const LONGEST_STALL: u32 = 50;

/// So long a service routine may take in all, in microseconds: *Example 15: Measuring DPC/ISR Time*.
const LONGEST_SERVICE: u32 = 25;

/// `KeStallExecutionProcessor`: time passes, and what interrupts is let in when it comes.
///
/// # Errors
/// [`engine::Leave`] of what is let in.
pub(crate) fn stall(cx: &mut Cx<'_>, microseconds: u32) -> Flow<()> {
    if microseconds > LONGEST_STALL {
        let message = format!(
            "KeStallExecutionProcessor was called for {microseconds} microseconds; more than {LONGEST_STALL} should be a wait or a timer"
        );
        cx.report(Verdict::advice("long-stall", message));
    }
    let irql = irql::current(cx);
    if microseconds > LONGEST_SERVICE && (DISPATCH_LEVEL + 1..CLOCK_LEVEL).contains(&irql) {
        let message = format!(
            "KeStallExecutionProcessor was called for {microseconds} microseconds at IRQL {irql}: a routine that holds interrupts back should be over after {LONGEST_SERVICE}"
        );
        cx.report(Verdict::warning("stall-at-device-level", message));
    }
    let until = cx.engine().now() + u64::from(microseconds) * 1000;
    pass(cx, until)?;
    match cx.with(|k| watchdog::look(k)) {
        Some(verdict) => Err(cx.stop(verdict)),
        None => Ok(()),
    }
}

/// Lets time pass on the current processor up to `until`, stopping wherever something happens.
pub(crate) fn pass(cx: &mut Cx<'_>, until: u64) -> Flow<()> {
    loop {
        let now = cx.engine().now();
        if now >= until {
            return interrupt::deliver(cx);
        }
        let next =
            cx.with(|k| [k.ke.timing.timers().deadline(), k.hal.deadline()].into_iter().flatten().min());
        let step = next.filter(|next| *next > now).map_or(until, |next| next.min(until));
        charge(cx, step - now);
        interrupt::deliver(cx)?;
    }
}
