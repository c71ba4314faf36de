//! The top of a completion: packet and buffers go, and the requester is notified (`completion_notice`).
//!
//! Pages: *IofCompleteRequest function*, *IoBuildDeviceIoControlRequest function*, *IoMakeAssociatedIrp function*, *Bug Check 0xC9* (312:
//! "the output section of the system buffer"). *Ours:* Windows
//! frees packet and system buffer in the requester's thread too; drivers may touch neither any more, and here they are gone at once.

use abi::{
    DriverPtr, IO_STATUS_BLOCK, IRP, IRP_BUFFERED_IO, IRP_DEALLOCATE_BUFFER, IRP_INPUT_OPERATION, MDL,
    MDL_PAGES_LOCKED, NtStatus,
};
use engine::Flow;

use super::allocate;
use super::completion_notice::{self, CompletionNotice, Data};
use super::irp::Origin;
use super::violation::io_manager;
use crate::cx::Cx;
use crate::mm::{mdl, mdl_lock, pool, shadow, user};
use crate::verdict::Verdict;

/// What says of a request that its output is copied from the system buffer.
const COPIED: u32 = IRP_BUFFERED_IO | IRP_INPUT_OPERATION;

/// `NT_ERROR`.
pub(crate) const fn is_error(status: NtStatus) -> bool {
    status.0 >> 30 == 3
}

/// Whether a request that ended so delivers what its system buffer holds, as its flags say.
#[inline]
pub(crate) const fn has_data(flags: u32, status: NtStatus, information: u64) -> bool {
    flags & IRP_INPUT_OPERATION != 0 && !is_error(status) && information > 0
}

/// Whether status block and events say that a request ended so: if it fails without having been pending, its caller has its status.
#[inline]
pub(crate) const fn is_notified(status: NtStatus, pending: bool) -> bool {
    pending || !is_error(status)
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
/// A verdict, e.g. on an IRP of `IoAllocateIrp` that no completion routine took back.
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
        return Err(never_taken_back(cx, irp));
    }
    let io_status = header.get(IRP::IoStatus);
    let mut done = Done {
        status: io_status.get(IO_STATUS_BLOCK::Status),
        information: io_status.get(IO_STATUS_BLOCK::Information),
        pending: header.get(IRP::PendingReturned) != 0,
        header: &header,
    };
    done.information = checked_information(cx, irp, &done, output)?;
    if let Some(output) = output {
        check_delivered(cx, &done, output.into())?;
    }
    let data = take_data(cx, &done)?;
    release_buffers(cx, irp, header.get(IRP::MdlAddress))?;
    let Some((thread, issue)) = cx.with(|k| {
        let record = k.io.irps.live.get(irp.address)?;
        let thread = completion_notice::elsewhere(k, record, done.pending);
        let record = k.io.irps.live.get_mut(irp.address)?;
        record.thread = 0;
        Some((thread, record.issue.take()))
    }) else {
        return Ok(());
    };
    let notice = CompletionNotice {
        origin,
        issue,
        status: done.status,
        information: done.information,
        pending: done.pending,
        data,
        status_block: header.get(IRP::UserIosb),
        event: header.get(IRP::UserEvent),
        file: header.get(IRP::Tail_Overlay_OriginalFileObject).cast(),
        objects: [0; 2],
    };
    allocate::discard(cx, irp)?;
    match thread {
        None => notice.tell(cx),
        Some(thread) => notice.tell_in(cx, thread, irp),
    }
}

