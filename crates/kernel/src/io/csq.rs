//! Cancel-safe queues: the driver keeps the queue and its lock, the I/O manager does what is hard about cancelling.
//!
//! Pages: *Cancel-Safe IRP Queues*, *IoCsqInitialize function*, *IoCsqInsertIrpEx function*, *IoCsqRemoveIrp function*,
//! *IoCsqRemoveNextIrp function*. The queue's address stands in `Tail.Overlay.DriverContext[3]` of a queued IRP, or that
//! of its context. An IRP that the driver's own insert routine refuses is not marked pending: no page says so in a word, but *IoCsqInsertIrp function* marks behind the
//! insertion, and Microsoft's sample *cancel* marks such an IRP by itself.

use abi::{
    Code, DEVICE_OBJECT, DriverPtr, IO_CSQ, IO_CSQ_IRP_CONTEXT, IO_STACK_LOCATION, IO_TYPE_CSQ,
    IO_TYPE_CSQ_EX, IO_TYPE_CSQ_IRP_CONTEXT, IRP, NtStatus, SL_PENDING_RETURNED,
};
use engine::{Flow, Leave};

use super::call::low_half;
use super::found::{self, Place};
use super::{cancel, cancel_routine, complete, irp, routine};
use crate::cx::Cx;
use crate::event::Role;
use crate::ldr;
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::witness;

type Queue = DriverPtr<IO_CSQ>;
type Context = DriverPtr<IO_CSQ_IRP_CONTEXT>;

/// `IoCsqInitialize`.
///
/// # Errors
/// A verdict if the pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn initialize(
    cx: &mut Cx<'_>,
    queue: Queue,
    insert: DriverPtr<Code>,
    remove: DriverPtr<Code>,
    peek: DriverPtr<Code>,
    acquire: DriverPtr<Code>,
    release: DriverPtr<Code>,
    complete: DriverPtr<Code>,
) -> Flow<NtStatus> {
    initialize_as(cx, queue, IO_TYPE_CSQ, [insert, remove, peek, acquire, release, complete])
}

/// `IoCsqInitializeEx`: its insert routine gets a context and may refuse.
///
/// # Errors
/// As [`initialize`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn initialize_ex(
    cx: &mut Cx<'_>,
    queue: Queue,
    insert: DriverPtr<Code>,
    remove: DriverPtr<Code>,
    peek: DriverPtr<Code>,
    acquire: DriverPtr<Code>,
    release: DriverPtr<Code>,
    complete: DriverPtr<Code>,
) -> Flow<NtStatus> {
    initialize_as(cx, queue, IO_TYPE_CSQ_EX, [insert, remove, peek, acquire, release, complete])
}

fn initialize_as(cx: &mut Cx<'_>, queue: Queue, kind: u32, routines: [DriverPtr<Code>; 6]) -> Flow<NtStatus> {
    let [insert, remove, peek, acquire, release, complete] = routines;
    cx.write(queue + IO_CSQ::Type, kind)?;
    cx.write(queue + IO_CSQ::CsqInsertIrp, insert)?;
    cx.write(queue + IO_CSQ::CsqRemoveIrp, remove)?;
    cx.write(queue + IO_CSQ::CsqPeekNextIrp, peek)?;
    cx.write(queue + IO_CSQ::CsqAcquireLock, acquire)?;
    cx.write(queue + IO_CSQ::CsqReleaseLock, release)?;
    cx.write(queue + IO_CSQ::CsqCompleteCanceledIrp, complete)?;
    cx.write(queue + IO_CSQ::ReservePointer, DriverPtr::NULL)?;
    Ok(NtStatus::SUCCESS)
}

/// `IoCsqInsertIrp`: marks the IRP pending and queues it; `context`, if not null, names it for [`remove`].
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn insert(cx: &mut Cx<'_>, queue: Queue, irp: DriverPtr<IRP>, context: Context) -> Flow<()> {
    insert_ex(cx, queue, irp, context, 0).map(|_| ())
}

