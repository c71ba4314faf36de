//! How long driver code runs before the kernel looks: the next deadline, the quantum, the turn, the policy's own question,
//! and the budget after which a call counts as an endless loop. Follows *Multitasking* (quantum),
//! *Priority Boosts*, *KeShouldYieldProcessor function*, *Bug Check 0x133 DPC_WATCHDOG_VIOLATION*.

use engine::{DelayPlace, Flow, SLICE_END, StrandId};

use super::budget::SERVICE;
use super::spin::{self, Seen};
use super::thread_record::{Account, Thread};
use super::{delay, scheduler};
use crate::cx::{Cx, Kernel};
use crate::hal::combine;
use crate::ke::irq::interrupt_delivery;
use crate::ke::levels::irql::{self, DISPATCH_LEVEL};
use crate::ke::levels::settle;
use crate::ke::timing::time::TICK;
use crate::ke::waits::timer;
use crate::ke::{State, stuck};
use crate::verdict::Verdict;

/// How long a thread runs while equals are ready: two clock ticks, in nanoseconds.
pub(super) const QUANTUM: u64 = 2 * TICK;
/// A call may be busy for so many times its budget of instructions, in nanoseconds, counting device accesses, stalls and
/// waits for memory to change: ten minutes. Windows does not mind how long; a request's maker does (`patience`).
const WAITING: u64 = 600;
/// The same at DISPATCH_LEVEL and above, where Windows' watchdog does mind: two minutes.
const WAITING_RAISED: u64 = 120;
/// How long a processor runs while another has something to do, in nanoseconds.
const TURN: u64 = 100_000;
/// Later than any time.
const NEVER: u64 = u64::MAX;

impl State {
    /// Driver instructions since boot, and what calls of the kernel count as.
    pub(crate) fn retired(&self, now: u64) -> u64 {
        now - self.sched.charged + self.services()
    }

    /// Where an account begins now: see [`Thread::mark`].
    #[inline]
    pub(crate) fn mark(&self, now: u64) -> (u64, u64, u64) {
        (self.retired(now), now, self.engine.retired())
    }

    /// Puts what ran since the last call on the account of `strand`, if there is such a thread.
    #[inline]
    fn account_for(&mut self, strand: StrandId, now: u64) -> Option<&Thread> {
        let retired = self.retired(now);
        let stepped = self.engine.retired();
        let thread = self.sched.threads.get_mut(strand)?;
        thread.spends(retired, now, stepped);
        Some(thread)
    }

    /// The engine's slice begins now: it ends at time `until`, or after so many driver instructions.
    #[inline]
    pub(super) fn begin_slice(&mut self, now: u64, until: u64, instructions: u64) {
        self.sched.armed_until = until;
        self.sched.armed_retired = self.engine.retired().saturating_add(instructions);
        self.levels.slice_is_set();
        self.engine.set_slice(until.saturating_sub(now).min(instructions).max(1));
    }

    /// The same for the thread that runs now.
    #[inline]
    pub(crate) fn account(&mut self, now: u64) -> Option<&Thread> {
        self.account_for(self.processor().thread, now)
    }
}

impl Thread {
    /// What ran since the last call goes on its account.
    #[inline]
    fn spends(&mut self, retired: u64, now: u64, stepped: u64) {
        self.account.stepped += stepped - self.mark.2;
        self.account.spent += retired - self.mark.0;
        // A thread that is being held up has a mark in the future.
        self.account.busy += now.saturating_sub(self.mark.1);
        self.mark = (retired, now, stepped);
    }
}

/// Sets the engine's slice: up to whatever comes first.
pub(crate) fn arm(cx: &mut Cx<'_>) {
    set_end(cx);
    cx.with(Kernel::publish_levels);
}

/// As [`arm`]; its caller says [`Kernel::publish_levels`].
fn set_end(cx: &mut Cx<'_>) {
    let now = cx.engine().now();
    ask_when_next(cx);
    cx.with(|k| {
        let (until, instructions) = end(k, now);
        k.ke.begin_slice(now, until, instructions);
    });
}

