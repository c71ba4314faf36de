//! Waiting for dispatcher objects and for time. Follows *KeWaitForSingleObject function*, *KeWaitForMultipleObjects
//! function*, *KeDelayExecutionThread function*.
//!
//! What interrupts a wait for good is `user_apc`'s; what comes in the middle of one `apc`'s.

use abi::{DISPATCHER_HEADER, DriverPtr, KTHREAD, KWAIT_BLOCK, NtStatus};
use engine::{Flow, StrandId};

use super::dispatcher::{self, consume, is_signaled};
use super::links::{self, Broken};
use super::user_apc::{self, WaitMode};
use super::wait_fast::{self, Begun};
use super::{apc, mutex, queue};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ex;
use crate::few::Few;
use crate::ke::calls::exception;
use crate::ke::irq::{passive_isr, threaded_dpc};
use crate::ke::levels::irql::{self, DISPATCH_LEVEL};
use crate::ke::sched::history;
use crate::ke::sched::scheduler;
use crate::ke::sched::thread_record::{Role, State, Thread};
use crate::ke::timing::time;
use crate::ke::timing::timer_queue::Limit;
use crate::ke::who_waits;
use crate::mm::pool;
use crate::mm::space::Zone;
use crate::verdict::Verdict;

/// `MAXIMUM_WAIT_OBJECTS`.
const MOST_OBJECTS: usize = 64;
/// `THREAD_WAIT_OBJECTS`: for so many the thread object has wait blocks of its own.
const OWN_BLOCKS: usize = 3;
/// Where the thread object has them.
pub(super) const BLOCKS_AT: u64 = 0x140;
/// A thread of a driver's that waits so long at most, in units of 100 ns (100 ms), polls: it would come between any two instructions of others
/// that are held up as long. What waits longer has set a limit to something.
const OFTEN: u64 = 1_000_000;

/// A wait a thread is in.
pub(crate) struct Wait {
    /// For what; empty for a delay.
    pub(crate) objects: Few<DriverPtr<DISPATCHER_HEADER>, 1>,
    /// For all of them at once.
    pub(crate) all: bool,
    /// What may interrupt it.
    pub(crate) wait_mode: WaitMode,
    /// Its wait blocks, one an object.
    pub(crate) blocks: DriverPtr<KWAIT_BLOCK>,
    /// What is no dispatcher object and will be granted; see [`for_grant`].
    pub(crate) granted: Option<u64>,
}

/// How long to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// For ever.
    Never,
    /// Not at all.
    Poll,
    /// Until this time.
    At(time::Due),
}

impl Timeout {
    /// At a time, which may be so far away that it never comes.
    fn until(due: time::Due) -> Self {
        if due.comes() { Self::At(due) } else { Self::Never }
    }

    /// From a driver's optional pointer to a `LARGE_INTEGER`.
    ///
    /// # Errors
    /// A verdict if the pointer is bad.
    pub(crate) fn read(cx: &mut Cx<'_>, pointer: DriverPtr<i64>) -> Flow<Self> {
        if pointer.is_null() {
            return Ok(Self::Never);
        }
        let value = cx.read(pointer)?;
        Ok(if value == 0 { Self::Poll } else { Self::until(cx.with(|k| time::due(k, value))) })
    }
}

/// `KeWaitForSingleObject`.
///
/// # Errors
/// A verdict if it may not wait here, or the object is none; [`engine::Leave`] if the machine ends meanwhile.
#[inline(always)]
#[allow(clippy::inline_always, reason = "each frame it returns through costs a mispredicted return")]
pub(crate) fn single(
    cx: &mut Cx<'_>,
    object: DriverPtr<DISPATCHER_HEADER>,
    _reason: u32,
    mode: u8,
    alertable: bool,
    timeout: DriverPtr<i64>,
) -> Flow<NtStatus> {
    if timeout.is_null() && WaitMode::of(mode, alertable) == WaitMode::KERNEL {
        match plainly(cx, object) {
            Some(Begun::Satisfied) => {
                tell_satisfied(cx, object.address);
                return irql::settle(cx).map(|()| NtStatus::SUCCESS);
            }
            Some(Begun::Waits) => {
                let status = until_over(cx)?;
                tell_ended(cx, &[object], false, status);
                return Ok(status);
            }
            None => {}
        }
    }
    single_as(cx, object, (mode, alertable), timeout)
}

