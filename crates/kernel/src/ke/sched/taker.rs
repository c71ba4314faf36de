//! Which processor takes what has come: the interrupt of a line or a message, or the tick that finds timers. Follows *Introduction to
//! Interrupt Service Routines*, *IoConnectInterruptEx function* (the processors of `ProcessorEnableMask`), *Timer Objects and DPCs*.
//!
//! As usual that is the processor that runs when it comes, and for a timer the one that set it. On a real machine it may be any of the
//! interrupt's affinity whose level lets it in, and then the routine and its DPC run beside the code that would have been interrupted. So a
//! policy is asked: behind a delay ([`super::delay`]), which has cost the departure, who goes on; else when something is about to interrupt a
//! thread, as a departure of its own. A processor that is chosen has its turn at once.
//!
//! *Ours*: of processors that are idle only the first is offered, since they differ in nothing but their numbers, and where one is idle no
//! other: what it would interrupt can stand still as well. What comes to an idle processor is taken there. *Not done*: a wait's time-out ends on
//! the processor where the wait began, since what follows, that its thread is ready, is the same on each.

use engine::{Flow, TAKER};

use super::processor::Processor;
use super::ready::Candidates;
use super::scheduler;
use crate::cx::{Cx, Kernel};
use crate::few::Few;
use crate::ke::irq::interrupt_delivery;
use crate::ke::levels::irql::DISPATCH_LEVEL;
use crate::ke::levels::settle::{self, Work};

/// Numbers of processors.
type Takers = Few<usize, 4>;

/// What there is to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct What {
    interrupts: bool,
    timers: bool,
}

impl What {
    /// Whether this processor could take any of it now.
    fn is_open_to(self, k: &Kernel, processor: &Processor) -> bool {
        let level = k.level_of(processor.number as usize);
        processor.interrupts_enabled
            && (self.timers && level < DISPATCH_LEVEL
                || self.interrupts && k.ke.irq.highest(processor.mask(), level).is_some())
    }
}

/// The other processors that could take it.
fn others(k: &Kernel, what: What) -> Takers {
    let able =
        k.ke.processors
            .iter()
            .filter(|processor| processor.number as usize != k.ke.current && what.is_open_to(k, processor));
    let number = |processor: &Processor| processor.number as usize;
    match able.clone().find(|processor| is_at_rest(processor)) {
        Some(processor) => Takers::one(number(processor)),
        None => able.map(number).collect(),
    }
}

/// Whether neither a thread nor what has interrupted one runs on it.
fn is_at_rest(processor: &Processor) -> bool {
    processor.is_idle() && processor.floors.is_empty()
}

/// Time has passed up to what was due: the policy chooses among those that could take it. That costs no further departure.
///
/// # Errors
/// [`engine::Leave`] of what comes while another processor has its turn.
pub(super) fn after_delay(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.with(|k| k.ke.processors.len() == 1) {
        return Ok(());
    }
    interrupt_delivery::observe(cx);
    let (what, takers) = cx.with(|k| {
        let timers = k.ke.timing.timers().is_any_timer_due(k.engine.now());
        let what = What { interrupts: k.ke.irq.is_any_wanted(), timers };
        (what, others(k, what))
    });
    if takers.is_empty() {
        return Ok(());
    }
    let strands: Candidates = cx.with(|k| {
        let all = std::iter::once(k.ke.current).chain(takers.iter().copied());
        all.map(|index| k.ke.processors[index].thread).collect()
    });
    match cx.nt().next_strand(TAKER, &strands) {
        0 => {
            cx.with(|k| {
                let takes = settle::next_work(k, k.ke.current).is_some_and(Work::comes_by_itself);
                k.ke.sched.taker = takes.then_some(k.ke.current);
            });
            Ok(())
        }
        answer => hand_over(cx, what, takers[answer - 1]),
    }
}

/// The current processor is about to take this: whether the policy has another one take it. It has done so then.
///
/// # Errors
/// As [`after_delay`].
#[inline]
pub(in crate::ke) fn is_taken(cx: &mut Cx<'_>, work: Work) -> Flow<bool> {
    if cx.with(|k| k.ke.processors.len() > 1 && k.engine.may_depart()) && work.comes_by_itself() {
        ask(cx, work)
    } else {
        Ok(false)
    }
}

#[inline(never)]
fn ask(cx: &mut Cx<'_>, work: Work) -> Flow<bool> {
    let (what, takers) = cx.with(|k| {
        let is_chosen = k.ke.sched.taker.take_if(|taker| *taker == k.ke.current).is_some();
        let (timers, now) = (k.ke.timing.timers(), k.engine.now());
        let finds_one = timers.is_due(now, k.ke.current) && timers.is_any_timer_due(now);
        let what = What { interrupts: work != Work::Dispatch, timers: work == Work::Dispatch && finds_one };
        let asks = !is_chosen && !is_at_rest(k.ke.processor());
        (what, if asks { others(k, what) } else { Takers::default() })
    });
    if takers.is_empty() {
        return Ok(false);
    }
    let answers = u32::try_from(takers.len() + 1).expect("there are at most 64 processors");
    match cx.choose(TAKER.0, answers) {
        0 => Ok(false),
        answer => hand_over(cx, what, takers[answer as usize - 1]).map(|()| true),
    }
}

/// Processor `index` takes it, and has the turn; returns when this one has it again.
fn hand_over(cx: &mut Cx<'_>, what: What, index: usize) -> Flow<()> {
    cx.with(|k| {
        if what.timers && k.level_of(index) < DISPATCH_LEVEL {
            let now = k.engine.now();
            k.ke.timing.timers_mut().expire_on(now, index);
        }
        k.ke.sched.taker = Some(index);
        k.ke.invalidate_levels();
    });
    scheduler::end_turn(cx)
}

/// The processor that was chosen, while that is there which it is to take.
pub(super) fn chosen(k: &Kernel) -> Option<usize> {
    let index = k.ke.sched.taker?;
    settle::next_work(k, index).is_some_and(Work::comes_by_itself).then_some(index)
}
