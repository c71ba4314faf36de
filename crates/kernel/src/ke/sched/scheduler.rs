//! Which thread runs on which processor. Follows *Scheduling Priorities*, *Context Switches*, *Priority Boosts*.
//!
//! The highest ready priority runs; a thread that becomes ready takes a processor that is idle or that runs something
//! lower, at once unless the level there forbids it. One processor at a time has its turn; it keeps it until its thread
//! waits, spins on a lock, or its turn ends (`slice`). When no thread can go on, time jumps to whatever happens next.

use engine::{BEFORE_DPC, DelayPlace, Flow, Leave, Point, Progress, StrandId};

use super::history::{Operation, Stand};
use super::processor::{self, WaitsFor};
use super::ready::Candidates;
use super::thread_record::{Account, HIGHEST_DYNAMIC, State, Thread};
use super::{assign_processor, delay, history, patience, slice, spin, switch_fast, taker};
use crate::cx::{Cx, Kernel};
use crate::hal::late_stores;
use crate::ke::irq::{dpc, interrupt_delivery, ipi};
use crate::ke::levels::irql::{self, DISPATCH_LEVEL, PASSIVE_LEVEL};
use crate::ke::levels::settle;
use crate::ke::stuck;
use crate::ke::waits::timer;
use crate::mm::spaces;
use crate::nt::Nt;

/// Why [`run`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The caller's condition holds.
    Done,
    /// Nothing can run, and nothing is due; or what runs has led to nothing for so long that it is given up (`patience`).
    Quiet,
    /// A verdict or a fault of ours ended the machine.
    Stopped,
}

/// Runs threads until `done` says so, nothing can run any more, or the machine stops. Called from outside any strand.
pub fn run(nt: &Nt, done: &mut dyn FnMut(&Nt) -> bool) -> End {
    let mut cx = nt.cx();
    patience::begin(&mut cx);
    loop {
        if nt.stopping() {
            return End::Stopped;
        }
        if nt.in_callbacks() {
            let index = cx.with(|k| k.ke.current);
            let strand = begin_turn(&mut cx, index);
            run_turn(&mut cx, strand);
            continue;
        }
        if done(nt) {
            return End::Done;
        }
        if nt.is_given_up() {
            return End::Quiet;
        }
        if let Some(strand) = switch_fast::next(&mut cx).or_else(|| next_turn(&mut cx)) {
            run_turn(&mut cx, strand);
        } else if !pass_time(&mut cx) {
            return End::Quiet;
        }
    }
}

/// Handles all that has come, and begins the next turn: returns the strand that is to be resumed. None if no thread can go on.
#[inline(never)]
fn next_turn(cx: &mut Cx<'_>) -> Option<StrandId> {
    interrupt_delivery::observe(cx);
    timer::ring(cx);
    cx.with(relieve);
    assign_processor::threads(cx);
    let index = choose_processor(cx).or_else(|| convict(cx))?;
    Some(begin_turn(cx, index))
}

/// The processor whose thread can never go on, if one is found. The strand itself reports the verdict, so that its stack is shown.
#[cold]
fn convict(cx: &mut Cx<'_>) -> Option<usize> {
    let (index, verdict) = cx.with(|k| stuck::verdict(k))?;
    cx.with(|k| k.ke.sched.pending_verdict = Some((k.ke.processors[index].thread, verdict)));
    Some(index)
}

/// As [`run`], for a caller that cannot go on before `done`: if the machine falls quiet first, that is a deadlock.
pub fn run_until(nt: &Nt, done: &mut dyn FnMut(&Nt) -> bool) -> End {
    match run(nt, done) {
        End::Quiet => {
            let mut cx = nt.cx();
            let verdict = stuck::deadlock(&mut cx);
            let _ = cx.stop(verdict);
            End::Stopped
        }
        end => end,
    }
}

