//! How a DPC queue is emptied: at DISPATCH_LEVEL, on the processor's DPC stack, with what its memory says. Follows *DPC Objects and
//! DPCs*, *Organization of DPC Queues*, *KDEFERRED_ROUTINE callback function*.
//!
//! What is in a queue, and when it is to be emptied, is `dpc`'s. A DPC that is queued where nothing waits does not come here: it runs
//! ([`run_here`]) as if it had.

use abi::{Code, DEVICE_OBJECT, DriverPtr, KDPC};
use engine::{Flow, StrandId};

use super::dpc::{self, By, QueuedDpc, THREADED_DPC_OBJECT};
use super::watchdog;
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind, Role};
use crate::ex;
use crate::ke::calls::callout::{self, Begun, Callout};
use crate::ke::calls::stack;
use crate::ke::levels::irql::{self, DISPATCH_LEVEL};
use crate::ke::sched::{scheduler, slice};
use crate::ke::waits::timer;
use crate::verdict::Verdict;
use crate::witness;

/// `IO_TYPE_DEVICE`, which a device object's type field holds.
const DEVICE_TYPE: i16 = 3;

/// A call's budget of instructions, for each DPC in a row without falling below DISPATCH_LEVEL: by default fifty thousand take the time they take.
const QUICK: u64 = 20_000;
/// Each one more is slow, by this over the same budget in nanoseconds (300 µs), as `patience` has the clock go faster: a driver that
/// looks at the clock can stop in time, and Windows' watchdog sees one that does not before the host has worked for a second.
const SLOW: u64 = 300_000_000_000_000;

/// As [`super::dpc::insert`] below DISPATCH_LEVEL, where nothing waits: the DPC would run before anything else does, and runs without
/// having been queued. None: nothing is done. Else whether nothing waits behind it.
#[inline]
pub(super) fn run_here(
    cx: &mut Cx<'_>,
    object: DriverPtr<KDPC>,
    argument1: DriverPtr<()>,
    argument2: DriverPtr<()>,
) -> Option<Flow<bool>> {
    let old = cx.engine().level();
    // Where a policy may let others go first, it is asked before the routine begins.
    if old >= DISPATCH_LEVEL || cx.engine().may_depart() {
        return None;
    }
    witness::plain_moment(cx)?;
    let (now, depth) = (cx.engine().now(), cx.engine().depth());
    let mut begun = Begun::default();
    let ready = cx.with(|k| {
        let processor = k.ke.processor();
        let runs_at_once = k.is_nothing_pending()
            && processor.interrupts_enabled
            && processor.dpcs.is_empty()
            && k.engine.strand() != StrandId(0);
        if !runs_at_once || !dpc::is_plain(k, object) {
            return None;
        }
        let dpc = k.engine.view(object)?;
        k.engine.try_store(|| {
            dpc.set(KDPC::SystemArgument1, argument1);
            dpc.set(KDPC::SystemArgument2, argument2);
        })?;
        let ready = ready(k, QueuedDpc { object: object.address, by: By::Driver })?;
        k.set_level(k.ke.current, DISPATCH_LEVEL);
        let processor = k.ke.processor_mut();
        (processor.dispatch_since, processor.running_dpc) = (now, Some(object.address));
        let base = processor.dpc_stack;
        callout::begin(k, &mut begun, &ready.call(object.address), base, (now, depth));
        Some(ready)
    })?;
    if cx.count_event(Kind::DpcQueued) {
        cx.emit_at(old, Event::DpcQueued { dpc: object.address, inserted: true });
    }
    irql::tell(cx, old, DISPATCH_LEVEL);
    let call = ready.call(object.address);
    let (result, (overdue, then, quiet)) =
        callout::called(cx, &call, &mut begun, &ready.arguments, |k, went_well| match over(k, went_well) {
            (None, Head::Empty) => {
                k.set_level(k.ke.current, old);
                (None, None, k.is_nothing_pending())
            }
            (overdue, then) => (overdue, Some(then), false),
        });
    let (flow, quiet) = match (result, overdue, then) {
        (Err(leave), ..) => (Err(leave), false),
        (_, Some(verdict), _) => (Err(cx.stop(*verdict)), false),
        (_, _, Some(next)) => (retire(cx, next, old, 1), false),
        _ => (Ok(()), quiet),
    };
    match flow {
        Ok(()) => irql::tell(cx, DISPATCH_LEVEL, old),
        Err(_) => irql::set(cx, old),
    }
    Some(flow.map(|()| quiet))
}

