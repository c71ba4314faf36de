//! Timers with handles.
//!
//! Pages: *ZwCreateTimer*, *ZwOpenTimer*, *ZwSetTimer*, *ZwCancelTimer* (as *CreateWaitableTimer function*, *SetWaitableTimer function*, *CancelWaitableTimer
//! function*). What a timer does is `timer`; a routine that is called by an asynchronous procedure call when it expires is not here.

use abi::{DISPATCHER_HEADER, DriverPtr, KTIMER, NtStatus, OBJECT_ATTRIBUTES};
use engine::Flow;

use super::timer;
use crate::cx::Cx;
use crate::mm::pool;
use crate::ob::handle::{self, Mode};
use crate::ob::{self, Handle, Kind, Procedures};
use crate::verdict::Verdict;

static PROCEDURES: Procedures = Procedures { close: Procedures::nothing, delete };

fn delete(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    ob::object::make_temporary(cx, object);
    timer::cancel(cx, DriverPtr::new(object))?;
    Procedures::free(cx, object)
}

/// `ZwCreateTimer`: `kind` 0 is a notification timer.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_create(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    kind: u32,
) -> Flow<NtStatus> {
    if kind > 1 {
        return Ok(NtStatus::INVALID_PARAMETER_4);
    }
    let named = match ob::attributes::read(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    let kernel = named.kernel_handle();
    if let Some(status) = ob::attributes::open_existing(cx, &named, Kind::Timer, access, handle)? {
        return Ok(status);
    }
    let size = size_of::<KTIMER>() as u64;
    let object: DriverPtr<KTIMER> = pool::allocate(cx, pool::Kind::NonPaged, size, pool::tag(b"Time"))?;
    if object.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    timer::initialize_ex(cx, object, kind)?;
    if let Err(status) = ob::object::create(cx, object.address, Kind::Timer, &named.name, &PROCEDURES) {
        pool::free(cx, object)?;
        return Ok(status);
    }
    handle::open_made(cx, object, access, kernel, handle)
}

/// `ZwOpenTimer`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<NtStatus> {
    ob::attributes::open_named(cx, handle, access, attributes, Kind::Timer)
}

/// Has `change` change the timer of a handle; whether it was signaled goes to `previous`.
fn with_timer(
    cx: &mut Cx<'_>,
    handle: u64,
    previous: DriverPtr<u8>,
    change: impl FnOnce(&mut Cx<'_>, DriverPtr<KTIMER>) -> Flow<bool>,
) -> Flow<NtStatus> {
    let entry = match handle::reference(cx, Handle(handle), Some(Kind::Timer), 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let object = DriverPtr::<KTIMER>::new(entry.object);
    let was = cx.read((object + KTIMER::Header) + DISPATCHER_HEADER::SignalState)? != 0;
    change(cx, object)?;
    ob::object::dereference(cx, object)?;
    if !previous.is_null() {
        cx.write(previous, was.into())?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `ZwSetTimer`.
///
/// # Errors
/// A verdict if a pointer is bad, or there is a routine.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn zw_set(
    cx: &mut Cx<'_>,
    handle: u64,
    due: DriverPtr<i64>,
    routine: u64,
    _context: u64,
    _resume: bool,
    period: i32,
    previous: DriverPtr<u8>,
) -> Flow<NtStatus> {
    if routine != 0 {
        return Err(cx.stop(Verdict::not_implemented("ZwSetTimer with a TimerApcRoutine")));
    }
    if period < 0 {
        return Ok(NtStatus::INVALID_PARAMETER_6);
    }
    let due = cx.read(due)?;
    with_timer(cx, handle, previous, |cx, timer| timer::set_ex(cx, timer, due, period, DriverPtr::NULL))
}

/// `ZwCancelTimer`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn zw_cancel(cx: &mut Cx<'_>, handle: u64, previous: DriverPtr<u8>) -> Flow<NtStatus> {
    with_timer(cx, handle, previous, timer::cancel)
}