/// Time jumps to what happens next; false if nothing does. Threads that wait busily do so all the while.
fn pass_time(cx: &mut Cx<'_>) -> bool {
    let now = cx.engine().now();
    let Some(due) = cx.with(|k| next_event(k)) else { return false };
    // At least 1 ns: an event that is due and changes nothing must not stop the clock.
    let step = due.saturating_sub(now).max(1);
    cx.with(|k| {
        if k.hal.deadline().is_some_and(|deadline| deadline <= now + step) {
            k.ke.sched.progress += 1;
        }
        for index in 0..k.ke.processors.len() {
            if spin::holds_processor(k, index) {
                let strand = k.ke.processors[index].thread;
                k.ke.sched
                    .threads
                    .get_mut(strand)
                    .expect("what a processor runs is a thread")
                    .account
                    .busy += step;
            }
        }
    });
    slice::charge(cx, step);
    true
}

/// When something happens though no thread can go on: a timer, a device, the end of a quantum, the boost of a thread that
/// waits for a processor.
pub(crate) fn next_event(k: &Kernel) -> Option<u64> {
    let now = k.engine.now();
    let device = k.hal.deadline().filter(|deadline| *deadline > now);
    let due = [k.ke.timing.timers().deadline_after(now), device].into_iter().flatten();
    let all = 0..k.ke.processors.len();
    due.chain(all.filter_map(|index| spin::gives_way_at(k, index))).min()
}

/// A thread that has been ready for so long without getting a processor is boosted for a quantum, in nanoseconds.
pub(super) const STARVED: u64 = 4_000_000_000;

/// Boosts threads that have been ready for too long to the highest priority that is not real-time.
pub(super) fn relieve(k: &mut Kernel) {
    let Some(before) = k.engine.now().checked_sub(STARVED) else { return };
    if k.ke.sched.ready.all_since(before) {
        return;
    }
    for strand in k.ke.sched.ready.starving(before) {
        k.ke.sched.ready.remove(strand);
        let thread = k.ke.sched.threads.get_mut(strand).expect("a ready thread exists");
        thread.boost = HIGHEST_DYNAMIC.saturating_sub(thread.base_priority);
        thread.starved = true;
        k.ke.sched.ready.push_back(strand, thread.priority(), thread.affinity(), k.engine.now());
        k.ke.rearm();
    }
}

// ---- turns ----

/// Whether processor `index` has anything to do. `k.ke.levels.locks()` tells whether what it spins on is free.
fn can_go_on(k: &Kernel, index: usize) -> bool {
    let processor = &k.ke.processors[index];
    if processor.waits_for.is_none() && !processor.is_idle() && !spin::holds_processor(k, index) {
        return true;
    }
    if matches!(
        settle::next_work(k, index),
        Some(settle::Work::Ipi | settle::Work::Interrupt(_) | settle::Work::Dispatch)
    ) {
        return true;
    }
    match processor.waits_for {
        Some(WaitsFor::Lock(lock) | WaitsFor::LockAlone(lock)) => !k.ke.levels.locks().is_held(lock),
        Some(WaitsFor::LockShared(lock)) => k.ke.levels.locks().can_be_shared(lock),
        Some(what @ (WaitsFor::IpiTurn | WaitsFor::IpiBarrier | WaitsFor::IpiEnd)) => ipi::is_over(k, what),
        Some(WaitsFor::Dpcs) => !dpc::any(k) || settle::next_work(k, index).is_some(),
        Some(WaitsFor::Dpc(object)) => !dpc::is_active(k, object) || settle::next_work(k, index).is_some(),
        Some(WaitsFor::Routine(object)) => !dpc::runs(k, object) || settle::next_work(k, index).is_some(),
        Some(WaitsFor::Isr(object)) => !k.ke.irq.runs_isr(object),
        None if spin::holds_processor(k, index) => {
            let over = spin::gives_way_at(k, index).is_some_and(|end| end <= k.engine.now());
            over || settle::next_work(k, index).is_some()
        }
        None => k.level_of(index) >= DISPATCH_LEVEL,
    }
}

/// Whose turn it is: by default whose last one is longest ago.
fn choose_processor(cx: &mut Cx<'_>) -> Option<usize> {
    if cx.with(|k| k.ke.processors.len() == 1) {
        return cx.with(|k| can_go_on(k, 0).then_some(0));
    }
    if let Some(index) = cx.with(|k| taker::chosen(k)) {
        return Some(index);
    }
    let mut candidates = cx.with(|k| {
        let all = 0..k.ke.processors.len();
        all.filter(|index| can_go_on(k, *index)).collect::<Vec<_>>()
    });
    if candidates.len() < 2 {
        return candidates.first().copied();
    }
    cx.with(|k| candidates.sort_by_key(|index| k.ke.processors[*index].last_turn));
    let strands: Candidates =
        cx.with(|k| candidates.iter().map(|index| k.ke.processors[*index].thread).collect());
    Some(candidates[cx.nt().next_strand(Point("ke.turn"), &strands)])
}