#[inline(never)]
fn single_as(
    cx: &mut Cx<'_>,
    object: DriverPtr<DISPATCHER_HEADER>,
    (mode, alertable): (u8, bool),
    timeout: DriverPtr<i64>,
) -> Flow<NtStatus> {
    const NAME: &str = "KeWaitForSingleObject";
    let timeout = Timeout::read(cx, timeout)?;
    expect_waitable(cx, object, NAME)?;
    look_at_mode(cx, object, mode, NAME)?;
    let wait_mode = WaitMode::of(mode, alertable);
    wait_as(cx, wait_mode, &[object], false, timeout, DriverPtr::NULL, NAME)
}

/// As `wait_fast` says.
#[inline]
fn plainly(cx: &mut Cx<'_>, object: DriverPtr<DISPATCHER_HEADER>) -> Option<Begun> {
    let level = cx.engine().level();
    let begun = cx.with(|k| wait_fast::begin(k, object))?;
    if begun == Begun::Waits && cx.count_event(Kind::Wait) {
        cx.emit_at(level, Event::Wait { object: object.address, count: 1 });
    }
    Some(begun)
}

/// The current thread has left its processor to wait. Returns how the wait ended.
#[inline(always)]
#[allow(clippy::inline_always, reason = "each frame it returns through costs a mispredicted return")]
pub(super) fn until_over(cx: &mut Cx<'_>) -> Flow<NtStatus> {
    let status = apc::block(cx)?;
    if cx.count_event(Kind::Woken) {
        cx.emit(Event::Woken { status: status.0 });
    }
    irql::settle(cx)?;
    Ok(status)
}

/// `KeWaitForMutexObject`.
///
/// # Errors
/// As [`single`].
pub(crate) fn mutex(
    cx: &mut Cx<'_>,
    object: DriverPtr<DISPATCHER_HEADER>,
    reason: u32,
    mode: u8,
    alertable: bool,
    timeout: DriverPtr<i64>,
) -> Flow<NtStatus> {
    dispatcher::expect(cx, object, "KeWaitForMutexObject", &[dispatcher::Kind::Mutant])?;
    single(cx, object, reason, mode, alertable, timeout)
}

/// So many wait blocks of a driver's are a wait's alone until that ends: they are linked into the lists of what it is for.
fn check_blocks(cx: &mut Cx<'_>, blocks: DriverPtr<KWAIT_BLOCK>, count: u64) -> Flow<()> {
    if blocks.is_null() {
        return Ok(());
    }
    let size = size_of::<KWAIT_BLOCK>() as u64;
    let of = |blocks: DriverPtr<KWAIT_BLOCK>, count: u64| {
        blocks.address..blocks.address.saturating_add(count * size)
    };
    let own = of(blocks, count);
    let in_use = |wait: &Wait| {
        let other = of(wait.blocks, wait.objects.len() as u64);
        own.start < other.end && other.start < own.end
    };
    let waits = |thread: &&Thread| thread.wait.as_ref().is_some_and(in_use);
    let other = cx.with(|k| k.ke.sched.threads().iter().find(waits).map(|thread| thread.name.clone()));
    let Some(other) = other else { return Ok(()) };
    let message = format!(
        "KeWaitForMultipleObjects was given the wait blocks at {:#x}, by which the thread {other} waits",
        blocks.address
    );
    Err(cx.stop(Verdict::error("wait-blocks-in-use", message)))
}