/// What the queue of the current processor has next.
enum Head {
    /// Timers that are due come first.
    Due,
    /// A DPC, and the policy may let others go first.
    Waiting,
    /// This DPC, which runs from now on.
    Dpc(QueuedDpc, Option<Ready>),
    /// Nothing.
    Empty,
}

/// A DPC whose routine is to be called, as its memory says.
struct Ready {
    routine: DriverPtr<Code>,
    arguments: [u64; 4],
    role: Role,
}

impl Ready {
    #[inline]
    fn call(&self, object: u64) -> Callout {
        Callout { role: self.role, routine: self.routine, object, floor: DISPATCH_LEVEL }
    }
}

/// Raises to DISPATCH_LEVEL, lets due timers expire, empties the queue, goes back.
pub(crate) fn dispatch(cx: &mut Cx<'_>) -> Flow<()> {
    let now = cx.engine().now();
    let (old, first) = cx.with(|k| {
        let old = k.set_level(k.ke.current, DISPATCH_LEVEL);
        k.ke.processor_mut().dispatch_since = now;
        (old, head(k))
    });
    irql::tell(cx, old, DISPATCH_LEVEL);
    let result = retire(cx, first, old, 0);
    if result.is_err() {
        irql::set(cx, old);
    } else {
        irql::tell(cx, DISPATCH_LEVEL, old);
    }
    result
}

/// Empties the queue, of which so many have run already, and sets the level to `old`.
fn retire(cx: &mut Cx<'_>, first: Head, old: u8, mut runs: u32) -> Flow<()> {
    let mut next = first;
    loop {
        let (dpc, ready) = match next {
            Head::Empty => {
                cx.with(|k| k.set_level(k.ke.current, old));
                return Ok(());
            }
            Head::Due => {
                timer::expire(cx)?;
                next = cx.with(taken_or_asked);
                continue;
            }
            Head::Waiting => {
                scheduler::before_dpc(cx)?;
                // Time may have passed.
                if cx.with(|k| timer::is_due(k, k.ke.current)) {
                    timer::expire(cx)?;
                }
                next = cx.with(taken);
                continue;
            }
            Head::Dpc(dpc, ready) => (dpc, ready),
        };
        runs += 1;
        let budget = cx.with(|k| k.ke.sched.instruction_budget());
        if u64::from(runs) > budget / QUICK {
            slice::charge(cx, (SLOW / budget).max(1));
        }
        let (result, (overdue, then)) = match ready {
            Some(ready) => run(cx, dpc.object, &ready),
            None => run_slowly(cx, dpc),
        };
        result?;
        if let Some(verdict) = overdue {
            return Err(cx.stop(*verdict));
        }
        next = then;
    }
}

/// A DPC is over: the verdict if they have run for too long, and what comes next.
#[inline]
fn over(k: &mut Kernel, went_well: bool) -> (Option<Box<Verdict>>, Head) {
    k.ke.processor_mut().running_dpc = None;
    k.ke.sched.made_progress();
    match watchdog::cumulative(k) {
        None if went_well => (None, head(k)),
        overdue => (overdue.map(Box::new), Head::Empty),
    }
}

/// What comes next.
#[inline]
fn head(k: &mut Kernel) -> Head {
    k.ke.processor_mut().dispatch_requested = false;
    if timer::is_due(k, k.ke.current) { Head::Due } else { taken_or_asked(k) }
}

/// Takes the next one if the policy need not be asked first.
#[inline]
fn taken_or_asked(k: &mut Kernel) -> Head {
    if !k.engine.may_depart() || k.ke.processor().dpcs.is_empty() {
        return taken(k);
    }
    // It is in the queue, which is to be emptied.
    k.ke.processor_mut().dispatch_requested = true;
    Head::Waiting
}

/// Takes the next one out of the current processor's queue: it runs now.
#[inline]
fn taken(k: &mut Kernel) -> Head {
    let index = k.ke.current;
    let processor = k.ke.processor_mut();
    let Some(dpc) = processor.dpcs.pop_front() else {
        k.ke.timing.timers_mut().cancel_drain(index);
        return Head::Empty;
    };
    // The rest stay requested while one runs: it may not return (an exception, the machine's end).
    processor.dispatch_requested = !processor.dpcs.is_empty();
    processor.running_dpc = Some(dpc.object);
    k.ke.irq.queued.remove(&dpc.object);
    let ready = ready(k, dpc);
    Head::Dpc(dpc, ready)
}