/// Whether another processor than the current one waits for a turn, or an idle one could run a ready thread.
#[inline]
pub(crate) fn others_wait(k: &Kernel) -> bool {
    k.ke.processors.len() > 1 && another_waits(k)
}

fn another_waits(k: &Kernel) -> bool {
    let mut others = (0..k.ke.processors.len()).filter(|index| *index != k.ke.current);
    others.any(|index| {
        let processor = &k.ke.processors[index];
        // A processor that waits busily must see what the current one does.
        can_go_on(k, index)
            || spin::holds_processor(k, index)
            || (processor.is_idle() && k.ke.sched.ready.highest(processor.mask()).is_some())
    })
}

/// Processor `index` has its turn: its thread, which is to be resumed.
fn begin_turn(cx: &mut Cx<'_>, index: usize) -> StrandId {
    processor::switch_to(cx, index);
    let strand = cx.with(|k| {
        late_stores::show(k);
        let turn = k.ke.processors.iter().map(|processor| processor.last_turn).max().unwrap_or(0) + 1;
        let (now, stepped) = (k.engine.now(), k.engine.retired());
        let processor = k.ke.processor_mut();
        (processor.last_turn, processor.turn_began) = (turn, now);
        let strand = processor.thread;
        let mark = (k.ke.retired(now), now, stepped);
        let thread = k.ke.sched.threads.get_mut(strand).expect("what a processor runs is a thread");
        (thread.mark, thread.retired.1) = (mark, stepped);
        k.ke.sched.turn_is_idle = thread.stuck.is_some();
        spaces::enter(k);
        strand
    });
    slice::begin_turn(cx);
    strand
}

/// Lets a strand run until it gives its turn away. Within the loop, because a return behind a switch of stacks is not the one
/// that the processor expects, and what lies below it on either side is then wrong too.
#[inline(always)]
#[allow(clippy::inline_always, reason = "see above")]
fn run_turn(cx: &mut Cx<'_>, strand: StrandId) {
    let progress = cx.engine().resume(strand);
    late_stores::hide(cx);
    cx.with(|k| {
        if !k.ke.sched.turn_is_idle {
            k.ke.sched.progress += 1;
        }
        if progress == Progress::Suspended {
            slice::turn_is_over(k, strand);
        } else if let Some(thread) = k.ke.sched.threads.get_mut(strand) {
            // A thread that has ended has left its processor by itself; else the machine stops.
            thread.state = State::Terminated;
        }
    });
}

/// The turn of this processor is over; its thread stays on it. Returns when it has the turn again.
pub(crate) fn end_turn(cx: &mut Cx<'_>) -> Flow<()> {
    suspend(cx)?;
    let strand = cx.engine().strand();
    match cx.with(|k| k.ke.sched.pending_verdict.take_if(|(whose, _)| *whose == strand)) {
        Some((_, verdict)) => Err(cx.stop(verdict)),
        None => Ok(()),
    }
}

/// The current processor waits for something that only others can bring about; its thread stays on it. Returns when it
/// has the turn again, and what came meanwhile was let in.
pub(crate) fn wait_for(cx: &mut Cx<'_>, what: WaitsFor) -> Flow<()> {
    cx.with(|k| k.ke.processor_mut().waits_for = Some(what));
    let turn = end_turn(cx);
    cx.with(|k| k.ke.processor_mut().waits_for = None);
    turn?;
    history::operates(cx, Operation::Woken, what.number());
    irql::settle(cx)
}

/// The current thread has given its turn away. Returns when it has it again.
#[inline(always)]
#[allow(clippy::inline_always, reason = "each frame it returns through costs a mispredicted return")]
pub(crate) fn suspend(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.nt().stopping() {
        return Err(Leave::Stop);
    }
    cx.engine().suspend();
    if cx.nt().stopping() { Err(Leave::Stop) } else { Ok(()) }
}