/// `KeWaitForMultipleObjects`.
///
/// # Errors
/// As [`single`]; a verdict if there are more objects than wait blocks.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn multiple(
    cx: &mut Cx<'_>,
    count: u32,
    array: DriverPtr<DriverPtr<DISPATCHER_HEADER>>,
    kind: u32,
    _reason: u32,
    mode: u8,
    alertable: bool,
    timeout: DriverPtr<i64>,
    blocks: DriverPtr<KWAIT_BLOCK>,
) -> Flow<NtStatus> {
    const NAME: &str = "KeWaitForMultipleObjects";
    let count = count as usize;
    let most = if blocks.is_null() { OWN_BLOCKS } else { MOST_OBJECTS };
    if count == 0 || count > most {
        let message = format!(
            "{NAME} was called for {count} objects; without a wait block array there may be {OWN_BLOCKS}, with one {MOST_OBJECTS}"
        );
        return Err(cx.stop(Verdict::error("wait-object-count", message).bug_check(0xC, [0; 4])));
    }
    let mut objects = Vec::new();
    for index in 0..count {
        let object = cx.read(array.index(index as u64))?;
        expect_waitable(cx, object, NAME)?;
        look_at_mode(cx, object, mode, NAME)?;
        objects.push(object);
    }
    check_blocks(cx, blocks, count as u64)?;
    let timeout = Timeout::read(cx, timeout)?;
    // `WaitAll` is 0, `WaitAny` 1.
    wait_as(cx, WaitMode::of(mode, alertable), &objects, kind == 0, timeout, blocks, NAME)
}

/// Waits for one object for ever, for the kernel itself: an event of a request, a thread's end.
///
/// # Errors
/// As [`single`].
pub fn for_object<T>(cx: &mut Cx<'_>, object: DriverPtr<T>) -> Flow<NtStatus> {
    wait(cx, &[object.cast()], false, Timeout::Never, DriverPtr::NULL, "a wait of the kernel's")
}

/// As [`for_object`], for a request's maker: what its wait_mode says interrupts it, with USER_APC.
///
/// # Errors
/// As [`single`].
pub(crate) fn for_request<T>(cx: &mut Cx<'_>, object: DriverPtr<T>, wait_mode: WaitMode) -> Flow<NtStatus> {
    let blocks = DriverPtr::NULL;
    wait_as(cx, wait_mode, &[object.cast()], false, Timeout::Never, blocks, "a wait for a request's end")
}

/// `ZwWaitForMultipleObjects`'s wait, for objects that handles stand for.
///
/// # Errors
/// As [`multiple`].
pub(crate) fn for_several(
    cx: &mut Cx<'_>,
    objects: &[DriverPtr<DISPATCHER_HEADER>],
    all: bool,
    alertable: bool,
    timeout: DriverPtr<i64>,
) -> Flow<NtStatus> {
    let timeout = Timeout::read(cx, timeout)?;
    let bytes = objects.len() as u64 * size_of::<KWAIT_BLOCK>() as u64;
    let blocks: DriverPtr<KWAIT_BLOCK> = pool::allocate(cx, pool::Kind::NonPaged, bytes, pool::tag(b"Wait"))?;
    if blocks.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let name = "ZwWaitForMultipleObjects";
    let status = wait_as(cx, WaitMode::of(0, alertable), objects, all, timeout, blocks, name)?;
    pool::free(cx, blocks)?;
    Ok(status)
}

/// The current thread waits until [`grant`] says that it has what lies at `at`: a push lock, the release of run-down
/// protection, the end of an interrupt routine.
///
/// # Errors
/// As [`single`].
pub(crate) fn for_grant(cx: &mut Cx<'_>, at: u64, what: &str) -> Flow<()> {
    check_may_block(cx, Timeout::Never, what)?;
    cx.emit(Event::Wait { object: at, count: 1 });
    cx.with(|k| {
        let strand = k.ke.processor().thread;
        let thread = k.ke.sched.threads_mut().get_mut(strand).expect("the thread that waits");
        let (wait_mode, blocks) = (WaitMode::KERNEL, DriverPtr::NULL);
        thread.wait =
            Some(Wait { objects: Few::default(), all: false, wait_mode, blocks, granted: Some(at) });
        thread.state = State::Waiting;
        k.ke.processor_mut().wait_next = false;
        queue::runs_no_more(k, strand);
        scheduler::leave_to_wait(k);
    });
    until_over(cx).map(|_| ())
}

/// Ends the wait that `strand` has begun with [`for_grant`]; its caller settles.
pub(crate) fn grant(k: &mut Kernel, strand: StrandId) {
    dispatcher::end_wait(k, strand, NtStatus::SUCCESS, 0)
        .expect("it waits for no object, so no list is damaged");
}

