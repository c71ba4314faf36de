//! Deferred procedure calls. Follows *Introduction to DPC Objects*, *KeInsertQueueDpc function*,
//! *Organization of DPC Queues*.
//!
//! A queue a processor; it is emptied by `dpc_drain` before the level falls below DISPATCH_LEVEL. A DPC that
//! does not begin that by itself (low importance, or medium on another processor) waits for one that does, for the queue to
//! become long, for the processor to have nothing else to do, or for the clock's next tick: by then requests have become rare
//! enough. Whether they are rare at once is a choice; by default not. Threaded ones are `threaded_dpc`'s, what takes too long
//! is `watchdog`'s.

use abi::{DriverPtr, KDPC, NtStatus, PROCESSOR_NUMBER};
use engine::Flow;

use super::{dpc_drain, threaded_dpc};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ke::levels::irql::{self, DISPATCH_LEVEL};
use crate::ke::sched::processor::WaitsFor;
use crate::ke::sched::{affinity, scheduler};
use crate::ke::{history, pageable_object};
use crate::ldr::symbols;
use crate::verdict::Verdict;
use crate::witness;

/// `KDPC.Type` of an ordinary DPC, and of a threaded one.
const DPC_OBJECT: u8 = 19;
pub(super) const THREADED_DPC_OBJECT: u8 = 24;

/// `KDPC_IMPORTANCE`.
const LOW: u8 = 0;
const MEDIUM: u8 = 1;
const HIGH: u8 = 2;
const MEDIUM_HIGH: u8 = 3;

/// What `KDPC.Number` is more than the number of a target processor; 0 is the processor that queues it.
const TARGETED: u16 = 0x800;

/// A queue that is longer than this is processed at once. Windows' own default.
const LONGEST_QUEUE: usize = 4;

/// Who queued something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// A driver: a KDPC.
    Driver,
    /// A timer: a KDPC.
    Timer,
    /// `ExSetTimer`'s timer: its callback. The object is the timer.
    ExTimer,
    /// `ExDeleteTimer`: the callback that says that the timer is gone.
    ExDelete,
}

/// A DPC in a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueuedDpc {
    /// The KDPC.
    pub(crate) object: u64,
    pub(crate) by: By,
}

/// `KeInitializeDpc`.
///
/// # Errors
/// A verdict if the pointer is bad or the DPC is queued.
pub(crate) fn initialize(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, routine: u64, context: u64) -> Flow<()> {
    prepare(cx, dpc, routine, context, DPC_OBJECT)
}

/// `KeInitializeThreadedDpc`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn initialize_threaded(
    cx: &mut Cx<'_>,
    dpc: DriverPtr<KDPC>,
    routine: u64,
    context: u64,
) -> Flow<()> {
    prepare(cx, dpc, routine, context, THREADED_DPC_OBJECT)
}

fn prepare(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, routine: u64, context: u64, kind: u8) -> Flow<()> {
    pageable_object::initialized(cx, dpc.address, "DPC", pageable_object::SYNCHRONIZES)?;
    if let Some(queued) = cx.with(|k| queued_at(k, dpc.address)) {
        let message = format!("KeInitializeDpc was called for {:#x}, which is in a DPC queue", dpc.address);
        return Err(
            cx.stop(Verdict::error("dpc-initialized-while-queued", message).related("queued", queued))
        );
    }
    cx.write(dpc, KDPC::zeroed())?;
    cx.write(dpc + KDPC::Type, kind)?;
    cx.write(dpc + KDPC::Importance, MEDIUM)?;
    cx.write(dpc + KDPC::DeferredRoutine, DriverPtr::new(routine))?;
    cx.write(dpc + KDPC::DeferredContext, DriverPtr::new(context))
}

/// `KeSetImportanceDpc`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn set_importance(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, importance: u32) -> Flow<()> {
    match u8::try_from(importance) {
        Ok(importance @ (LOW | MEDIUM | HIGH | MEDIUM_HIGH)) => cx.write(dpc + KDPC::Importance, importance),
        _ => {
            let message =
                format!("KeSetImportanceDpc was called with importance {importance}; they are 0 to 3");
            cx.report(Verdict::warning("dpc-importance", message));
            Ok(())
        }
    }
}