/// As [`end`], for a turn on a machine of one processor that begins for `thread` now; none if there is something to be asked or looked at
/// first. The hardware is not asked.
#[inline]
pub(super) fn of_next_turn(k: &Kernel, thread: &Thread, now: u64, quantum_end: u64) -> Option<(u64, u64)> {
    let Account { spent, stepped, busy, look_at, .. } = thread.account;
    let (retired, budget) = (thread.retired.0, k.ke.sched.budget);
    let timer = k.ke.timing.timers().deadline().unwrap_or(NEVER);
    let waits_left = budget.saturating_mul(WAITING).saturating_sub(busy);
    let until = now.saturating_add(waits_left).min(quantum_end).min(timer);
    let goes = retired < thread.question
        && timer > now
        && !k.ke.timing.timers().clock.stands_still()
        && k.ke.sched.ready.all_since(until.saturating_sub(scheduler::STARVED));
    let left = budget.saturating_sub(spent).min(thread.question.wrapping_sub(retired));
    goes.then(|| (until, left.min(look_at.saturating_sub(stepped).max(1))))
}

/// The thread that runs has another account from `mark` on, which is to be looked at when so many instructions more have run: its slice ends
/// then, if it would end later. When the kernel looks must not depend on where slices end.
#[inline]
pub(in crate::ke) fn look_within(k: &mut Kernel, mark: (u64, u64, u64), instructions: u64) {
    let at = mark.2.saturating_add(instructions);
    if k.ke.sched.armed_retired > at {
        end_at(k, at, instructions);
    }
}

#[cold]
fn end_at(k: &mut Kernel, at: u64, instructions: u64) {
    // While instructions are stepped one by one, the slice ends soon enough.
    if k.ke.sched.probe.is_none() {
        k.ke.sched.armed_retired = at;
        let left = k.ke.sched.armed_until.saturating_sub(k.engine.now());
        k.engine.set_slice(left.min(instructions).max(1));
    }
}

/// The slice ends at the driver's next instruction: something waits for it.
pub(crate) fn end_soon(k: &mut Kernel) {
    k.ke.sched.armed_until = k.engine.now() + 1;
    k.engine.set_slice(1);
}

/// Whether the slice that has begun ends in time for `thread`, which has used up nothing yet and has its turn now: nothing depends on where
/// slices end. Hardware is as it was seen last, and does nothing before.
#[inline]
pub(in crate::ke) fn serves(k: &Kernel, thread: &Thread, now: u64, quantum_end: u64) -> bool {
    let (until, budget) = (k.ke.sched.armed_until, k.ke.sched.budget);
    let left = k.ke.sched.armed_retired.saturating_sub(k.engine.retired());
    let most = thread.question.saturating_sub(thread.retired.0).min(budget).min(spin::FIRST_LOOK);
    thread.account.is_new()
        && (1..=most).contains(&left)
        && now < until
        && until <= quantum_end.min(now.saturating_add(budget.saturating_mul(WAITING)))
        && k.ke.sched.probe.is_none()
        && k.ke.timing.timers().deadline().is_none_or(|deadline| deadline >= until)
        && interrupt_delivery::is_unchanged_before(k, until)
}

/// `nanoseconds` pass without driver instructions: the slice ends so much earlier, unless instructions end it. False if it has
/// come to its end; the caller handles what that means.
#[inline]
pub(crate) fn shorten(k: &mut Kernel, nanoseconds: u64) -> bool {
    k.ke.sched.charged += nanoseconds;
    pass(k, nanoseconds)
}

/// Lets `nanoseconds` pass without driver instructions.
pub(crate) fn charge(cx: &mut Cx<'_>, nanoseconds: u64) {
    let _ = cx.with(|k| shorten(k, nanoseconds));
}

fn pass(k: &mut Kernel, nanoseconds: u64) -> bool {
    let goes_on = k.engine.charge_within(nanoseconds, k.ke.sched.armed_until, k.ke.sched.armed_retired);
    if !goes_on {
        k.ke.rearm();
    }
    goes_on
}

/// A service has done the work of so many instructions: time passes, and the caller's account grows. If the slice ends within,
/// what that lets in comes now, before the driver's next instruction, however much there was to do.
///
/// # Errors
/// [`engine::Leave`] of what was let in.
pub(crate) fn work(cx: &mut Cx<'_>, instructions: u64) -> Flow<()> {
    // Passed as instructions, and so charged to the account.
    let goes_on = cx.with(|k| pass(k, instructions));
    // A call from outside strands is the system's own.
    if goes_on || cx.engine().strand() == StrandId(0) { Ok(()) } else { let_in(cx, false) }
}