/// A thread of the outside world's sleeps so many nanoseconds of virtual time, exactly: a person's patience and a script's
/// do not depend on the clock's ticks.
///
/// # Errors
/// [`engine::Leave`] if the machine ends meanwhile.
pub fn sleep(cx: &mut Cx<'_>, nanoseconds: u64) -> Flow<()> {
    let strand = cx.engine().strand();
    let time = cx.engine().now().saturating_add(nanoseconds);
    cx.with(|k| {
        history::reads_clock(k);
        k.ke.timing.timers_mut().add_alarm(time, strand);
        k.ke.invalidate_levels();
    });
    wait(cx, &[], false, Timeout::Never, DriverPtr::NULL, "a sleep").map(|_| ())
}

/// The current strand sleeps until the clock finds the next timer, or the end of a driver's wait: not at all, if there is none.
///
/// # Errors
/// As [`sleep`].
pub fn sleep_to_limit(cx: &mut Cx<'_>) -> Flow<()> {
    let now = cx.engine().now();
    match cx.with(|k| k.ke.timing.timers().first_limit(now)) {
        Some(limit) => sleep(cx, limit.saturating_sub(now)),
        None => Ok(()),
    }
}

/// The current strand sleeps until the clock has found all timers and ends of drivers' waits that it finds within so many nanoseconds. False if there is none.
///
/// # Errors
/// As [`sleep`].
pub fn sleep_to_last_limit(cx: &mut Cx<'_>, nanoseconds: u64) -> Flow<bool> {
    let now = cx.engine().now();
    let last = cx.with(|k| k.ke.timing.timers().last_limit(now.saturating_add(nanoseconds)));
    if let Some(last) = last {
        sleep(cx, last.saturating_sub(now))?;
    }
    Ok(last.is_some())
}

/// The current strand sleeps until [`grant`] ends that, or so many units of 100 ns are over.
///
/// # Errors
/// As [`sleep`].
pub(crate) fn sleep_until_granted(cx: &mut Cx<'_>, most: i64, what: &'static str) -> Flow<()> {
    let until = Timeout::until(cx.with(|k| time::due(k, -most)));
    wait(cx, &[], false, until, DriverPtr::NULL, what).map(|_| ())
}

/// `KeDelayExecutionThread`.
///
/// # Errors
/// A verdict if the pointer is bad; [`engine::Leave`] if the machine ends meanwhile.
pub fn delay(cx: &mut Cx<'_>, mode: u8, alertable: bool, interval: DriverPtr<i64>) -> Flow<NtStatus> {
    let value = cx.read(interval)?;
    if value == 0 {
        scheduler::yield_now(cx)?;
        return Ok(NtStatus::SUCCESS);
    }
    let until = Timeout::until(cx.with(|k| time::due(k, value)));
    let wait_mode = WaitMode::of(mode, alertable);
    let status = wait_as(cx, wait_mode, &[], false, until, DriverPtr::NULL, "KeDelayExecutionThread")?;
    // If nothing interrupts it, it ends by its time-out, which is success here.
    Ok(if status == NtStatus::TIMEOUT { NtStatus::SUCCESS } else { status })
}

/// `ZwYieldExecution`: `NO_YIELD_PERFORMED` if no other thread was there to run.
///
/// # Errors
/// [`engine::Leave`] if the machine ends meanwhile.
pub(crate) fn zw_yield(cx: &mut Cx<'_>) -> Flow<NtStatus> {
    let gave_way = scheduler::yield_now(cx)?;
    Ok(if gave_way { NtStatus::SUCCESS } else { NtStatus::NO_YIELD_PERFORMED })
}

/// Waits; nothing interrupts it.
///
/// # Errors
/// As [`single`].
pub(crate) fn wait(
    cx: &mut Cx<'_>,
    objects: &[DriverPtr<DISPATCHER_HEADER>],
    all: bool,
    timeout: Timeout,
    blocks: DriverPtr<KWAIT_BLOCK>,
    what: &'static str,
) -> Flow<NtStatus> {
    wait_as(cx, WaitMode::KERNEL, objects, all, timeout, blocks, what)
}