// ---- threads ----

/// A thread can run: it goes to the end of its queue.
pub(in crate::ke) fn make_ready(k: &mut Kernel, strand: StrandId) {
    let thread = k.ke.sched.threads.get_mut(strand).expect("a thread that becomes ready exists");
    thread.state = State::Ready;
    let (priority, since) = (thread.priority(), k.engine.now());
    k.ke.sched.ready.push_back(strand, priority, thread.affinity(), since);
    k.ke.sched.progress += 1;
    if !is_out_of_the_way(k, priority, since) {
        k.ke.rearm();
    }
}

/// True if making a thread of this priority ready cannot cause a reschedule before the current slice ends: it has no claim to the only
/// processor, the policy is not asked whether it goes first, and the slice ends before it starves.
#[inline]
fn is_out_of_the_way(k: &Kernel, priority: u8, since: u64) -> bool {
    let [only] = k.ke.processors.as_slice() else { return false };
    !k.engine.may_depart()
        && k.ke.sched.armed_until <= since + STARVED
        && k.ke
            .sched
            .threads
            .get(only.thread)
            .is_some_and(|current| only.is_idle() || priority <= current.priority())
}

/// Whether a ready thread has a better claim to processor `index` than the one there; both levels allow it.
#[inline]
pub(in crate::ke) fn must_switch(k: &Kernel, index: usize) -> bool {
    // Mostly no other thread wants it.
    (!k.ke.sched.ready.is_empty() || k.ke.processors[index].yield_requested) && has_better_claim(k, index)
}

#[inline]
fn has_better_claim(k: &Kernel, index: usize) -> bool {
    let processor = &k.ke.processors[index];
    // An idle one's thread gives way by itself when it has nothing to do.
    if processor.is_idle() || processor.wait_next {
        return false;
    }
    let Some(current) = k.ke.sched.threads.get(processor.thread).map(Thread::priority) else { return false };
    processor.yield_requested || (k.ke.sched.ready.has_above(current) && is_better_off(k, index, current))
}

fn is_better_off(k: &Kernel, index: usize, than: u8) -> bool {
    let ready = k.ke.sched.ready.highest(k.ke.processors[index].mask());
    ready.is_some_and(|priority| priority > than && !idle_ones_suffice(k, index, priority))
}

/// Whether idle processors will take the ready threads of this priority anyway.
fn idle_ones_suffice(k: &Kernel, index: usize, priority: u8) -> bool {
    let mut candidates = Candidates::default();
    k.ke.sched.ready.candidates(priority, k.ke.processors[index].mask(), &mut candidates);
    let idle = k.ke.processors.iter().filter(|processor| processor.is_idle());
    let takes = |strand: &StrandId| {
        let mut open = idle.clone();
        open.any(|processor| assign_processor::is_open(k, processor, &k.ke.sched.threads[*strand]))
    };
    candidates.len() <= idle.clone().count() && candidates.iter().all(takes)
}

/// The current thread leaves its processor to a better one: before its equals, or behind them if that was asked for.
/// Returns when it runs again, on whatever processor.
pub(crate) fn give_way(cx: &mut Cx<'_>) -> Flow<()> {
    cx.with(|k| {
        let behind = std::mem::take(&mut k.ke.processor_mut().yield_requested);
        let strand = k.ke.processor().thread;
        leave_processor(k);
        let thread = k.ke.sched.threads.get_mut(strand).expect("the thread that runs");
        thread.state = State::Ready;
        let (priority, affinity, since) = (thread.priority(), thread.affinity(), k.engine.now());
        if behind {
            k.ke.sched.ready.push_back(strand, priority, affinity, since);
        } else {
            k.ke.sched.ready.push_front(strand, priority, affinity, since);
        }
    });
    suspend(cx)
}

/// The current thread, whose state says that it waits, leaves its processor; it suspends next.
#[inline]
pub(in crate::ke) fn leave_to_wait(k: &mut Kernel) {
    let (now, stepped, strand) = (k.engine.now(), k.engine.retired(), k.ke.processor().thread);
    let mark = (k.ke.retired(now), now, stepped);
    let thread = k.ke.sched.threads.get_mut(strand).expect("the thread that runs");
    // It made progress: it is in no endless loop.
    (thread.account, thread.mark) = (Account::default(), mark);
    (thread.boost, thread.starved) = (0, false);
    leave_processor(k);
}