/// `KeSetTargetProcessorDpc`: a processor of group 0.
///
/// # Errors
/// A verdict if the pointer is bad or there is no such processor.
pub(crate) fn set_target(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, number: u8) -> Flow<()> {
    let Some(index) = cx.with(|k| affinity::index(k, 0, number)) else {
        let count = affinity::count_in_group(cx, 0)?;
        let message = format!("a DPC was targeted at processor {number}; there are {count}");
        let verdict = Verdict::error("dpc-target", message);
        return Err(cx.stop(verdict.bug_check(0xC7, [3, dpc.address, number.into(), count.into()])));
    };
    target_at(cx, dpc, index)
}

fn target_at(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, index: u32) -> Flow<()> {
    let index = u16::try_from(index).expect("there are at most 64 processors");
    cx.write(dpc + KDPC::Number, TARGETED + index)
}

/// `KeSetTargetProcessorDpcEx`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn set_target_ex(
    cx: &mut Cx<'_>,
    dpc: DriverPtr<KDPC>,
    number: DriverPtr<PROCESSOR_NUMBER>,
) -> Flow<NtStatus> {
    let Some(index) = affinity::read_number(cx, number)? else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    target_at(cx, dpc, index)?;
    Ok(NtStatus::SUCCESS)
}

/// `KeInsertQueueDpc`: false if it is in a queue already; then it runs once, with the arguments of the first.
///
/// # Errors
/// A verdict if the pointer is bad or the DPC is not initialised; [`engine::Leave`] of what runs at once.
pub(crate) fn insert(
    cx: &mut Cx<'_>,
    dpc: DriverPtr<KDPC>,
    argument1: DriverPtr<()>,
    argument2: DriverPtr<()>,
) -> Flow<bool> {
    match dpc_drain::run_here(cx, dpc, argument1, argument2) {
        None => {}
        Some(Ok(true)) => return Ok(true),
        Some(result) => {
            result?;
            irql::settle(cx)?;
            return Ok(true);
        }
    }
    if enqueue_here(cx, dpc, argument1, argument2) {
        irql::settle(cx)?;
        return Ok(true);
    }
    check_initialized(cx, dpc, "KeInsertQueueDpc")?;
    let inserted = enqueue(cx, dpc, argument1, argument2, false)?;
    irql::settle(cx)?;
    Ok(inserted)
}

/// Whether it is an ordinary DPC that begins at once where it is queued, and is not queued.
#[inline]
pub(in crate::ke) fn is_plain(k: &Kernel, dpc: DriverPtr<KDPC>) -> bool {
    let plain = k.engine.peek(|| {
        let dpc = k.engine.view(dpc)?;
        let is_usual = dpc.get(KDPC::Type) == DPC_OBJECT && dpc.get(KDPC::Importance) == MEDIUM;
        Some(is_usual && dpc.get(KDPC::Number) < TARGETED)
    });
    plain == Some(true) && !is_queued(k, dpc.address)
}

/// Queues without letting anything run.
pub(crate) fn enqueue(
    cx: &mut Cx<'_>,
    dpc: DriverPtr<KDPC>,
    argument1: DriverPtr<()>,
    argument2: DriverPtr<()>,
    by_timer: bool,
) -> Flow<bool> {
    let by = if by_timer { By::Timer } else { By::Driver };
    let inserted = !cx.with(|k| is_queued(k, dpc.address));
    if inserted {
        cx.write(dpc + KDPC::SystemArgument1, argument1)?;
        cx.write(dpc + KDPC::SystemArgument2, argument2)?;
        let importance = cx.read(dpc + KDPC::Importance)?;
        let number = cx.read(dpc + KDPC::Number)?;
        let processor = cx.with(|k| {
            let target = number.checked_sub(TARGETED).map_or(k.ke.current, usize::from);
            k.ke.processors.get(target).map(|processor| (target, processor.region.address))
        });
        let Some((target, data)) = processor else { return Err(no_such_processor(cx, dpc, number)) };
        let moment = witness::moment(cx);
        // Not null while queued.
        cx.write(dpc + KDPC::DpcData, DriverPtr::new(data))?;
        let queued = QueuedDpc { object: dpc.address, by };
        let threaded = cx.read(dpc + KDPC::Type)? == THREADED_DPC_OBJECT && threaded_dpc::are_enabled(cx);
        cx.with(|k| k.ke.irq.queued.insert(dpc.address, QueueOf { processor: target, threaded, moment }));
        if threaded {
            threaded_dpc::enqueue(cx, target, queued, importance == HIGH)?;
        } else {
            enqueue_ordinary(cx, target, queued, importance);
        }
    } else if !by_timer {
        lose(cx, dpc, [argument1, argument2])?;
    }
    if cx.count_event(Kind::DpcQueued) {
        cx.emit(Event::DpcQueued { dpc: dpc.address, inserted });
    }
    Ok(inserted)
}

