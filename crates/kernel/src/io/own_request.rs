//! What Driver Verifier asks of a driver that sends a request: of one that it has made, and of one that it passes on.
//!
//! Pages: *Bug Check 0xC9: DRIVER_VERIFIER_IOMANAGER_VIOLATION* (215, 219, 307), *Bug Check 0xC4: DRIVER_VERIFIER_DETECTED_VIOLATION* (E2),
//! *Different ways of handling IRPs - Cheat sheet*. *It does not* look at requests of the system's own, nor at what a request is for.

use abi::{
    DEVICE_OBJECT, DISPATCHER_HEADER, DriverPtr, IO_STATUS_BLOCK, IRP, IRP_MJ_PNP, IRP_MJ_POWER, KEVENT,
    NtStatus,
};
use engine::Flow;

use super::finish::is_error;
use super::irp::Origin;
use super::violation::{device_name, io_manager, request_name};
use crate::cx::Cx;
use crate::exports::data::is_of_applications;
use crate::verdict::Verdict;

/// Whether a driver sends a request of its own whose event, which tells its end, is set before it begins.
///
/// # Errors
/// A verdict if the event is no memory.
#[inline]
pub(super) fn event_is_set(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<bool> {
    if cx.engine().depth() == 0 {
        return Ok(false);
    }
    let is_threaded = cx.with(|k| {
        let record = k.io.irps.live.get(irp.address);
        record.is_some_and(|record| record.origin == Origin::Threaded)
            && k.io.frames.sender(irp.address).is_none()
    });
    if !is_threaded {
        return Ok(false);
    }
    let event = cx.read(irp + IRP::UserEvent)?;
    Ok(!event.is_null() && cx.read((event + KEVENT::Header) + DISPATCHER_HEADER::SignalState)? != 0)
}

/// Such a request is under way still: a wait for its event is over before it has ended.
///
/// # Errors
/// A verdict if Verifier watches for it.
#[cold]
pub(super) fn was_set_before(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    (major, minor): (u8, u8),
) -> Flow<()> {
    let (request, name) = (request_name(major, minor), device_name(cx, device));
    let message = format!(
        "{request} was sent to {name} with an event that was set already, and is pending: a wait for the event does not wait for its end"
    );
    cx.verify(io_manager("request-event-already-set", 0x307, message, device, irp).as_verifier())
}

/// A driver passes on a request for Plug and Play or power that it has failed.
///
/// # Errors
/// As [`was_set_before`].
pub(super) fn passes_on(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    (major, minor): (u8, u8),
) -> Flow<()> {
    let code = match major {
        IRP_MJ_PNP => 0x215,
        IRP_MJ_POWER => 0x219,
        _ => return Ok(()),
    };
    let status = cx.read((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Status)?;
    if !is_error(status) || status == NtStatus::NOT_SUPPORTED {
        return Ok(());
    }
    // Those below get it as it is.
    let is_first = cx.with(|k| {
        let record = k.io.irps.live.get_mut(irp.address);
        record.is_some_and(|record| !std::mem::replace(&mut record.failed, true))
    });
    if !is_first {
        return Ok(());
    }
    let (request, name) = (request_name(major, minor), device_name(cx, device));
    let message = format!(
        "{request} was passed on to {name} with {status} in IoStatus.Status: who fails a request completes it, and what is below carries it out"
    );
    cx.verify(io_manager("failed-request-passed-on", code, message, device, irp).as_verifier())
}

/// A driver sends a request of its own that is the kernel's by its mode, and has an application's buffer, which no driver below looks at then.
///
/// # Errors
/// As [`was_set_before`].
pub(super) fn has_user_buffer(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    (major, minor): (u8, u8),
) -> Flow<()> {
    if cx.read(irp + IRP::RequestorMode)? != 0 {
        return Ok(());
    }
    let system = cx.read(irp + IRP::AssociatedIrp_SystemBuffer)?.address;
    let user = cx.read(irp + IRP::UserBuffer)?.address;
    let mut members = [("AssociatedIrp.SystemBuffer", system), ("UserBuffer", user)].into_iter();
    let Some((member, address)) = members.find(|(_, address)| is_of_applications(*address)) else {
        return Ok(());
    };
    let (request, name) = (request_name(major, minor), device_name(cx, device));
    let message = format!(
        "{request} was sent to {name} with RequestorMode KernelMode and {address:#x}, an address of applications, in {member}: it is used below as it is"
    );
    let verdict = Verdict::verifier("kernel-request-with-user-buffer", message);
    cx.verify(verdict.bug_check(0xC4, [0xE2, irp.address, address, 0]))
}