/// `ZwYieldExecution`, and a delay of 0: behind its equals, if there are any; whether there were.
pub(crate) fn yield_now(cx: &mut Cx<'_>) -> Flow<bool> {
    let gives_way = cx.with(|k| equals_wait(k));
    if gives_way {
        cx.with(|k| k.ke.request_yield());
    }
    irql::settle(cx).map(|()| gives_way)
}

/// Whether a thread of at least the current one's priority could have this processor.
fn equals_wait(k: &Kernel) -> bool {
    highest_equal(k).is_some()
}

/// The priority of the best such threads.
fn highest_equal(k: &Kernel) -> Option<u8> {
    if k.level() >= DISPATCH_LEVEL || k.ke.sched.ready.is_empty() {
        return None;
    }
    let own = k.ke.thread()?.priority();
    k.ke.sched.ready.highest(k.ke.processor().mask()).filter(|highest| *highest >= own)
}

/// A driver is about to access a device, or to execute an interlocked instruction, which others can see: the policy may have what is due come
/// first, and let another thread or processor go first.
///
/// Plain loads and stores are asked about by [`before_shared`], if the policy knows which of them others see; else a thread gives way between
/// them only at the end of a slice.
#[inline]
pub(crate) fn before_visible(cx: &mut Cx<'_>, point: Point) -> Flow<()> {
    if !cx.engine().may_depart() {
        return Ok(());
    }
    let instruction = cx.engine().caller_rip();
    delay::before(cx, DelayPlace::Visible(instruction))?;
    // Without another thread no candidates need be found.
    if !cx.with(|k| is_alone(k)) {
        somebody_there(cx, point)?;
    }
    history::goes_on(cx, instruction);
    Ok(())
}

/// A DPC is about to begin: as [`before_visible`]. Until its routine runs it is in its queue, where a second interrupt finds it.
pub(in crate::ke) fn before_dpc(cx: &mut Cx<'_>) -> Flow<()> {
    let Some(dpc) = cx.with(|k| k.ke.processor().dpcs.front().map(|dpc| dpc.object)) else { return Ok(()) };
    delay::before(cx, DelayPlace::Visible(dpc))?;
    if !cx.with(|k| is_alone(k)) {
        somebody_there(cx, BEFORE_DPC)?;
    }
    history::goes_on(cx, dpc);
    Ok(())
}

/// A driver is about to call an export or a framework's function, and nothing of the call has been seen: the policy may have what is due come
/// first.
///
/// # Errors
/// [`engine::Leave`] of what comes.
#[inline]
pub(crate) fn before_call(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.engine().may_depart() { due_before_call(cx) } else { Ok(()) }
}

#[inline(never)]
fn due_before_call(cx: &mut Cx<'_>) -> Flow<()> {
    let returns = cx.engine().caller_rip();
    delay::before(cx, DelayPlace::Call(returns))
}

/// A driver has called an export: the policy may let another thread or processor go first.
///
/// # Errors
/// As [`before_visible`].
#[inline(never)]
pub(crate) fn at_call(cx: &mut Cx<'_>) -> Flow<()> {
    somebody_there(cx, Point("ke.before_export"))
}

/// An application is about to ask for something: the policy may have what is due come first.
///
/// # Errors
/// [`engine::Leave`] of what comes.
pub fn before_command(cx: &mut Cx<'_>) -> Flow<()> {
    delay::before_command(cx)
}

/// Nanoseconds since boot in which no thread was held up.
pub(crate) fn time_of_its_own(k: &Kernel) -> u64 {
    delay::time_of_its_own(k)
}

/// Whether code of a driver's stands in the middle, which could go on now: but for the current thread, and those that wait for something.
pub(crate) fn drivers_run(k: &Kernel) -> bool {
    let current = k.ke.processor().thread;
    let goes_on = |thread: &Thread| {
        thread.strand != current
            && !thread.callouts.is_empty()
            && matches!(thread.state, State::Ready | State::Running)
    };
    k.ke.sched.threads().iter().any(goes_on)
        || k.ke.processors.iter().any(|processor| !processor.entered.is_empty())
}

