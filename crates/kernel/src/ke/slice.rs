//! How long driver code runs before somebody looks: the next deadline, the quantum, the turn, the policy's own question,
//! and the budget after which a call counts as an endless loop. Follows *Multitasking* (quantum),
//! *Bug Check 0x133 DPC_WATCHDOG_VIOLATION*.

use engine::{Flow, StrandId};

use super::processor::DISPATCH_LEVEL;
use super::time::TICK;
use super::{State, irql, line, scheduler, timer};
use crate::cx::{Cx, Kernel};
use crate::verdict::Verdict;

/// How long a thread runs while equals are ready: two clock ticks, in nanoseconds.
pub(crate) const QUANTUM: u64 = 2 * TICK;
/// How many clock ticks one DPC or interrupt routine may take: 20 seconds.
const DPC_TICKS: u64 = 0x500;
/// How long a processor runs while another has something to do, in nanoseconds.
const TURN: u64 = 100_000;

impl State {
    /// Driver instructions since boot.
    pub(crate) fn retired(&self, now: u64) -> u64 {
        now - self.charged
    }

    /// Puts what ran since the last call on the account of `strand`.
    pub(crate) fn account_for(&mut self, strand: StrandId, now: u64) -> u64 {
        let retired = self.retired(now);
        let Some(thread) = self.threads.get_mut(&strand) else { return 0 };
        thread.spent += retired - thread.mark;
        thread.mark = retired;
        thread.spent
    }

    /// The same for the thread that runs now.
    pub(crate) fn account(&mut self, now: u64) -> u64 {
        self.account_for(self.processor().thread, now)
    }
}

/// Sets the engine's slice: up to whatever comes first.
pub(crate) fn arm(cx: &mut Cx<'_>) {
    let now = cx.engine().now();
    if now >= cx.with(|k| k.ke.next_question) {
        let distance = cx.nt().next_slice();
        cx.with(|k| k.ke.next_question = now.saturating_add(distance));
    }
    let until = cx.with(|k| {
        let until = end(k, now);
        (k.ke.armed_until, k.ke.rearm) = (until, false);
        until
    });
    cx.engine().set_slice(until.saturating_sub(now).max(1));
}

/// After a kernel service: sets the slice anew if a deadline has come nearer, time has passed, or a thread is ready.
pub(crate) fn tighten(cx: &mut Cx<'_>) {
    let stale = cx.with(|k| {
        let deadlines = [k.ke.timers.deadline(), k.hal.hardware.deadline()];
        k.ke.rearm || deadlines.into_iter().flatten().any(|deadline| deadline < k.ke.armed_until)
    });
    if stale {
        arm(cx);
    }
}

/// When the slice that begins now ends at the latest.
fn end(k: &mut Kernel, now: u64) -> u64 {
    let left = k.ke.budget.saturating_sub(k.ke.account(now));
    let deadlines = [k.ke.timers.deadline(), k.hal.hardware.deadline()];
    let mut until = now.saturating_add(left).min(k.ke.next_question);
    for deadline in deadlines.into_iter().flatten() {
        // One that has passed waits for the level, not for time.
        if deadline > now {
            until = until.min(deadline);
        }
    }
    if scheduler::others_wait(k) {
        until = until.min(k.ke.processor().turn_began + TURN);
    }
    match k.ke.thread() {
        Some(thread) if !k.ke.processor().is_idle() => until.min(thread.quantum_end.max(now + 1)),
        _ => until,
    }
}

/// The slice has ended: time passes, interrupts arrive, another thread may run.
pub(crate) fn slice(cx: &mut Cx<'_>) -> Flow<()> {
    let now = cx.engine().now();
    if let Some(verdict) = cx.with(|k| endless(k, now)) {
        return Err(cx.stop(verdict));
    }
    let asked = now >= cx.with(|k| k.ke.next_question);
    cx.with(|k| end_of_quantum(k, now, asked));
    line::observe(cx);
    timer::ring(cx);
    irql::settle(cx)?;
    let over = cx.with(|k| scheduler::others_wait(k) && now >= k.ke.processor().turn_began + TURN);
    if over || (asked && cx.with(|k| scheduler::others_wait(k))) {
        scheduler::end_turn(cx)?;
        irql::settle(cx)?;
    }
    arm(cx);
    Ok(())
}

/// If the thread's quantum is over, or the policy wants it to be, it goes behind its equals as soon as it may.
fn end_of_quantum(k: &mut Kernel, now: u64, asked: bool) {
    let mask = k.ke.processor().mask();
    let idle = k.ke.processor().is_idle();
    let highest = k.ke.ready.highest(mask);
    let Some(thread) = k.ke.thread_mut() else { return };
    if idle || !(asked || now >= thread.quantum_end) {
        return;
    }
    thread.quantum_end = now + QUANTUM;
    thread.boost = 0;
    if highest >= Some(thread.priority()) {
        k.ke.processor_mut().yield_requested = true;
    }
}

/// The verdict on an interrupt routine or DPC that has waited busily for longer than Windows' watchdog lets it.
pub(crate) fn watchdog(k: &Kernel) -> Option<Verdict> {
    let processor = k.ke.processor();
    let ticks = k.engine.now().saturating_sub(processor.raised_since) / TICK;
    if processor.floors.is_empty() || ticks <= DPC_TICKS {
        return None;
    }
    let call = k.ke.thread()?.callouts.last()?;
    let (role, routine) = (call.role, call.routine.address);
    let message =
        format!("the {role} routine {routine:#x} has run for {ticks} clock ticks, most of it in busy waits");
    Some(Verdict::error("dpc-watchdog", message).bug_check(0x133, [0, ticks, DPC_TICKS, 0]))
}

/// The verdict on a call that has run for as long as nobody would wait.
fn endless(k: &mut Kernel, now: u64) -> Option<Verdict> {
    let spent = k.ke.account(now);
    if spent < k.ke.budget {
        return None;
    }
    let (irql, in_dpc) = (k.ke.processor().irql, k.ke.processor().running_dpc.is_some());
    let thread = k.ke.thread()?;
    let (name, call) = (&thread.name, thread.callouts.last());
    let what = call.map_or_else(
        || format!("the {name}"),
        |call| format!("the {} routine {:#x}, on the {name},", call.role, call.routine.address),
    );
    let message = format!("{what} has run for {spent} instructions at IRQL {irql} without coming to an end");
    let verdict = Verdict::error("endless-loop", message);
    Some(if irql >= DISPATCH_LEVEL || in_dpc {
        let ticks = spent.div_ceil(TICK);
        verdict.bug_check(0x133, [0, ticks, k.ke.budget / TICK, 0])
    } else {
        verdict
    })
}