/// `nanoseconds` pass, in which nothing is done. If the slice ends within, what that lets in comes now, as in [`work`].
///
/// # Errors
/// [`engine::Leave`] of what was let in.
pub(super) fn pass_by(cx: &mut Cx<'_>, nanoseconds: u64) -> Flow<()> {
    let goes_on = cx.with(|k| shorten(k, nanoseconds));
    if goes_on || cx.engine().strand() == StrandId(0) { Ok(()) } else { let_in(cx, false) }
}

/// As [`arm`], for a processor whose turn begins. What came for it meanwhile is let in at once: by the strand itself, if it
/// waits in the kernel, else before its second instruction; not when its slice happens to end.
pub(super) fn begin_turn(cx: &mut Cx<'_>) {
    arm(cx);
    let waits = cx.with(|k| {
        let waits = k.ke.may_pend() && settle::next_work(k, k.ke.current).is_some();
        if waits {
            k.ke.rearm();
        }
        waits
    });
    if waits {
        cx.engine().set_slice(1);
    }
}

/// The policy is asked about each thread where its next turn begins, as it is about a new one, and about delays as if none had been asked about: where
/// only the usual could be chosen so far, nothing was asked.
pub(crate) fn ask_anew(k: &mut Kernel) {
    k.ke.sched.threads_mut().iter_mut().for_each(|thread| thread.question = 0);
    k.ke.sched.delays = delay::Asked::default();
    k.ke.rearm();
}

/// If it is time for the policy's question, says when the next one comes.
#[inline]
fn ask_when_next(cx: &mut Cx<'_>) {
    if let Some((strand, retired)) = cx.with(|k| question_due(k)) {
        ask(cx, strand, retired);
    }
}

#[cold]
fn ask(cx: &mut Cx<'_>, strand: StrandId, retired: u64) {
    let distance = cx.nt().next_slice(strand, retired);
    cx.with(|k| k.ke.change_thread(|thread| thread.question = retired.saturating_add(distance)));
}

/// The thread that runs and what it has retired, if it is time to ask the policy about it.
#[inline]
fn question_due(k: &Kernel) -> Option<(StrandId, u64)> {
    let (thread, retired) = own(k)?;
    (retired >= thread.question).then_some((thread.strand, retired))
}

/// Whether that is at this very instruction.
#[inline]
pub(in crate::ke) fn asks_now(k: &Kernel) -> bool {
    question_due(k).is_some()
}

/// The thread that runs, and how many driver instructions it has retired in all its life.
#[inline]
fn own(k: &Kernel) -> Option<(&Thread, u64)> {
    let thread = k.ke.thread()?;
    let (before, mark) = thread.retired;
    Some((thread, before + (k.engine.retired() - mark)))
}

/// How many driver instructions the thread that runs has retired in all its life.
pub(super) fn retired_by_own(k: &Kernel) -> u64 {
    own(k).map_or(0, |(_, retired)| retired)
}

/// The turn of `strand` is over: what ran since the last look goes on its account.
#[inline]
pub(super) fn turn_is_over(k: &mut Kernel, strand: StrandId) {
    let (now, stepped) = (k.engine.now(), k.engine.retired());
    let retired = k.ke.retired(now);
    if let Some(thread) = k.ke.sched.threads.get_mut(strand) {
        thread.spends(retired, now, stepped);
        let (before, mark) = thread.retired;
        thread.retired = (before + (stepped - mark), stepped);
    }
}

/// After a kernel service: sets the slice anew if a deadline has come nearer, time has passed, or a thread is ready. Its caller says
/// [`Kernel::publish_levels`] then. Whether it did.
#[inline]
pub(in crate::ke) fn tighten(cx: &mut Cx<'_>) -> bool {
    let sets = cx.with(|k| k.ke.levels.is_slice_stale() || a_deadline_came_nearer(k));
    if sets {
        set_end(cx);
    }
    sets
}