#[cold]
fn never_taken_back(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> engine::Leave {
    let message = format!(
        "the IRP {:#x}, which a driver allocated, was completed and no completion routine of its driver returned \
         STATUS_MORE_PROCESSING_REQUIRED: the I/O manager goes on to tell its thread, and it has none",
        irp.address
    );
    // Verifier has no code for it. Windows queues an APC to Tail.Overlay.Thread, which is null, at DISPATCH_LEVEL.
    cx.stop(Verdict::error("allocated-irp-completed", message).bug_check(0xA, [0, 2, 1, 0]))
}

/// Where a system buffer takes the output back, `Information` says how much of it: never more than there is. With other methods, and
/// for internal control codes, its meaning is between the driver and its caller. What is delivered then.
fn checked_information(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    done: &Done<'_>,
    output: Option<u32>,
) -> Flow<u64> {
    let copied = done.header.get(IRP::Flags) & COPIED == COPIED;
    match output {
        Some(output) if copied && !is_error(done.status) && done.information > output.into() => {
            information_too_large(cx, irp, done.information, output)?;
            Ok(output.into())
        }
        _ => Ok(done.information),
    }
}

#[cold]
fn information_too_large(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, information: u64, output: u32) -> Flow<()> {
    let message = format!(
        "the IRP {:#x} was completed with IoStatus.Information {information:#x}, and the output buffer has {output:#x} bytes",
        irp.address
    );
    cx.stop_or_log(io_manager("information-too-large", 0x312, message, DriverPtr::NULL, irp))
}

/// What the system buffer holds for the requester; it is freed.
fn take_data(cx: &mut Cx<'_>, done: &Done<'_>) -> Flow<Option<Data>> {
    let flags = done.header.get(IRP::Flags);
    if flags & IRP_BUFFERED_IO == 0 {
        return Ok(None);
    }
    let system = done.header.get(IRP::AssociatedIrp_SystemBuffer);
    let user = done.header.get(IRP::UserBuffer);
    let mut data = None;
    if has_data(flags, done.status, done.information) && !system.is_null() && !user.is_null() {
        check_stored(cx, system.address, done.information);
        let is_drivers = done.header.get(IRP::RequestorMode) == 0;
        let taken = Data::take(cx.engine(), (system.address, done.information), user.address, is_drivers);
        data = Some(taken.map_err(|bad| cx.bad_pointer(bad))?);
    }
    if flags & IRP_DEALLOCATE_BUFFER != 0 && !system.is_null() {
        pool::free(cx, system)?;
    }
    Ok(data)
}

/// In a checked machine: reports bytes for the application that were never stored, or that were copied from where nothing was: pool and stacks are
/// filled there. Fewer than four such bytes in a row are not found, nor is anything if an application's data looks like them.
fn check_stored(cx: &mut Cx<'_>, system: u64, information: u64) {
    if !cx.engine().is_checked() {
        return;
    }
    if let Some(at) = cx.engine().first_never_stored(system, information) {
        let message = format!(
            "a request was completed with IoStatus.Information {information:#x}, and no code has stored byte {:#x} of its \
             system buffer {system:#x}: the application gets what the kernel's memory held",
            at - system
        );
        cx.report(Verdict::warning("output-never-stored", message));
    } else {
        check_copied(cx, &format!("its system buffer {system:#x}"), system, information);
    }
}

/// Reports what was copied to this buffer, `named` so, from where nothing was.
fn check_copied(cx: &mut Cx<'_>, named: &str, buffer: u64, information: u64) {
    if let Some(at) = shadow::first_fresh(cx, buffer, information) {
        let message = format!(
            "a request was completed with IoStatus.Information {information:#x}, and {named} holds from byte {at:#x} on what fresh pool and stacks are \
             filled with: the driver has copied bytes there that it never stored, and the application gets what the kernel's memory held"
        );
        cx.report(Verdict::warning("output-never-stored", message));
    }
}

/// As [`check_stored`], where the driver has stored in the application's buffer itself.
fn check_delivered(cx: &mut Cx<'_>, done: &Done<'_>, output: u64) -> Flow<()> {
    let is_copied = done.header.get(IRP::Flags) & COPIED == COPIED;
    let is_application = done.header.get(IRP::RequestorMode) != 0;
    if is_copied || !is_application || is_error(done.status) || !cx.engine().is_checked() {
        return Ok(());
    }
    let mdl = done.header.get(IRP::MdlAddress);
    let user = match done.header.get(IRP::UserBuffer).address {
        0 if !mdl.is_null() => mdl::buffer(cx, mdl)?.0,
        user => user,
    };
    // A driver may have put an MDL of its own there.
    if cx.with(|k| user::process_of(k, user)).is_some() {
        let length = done.information.min(output);
        check_copied(cx, &format!("the application's buffer {user:#x}"), user, length);
    }
    Ok(())
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

/// An associated IRP is complete: with the last of them the master is.
fn associated(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, master: DriverPtr<IRP>) -> Flow<()> {
    let list = cx.read(irp + IRP::MdlAddress)?;
    release_buffers(cx, irp, list)?;
    allocate::discard(cx, irp)?;
    let left = cx.read(master + IRP::AssociatedIrp_IrpCount)?.wrapping_sub(1);
    cx.write(master + IRP::AssociatedIrp_IrpCount, left)?;
    if left == 0 { super::complete::complete(cx, master, 0) } else { Ok(()) }
}

/// An IRP that no driver got: buffers and packet are freed, and there is no notification.
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