fn wait_as(
    cx: &mut Cx<'_>,
    wait_mode: WaitMode,
    objects: &[DriverPtr<DISPATCHER_HEADER>],
    all: bool,
    timeout: Timeout,
    blocks: DriverPtr<KWAIT_BLOCK>,
    what: &'static str,
) -> Flow<NtStatus> {
    if timeout != Timeout::Poll {
        check_may_block(cx, timeout, what)?;
    }
    let waits = timeout == Timeout::Never && (all || objects.len() == 1);
    let (strand, at_once) = cx.with(|k| {
        let processor = k.ke.processor_mut();
        processor.wait_next = false;
        let strand = processor.thread;
        k.ke.invalidate_levels();
        (strand, try_satisfy(k, objects, all, strand))
    });
    match at_once {
        Err(Unsatisfied::Memory(bad)) => return Err(cx.bad_pointer(bad)),
        Err(Unsatisfied::Limit(mutex)) => return Err(beyond_limit(cx, mutex, what)),
        Ok(Some(status)) => {
            tell_ended(cx, objects, all, status);
            mutex::note_acquired(cx, waits)?;
            irql::settle(cx)?;
            return Ok(status);
        }
        Ok(None) if timeout == Timeout::Poll => {
            irql::settle(cx)?;
            return Ok(NtStatus::TIMEOUT);
        }
        Ok(None) => {}
    }
    if let Some(status) = cx.with(|k| user_apc::instead_of_waiting(k, strand, wait_mode)) {
        irql::settle(cx)?;
        return Ok(status);
    }
    let first = objects.first().copied().unwrap_or(DriverPtr::NULL);
    if cx.count_event(Kind::Wait) {
        let count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
        cx.emit(Event::Wait { object: first.address, count });
    }
    let begun = cx.with(|k| begin(k, strand, (objects, all, wait_mode), timeout, blocks));
    begun.map_err(|broken| dispatcher::stop(cx, first, broken))?;
    cx.with(|k| {
        queue::runs_no_more(k, strand);
        scheduler::leave_to_wait(k);
    });
    let status = until_over(cx)?;
    tell_ended(cx, objects, all, status);
    mutex::note_acquired(cx, waits)?;
    Ok(status)
}

/// The current thread's wait is over because this object was signalled.
#[inline]
pub(super) fn tell_satisfied(cx: &Cx<'_>, object: u64) {
    cx.detail(Kind::WaitSatisfied, || Event::WaitSatisfied { object });
}

/// The current thread's wait for these objects, or for one of them, has ended so.
#[inline]
fn tell_ended(cx: &Cx<'_>, objects: &[DriverPtr<DISPATCHER_HEADER>], all: bool, status: NtStatus) {
    if cx.nt().wants(Kind::WaitSatisfied) {
        satisfied(objects, all, status).iter().for_each(|object| tell_satisfied(cx, object.address));
    }
}

/// Those of the objects that have satisfied a wait that ended with this status.
fn satisfied(
    objects: &[DriverPtr<DISPATCHER_HEADER>],
    all: bool,
    status: NtStatus,
) -> &[DriverPtr<DISPATCHER_HEADER>] {
    const ABANDONED: u32 = NtStatus::ABANDONED_WAIT_0.0;
    let index = match status.0 {
        abandoned @ ABANDONED.. => abandoned - ABANDONED,
        index => index,
    } as usize;
    if all {
        return if index == 0 { objects } else { &[] };
    }
    objects.get(index).map_or(&[], std::slice::from_ref)
}

/// Whether nothing at all is to be said about a wait that begins now.
#[inline]
pub(crate) fn may_begin_at_once(k: &Kernel) -> bool {
    let processor = k.ke.processor();
    let waits = k.level() < DISPATCH_LEVEL && !processor.is_idle() && !processor.wait_next;
    waits && processor.interrupts_enabled && processor.threaded.running.is_none()
}

pub(super) fn check_may_block(cx: &mut Cx<'_>, timeout: Timeout, what: &str) -> Flow<()> {
    let (irql, in_dpc, has_thread) = cx.with(|k| {
        let processor = k.ke.processor();
        (k.level(), processor.running_dpc.is_some(), !processor.is_idle())
    });
    if irql < DISPATCH_LEVEL {
        assert!(has_thread, "{what}: only a thread can wait");
        if cx.with(|k| k.ke.interrupt_flag()) {
            threaded_dpc::look_at_wait(cx, what);
            return Ok(());
        }
        let message = format!("{what} was called with interrupts disabled: nothing could end the wait");
        return Err(cx.stop(Verdict::error("wait-with-interrupts-disabled", message)));
    }
    let message = match timeout {
        Timeout::Never => {
            format!("{what} was called without a time-out at IRQL {irql}: a wait there may only poll")
        }
        _ => format!(
            "{what} was called with a time-out that is not zero at IRQL {irql}: a wait there may only poll"
        ),
    };
    let verdict = Verdict::error("wait-at-raised-irql", message);
    let code = if timeout == Timeout::Never { 0x121 } else { 0x122 };
    Err(cx.stop(if in_dpc {
        verdict.bug_check(0xB8, [0; 4])
    } else {
        verdict.bug_check(0xC4, [code, irql.into(), 0, 0])
    }))
}