/// Whether a timer or a device wants to be looked at before the slice ends.
#[inline]
pub(in crate::ke) fn a_deadline_came_nearer(k: &Kernel) -> bool {
    let until = k.ke.sched.armed_until;
    let nearer = |deadline: Option<u64>| deadline.is_some_and(|deadline| deadline < until);
    nearer(k.ke.timing.timers().deadline()) || nearer(k.hal.deadline())
}

/// When the slice that begins now ends at the latest, and after how many driver instructions.
#[inline]
pub(crate) fn end(k: &mut Kernel, now: u64) -> (u64, u64) {
    let (mut until, mut instructions) = limits(k, now);
    if let Some((thread, retired)) = own(k) {
        instructions = instructions.min(thread.question.saturating_sub(retired));
        let account = &thread.account;
        instructions = instructions.min(account.look_at.saturating_sub(account.stepped).max(1));
    }
    if scheduler::others_wait(k) {
        until = until.min(k.ke.processor().turn_began + TURN);
    }
    (until, instructions)
}

/// When something happens that the code that runs now cannot put off: a timer, a device, the end of its quantum or its
/// budget, the boost of a thread that starves.
pub(crate) fn deadline(k: &mut Kernel, now: u64) -> u64 {
    let (until, instructions) = limits(k, now);
    until.min(now.saturating_add(instructions))
}

/// The same as a time, and as a number of driver instructions.
#[inline]
fn limits(k: &mut Kernel, now: u64) -> (u64, u64) {
    let (budget, processor) = (k.ke.sched.budget, k.ke.processor());
    let (idle, mask) = (processor.is_idle(), processor.mask());
    let (spent, busy, quantum_end) = match k.ke.account(now) {
        Some(Thread { account, .. }) if idle => (account.spent, account.busy, NEVER),
        Some(thread) => (thread.account.spent, thread.account.busy, thread.quantum_end.max(now + 1)),
        None => (0, 0, NEVER),
    };
    let waiting = if k.level() < DISPATCH_LEVEL { WAITING } else { WAITING_RAISED };
    let waits_left = budget.saturating_mul(waiting).saturating_sub(busy);
    // One that has passed waits for the level, not for time.
    let ahead = |deadline: Option<u64>| deadline.filter(|deadline| *deadline > now).unwrap_or(NEVER);
    let timer = k.ke.timing.timers().deadline_ahead(now).unwrap_or(NEVER);
    let device = ahead(k.hal.deadline());
    let kept = k.hal.combining.deadline(k.ke.processor().number).map_or(NEVER, |tick| tick.max(now + 1));
    let until = now.saturating_add(waits_left).min(quantum_end).min(timer).min(device).min(kept);
    // Mostly all have become ready so lately that none starves before.
    let none = k.ke.sched.ready.all_since(until.saturating_sub(scheduler::STARVED));
    let until = if none { until } else { until.min(ahead(starves_at(k, mask))) };
    (until, budget.saturating_sub(spent))
}

/// When the thread that has waited longest for a processor of `mask` has starved.
fn starves_at(k: &Kernel, mask: u64) -> Option<u64> {
    k.ke.sched.ready.starving_since(mask, |_| true).map(|since| since + scheduler::STARVED)
}

/// The slice has ended: time passes, interrupts arrive, another thread may run.
pub(crate) fn slice(cx: &mut Cx<'_>) -> Flow<()> {
    match spin::look(cx) {
        Seen::Going => return Ok(()),
        Seen::Stuck => return spin::wait(cx),
        Seen::Nothing => {}
    }
    combine::tick(cx)?;
    let now = cx.engine().now();
    if let Some(verdict) = cx.with(|k| endless(k, now)) {
        return Err(cx.stop(verdict));
    }
    let asked = cx.with(|k| question_due(k)).is_some();
    let delayed = if asked { delay::asked(cx, DelayPlace::SliceEnd) } else { None };
    let gives_way = asked && scheduler::gives_way(cx, SLICE_END);
    // Before `let_in`: what it lets in runs on this thread too, and must not ask the same question again.
    ask_when_next(cx);
    if let Some(due) = delayed {
        delay::pass_time(cx, due)?;
    }
    let_in(cx, gives_way)
}