/// `IoCsqInsertIrpEx`: as [`insert`]; the status of the driver's insert routine.
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn insert_ex(
    cx: &mut Cx<'_>,
    queue: Queue,
    irp: DriverPtr<IRP>,
    context: Context,
    insert_context: u64,
) -> Flow<NtStatus> {
    let kind = check(cx, queue)?;
    if context.is_null() {
        write_owner(cx, irp, queue.address)?;
    } else {
        cx.write(context + IO_CSQ_IRP_CONTEXT::Type, IO_TYPE_CSQ_IRP_CONTEXT)?;
        cx.write(context + IO_CSQ_IRP_CONTEXT::Irp, irp)?;
        cx.write(context + IO_CSQ_IRP_CONTEXT::Csq, queue)?;
        write_owner(cx, irp, context.address)?;
    }
    cx.write(queue + IO_CSQ::ReservePointer, DriverPtr::NULL)?;
    let moment = witness::moment(cx);
    cx.with(|k| k.io.irps.queued(irp.address, moment));
    found::tell(cx, irp, Place::Queued);
    let location = irp::current(cx, irp)?;
    let marked_before = cx.read(location + IO_STACK_LOCATION::Control)? & SL_PENDING_RETURNED;
    complete::mark_pending(cx, location)?;

    let lock = acquire(cx, queue)?;
    let insert = cx.read(queue + IO_CSQ::CsqInsertIrp)?;
    let status = if kind == IO_TYPE_CSQ_EX {
        let arguments = [queue.address, irp.address, insert_context];
        NtStatus(low_half(routine::call(cx, Role::CsqInsertIrp, insert, irp.address, &arguments)?))
    } else {
        routine::call(cx, Role::CsqInsertIrp, insert, irp.address, &[queue.address, irp.address])?;
        NtStatus::SUCCESS
    };
    if !status.is_success() {
        // A driver that has marked it by itself returns STATUS_PENDING whatever comes of this.
        let control = cx.read(location + IO_STACK_LOCATION::Control)?;
        cx.write(location + IO_STACK_LOCATION::Control, control & !SL_PENDING_RETURNED | marked_before)?;
        write_owner(cx, irp, 0)?;
        if !context.is_null() {
            cx.write(context + IO_CSQ_IRP_CONTEXT::Irp, DriverPtr::NULL)?;
        }
        release(cx, queue, lock)?;
        return Ok(status);
    }
    cancel_routine::set(cx, irp, ldr::internal_address("IopCsqCancelRoutine"))?;
    if cx.read(irp + IRP::Cancel)? != 0 && !cancel::take_routine(cx, irp)?.is_null() {
        take_out(cx, queue, irp, context)?;
        release(cx, queue, lock)?;
        complete_cancelled(cx, queue, irp)?;
    } else {
        release(cx, queue, lock)?;
    }
    Ok(status)
}

/// `IoCsqRemoveIrp`: the IRP that `context` names, if it is still in the queue; else null.
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn remove(cx: &mut Cx<'_>, queue: Queue, context: Context) -> Flow<DriverPtr<IRP>> {
    check(cx, queue)?;
    let lock = acquire(cx, queue)?;
    let mut irp = cx.read(context + IO_CSQ_IRP_CONTEXT::Irp)?;
    if !irp.is_null() {
        if cancel::take_routine(cx, irp)?.is_null() {
            irp = DriverPtr::NULL;
        } else {
            take_out(cx, queue, irp, context)?;
        }
    }
    release(cx, queue, lock)?;
    Ok(irp)
}

/// `IoCsqRemoveNextIrp`: the first IRP that the driver's peek routine accepts; null if there is none.
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn remove_next(cx: &mut Cx<'_>, queue: Queue, peek_context: u64) -> Flow<DriverPtr<IRP>> {
    check(cx, queue)?;
    cx.write(queue + IO_CSQ::ReservePointer, DriverPtr::NULL)?;
    let lock = acquire(cx, queue)?;
    let peek = cx.read(queue + IO_CSQ::CsqPeekNextIrp)?;
    let mut irp = DriverPtr::<IRP>::NULL;
    loop {
        let arguments = [queue.address, irp.address, peek_context];
        let next = DriverPtr::new(routine::call(cx, Role::CsqPeekNextIrp, peek, queue.address, &arguments)?);
        if !irp.is_null() && next == irp {
            return Err(repeated(cx, irp));
        }
        irp = next;
        if irp.is_null() {
            break;
        }
        if !cancel::take_routine(cx, irp)?.is_null() {
            let context = context_of(cx, irp)?;
            take_out(cx, queue, irp, context)?;
            break;
        }
        // It is being cancelled: its cancel routine waits for this lock.
    }
    release(cx, queue, lock)?;
    Ok(irp)
}