/// What a DPC is queued with that is in a queue already is lost: said where its routine looks at it, and it has bits that those do not have with which the DPC
/// will run.
#[cold]
fn lose(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, given: [DriverPtr<()>; 2]) -> Flow<()> {
    /// Of the first of them, among a DPC routine's.
    const FIRST: usize = 2;
    let kept = [cx.read(dpc + KDPC::SystemArgument1)?, cx.read(dpc + KDPC::SystemArgument2)?];
    let routine = cx.read(dpc + KDPC::DeferredRoutine)?.address;
    let is_lost = |place: usize| given[place].address & !kept[place].address != 0;
    let lost = (0..kept.len()).find(|place| is_lost(*place) && cx.engine().looks_at(routine, FIRST + place));
    let Some(place) = lost else { return Ok(()) };
    let name = symbols::describe(cx, routine);
    let message = format!(
        "the DPC {:#x} was queued with {:#x} as SystemArgument{}, and is in the queue already with {:#x}: {name} looks at that and will not see the other",
        dpc.address,
        given[place].address,
        place + 1,
        kept[place].address,
    );
    let queued = cx.with(|k| queued_at(k, dpc.address));
    let verdict = Verdict::warning("dpc-argument-lost", message);
    cx.report(match queued {
        Some(queued) => verdict.related("queued", queued),
        None => verdict,
    });
    Ok(())
}

#[cold]
fn no_such_processor(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, number: u16) -> engine::Leave {
    let count = cx.with(|k| k.ke.processor_count());
    let message = format!(
        "the DPC {:#x} is to run on processor {}, of {count}: its memory was overwritten, for no routine sets that",
        dpc.address,
        number - TARGETED
    );
    let verdict = Verdict::error("dpc-damaged", message);
    cx.stop(verdict.bug_check(0xC7, [3, dpc.address, (number - TARGETED).into(), count.into()]))
}

/// As [`enqueue`] by a driver, for an ordinary DPC that begins at once on the processor that queues it and is not queued yet. False:
/// nothing is done.
#[inline]
fn enqueue_here(
    cx: &mut Cx<'_>,
    dpc: DriverPtr<KDPC>,
    argument1: DriverPtr<()>,
    argument2: DriverPtr<()>,
) -> bool {
    let Some(moment) = witness::plain_moment(cx) else { return false };
    let queued = cx.with(|k| {
        if !is_plain(k, dpc) {
            return false;
        }
        let Some(view) = k.engine.view(dpc) else { return false };
        let written = k.engine.try_store(|| {
            view.set(KDPC::SystemArgument1, argument1);
            view.set(KDPC::SystemArgument2, argument2);
            view.set(KDPC::DpcData, k.ke.processor().region.cast());
        });
        if written.is_none() {
            return false;
        }
        let processor = k.ke.current;
        k.ke.irq.queued.insert(dpc.address, QueueOf { processor, threaded: false, moment });
        let processor = k.ke.processor_mut();
        processor.dpcs.push_back(QueuedDpc { object: dpc.address, by: By::Driver });
        processor.dispatch_requested = true;
        k.ke.raise_pending(DISPATCH_LEVEL);
        true
    });
    if queued && cx.count_event(Kind::DpcQueued) {
        cx.emit(Event::DpcQueued { dpc: dpc.address, inserted: true });
    }
    queued
}

/// In which queue something is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueOf {
    processor: usize,
    threaded: bool,
    /// When it was queued.
    moment: u64,
}