/// Why it cannot even be said whether a wait is satisfied.
enum Unsatisfied {
    /// The object's memory.
    Memory(engine::BadAddress),
    /// The thread owns this mutex as often as can be counted.
    Limit(DriverPtr<DISPATCHER_HEADER>),
}

impl From<engine::BadAddress> for Unsatisfied {
    fn from(bad: engine::BadAddress) -> Self {
        Self::Memory(bad)
    }
}

#[cold]
fn beyond_limit(cx: &mut Cx<'_>, mutex: DriverPtr<DISPATCHER_HEADER>, what: &str) -> engine::Leave {
    let message = format!(
        "{what} was called for the mutex {:#x}, which the thread owns as often as can be counted already",
        mutex.address
    );
    let verdict = Verdict::error("mutex-limit-exceeded", message);
    exception::raise_or(cx, NtStatus::MUTANT_LIMIT_EXCEEDED, verdict)
}

/// Any dispatcher object but a queue, which is waited on by `KeRemoveQueue` alone.
fn expect_waitable(cx: &mut Cx<'_>, object: DriverPtr<DISPATCHER_HEADER>, what: &str) -> Flow<()> {
    match dispatcher::expect(cx, object, what, &[])? {
        dispatcher::Kind::Queue => {
            Err(cx.stop(Verdict::not_implemented(&format!("{what} for a queue object"))))
        }
        _ => Ok(()),
    }
}

/// An object whose waits must be of kernel mode. Follows *KeWaitForSingleObject function*.
fn look_at_mode(cx: &mut Cx<'_>, object: DriverPtr<DISPATCHER_HEADER>, mode: u8, what: &str) -> Flow<()> {
    let kind = dispatcher::Kind::from_byte(cx.read(object + DISPATCHER_HEADER::Type)?);
    if mode != 0 && kind == Some(dispatcher::Kind::Mutant) {
        let message = format!(
            "{what} was called for the mutex {:#x} with WaitMode UserMode; for a mutex it must be KernelMode",
            object.address
        );
        cx.report(Verdict::warning("mutex-wait-mode", message));
    }
    if mode != 0 && Zone::of(object.address) == Some(Zone::Stacks) {
        let (at, object) = (object.address, cx.with(|k| dispatcher::describe(k, object)));
        let message = format!(
            "{what} was called with WaitMode UserMode for the {object} on a kernel stack, which may be paged out during such a wait"
        );
        let verdict = Verdict::verifier("user-wait-on-stack", message);
        return cx.verify(verdict.bug_check(0xC4, [0x123, at, 0, 0]));
    }
    Ok(())
}

/// The status if the wait is satisfied without waiting, whose effects it has had then.
fn try_satisfy(
    k: &mut Kernel,
    objects: &[DriverPtr<DISPATCHER_HEADER>],
    all: bool,
    strand: StrandId,
) -> Result<Option<NtStatus>, Unsatisfied> {
    let is_signaled = |k: &Kernel, object: DriverPtr<DISPATCHER_HEADER>| {
        let is_signaled = is_signaled(k, object, strand)?;
        // Nothing but a mutex that the thread owns is signaled at such a count.
        if is_signaled && k.engine.read(object + DISPATCHER_HEADER::SignalState)? == i32::MIN {
            return Err(Unsatisfied::Limit(object));
        }
        Ok(is_signaled)
    };
    if all {
        for object in objects {
            if !is_signaled(k, *object)? {
                return Ok(None);
            }
        }
        let mut abandoned = false;
        for object in objects {
            abandoned |= consume(k, *object, strand)?;
        }
        return Ok(Some(if abandoned { NtStatus::ABANDONED_WAIT_0 } else { NtStatus::SUCCESS }));
    }
    for (index, object) in (0..).zip(objects) {
        if is_signaled(k, *object)? {
            let base = if consume(k, *object, strand)? { NtStatus::ABANDONED_WAIT_0.0 } else { 0 };
            return Ok(Some(NtStatus(base + index)));
        }
    }
    Ok(None)
}

