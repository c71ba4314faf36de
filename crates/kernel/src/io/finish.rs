//! The top of a completion: results reach whoever asked, and the IRP goes.
//!
//! Pages: *IofCompleteRequest function*, *IoBuildDeviceIoControlRequest function*, *IoMakeAssociatedIrp function*,
//! *ReadFile function*. Windows does this in an APC of the requesting thread; here it happens where the IRP is completed.
//! A request that fails without having been pending leaves status block and events alone: its status was returned.

use abi::{
    DriverPtr, FILE_OBJECT, FO_SYNCHRONOUS_IO, IO_STATUS_BLOCK, IRP, IRP_BUFFERED_IO, IRP_DEALLOCATE_BUFFER,
    IRP_INPUT_OPERATION, KEVENT, MDL, MDL_PAGES_LOCKED, NtStatus,
};
use engine::Flow;

use super::allocate;
use super::buffers::SHORT;
use super::irp::Origin;
use super::violation::io_manager;
use crate::cx::Cx;
use crate::event::Event;
use crate::mm::{mdl, mdl_lock, pool};
use crate::verdict::{Tier, Verdict};
use crate::{ke, ob};

/// `NT_ERROR`.
pub(crate) const fn is_error(status: NtStatus) -> bool {
    status.0 >> 30 == 3
}

/// What an IRP says at its end, when its drivers have left it alone.
struct Done<'a> {
    header: &'a IRP,
    status: NtStatus,
    information: u64,
    pending: bool,
}