fn enqueue_ordinary(cx: &mut Cx<'_>, target: usize, queued: QueuedDpc, importance: u8) {
    let begins = cx.with(|k| {
        let here = target == k.ke.current;
        let queue = &mut k.ke.processors[target].dpcs;
        if importance == HIGH {
            queue.push_front(queued);
        } else {
            queue.push_back(queued);
        }
        k.ke.invalidate_levels();
        let long = k.ke.processors[target].dpcs.len() > LONGEST_QUEUE;
        long || matches!(importance, HIGH | MEDIUM_HIGH) || (importance == MEDIUM && here)
    });
    let begins = begins || cx.choose("ke.dpc_rate", 2) == 1;
    cx.with(|k| {
        if begins {
            k.ke.processors[target].dispatch_requested = true;
            if target != k.ke.current {
                // The slice is set anew: it must end early enough for that processor's turn.
                k.ke.rearm();
            }
        } else {
            history::reads_clock(k);
            let now = k.engine.now();
            k.ke.timing.timers_mut().drain_at_next_tick(now, target);
        }
    });
}

/// Queues what `Ex` calls at DISPATCH_LEVEL for a timer of its own, once.
pub(crate) fn enqueue_for_timer(cx: &mut Cx<'_>, timer: u64, by: By) {
    let moment = witness::moment(cx);
    cx.with(|k| {
        let processor = k.ke.current;
        if k.ke.irq.queued.contains_key(&timer) {
            return;
        }
        k.ke.irq.queued.insert(timer, QueueOf { processor, threaded: false, moment });
        let processor = k.ke.processor_mut();
        processor.dpcs.push_back(QueuedDpc { object: timer, by });
        processor.dispatch_requested = true;
        k.ke.invalidate_levels();
    });
}

/// `KeRemoveQueueDpc`: whether it was in a queue.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn remove(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>) -> Flow<bool> {
    check_initialized(cx, dpc, "KeRemoveQueueDpc")?;
    let found = cx.with(|k| {
        let Some(place) = k.ke.irq.queued.remove(&dpc.address) else { return false };
        let processor = &mut k.ke.processors[place.processor];
        let queue = if place.threaded { &mut processor.threaded.queue } else { &mut processor.dpcs };
        queue.retain(|queued| queued.object != dpc.address);
        if k.ke.processors[place.processor].dpcs.is_empty() {
            k.ke.timing.timers_mut().cancel_drain(place.processor);
        }
        true
    });
    if found {
        cx.write(dpc + KDPC::DpcData, DriverPtr::NULL)?;
        cx.emit(Event::DpcRemoved { dpc: dpc.address });
    }
    Ok(found)
}

/// `KeRemoveQueueDpcEx`: as [`remove`], and if asked, returns when its routine does not run any more.
///
/// # Errors
/// A verdict if the pointer is bad, or it may not wait here; [`engine::Leave`] of what runs meanwhile.
pub(crate) fn remove_ex(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, wait_if_active: bool) -> Flow<bool> {
    let found = remove(cx, dpc)?;
    if wait_if_active {
        check_may_wait(cx, "KeRemoveQueueDpcEx")?;
        wait_until_returned(cx, dpc.address)?;
    }
    Ok(found)
}

/// Returns when the routine of this does not run any more.
fn wait_until_returned(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    while cx.with(|k| runs(k, object)) {
        scheduler::wait_for(cx, WaitsFor::Routine(object))?;
    }
    Ok(())
}

/// Returns when nothing is queued or runs under this address any more.
pub(crate) fn wait_until_over(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    while cx.with(|k| is_active(k, object)) {
        scheduler::wait_for(cx, WaitsFor::Dpc(object))?;
    }
    Ok(())
}

/// A caller that is asked to wait for a DPC must be below the level at which it runs.
///
/// # Errors
/// A verdict that names `what` was called if it is not.
pub(crate) fn check_may_wait(cx: &mut Cx<'_>, what: &str) -> Flow<()> {
    let level = irql::current(cx);
    if level < DISPATCH_LEVEL {
        return Ok(());
    }
    let message = format!("{what} was asked to wait at IRQL {level}; it may at APC_LEVEL or below");
    Err(cx.stop(Verdict::error("wait-at-raised-irql", message)))
}