pub(in crate::ke) fn begin(
    k: &mut Kernel,
    strand: StrandId,
    (objects, all, wait_mode): (&[DriverPtr<DISPATCHER_HEADER>], bool, WaitMode),
    timeout: Timeout,
    blocks: DriverPtr<KWAIT_BLOCK>,
) -> Result<(), Broken> {
    let thread = k.ke.sched.threads_mut().get_mut(strand).expect("the thread that waits");
    let own = DriverPtr::new(thread.object.address + BLOCKS_AT);
    let blocks = if blocks.is_null() { own } else { blocks };
    // Written before any is linked into a list: the driver may handle the exception of a bad address.
    for (index, object) in (0..).zip(objects) {
        let block: DriverPtr<KWAIT_BLOCK> = blocks.index(index);
        k.engine.write(block + KWAIT_BLOCK::Thread, thread.object)?;
        k.engine.write(block + KWAIT_BLOCK::Object, object.cast::<()>())?;
    }
    for (index, object) in (0..).zip(objects) {
        let block: DriverPtr<KWAIT_BLOCK> = blocks.index(index);
        let head = *object + DISPATCHER_HEADER::WaitListHead;
        if let Err(broken) = links::insert_tail(k.engine, head, block + KWAIT_BLOCK::WaitListEntry) {
            for (index, object) in (0..index).zip(objects) {
                let block: DriverPtr<KWAIT_BLOCK> = blocks.index(index);
                // It was in order a moment ago.
                let _ = links::remove(k.engine, block + KWAIT_BLOCK::WaitListEntry);
                dispatcher::waits_no_more(k, *object, strand);
            }
            return Err(broken);
        }
        k.ke.waits.waits.get_or_insert_with(object.address, Few::default).push(strand);
    }
    let thread = k.ke.sched.threads_mut().get_mut(strand).expect("the thread that waits");
    let wait = thread.wait.insert(Wait { objects: Few::default(), all, wait_mode, blocks, granted: None });
    wait.objects.extend(objects.iter().copied());
    thread.state = State::Waiting;
    let is_drivers_own = thread.role == Role::System;
    if let Timeout::At(due) = timeout {
        let processor = k.ke.current;
        history::reads_clock(k);
        let now = time::interrupt_time(k.engine);
        let polls = is_drivers_own && due.time.saturating_sub(now) <= OFTEN;
        k.ke.timing.timers_mut().add_timeout(Limit { due, polls }, strand, processor);
        k.ke.invalidate_levels();
    }
    Ok(())
}

/// What the thread waits for, in words: if it does, and is not one of the system's own with nothing of a driver's on it.
pub(in crate::ke) fn describe_wait(k: &Kernel, thread: &Thread) -> Option<String> {
    let ours = thread.role == Role::Worker && thread.callouts.is_empty();
    if thread.state != State::Waiting || ours {
        return None;
    }
    let line = format!("the {} waits for {}", thread.name, describe(k, thread.strand));
    Some(match apc::describe(thread) {
        Some(apc) => format!("{line} ({apc})"),
        None => line,
    })
}

/// What a waiting thread waits for, in words.
pub(crate) fn describe(k: &Kernel, strand: StrandId) -> String {
    let Some(wait) = k.ke.sched.threads().get(strand).and_then(|thread| thread.wait.as_ref()) else {
        return "nothing".to_owned();
    };
    if let Some(at) = wait.granted {
        let known = ex::push_lock::describe(k, at)
            .or_else(|| ex::rundown::describe(k, at))
            .or_else(|| passive_isr::describe(k, at));
        return known.unwrap_or_else(|| format!("{at:#x}"));
    }
    let names: Vec<String> = wait.objects.iter().map(|object| who_waits::object(k, *object)).collect();
    match names.len() {
        0 => "a time-out".to_owned(),
        _ => names.join(if wait.all { " and " } else { " or " }),
    }
}

const _: () = assert!(size_of::<KTHREAD>() as u64 <= BLOCKS_AT);
