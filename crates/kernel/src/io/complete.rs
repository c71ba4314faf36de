//! Completing an IRP: the way back up through the completion routines.
//!
//! Pages: *IofCompleteRequest function* (*IoCompleteRequest macro*), *IO_COMPLETION_ROUTINE callback function*,
//! *Using IoCompletion Routines*. What happens at the top is in `finish`.

use abi::{
    DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, NtStatus, SL_INVOKE_ON_CANCEL,
    SL_INVOKE_ON_ERROR, SL_INVOKE_ON_SUCCESS, SL_PENDING_RETURNED,
};
use engine::{Flow, Leave};

use super::allocate::MOST_LOCATIONS;
use super::call::low_half;
use super::found::{self, Place};
use super::system_request::Answer;
use super::violation::io_manager;
use super::{asked, fast_path, finish, invariant, irp, pending, routine, violation};
use crate::cx::Cx;
use crate::event::{Kind, Role};
use crate::ke::spinlock;
use crate::verdict::Verdict;
use crate::witness;

/// What a completion routine is, as the role of a call.
pub(super) const COMPLETION: Role = Role::IoCompletion;

/// `IofCompleteRequest`.
///
/// # Errors
/// A verdict: completed twice, with `STATUS_PENDING`, with a cancel routine still set, or by what a completion routine did.
pub(crate) fn complete(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, _priority_boost: u8) -> Flow<()> {
    let (ending, lock) = cx.with(|k| (fast_path::ending(k, irp), spinlock::held_here(k)));
    if let Some(lock) = lock {
        violation::lock_held(cx, "IoCompleteRequest", lock);
    }
    if let Some(ending) = ending {
        return fast_path::complete(cx, &ending);
    }
    let Ending { mut number, count, status, information } = check(cx, irp)?;
    invariant::completed(cx, irp)?;
    let moment = witness::moment(cx);
    cx.with(|k| k.io.irps.live.change(irp.address, |record| record.completed = moment.into()));
    if cx.count_event(Kind::IrpCompleted) {
        asked::completed(cx, irp, Answer { status, information });
    }
    while number <= count {
        if leave_location(cx, irp, number, count)? == Way::Stopped {
            cx.with(|k| k.io.invariant.kept(irp.address));
            return Ok(());
        }
        number = cx.read(irp + IRP::CurrentLocation)?;
    }
    cx.write(irp + IRP::CurrentLocation, count + 2)?;
    finish::finish(cx, irp)
}

/// What an IRP says when it is completed.
struct Ending {
    /// Its current stack location.
    number: u8,
    /// How many it has.
    count: u8,
    status: NtStatus,
    information: u64,
}