/// `KeFlushQueuedDpcs`: returns when every DPC that was queued on any processor has run.
///
/// # Errors
/// [`engine::Leave`] of the DPCs that run here.
pub(crate) fn flush(cx: &mut Cx<'_>) -> Flow<()> {
    cx.with(|k| {
        for processor in &mut k.ke.processors {
            processor.dispatch_requested |= !processor.dpcs.is_empty();
        }
        k.ke.invalidate_levels();
    });
    irql::settle(cx)?;
    while cx.with(|k| any(k)) {
        scheduler::wait_for(cx, WaitsFor::Dpcs)?;
    }
    Ok(())
}

/// Returns when the routines that run now have returned. What is queued is left to come when it does.
///
/// # Errors
/// [`engine::Leave`] of the DPCs that run here.
pub(crate) fn wait_for_running(cx: &mut Cx<'_>) -> Flow<()> {
    let running: Vec<u64> = cx.with(|k| {
        let processors = k.ke.processors.iter();
        processors.flat_map(|p| p.running_dpc.into_iter().chain(p.threaded.running)).collect()
    });
    for object in running {
        wait_until_returned(cx, object)?;
    }
    Ok(())
}

/// Whether any DPC is queued or runs on any processor.
pub(crate) fn any(k: &Kernel) -> bool {
    !k.ke.irq.queued.is_empty()
        || k.ke.processors.iter().any(|p| p.running_dpc.is_some() || p.threaded.running.is_some())
}

/// Whether this is in a queue.
pub(crate) fn is_queued(k: &Kernel, object: u64) -> bool {
    k.ke.irq.queued.contains_key(&object)
}

/// Whether its routine runs.
pub(crate) fn runs(k: &Kernel, object: u64) -> bool {
    let mut processors = k.ke.processors.iter();
    processors.any(|p| p.running_dpc == Some(object) || p.threaded.running == Some(object))
}

/// Whether this is in a queue or runs.
pub(crate) fn is_active(k: &Kernel, object: u64) -> bool {
    is_queued(k, object) || runs(k, object)
}

/// The moment when this was queued, if it is.
pub(crate) fn queued_at(k: &Kernel, object: u64) -> Option<u64> {
    k.ke.irq.queued.get(&object).map(|place| place.moment)
}

/// All KDPCs in queues, and when they were queued: for `Io` before a driver's code goes.
pub(crate) fn all_queued(k: &Kernel) -> Vec<(u64, u64)> {
    let queues = k.ke.processors.iter().flat_map(|p| p.dpcs.iter().chain(&p.threaded.queue));
    let dpcs = queues.filter(|dpc| matches!(dpc.by, By::Driver | By::Timer)).map(|dpc| dpc.object);
    dpcs.filter_map(|dpc| Some((dpc, queued_at(k, dpc)?))).collect()
}

/// Whether the queue of processor `index` is to be emptied as soon as its level allows.
#[inline]
pub(crate) fn is_wanted(k: &Kernel, index: usize) -> bool {
    let processor = &k.ke.processors[index];
    processor.dispatch_requested || (processor.is_idle() && !processor.dpcs.is_empty())
}

fn check_initialized(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, what: &str) -> Flow<()> {
    let kind = cx.read(dpc + KDPC::Type)?;
    if kind == DPC_OBJECT || kind == THREADED_DPC_OBJECT {
        return Ok(());
    }
    let message = format!("{what} was called for {:#x}, which KeInitializeDpc has not set up", dpc.address);
    Err(cx.stop(Verdict::error("dpc-not-initialized", message).bug_check(0xC7, [1, dpc.address, 0, 0])))
}

/// A DPC of `base..base+length` that is in a queue.
pub(in crate::ke) fn queued_in(k: &Kernel, base: u64, length: u64) -> Option<u64> {
    k.ke.irq.queued.range(base..base.saturating_add(length)).next().map(|(&object, _)| object)
}

/// `KeIsExecutingDpc`: whether a DPC runs on this processor, that is, whether the caller is one.
///
/// # Errors
/// None of its own.
pub(crate) fn is_executing(cx: &mut Cx<'_>) -> Flow<bool> {
    Ok(cx.with(|k| k.ke.processor().running_dpc.is_some()))
}
