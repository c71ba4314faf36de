//! Deferred procedure calls. Follows *Introduction to DPC Objects*, *KeInsertQueueDpc function*,
//! *Organization of DPC Queues*.
//!
//! A queue a processor; it is emptied at DISPATCH_LEVEL on the processor's DPC stack before the level falls below.
//! Threaded DPCs run as ordinary ones here, as they do on systems that have them disabled.

use abi::{DEVICE_OBJECT, DriverPtr, KDPC, NtStatus, PROCESSOR_NUMBER};
use engine::Flow;

use super::processor::{DISPATCH_LEVEL, WaitsFor};
use super::{affinity, callout, irql, scheduler, stack, timer};
use crate::cx::{Cx, Kernel};
use crate::event::Event;
use crate::verdict::Verdict;
use crate::witness;

/// `KDPC.Type` of an ordinary DPC, and of a threaded one.
const DPC_OBJECT: u8 = 19;
const THREADED_DPC_OBJECT: u8 = 24;

/// `KDPC_IMPORTANCE`.
const LOW: u8 = 0;
const MEDIUM: u8 = 1;
const HIGH: u8 = 2;
const MEDIUM_HIGH: u8 = 3;

/// What `KDPC.Number` is more than the number of a target processor; 0 is the processor that queues it.
const TARGETED: u16 = 0x800;

/// `IO_TYPE_DEVICE`, which a device object's type field holds.
const DEVICE_TYPE: i16 = 3;

/// So many DPCs in a row without falling below DISPATCH_LEVEL will not end by themselves.
const RUNS_AT_MOST: u32 = 1_000_000;

/// A DPC in a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueuedDpc {
    /// The KDPC.
    pub(crate) object: u64,
    /// A timer queued it.
    pub(crate) by_timer: bool,
    /// The moment of that.
    pub(crate) queued: u64,
}

/// `KeInitializeDpc`.
///
/// # Errors
/// A verdict if the pointer is bad or the DPC is queued.
pub fn initialize(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, routine: u64, context: u64) -> Flow<()> {
    prepare(cx, dpc, routine, context, DPC_OBJECT)
}

/// `KeInitializeThreadedDpc`.
///
/// # Errors
/// As [`initialize`].
pub fn initialize_threaded(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, routine: u64, context: u64) -> Flow<()> {
    prepare(cx, dpc, routine, context, THREADED_DPC_OBJECT)
}