fn check(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<Ending> {
    let known = cx.with(|k| k.io.irps.live.contains(irp.address));
    if !known {
        return Err(completed_twice(cx, irp));
    }
    let number = cx.read(irp + IRP::CurrentLocation)?;
    let count = cx.read(irp + IRP::StackCount)?;
    if count > MOST_LOCATIONS {
        return Err(damaged(cx, irp, count));
    }
    if number == 0 || number > count + 1 {
        return Err(completed_twice(cx, irp));
    }
    let status = cx.read((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Status)?;
    if status == NtStatus::PENDING || status.0 == u32::MAX {
        still_pending(cx, irp, status)?;
    }
    let cancel = cx.read(irp + IRP::CancelRoutine)?;
    if !cancel.is_null() {
        return Err(cancel_routine_set(cx, irp, cancel));
    }
    let information = cx.read((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Information)?;
    Ok(Ending { number, count, status, information })
}

#[cold]
fn damaged(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, count: u8) -> Leave {
    let message = format!("the IRP {:#x} was completed, and its StackCount says {count}", irp.address);
    cx.stop(io_manager("irp-damaged", 0x212, message, DriverPtr::NULL, irp))
}

/// A waiter takes STATUS_PENDING for a request that is under way (`HasOverlappedIoCompleted` is false for ever): its end is
/// lost. The other status that only Driver Verifier refuses, -1, is a failure like any other to its reader.
#[cold]
fn still_pending(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, status: NtStatus) -> Flow<()> {
    let (holder, name) = violation::holder(cx, irp);
    let message = format!("the IRP {:#x} of {name} was completed with {status}", irp.address);
    let verdict = io_manager("completed-with-pending", 0x6, message, holder, irp);
    let verdict = verdict.bug_check(0xC9, [0x6, status.0.into(), irp.address, 0]);
    if status == NtStatus::PENDING { Err(cx.stop(verdict)) } else { cx.verify(verdict.as_verifier()) }
}

#[cold]
fn cancel_routine_set(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, cancel: DriverPtr<abi::Code>) -> Leave {
    let (holder, name) = violation::holder(cx, irp);
    let message = format!(
        "the IRP {:#x} of {name} was completed with the cancel routine {:#x} still set",
        irp.address, cancel.address
    );
    let verdict = io_manager("cancel-routine-set", 0x7, message, holder, irp);
    let verdict = pending::of_irp(cx, irp.address, verdict);
    // Windows itself stops here, Driver Verifier a little before with 0xC9 (7).
    cx.stop(verdict.bug_check(0x48, [irp.address, cancel.address, 0, 0]))
}

#[cold]
fn completed_twice(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Leave {
    let freed = cx.with(|k| k.io.irps.was_freed(irp.address) || k.io.irps.live.contains(irp.address));
    let what = if freed { "has been completed already" } else { "is no IRP" };
    let message = format!("IoCompleteRequest on {:#x}, which {what}", irp.address);
    let verdict = Verdict::error("double-completion", message).bug_check(0x44, [irp.address, 0, 0, 0]);
    let moment = cx.with(|k| k.io.irps.completed_at(irp.address));
    cx.stop(match moment {
        Some(moment) => verdict.related("completed", moment),
        None => verdict,
    })
}

/// Whether a completion goes on.
#[derive(PartialEq, Eq)]
enum Way {
    On,
    /// `STATUS_MORE_PROCESSING_REQUIRED`.
    Stopped,
}

/// One step up: out of location `number`, through the completion routine that the sender put there.
fn leave_location(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, number: u8, count: u8) -> Flow<Way> {
    found::tell_location(cx, irp, number, Place::Left);
    let location = irp::location(irp, number);
    let control = cx.read(location + IO_STACK_LOCATION::Control)?;
    let marked = control & SL_PENDING_RETURNED != 0;
    let status = cx.read((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Status)?;
    pending::left(cx, irp, number, marked, status)?;

    cx.write(irp + IRP::PendingReturned, u8::from(marked))?;
    cx.write(irp + IRP::CurrentLocation, number + 1)?;
    cx.write(irp + IRP::Tail_Overlay_CurrentStackLocation, irp::location(irp, number + 1))?;
    let routine = cx.read(location + IO_STACK_LOCATION::CompletionRoutine)?;
    // Mostly there is none, and nothing else about it matters.
    let invoked = !routine.is_null() && control & wanted(cx, irp, status)? != 0;
    let context = if invoked { cx.read(location + IO_STACK_LOCATION::Context)? } else { DriverPtr::NULL };
    clear(cx, location)?;

    if !invoked {
        if marked && number < count {
            mark_pending(cx, irp::location(irp, number + 1))?;
        }
        return Ok(Way::On);
    }
    let device = device_above(cx, irp, number, count)?;
    let arguments = [device.address, irp.address, context.address];
    let answer = routine::call(cx, COMPLETION, routine, irp.address, &arguments)?;
    if NtStatus(low_half(answer)) == NtStatus::MORE_PROCESSING_REQUIRED {
        return Ok(Way::Stopped);
    }
    if !cx.with(|k| k.io.irps.live.contains(irp.address)) {
        return Err(freed_in_completion(cx, routine, device, irp));
    }
    Ok(Way::On)
}

#[cold]
fn freed_in_completion(
    cx: &mut Cx<'_>,
    routine: DriverPtr<abi::Code>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Leave {
    let message = format!(
        "the completion routine {:#x} freed the IRP {:#x} and did not return STATUS_MORE_PROCESSING_REQUIRED",
        routine.address, irp.address
    );
    cx.stop(io_manager("irp-freed-in-completion", 0x1, message, device, irp))
}

/// The `SL_INVOKE_ON_*` bits that apply.
fn wanted(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, status: NtStatus) -> Flow<u8> {
    let by_status = if status.is_success() { SL_INVOKE_ON_SUCCESS } else { SL_INVOKE_ON_ERROR };
    let cancelled = cx.read(irp + IRP::Cancel)? != 0;
    Ok(if cancelled { by_status | SL_INVOKE_ON_CANCEL } else { by_status })
}

/// The device of the driver that set the routine: null for one that allocated the IRP without a location of its own.
fn device_above(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    number: u8,
    count: u8,
) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    if number >= count {
        return Ok(DriverPtr::NULL);
    }
    cx.read(irp::location(irp, number + 1) + IO_STACK_LOCATION::DeviceObject)
}

pub(crate) fn mark_pending(cx: &mut Cx<'_>, location: DriverPtr<IO_STACK_LOCATION>) -> Flow<()> {
    let control = cx.read(location + IO_STACK_LOCATION::Control)?;
    cx.write(location + IO_STACK_LOCATION::Control, control | SL_PENDING_RETURNED)
}

/// A location that has been left holds nothing any more but which function and device it was for.
#[allow(clippy::cast_possible_truncation, reason = "offsets in a small structure")]
fn clear(cx: &mut Cx<'_>, location: DriverPtr<IO_STACK_LOCATION>) -> Flow<()> {
    const BEFORE_DEVICE: usize = IO_STACK_LOCATION::DeviceObject.offset() as usize - 1;
    const FROM_FILE: usize = size_of::<IO_STACK_LOCATION>() - IO_STACK_LOCATION::FileObject.offset() as usize;
    cx.write_bytes(location.address + 1, &[0; BEFORE_DEVICE])?;
    cx.write_bytes((location + IO_STACK_LOCATION::FileObject).address, &[0; FROM_FILE])
}