/// Whether no other thread or processor could go first.
#[inline]
pub(crate) fn is_alone(k: &Kernel) -> bool {
    k.ke.sched.ready.is_empty() && k.ke.processors.len() == 1
}

/// Another thread or processor could go first.
#[inline(never)]
fn somebody_there(cx: &mut Cx<'_>, point: Point) -> Flow<()> {
    before(cx, |cx, others| cx.nt().give_way(point, others))
}

/// The same for the plain instruction at `rip`, which the policy watches: others touch the memory that it touches.
pub(crate) fn before_shared(cx: &mut Cx<'_>, rip: u64) -> Flow<()> {
    delay::before(cx, DelayPlace::Watched(rip))?;
    before(cx, |cx, others| {
        let retired = cx.with(|k| slice::retired_by_own(k));
        cx.nt().give_way_before(rip, retired, others)
    })?;
    history::goes_on(cx, rip);
    Ok(())
}

fn before(cx: &mut Cx<'_>, gives_way: impl FnOnce(&mut Cx<'_>, &[StrandId]) -> bool) -> Flow<()> {
    let mut others = Candidates::default();
    let equals = cx.with(|k| who_waits(k, &mut others));
    if others.is_empty() || !gives_way(cx, &others) {
        return Ok(());
    }
    history::stands(cx, Stand::GaveWay);
    if equals {
        return yield_now(cx).map(|_| ());
    }
    end_turn(cx)?;
    // Interrupts and DPCs that came for this processor meanwhile run now, not at the end of its slice.
    irql::settle(cx)
}

/// Whether the policy wants the current thread to let another go first, if there is one that could.
pub(crate) fn gives_way(cx: &mut Cx<'_>, point: Point) -> bool {
    let mut others = Candidates::default();
    cx.with(|k| who_waits(k, &mut others));
    !others.is_empty() && cx.nt().give_way(point, &others)
}

/// Who could go on in place of the current thread: its equals, if it can be switched, and the other processors' threads. Whether
/// there are such equals.
fn who_waits(k: &Kernel, strands: &mut Candidates) -> bool {
    let highest = highest_equal(k);
    let equals = highest.is_some();
    if let Some(highest) = highest {
        k.ke.sched.ready.candidates(highest, k.ke.processor().mask(), strands);
    }
    // Mostly none waits, and that is one look at each.
    if !others_wait(k) {
        return equals;
    }
    let others = (0..k.ke.processors.len()).filter(|index| *index != k.ke.current && can_go_on(k, *index));
    strands.extend(others.map(|index| k.ke.processors[index].thread));
    if strands.is_empty() {
        strands.extend(k.ke.sched.ready.iter().next());
    }
    equals
}

/// The processor is the idle thread's; the thread that leaves remembers its level.
fn leave_processor(k: &mut Kernel) {
    let processor = k.ke.processor();
    let (strand, irql) = (processor.thread, k.level());
    late_stores::drain(k);
    assert!(irql < DISPATCH_LEVEL, "no thread is switched at DISPATCH_LEVEL");
    let index = k.ke.current;
    if let Some(thread) = k.ke.sched.threads.get_mut(strand) {
        thread.irql = irql;
        thread.last_processor = index;
    }
    k.set_level(index, PASSIVE_LEVEL);
    processor::leave_to_idle(k, index);
}

/// What an idle thread does: lets in what is there for its processor, and gives the turn away.
pub(crate) fn idle(cx: &mut Cx<'_>) -> Flow<()> {
    loop {
        irql::settle(cx)?;
        suspend(cx)?;
    }
}

/// Resumes everything that is suspended, so that it unwinds; the machine is stopping.
pub(crate) fn unwind_all(cx: &mut Cx<'_>) {
    let strands: Vec<StrandId> = cx.with(|k| k.ke.sched.threads.iter().map(|thread| thread.strand).collect());
    for strand in strands {
        let alive = cx.with(|k| k.ke.sched.threads.get(strand).is_some_and(|t| t.state != State::Terminated));
        if alive {
            let progress = cx.engine().resume(strand);
            assert_eq!(progress, Progress::Finished, "a strand that has to stop must not wait");
        }
    }
}