/// What comes behind an IRP is that IRP, for the driver: this would be asked for ever, with the lock held that its cancel routine waits for.
#[cold]
fn repeated(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Leave {
    let message = format!(
        "CsqPeekNextIrp was asked for the IRP behind {0:#x}, which is being cancelled, and has given {0:#x} again: IoCsqRemoveNextIrp asks for ever, and \
         the cancel routine waits for the lock of the queue",
        irp.address
    );
    cx.stop(Verdict::error("csq-peek-repeated", message))
}

/// The cancel routine of every queued IRP.
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn cancel_routine(
    cx: &mut Cx<'_>,
    _device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<()> {
    let irql = cx.read(irp + IRP::CancelIrql)?;
    cancel::release(cx, irql)?;
    let context = context_of(cx, irp)?;
    let queue = if context.is_null() {
        DriverPtr::new(owner(cx, irp)?)
    } else {
        cx.read(context + IO_CSQ_IRP_CONTEXT::Csq)?
    };
    cx.write(queue + IO_CSQ::ReservePointer, DriverPtr::NULL)?;
    let lock = acquire(cx, queue)?;
    take_out(cx, queue, irp, context)?;
    release(cx, queue, lock)?;
    complete_cancelled(cx, queue, irp)
}

fn check(cx: &mut Cx<'_>, queue: Queue) -> Flow<u32> {
    let kind = cx.read(queue + IO_CSQ::Type)?;
    if kind == IO_TYPE_CSQ || kind == IO_TYPE_CSQ_EX {
        return Ok(kind);
    }
    let message = format!(
        "{:#x} is used as a cancel-safe queue and was not initialised with IoCsqInitialize",
        queue.address
    );
    Err(cx.stop(Verdict::error("csq-not-initialized", message)))
}

/// Calls the driver's lock routine; what it stored as IRQL.
fn acquire(cx: &mut Cx<'_>, queue: Queue) -> Flow<DriverPtr<u8>> {
    let routine = cx.read(queue + IO_CSQ::CsqAcquireLock)?;
    let irql: DriverPtr<u8> = pool::allocate(cx, pool::Kind::NonPaged, 8, pool::tag(b"IoCq"))?;
    let arguments = [queue.address, irql.address];
    routine::call_changing(cx, Role::CsqAcquireLock, routine, queue.address, &arguments, None)?;
    Ok(irql)
}

fn release(cx: &mut Cx<'_>, queue: Queue, irql: DriverPtr<u8>) -> Flow<()> {
    let routine = cx.read(queue + IO_CSQ::CsqReleaseLock)?;
    let level = cx.read(irql)?;
    pool::free(cx, irql)?;
    let arguments = [queue.address, level.into()];
    routine::call_changing(cx, Role::CsqReleaseLock, routine, queue.address, &arguments, None).map(|_| ())
}

fn take_out(cx: &mut Cx<'_>, queue: Queue, irp: DriverPtr<IRP>, context: Context) -> Flow<()> {
    if !context.is_null() {
        cx.write(context + IO_CSQ_IRP_CONTEXT::Irp, DriverPtr::NULL)?;
    }
    write_owner(cx, irp, 0)?;
    let routine = cx.read(queue + IO_CSQ::CsqRemoveIrp)?;
    routine::call(cx, Role::CsqRemoveIrp, routine, irp.address, &[queue.address, irp.address]).map(|_| ())
}

fn complete_cancelled(cx: &mut Cx<'_>, queue: Queue, irp: DriverPtr<IRP>) -> Flow<()> {
    let routine = cx.read(queue + IO_CSQ::CsqCompleteCanceledIrp)?;
    let arguments = [queue.address, irp.address];
    routine::call(cx, Role::CsqCompleteCanceledIrp, routine, irp.address, &arguments).map(|_| ())
}

fn owner(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<u64> {
    Ok(cx.read((irp + IRP::Tail_Overlay_DriverContext).element(3))?.address)
}

fn write_owner(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, owner: u64) -> Flow<()> {
    cx.write((irp + IRP::Tail_Overlay_DriverContext).element(3), DriverPtr::new(owner))
}

/// The context that a queued IRP was given; null if it is in the queue without one.
fn context_of(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<Context> {
    let context = Context::new(owner(cx, irp)?);
    if context.is_null() {
        return Ok(context);
    }
    let kind = cx.read(context + IO_CSQ_IRP_CONTEXT::Type)?;
    Ok(if kind == IO_TYPE_CSQ_IRP_CONTEXT { context } else { DriverPtr::NULL })
}
