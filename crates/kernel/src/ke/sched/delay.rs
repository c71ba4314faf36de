//! A thread that is held up before what others can see: what is due next, of the hardware or of drivers' timers, comes there. Follows
//! *Managing Hardware Priorities*, *Introduction to Interrupt Service Routines* (an interrupt comes between any two instructions of code below
//! its level), *Timer Accuracy*.
//!
//! A machine's clock goes with the driver instructions that run, so a device that takes ten microseconds interrupts a thread ten thousand
//! instructions later, or when all wait. A real one is faster or slower, and a real processor does other things between two instructions (an
//! interrupt of the system's, a hypervisor). So a policy is asked whether time passes here, up to what is due next.
//!
//! *Ours*, since no page says how long a processor may be held up: one second below DISPATCH_LEVEL, and above, where no timer matters, as long as
//! a driver may stall it; no longer either while another processor is in the middle of code that runs there, which stands still meanwhile, or is about to take an interrupt.
//! Time passes up to the end of a wait only where a thread of the driver's polls ([`super::super::waits::wait`]), and never beyond one, or beyond what the outside world waits for: these are limits that the driver, or the user, has set. At one instruction a thread is asked twice for one thing that is due: more would be the rounds of a loop that polls.

use engine::{DELAY, Delay, DelayPlace, Flow, StrandId, mixed};

use super::history::{self, Operation};
use super::{slice, taker};
use crate::cx::{Cx, Kernel};
use crate::ke::irq::{interrupt, interrupt_delivery};
use crate::ke::levels::irql::DISPATCH_LEVEL;

/// Below DISPATCH_LEVEL a thread is held up so long at most, in nanoseconds.
const LONGEST: u64 = 1_000_000_000;
/// The same at DISPATCH_LEVEL and above.
const LONGEST_RAISED: u64 = 50_000;
/// How often a policy is asked at one instruction for one thing that is due.
const TIMES: u8 = 2;

/// Where threads were asked while the same was due next.
#[derive(Default)]
pub(super) struct Asked {
    due: u64,
    at: Vec<(DelayPlace, u8)>,
}

impl Asked {
    /// All of it as one number.
    pub(super) fn number(&self) -> u64 {
        let of = |hash, (place, times): &(DelayPlace, u8)| {
            mixed(mixed(hash, history::place(*place)), (*times).into())
        };
        self.at.iter().fold(self.due, of)
    }

    /// Whether one is to be asked here; then it counts as asked.
    fn next(&mut self, due: u64, place: DelayPlace) -> bool {
        if self.due != due {
            self.due = due;
            self.at.clear();
        }
        match self.at.iter_mut().find(|(at, _)| *at == place) {
            Some((_, times)) => {
                *times = (*times + 1).min(TIMES + 1);
                *times <= TIMES
            }
            None => {
                self.at.push((place, 1));
                true
            }
        }
    }
}

/// Until when the current processor could be held up: something is due then, and nothing before that.
#[inline]
pub(crate) fn until(k: &Kernel) -> Option<u64> {
    let timers = k.ke.timing.timers();
    let device = k.hal.deadline();
    if device.is_none() && !timers.may_hold_up() {
        return None;
    }
    let raised = k.level() >= DISPATCH_LEVEL;
    let timer = if raised { None } else { timers.first_to_be_held_up_until() };
    let due = device.into_iter().chain(timer).min()?;
    let first = timers.deadline().is_none_or(|first| due <= first);
    let length = due.checked_sub(k.engine.now()).filter(|length| *length > 0)?;
    // An interrupt that a processor may take, it takes.
    let is_busy = |index: usize| {
        k.level_of(index) >= DISPATCH_LEVEL || interrupt_delivery::deliverable(k, index).is_some()
    };
    let longest = if (0..k.ke.processors.len()).any(is_busy) { LONGEST_RAISED } else { LONGEST };
    (first && length <= longest).then_some(due)
}

/// Driver code is about to do what others can see, or to touch what they touch: the policy may have time pass first.
///
/// # Errors
/// [`engine::Leave`] of what comes meanwhile.
pub(super) fn before(cx: &mut Cx<'_>, place: DelayPlace) -> Flow<()> {
    match asked(cx, place) {
        Some(due) => {
            history::stands(cx, history::Stand::HeldUp);
            pass(cx, due)
        }
        None => Ok(()),
    }
}

/// Until when the policy holds the thread up that runs, if it does.
pub(super) fn asked(cx: &mut Cx<'_>, place: DelayPlace) -> Option<u64> {
    let due = cx.with(|k| until(k))?;
    let counted = match place {
        DelayPlace::SliceEnd => DelayPlace::Visible(cx.engine().caller_rip()),
        place => place,
    };
    if cx.engine().strand() == StrandId(0) || !cx.with(|k| k.ke.sched.delays.next(due, counted)) {
        return None;
    }
    let at = Delay { retired: cx.with(|k| slice::retired_by_own(k)), place };
    cx.nt().delays(at).then_some(due)
}

/// Time passes up to this moment, and what is due then comes.
fn pass(cx: &mut Cx<'_>, due: u64) -> Flow<()> {
    pass_time(cx, due)?;
    interrupt::deliver(cx)
}

/// Time passes up to this moment, and another processor takes what has come, if the policy wants it. What is let in begins with a slice that knows
/// the time: when the turn ends must not depend on where the last slice was to end.
///
/// # Errors
/// As [`before`].
pub(super) fn pass_time(cx: &mut Cx<'_>, due: u64) -> Flow<()> {
    let length = due - cx.engine().now();
    cx.with(|k| {
        k.ke.sched.held_up += length;
        // It is the policy that takes it, and no busy wait of the thread's.
        let strand = k.ke.processor().thread;
        if let Some(thread) = k.ke.sched.threads.get_mut(strand) {
            thread.mark.1 += length;
        }
    });
    slice::charge(cx, length);
    slice::arm(cx);
    taker::after_delay(cx)
}

/// Nanoseconds since boot in which no thread was held up.
pub(super) fn time_of_its_own(k: &Kernel) -> u64 {
    k.engine.now() - k.ke.sched.held_up
}

/// An application is about to ask for something: as [`before`].
///
/// # Errors
/// As [`before`].
pub(super) fn before_command(cx: &mut Cx<'_>) -> Flow<()> {
    let due = if cx.engine().may_depart() { cx.with(|k| until(k)) } else { None };
    match due {
        Some(due) if cx.choose(DELAY.0, 2) == 1 => pass(cx, due)?,
        _ => {}
    }
    history::operates(cx, Operation::Request, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_asked_twice_for_what_is_due_and_again_for_the_next() {
        let mut asked = Asked::default();
        let times =
            |asked: &mut Asked, due| (0..1000).filter(|_| asked.next(due, DelayPlace::Visible(0x10))).count();
        assert_eq!((times(&mut asked, 5), times(&mut asked, 5)), (2, 0));
        assert!(asked.next(5, DelayPlace::Visible(0x20)), "another instruction");
        assert_eq!(times(&mut asked, 6), 2);
    }
}