fn run(cx: &mut Cx<'_>, object: u64, ready: &Ready) -> (Flow<u64>, (Option<Box<Verdict>>, Head)) {
    let moment = (cx.engine().now(), cx.engine().depth());
    let call = ready.call(object);
    let mut begun = Begun::default();
    cx.with(|k| {
        let base = k.ke.processor().dpc_stack;
        callout::begin(k, &mut begun, &call, base, moment);
    });
    callout::called(cx, &call, &mut begun, &ready.arguments, over)
}

/// As [`run`], of what is no KDPC, or lies where each access may be asked about.
#[cold]
fn run_slowly(cx: &mut Cx<'_>, queued: QueuedDpc) -> (Flow<u64>, (Option<Box<Verdict>>, Head)) {
    let result = call(cx, queued);
    let then = cx.with(|k| over(k, result.is_ok()));
    (result, then)
}

fn call(cx: &mut Cx<'_>, queued: QueuedDpc) -> Flow<u64> {
    let base = cx.with(|k| k.ke.processor().dpc_stack);
    if let By::ExTimer | By::ExDelete = queued.by {
        let timer = DriverPtr::new(queued.object);
        return stack::on(cx, base, |cx| ex::timer::call(cx, timer, queued.by == By::ExTimer)).map(|()| 0);
    }
    let (routine, arguments) = begin(cx, DriverPtr::new(queued.object))?;
    let role = role(cx, queued, arguments[1])?;
    let call = Callout { role, routine, object: queued.object, floor: DISPATCH_LEVEL };
    callout::asynchronous(cx, &call, base, &arguments)
}

/// As [`begin`] and [`role`], where each word is an instruction. None: nothing is done, and they do it.
#[inline]
fn ready(k: &Kernel, queued: QueuedDpc) -> Option<Ready> {
    if !matches!(queued.by, By::Driver | By::Timer) {
        return None;
    }
    let engine = k.engine;
    let dpc = engine.view(DriverPtr::<KDPC>::new(queued.object))?;
    let ready = engine.peek(|| {
        let context = dpc.get(KDPC::DeferredContext).address;
        let device = queued.object.wrapping_sub(DEVICE_OBJECT::Dpc.offset());
        let kind =
            if device == context { engine.view(DriverPtr::<DEVICE_OBJECT>::new(device)) } else { None };
        let is_devices = kind.is_some_and(|device| device.get(DEVICE_OBJECT::Type) == DEVICE_TYPE);
        let role = role_of(dpc.get(KDPC::Type), queued.by, is_devices);
        let routine = dpc.get(KDPC::DeferredRoutine);
        let arguments = [
            queued.object,
            context,
            dpc.get(KDPC::SystemArgument1).address,
            dpc.get(KDPC::SystemArgument2).address,
        ];
        Some(Ready { routine, arguments, role })
    })?;
    engine.try_store(|| dpc.set(KDPC::DpcData, DriverPtr::NULL)).map(|()| ready)
}

/// A DPC has left its queue and its routine runs now: which, and with which arguments.
pub(crate) fn begin(cx: &mut Cx<'_>, dpc: DriverPtr<KDPC>) -> Flow<(DriverPtr<Code>, [u64; 4])> {
    cx.with(|k| k.ke.irq.queued.remove(&dpc.address));
    cx.write(dpc + KDPC::DpcData, DriverPtr::NULL)?;
    let routine = cx.read(dpc + KDPC::DeferredRoutine)?;
    let context = cx.read(dpc + KDPC::DeferredContext)?.address;
    let argument1 = cx.read(dpc + KDPC::SystemArgument1)?.address;
    let argument2 = cx.read(dpc + KDPC::SystemArgument2)?.address;
    Ok((routine, [dpc.address, context, argument1, argument2]))
}

fn role(cx: &mut Cx<'_>, queued: QueuedDpc, context: u64) -> Flow<Role> {
    let device = queued.object.wrapping_sub(DEVICE_OBJECT::Dpc.offset());
    let kind = DriverPtr::<DEVICE_OBJECT>::new(device) + DEVICE_OBJECT::Type;
    let is_devices = device == context && cx.engine().read(kind) == Ok(DEVICE_TYPE);
    let kind = cx.read(DriverPtr::<KDPC>::new(queued.object) + KDPC::Type)?;
    Ok(role_of(kind, queued.by, is_devices))
}

/// What people call it: the KDPC inside a device object, whose context is the device, is the device's DpcForIsr.
#[inline]
fn role_of(kind: u8, by: By, is_devices: bool) -> Role {
    match (kind, by) {
        (THREADED_DPC_OBJECT, _) => Role::CustomThreadedDpc,
        (_, By::Timer) => Role::CustomTimerDpc,
        _ if is_devices => Role::DpcForIsr,
        _ => Role::CustomDpc,
    }
}