/// What time has brought: boosts, the end of the quantum, interrupts, timers, another thread's turn; and a new slice.
fn let_in(cx: &mut Cx<'_>, gives_way: bool) -> Flow<()> {
    // Interrupts that came while another strand ran, or none, are delivered first: their lines may fall later.
    if cx.with(|k| interrupt_delivery::deliverable(k, k.ke.current).is_some()) {
        irql::settle(cx)?;
    }
    let now = cx.engine().now();
    cx.with(|k| {
        scheduler::relieve(k);
        end_of_quantum(k, now, gives_way);
    });
    interrupt_delivery::observe(cx);
    timer::ring(cx);
    irql::settle(cx)?;
    let over = cx.with(|k| scheduler::others_wait(k) && now >= k.ke.processor().turn_began + TURN);
    if over || cx.nt().is_given_up() || (gives_way && cx.with(|k| scheduler::others_wait(k))) {
        scheduler::end_turn(cx)?;
        irql::settle(cx)?;
    }
    arm(cx);
    Ok(())
}

/// If the thread's quantum is over, or the policy wants it to be, it goes behind its equals as soon as it may.
pub(super) fn end_of_quantum(k: &mut Kernel, now: u64, gives_way: bool) {
    let mask = k.ke.processor().mask();
    let idle = k.ke.processor().is_idle();
    let highest = k.ke.sched.ready.highest(mask);
    let Some(thread) = k.ke.thread_mut() else { return };
    let over = now >= thread.quantum_end;
    // A policy may end the quantum early, but not the boost with it.
    if idle || !(over || (gives_way && thread.boost == 0)) {
        return;
    }
    thread.quantum_end = now + QUANTUM;
    // A boost falls by one at the end of each quantum; that of a thread which starved lasts for one.
    thread.boost = if thread.starved { 0 } else { thread.boost.saturating_sub(1) };
    thread.starved = false;
    let yields = highest >= Some(thread.priority());
    k.ke.invalidate_levels();
    if yields {
        k.ke.request_yield();
    }
}

/// `KeShouldYieldProcessor`: whether code that works on at DISPATCH_LEVEL or above keeps a DPC, a better thread or the end
/// of its quantum waiting. Windows may say so earlier, which is a choice.
///
/// # Errors
/// None of its own.
pub(crate) fn should_yield(cx: &mut Cx<'_>) -> Flow<bool> {
    let waits = cx.with(|k| {
        let now = k.engine.now();
        let processor = k.ke.processor();
        let quantum = k.ke.thread().is_some_and(|thread| !processor.is_idle() && now >= thread.quantum_end);
        quantum || !processor.dpcs.is_empty() || scheduler::must_switch(k, k.ke.current)
    });
    Ok(waits || cx.choose("ke.should_yield", 2) == 1)
}

/// The verdict on a call of the current thread's that has run longer than anything would wait for it.
pub(crate) fn endless(k: &mut Kernel, now: u64) -> Option<Verdict> {
    k.ke.account(now);
    endless_on(k, k.ke.current)
}

/// The same for the thread that processor `index` runs.
pub(in crate::ke) fn endless_on(k: &Kernel, index: usize) -> Option<Verdict> {
    let processor = &k.ke.processors[index];
    let thread = k.ke.sched.threads.get(processor.thread)?;
    let Account { spent, busy, .. } = thread.account;
    let irql = k.level_of(index);
    let longest =
        k.ke.sched.budget.saturating_mul(if irql < DISPATCH_LEVEL { WAITING } else { WAITING_RAISED });
    if spent < k.ke.sched.budget && busy < longest {
        return None;
    }
    let what = stuck::routine_of(k, thread);
    let used = if spent < k.ke.sched.budget {
        format!("{} ms, nearly all of it in busy waits,", busy / 1_000_000)
    } else {
        format!("{spent} instructions")
    };
    let message = format!(
        "{what} has run for {used} at IRQL {irql} without coming to an end (a call of the kernel counts as {SERVICE})"
    );
    let verdict = Verdict::error("endless-loop", message);
    Some(if irql >= DISPATCH_LEVEL || processor.running_dpc.is_some() {
        let ticks = busy.max(spent).div_ceil(TICK);
        verdict.bug_check(0x133, [0, ticks, k.ke.sched.budget / TICK, 0])
    } else {
        verdict
    })
}