fn prepare(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, routine: u64, context: u64, kind: u8) -> Flow<()> {
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
/// A verdict if the pointer is bad or the importance is none.
pub fn set_importance(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, importance: u32) -> Flow<()> {
    match u8::try_from(importance) {
        Ok(importance @ (LOW | MEDIUM | HIGH | MEDIUM_HIGH)) => cx.write(dpc + KDPC::Importance, importance),
        _ => {
            let message =
                format!("KeSetImportanceDpc was called with importance {importance}; they are 0 to 3");
            Err(cx.stop(Verdict::error("dpc-importance", message)))
        }
    }
}

/// `KeSetTargetProcessorDpc`: a processor of group 0.
///
/// # Errors
/// A verdict if the pointer is bad or there is no such processor.
pub fn set_target(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, number: u8) -> Flow<()> {
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
pub fn set_target_ex(
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
pub fn insert(
    cx: &mut Cx<'_>,
    dpc: DriverPtr<KDPC>,
    argument1: DriverPtr<()>,
    argument2: DriverPtr<()>,
) -> Flow<bool> {
    check_initialized(cx, dpc, "KeInsertQueueDpc")?;
    let inserted = enqueue(cx, dpc, argument1, argument2, false)?;
    irql::settle(cx)?;
    Ok(inserted)
}

/// Queues without letting anything run.
pub(crate) fn enqueue(
    cx: &mut Cx<'_>,
    dpc: DriverPtr<KDPC>,
    argument1: DriverPtr<()>,
    argument2: DriverPtr<()>,
    by_timer: bool,
) -> Flow<bool> {
    let inserted = cx.with(|k| queue_of(k, dpc.address).is_none());
    if inserted {
        cx.write(dpc + KDPC::SystemArgument1, argument1)?;
        cx.write(dpc + KDPC::SystemArgument2, argument2)?;
        let importance = cx.read(dpc + KDPC::Importance)?;
        let number = cx.read(dpc + KDPC::Number)?;
        let moment = witness::moment(cx);
        let data = cx.with(|k| {
            let target = number.checked_sub(TARGETED).map_or(k.ke.current, usize::from);
            let here = target == k.ke.current;
            let processor = &mut k.ke.processors[target];
            let queued = QueuedDpc { object: dpc.address, by_timer, queued: moment };
            if importance == HIGH {
                processor.dpcs.push_front(queued);
            } else {
                processor.dpcs.push_back(queued);
            }
            // A low one waits for company; a medium one on another processor would, but idle processors look.
            processor.dispatch_requested |= importance != LOW || (!here && processor.is_idle());
            let data = processor.region.address;
            k.ke.unsettled();
            data
        });
        // Not null while queued.
        cx.write(dpc + KDPC::DpcData, DriverPtr::new(data))?;
    }
    cx.emit(Event::DpcQueued { dpc: dpc.address, inserted });
    Ok(inserted)
}

/// `KeRemoveQueueDpc`: whether it was in a queue.
///
/// # Errors
/// A verdict if the pointer is bad.
pub fn remove(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>) -> Flow<bool> {
    check_initialized(cx, dpc, "KeRemoveQueueDpc")?;
    let found = cx.with(|k| {
        let (processor, at) = queue_of(k, dpc.address)?;
        k.ke.processors[processor].dpcs.remove(at)
    });
    if found.is_some() {
        cx.write(dpc + KDPC::DpcData, DriverPtr::NULL)?;
    }
    Ok(found.is_some())
}

/// `KeFlushQueuedDpcs`: returns when every DPC that was queued on any processor has run.
///
/// # Errors
/// [`engine::Leave`] of the DPCs that run here.
pub fn flush(cx: &mut Cx<'_>) -> Flow<()> {
    cx.with(|k| {
        for processor in &mut k.ke.processors {
            processor.dispatch_requested |= !processor.dpcs.is_empty();
        }
        k.ke.unsettled();
    });
    irql::settle(cx)?;
    while cx.with(|k| any(k)) {
        scheduler::wait_for(cx, WaitsFor::Dpcs)?;
    }
    Ok(())
}

/// Whether any DPC is queued or runs on any processor.
pub(crate) fn any(k: &Kernel) -> bool {
    k.ke.processors.iter().any(|p| !p.dpcs.is_empty() || p.running_dpc.is_some())
}

fn check_initialized(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>, what: &str) -> Flow<()> {
    let kind = cx.read(dpc + KDPC::Type)?;
    if kind == DPC_OBJECT || kind == THREADED_DPC_OBJECT {
        return Ok(());
    }
    let message = format!("{what} was called for {:#x}, which KeInitializeDpc has not set up", dpc.address);
    Err(cx.stop(Verdict::error("dpc-not-initialized", message).bug_check(0xC7, [1, dpc.address, 0, 0])))
}

/// In which processor's queue a DPC is, and where.
fn queue_of(k: &Kernel, dpc: u64) -> Option<(usize, usize)> {
    k.ke.processors.iter().enumerate().find_map(|(index, processor)| {
        let at = processor.dpcs.iter().position(|queued| queued.object == dpc)?;
        Some((index, at))
    })
}

/// The moment when a DPC was queued, if it is.
pub(crate) fn queued_at(k: &Kernel, dpc: u64) -> Option<u64> {
    let (processor, at) = queue_of(k, dpc)?;
    k.ke.processors[processor].dpcs.get(at).map(|queued| queued.queued)
}

/// A DPC of `base..base+length` that is in a queue.
pub(crate) fn queued_in(k: &Kernel, base: u64, length: u64) -> Option<u64> {
    let queued = k.ke.processors.iter().flat_map(|processor| &processor.dpcs);
    queued.map(|dpc| dpc.object).find(|&object| object.wrapping_sub(base) < length)
}

/// Raises to DISPATCH_LEVEL, lets due timers expire, empties the queue, goes back.
pub(crate) fn dispatch(cx: &mut Cx<'_>) -> Flow<()> {
    let old = irql::current(cx);
    irql::set(cx, DISPATCH_LEVEL);
    let result = retire(cx);
    irql::set(cx, old);
    result
}

fn retire(cx: &mut Cx<'_>) -> Flow<()> {
    let mut runs = 0;
    loop {
        cx.with(|k| k.ke.processor_mut().dispatch_requested = false);
        timer::expire(cx)?;
        let Some(dpc) = cx.with(|k| k.ke.processor_mut().dpcs.pop_front()) else { return Ok(()) };
        // While one runs, the rest stay asked for: it may leave by another way than returning.
        cx.with(|k| {
            let processor = k.ke.processor_mut();
            processor.dispatch_requested = !processor.dpcs.is_empty();
            processor.running_dpc = Some(dpc.object);
            k.ke.unsettled();
        });
        runs += 1;
        if runs > RUNS_AT_MOST {
            return Err(endless(cx, dpc.object));
        }
        let result = run(cx, dpc);
        cx.with(|k| k.ke.processor_mut().running_dpc = None);
        result?;
    }
}

fn endless(cx: &mut Cx<'_>, dpc: u64) -> engine::Leave {
    let message = format!(
        "{RUNS_AT_MOST} DPCs ran in a row, {dpc:#x} among them: they queue each other, and no thread ever runs"
    );
    cx.stop(Verdict::error("endless-dpcs", message).bug_check(0x133, [1, 0x1E00, 0, 0]))
}

fn run(cx: &mut Cx<'_>, queued: QueuedDpc) -> Flow<()> {
    let dpc = DriverPtr::<KDPC>::new(queued.object);
    cx.write(dpc + KDPC::DpcData, DriverPtr::NULL)?;
    let routine = cx.read(dpc + KDPC::DeferredRoutine)?;
    let context = cx.read(dpc + KDPC::DeferredContext)?.address;
    let argument1 = cx.read(dpc + KDPC::SystemArgument1)?.address;
    let argument2 = cx.read(dpc + KDPC::SystemArgument2)?.address;
    let role = role(cx, queued, context);
    let base = cx.with(|k| k.ke.processor().dpc_stack);
    let call = callout::Callout { role, routine, object: queued.object, floor: DISPATCH_LEVEL };
    stack::on(cx, base, |cx| {
        callout::asynchronous(cx, &call, &[queued.object, context, argument1, argument2])
    })?;
    Ok(())
}

/// What people call it: the KDPC inside a device object, whose context is the device, is the device's DpcForIsr.
fn role(cx: &mut Cx<'_>, queued: QueuedDpc, context: u64) -> &'static str {
    let device = queued.object.wrapping_sub(DEVICE_OBJECT::Dpc.offset);
    let kind = DriverPtr::<DEVICE_OBJECT>::new(device) + DEVICE_OBJECT::Type;
    if queued.by_timer {
        "CustomTimerDpc"
    } else if device == context && cx.engine().read(kind) == Ok(DEVICE_TYPE) {
        "DpcForIsr"
    } else {
        "CustomDpc"
    }
}

/// `KeIsExecutingDpc`: whether a DPC runs on this processor, that is, whether the caller is one.
///
/// # Errors
/// None of its own.
pub fn is_executing(cx: &mut Cx<'_>) -> Flow<bool> {
    Ok(cx.with(|k| k.ke.processor().running_dpc.is_some()))
}