/// All drivers have seen the completion.
///
/// # Errors
/// A verdict, e.g. on an IRP of `IoAllocateIrp` that nobody took back.
pub(crate) fn finish(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<()> {
    let known = cx.with(|k| k.io.irps.live.get(irp.address).map(|record| (record.origin, record.output)));
    let Some((origin, output)) = known else { return Ok(()) };
    if let Origin::Associated(master) = origin {
        return associated(cx, irp, DriverPtr::new(master));
    }
    let mut header = IRP::zeroed();
    cx.read_into(irp, &mut header)?;
    let thread = header.get(IRP::Tail_Overlay_Thread);
    if matches!(origin, Origin::Allocated | Origin::DriverMemory) && thread.is_null() {
        return Err(nobody_stops(cx, irp));
    }
    let io_status = header.get(IRP::IoStatus);
    let mut done = Done {
        status: io_status.get(IO_STATUS_BLOCK::Status),
        information: io_status.get(IO_STATUS_BLOCK::Information),
        pending: header.get(IRP::PendingReturned) != 0,
        header: &header,
    };
    check_information(cx, irp, &done, output)?;
    copy_back(cx, &mut done)?;
    release_buffers(cx, irp, done.header.get(IRP::MdlAddress))?;
    answer(cx, irp, &done)
}

#[cold]
fn nobody_stops(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> engine::Leave {
    let message = format!(
        "the IRP {:#x}, which a driver allocated, was completed and no completion routine of its driver returned \
         STATUS_MORE_PROCESSING_REQUIRED",
        irp.address
    );
    cx.stop(io_manager("allocated-irp-completed", 0x239, message, DriverPtr::NULL, irp))
}

/// `Information` says how much of the output buffer is filled: never more than there is.
fn check_information(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, done: &Done<'_>, output: Option<u32>) -> Flow<()> {
    match output {
        Some(output) if !is_error(done.status) && done.information > output.into() => {
            Err(information_too_large(cx, irp, done.information, output))
        }
        _ => Ok(()),
    }
}

#[cold]
fn information_too_large(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    information: u64,
    output: u32,
) -> engine::Leave {
    let message = format!(
        "the IRP {:#x} was completed with IoStatus.Information {information:#x}, and the output buffer has {output:#x} bytes",
        irp.address
    );
    cx.stop(io_manager("information-too-large", 0x312, message, DriverPtr::NULL, irp))
}

/// The system buffer's contents go to the requester's buffer.
fn copy_back(cx: &mut Cx<'_>, done: &mut Done<'_>) -> Flow<()> {
    let flags = done.header.get(IRP::Flags);
    if flags & IRP_BUFFERED_IO == 0 {
        return Ok(());
    }
    let system = done.header.get(IRP::AssociatedIrp_SystemBuffer);
    let user = done.header.get(IRP::UserBuffer);
    let wanted = flags & IRP_INPUT_OPERATION != 0 && !is_error(done.status) && done.information > 0;
    if wanted && !system.is_null() && !user.is_null() {
        check_stored(cx, system.address, done.information);
        let (mut short, long);
        let bytes = match usize::try_from(done.information) {
            Ok(length) if length <= SHORT => {
                short = [0; SHORT];
                cx.engine()
                    .read_bytes(system.address, &mut short[..length])
                    .map_err(|bad| cx.bad_pointer(bad))?;
                &short[..length]
            }
            _ => {
                long = cx.read_bytes(system.address, done.information)?;
                &long[..]
            }
        };
        if done.header.get(IRP::RequestorMode) == 0 {
            cx.write_bytes(user.address, bytes)?;
        } else if cx.engine().write_bytes(user.address, bytes).is_err() {
            done.status = NtStatus::ACCESS_VIOLATION;
            done.information = 0;
        }
    }
    if flags & IRP_DEALLOCATE_BUFFER != 0 && !system.is_null() {
        pool::free(cx, system)?;
    }
    Ok(())
}

/// In a checked machine: what the application gets, somebody has stored. It says nothing of a structure's padding that was
/// stored with the rest.
fn check_stored(cx: &mut Cx<'_>, system: u64, information: u64) {
    if !cx.engine().is_checked() {
        return;
    }
    if let Some(at) = cx.engine().first_never_stored(system, information) {
        let message = format!(
            "a request was completed with IoStatus.Information {information:#x}, and nobody has stored byte {:#x} of its \
             system buffer {system:#x}: the application gets what the kernel's memory held",
            at - system
        );
        let mut verdict = Verdict::error("output-never-stored", message);
        verdict.tier = Tier::Warning;
        cx.report(verdict);
    }
}

/// Unlocks and frees the chain of MDLs.
fn release_buffers(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, first: DriverPtr<MDL>) -> Flow<()> {
    if first.is_null() {
        return Ok(());
    }
    let mut next = first;
    while !next.is_null() {
        let this = next;
        next = cx.read(this + MDL::Next)?;
        if mdl::flags(cx, this)? & MDL_PAGES_LOCKED != 0 {
            mdl_lock::unlock(cx, this)?;
        }
        mdl::io_free(cx, this)?;
    }
    cx.write(irp + IRP::MdlAddress, DriverPtr::NULL)
}

/// Status block, events and references; the IRP is freed before anybody is woken.
fn answer(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, done: &Done<'_>) -> Flow<()> {
    let status_block = done.header.get(IRP::UserIosb);
    let user_event = done.header.get(IRP::UserEvent);
    let file: DriverPtr<FILE_OBJECT> = done.header.get(IRP::Tail_Overlay_OriginalFileObject).cast();
    let Some((origin, issue)) = cx.with(|k| {
        let record = k.io.irps.live.get_mut(irp.address)?;
        record.thread = 0;
        Some((record.origin, record.issue.take()))
    }) else {
        return Ok(());
    };
    allocate::discard(cx, irp)?;

    let always = origin == Origin::System && issue.is_none();
    let tell = always || done.pending || !is_error(done.status);
    if tell && !status_block.is_null() {
        write_status(cx, status_block, done, issue.is_some())?;
    }
    let Some(issue) = issue else {
        if tell && !user_event.is_null() {
            ke::event::set(cx, user_event, 0, false)?;
        }
        return Ok(());
    };
    if tell {
        signal(cx, file, user_event, done.status)?;
    }
    if issue.answered_later && done.pending {
        let (name, status, information) = (issue.name, done.status.0, done.information);
        cx.emit(Event::Answer { name, status, information });
    }
    release(cx, file, DriverPtr::new(issue.event))
}

/// A request's references go.
pub(crate) fn release(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>, event: DriverPtr<KEVENT>) -> Flow<()> {
    if !event.is_null() {
        ob::object::dereference(cx, event)?;
    }
    ob::object::dereference(cx, file).map(|_| ())
}

/// The status block of an application may have gone away; a driver's may not.
fn write_status(
    cx: &mut Cx<'_>,
    to: DriverPtr<IO_STATUS_BLOCK>,
    done: &Done<'_>,
    application: bool,
) -> Flow<()> {
    if application {
        let engine = cx.engine();
        let _ = engine.write(to + IO_STATUS_BLOCK::Status, done.status);
        let _ = engine.write(to + IO_STATUS_BLOCK::Information, done.information);
        return Ok(());
    }
    cx.write(to + IO_STATUS_BLOCK::Status, done.status)?;
    cx.write(to + IO_STATUS_BLOCK::Information, done.information)
}

/// Whoever waits for the end of a request hears of it.
pub(crate) fn signal(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    user_event: DriverPtr<KEVENT>,
    status: NtStatus,
) -> Flow<()> {
    if !user_event.is_null() {
        ke::event::set(cx, user_event, 0, false)?;
    }
    let synchronous = cx.read(file + FILE_OBJECT::Flags)? & FO_SYNCHRONOUS_IO != 0;
    if synchronous {
        cx.write(file + FILE_OBJECT::FinalStatus, status)?;
    }
    if synchronous || user_event.is_null() {
        ke::event::set(cx, file + FILE_OBJECT::Event, 0, false)?;
    }
    Ok(())
}

/// An associated IRP is complete: with the last of them the master is.
fn associated(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, master: DriverPtr<IRP>) -> Flow<()> {
    let list = cx.read(irp + IRP::MdlAddress)?;
    release_buffers(cx, irp, list)?;
    allocate::discard(cx, irp)?;
    let left = cx.read(master + IRP::AssociatedIrp_IrpCount)?.wrapping_sub(1);
    cx.write(master + IRP::AssociatedIrp_IrpCount, left)?;
    if left == 0 { super::complete::complete(cx, master, 0) } else { Ok(()) }
}

/// An IRP that no driver got: buffers and packet are freed, nobody is told.
pub(crate) fn abandon(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<()> {
    let flags = cx.read(irp + IRP::Flags)?;
    let system = cx.read(irp + IRP::AssociatedIrp_SystemBuffer)?;
    if flags & IRP_DEALLOCATE_BUFFER != 0 && !system.is_null() {
        pool::free(cx, system)?;
    }
    let list = cx.read(irp + IRP::MdlAddress)?;
    release_buffers(cx, irp, list)?;
    allocate::discard(cx, irp)
}
