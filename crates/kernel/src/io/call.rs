//! Sending an IRP to a driver.
//!
//! Page: *IofCallDriver function* (*IoCallDriver macro*). Nothing here looks at what the request is for.

use abi::{
    DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_MJ_CREATE,
    IRP_MJ_DEVICE_CONTROL, IRP_MJ_INTERNAL_DEVICE_CONTROL, IRP_MJ_MAXIMUM_FUNCTION, IRP_MJ_PNP, IRP_MJ_POWER,
    IRP_MJ_READ, IRP_MJ_SYSTEM_CONTROL, IRP_MJ_WRITE, NtStatus, SL_INVOKE_ON_CANCEL, SL_INVOKE_ON_ERROR,
    SL_INVOKE_ON_SUCCESS, SL_PENDING_RETURNED,
};
use engine::{Flow, Leave};

use super::allocate::not_an_irp;
use super::found::{self, Place};
use super::irp::Origin;
use super::violation::request_name;
use super::violation::{device_name, io_manager};
use super::{asked, completion_owner, invariant, irp, own_request, pending, routine};
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::pnp::node;
use crate::verdict::Verdict;
use crate::witness::{self, Noted};
use crate::wmi;

/// `IofCallDriver`: sends the IRP to the driver of `device`, whose dispatch routine answers.
///
/// # Errors
/// A verdict on the sender (no stack location left, no device, a cancel routine still set), or on the receiver.
pub(crate) fn call_driver(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<NtStatus> {
    check(cx, device, irp)?;
    let (number, location) = advance(cx, device, irp)?;
    let major = cx.read(location + IO_STACK_LOCATION::MajorFunction)?;
    let minor = cx.read(location + IO_STACK_LOCATION::MinorFunction)?;
    if major > IRP_MJ_MAXIMUM_FUNCTION {
        return Err(no_such_function(cx, device, irp, major));
    }
    invariant::sent(cx, irp, major)?;
    match major {
        IRP_MJ_SYSTEM_CONTROL => cx.with(|k| wmi::passes(k, irp.address, device.address)),
        IRP_MJ_PNP => cx.with(|k| node::reached(k, device)),
        IRP_MJ_POWER => {
            let kind = cx.read(location + IO_STACK_LOCATION::Parameters_Power_Type)?;
            cx.with(|k| node::power_reached(k, device, kind));
        }
        _ => {}
    }
    let driver = cx.read(device + DEVICE_OBJECT::DriverObject)?;
    let dispatch = cx.read((driver + DRIVER_OBJECT::MajorFunction).element(major.into()))?;
    // What an application asks for, no driver has sent.
    let sent = if cx.engine().depth() > 0 { witness::moment(cx).into() } else { Noted::NONE };
    let control = cx.read(location + IO_STACK_LOCATION::Control)?;
    let was_marked = control & SL_PENDING_RETURNED != 0;
    let request = (major, minor);
    let above = if control & INVOKE == 0 {
        (0, 0)
    } else {
        let routine = cx.read(location + IO_STACK_LOCATION::CompletionRoutine)?;
        let above = (routine.address, cx.read(location + IO_STACK_LOCATION::Context)?.address);
        completion_owner::check(cx, irp, number, above)?;
        above
    };
    if cx.engine().depth() > 0 {
        check_request(cx, device, irp, request)?;
        if major == IRP_MJ_CREATE {
            check_location(cx, device, irp, number)?;
        }
    }
    let event_is_set = own_request::event_is_set(cx, irp)?;
    let frame = cx.with(|k| {
        let frame = k.io.frames.enter(irp.address, device.address, number, request, was_marked, sent);
        k.io.frames.set_above(above);
        frame
    });
    if cx.count_event(Kind::IrpSent) {
        asked::sent(cx, irp, device, (major, minor));
    }
    found::tell_location(cx, irp, number, Place::Sent);
    let role = irp::dispatch_role(major);
    let called = routine::call(cx, role, dispatch, irp.address, &[device.address, irp.address]);
    if called.is_err() {
        pending::unwound(cx, frame);
    }
    let status = NtStatus(low_half(called?));
    if status == NtStatus::PENDING {
        cx.detail(Kind::IrpPending, || Event::IrpPending { irp: irp.address, device: device.address });
    }
    if cx.nt().wants(Kind::IrpFound) && cx.with(|k| k.io.frames.is_held_since(frame)) {
        found::tell_location(cx, irp, number, Place::Returned);
    }
    pending::returned(cx, frame, dispatch, status)?;
    if event_is_set && status == NtStatus::PENDING {
        own_request::was_set_before(cx, device, irp, request)?;
    }
    Ok(status)
}

const INVOKE: u8 = SL_INVOKE_ON_SUCCESS | SL_INVOKE_ON_ERROR | SL_INVOKE_ON_CANCEL;

/// What a driver sends comes at a level for its kind, and a request for Plug and Play, power or WMI that it has made begins as not supported.
fn check_request(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    (major, minor): (u8, u8),
) -> Flow<()> {
    let irql = cx.engine().level();
    let is_for_any_level = matches!(
        major,
        IRP_MJ_POWER | IRP_MJ_READ | IRP_MJ_WRITE | IRP_MJ_DEVICE_CONTROL | IRP_MJ_INTERNAL_DEVICE_CONTROL
    );
    if irql >= 2 && !is_for_any_level {
        let message = format!(
            "IoCallDriver was called at IRQL {irql} for {}, which is for lower levels",
            request_name(major, minor)
        );
        let verdict = io_manager("irp-sent-too-high", 0x23A, message, DriverPtr::NULL, irp);
        cx.verify(verdict.as_verifier())?;
    }
    let is_new = cx.with(|k| {
        let record = k.io.irps.live.get(irp.address);
        record.is_some_and(|record| record.origin != Origin::System)
            && k.io.frames.sender(irp.address).is_none()
    });
    if !is_new {
        return own_request::passes_on(cx, device, irp, (major, minor));
    }
    own_request::has_user_buffer(cx, device, irp, (major, minor))?;
    let code = match major {
        IRP_MJ_PNP => 0x20E,
        IRP_MJ_POWER => 0x20F,
        IRP_MJ_SYSTEM_CONTROL => 0x210,
        _ => return Ok(()),
    };
    let status = cx.read((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Status)?;
    if status == NtStatus::NOT_SUPPORTED {
        return Ok(());
    }
    let message = format!(
        "a driver sends {} of its own with {status} in IoStatus.Status: it must be STATUS_NOT_SUPPORTED, or no driver below can tell that none has answered",
        request_name(major, minor)
    );
    cx.verify(io_manager("irp-status-not-set", code, message, DriverPtr::NULL, irp).as_verifier())
}

/// A request that is for something else above and is an empty `IRP_MJ_CREATE` below, without a file, was passed on in a location that was not set.
fn check_location(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    number: u8,
) -> Flow<()> {
    if number == cx.read(irp + IRP::StackCount)? {
        return Ok(()); // the sender has made it, and has no location
    }
    let above = cx.read(irp::location(irp, number + 1) + IO_STACK_LOCATION::MajorFunction)?;
    let own = irp::location(irp, number);
    let file = cx.read(own + IO_STACK_LOCATION::FileObject)?;
    let is_empty = cx.read(own + IO_STACK_LOCATION::Parameters)?.iter().all(|byte| *byte == 0);
    if above == IRP_MJ_CREATE || !file.is_null() || !is_empty {
        return Ok(());
    }
    let name = device_name(cx, device);
    let message = format!(
        "the IRP {:#x} was sent to {name} with a stack location that is all zeroes, an IRP_MJ_CREATE without a file, and is {} above",
        irp.address,
        request_name(above, 0)
    );
    cx.report(Verdict::warning("irp-location-not-set", message));
    Ok(())
}

/// The part of `rax` that a routine returning `NTSTATUS` means.
#[allow(clippy::cast_possible_truncation, reason = "the upper half of rax is undefined")]
pub(crate) const fn low_half(rax: u64) -> u32 {
    rax as u32
}

fn check(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, irp: DriverPtr<IRP>) -> Flow<()> {
    if !cx.with(|k| k.io.irps.live.contains(irp.address)) {
        return Err(not_an_irp(cx, irp, 0x3, "IoCallDriver"));
    }
    let known = cx.with(|k| k.io.devices.get(device.address).map(|device| device.deleted));
    if device.is_null() || known != Some(false) {
        return Err(no_device(cx, device, irp, known.is_some()));
    }
    let cancel = cx.read(irp + IRP::CancelRoutine)?;
    if cancel.is_null() { Ok(()) } else { cancel_routine_set(cx, device, irp, cancel) }
}

#[cold]
fn no_such_function(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    major: u8,
) -> Leave {
    let message = format!("the IRP {:#x} was sent with the major function {major:#x}", irp.address);
    cx.stop(io_manager("irp-damaged", 0x212, message, device, irp))
}

#[cold]
fn no_device(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, irp: DriverPtr<IRP>, known: bool) -> Leave {
    if device.is_null() {
        let message = format!("the IRP {:#x} was sent to a null device object", irp.address);
        return cx.stop(io_manager("irp-to-no-device", 0x204, message, device, irp));
    }
    let what = if known { "has been deleted" } else { "is no device object" };
    let message = format!("the IRP {:#x} was sent to {:#x}, which {what}", irp.address, device.address);
    cx.stop(io_manager("irp-to-no-device", 0x4, message, device, irp))
}

/// Windows sends it, and the routine is called for an IRP that others have; only Driver Verifier stops.
#[cold]
fn cancel_routine_set(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    cancel: DriverPtr<abi::Code>,
) -> Flow<()> {
    let name = device_name(cx, device);
    let message = format!(
        "the IRP {:#x} was sent to {name} with the cancel routine {:#x} still set",
        irp.address, cancel.address
    );
    let verdict = io_manager("cancel-routine-set", 0x203, message, device, irp);
    let verdict = pending::of_irp(cx, irp.address, verdict);
    cx.verify(verdict.as_verifier())
}

/// Makes the next stack location the current one and writes the device into it.
fn advance(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<(u8, DriverPtr<IO_STACK_LOCATION>)> {
    let current = cx.read(irp + IRP::CurrentLocation)?;
    let count = cx.read(irp + IRP::StackCount)?;
    let pointer = cx.read(irp + IRP::Tail_Overlay_CurrentStackLocation)?;
    if u16::from(current) > u16::from(count) + 1 || (current > 0 && pointer != irp::location(irp, current)) {
        return Err(damaged(cx, device, irp, (current, count), pointer));
    }
    if current <= 1 {
        return Err(no_location_left(cx, device, irp, count));
    }
    let location = irp::location(irp, current - 1);
    cx.write(irp + IRP::CurrentLocation, current - 1)?;
    cx.write(irp + IRP::Tail_Overlay_CurrentStackLocation, location)?;
    cx.write(location + IO_STACK_LOCATION::DeviceObject, device)?;
    Ok((current - 1, location))
}

#[cold]
fn damaged(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    (current, count): (u8, u8),
    pointer: DriverPtr<IO_STACK_LOCATION>,
) -> Leave {
    let message = format!(
        "the IRP {:#x} is damaged: CurrentLocation {current} of {count}, CurrentStackLocation {:#x}",
        irp.address, pointer.address
    );
    cx.stop(io_manager("irp-damaged", 0x212, message, device, irp))
}

#[cold]
fn no_location_left(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    count: u8,
) -> Leave {
    let name = device_name(cx, device);
    let message = format!(
        "the IRP {:#x} was sent to {name} with none of its {count} stack locations left",
        irp.address
    );
    cx.stop(Verdict::error("no-stack-location", message).bug_check(0x35, [irp.address, 0, 0, 0]))
}
