//! Power requests that a driver keeps for too long.
//!
//! Page: *Bug Check 0x9F DRIVER_POWER_STATE_FAILURE* (3h). It gives no time; the debugger's text for it says that it usually is ten minutes. A
//! request to wait for a wake signal may take as long as it likes.

use abi::{DriverPtr, IRP, IRP_MJ_POWER, IRP_MN_QUERY_POWER, IRP_MN_SET_POWER, KEVENT, NtStatus};
use engine::{Flow, Leave};

use crate::cx::Cx;
use crate::io::system_request::Request;
use crate::io::{pending, stack, violation};
use crate::ke::time;
use crate::ke::wait::{self, Timeout};

/// Ten minutes, in the negative units of a relative time: 100 ns.
pub(super) const PATIENCE: i64 = -10 * 60 * 10_000_000;

/// Waits for the end of a request of the system's that a driver has pended; for one that sets or queries a power state, ten minutes.
///
/// # Errors
/// The verdict.
pub(crate) fn wait_for_end(
    cx: &mut Cx<'_>,
    request: &Request,
    irp: DriverPtr<IRP>,
    end: DriverPtr<KEVENT>,
) -> Flow<()> {
    let is_limited =
        request.major == IRP_MJ_POWER && matches!(request.minor, IRP_MN_SET_POWER | IRP_MN_QUERY_POWER);
    let timeout = match is_limited {
        true => Timeout::At(cx.with(|k| time::due(k, PATIENCE))),
        false => Timeout::Never,
    };
    let ended = wait::wait(cx, &[end.cast()], false, timeout, DriverPtr::NULL, "a wait of the kernel's")?;
    if ended == NtStatus::TIMEOUT { Err(overdue(cx, request, irp)) } else { Ok(()) }
}

#[cold]
fn overdue(cx: &mut Cx<'_>, request: &Request, irp: DriverPtr<IRP>) -> Leave {
    let (holder, device) = violation::holder(cx, irp);
    let pdo = cx.with(|k| stack::bottom(k, holder));
    let has_it = match holder.is_null() {
        true => "no driver's dispatch routine has it any more, and it is not complete".to_owned(),
        false => format!("{device} has not completed it"),
    };
    let name = violation::request_name(request.major, request.minor);
    let message = format!("{name} (IRP {:#x}) was sent ten minutes ago, and {has_it}", irp.address);
    let verdict = violation::io_manager("power-irp-overdue", 0x3, message, holder, irp);
    let verdict = pending::of_irp(cx, irp.address, verdict);
    cx.stop(verdict.bug_check(0x9F, [3, pdo.address, 0, irp.address]))
}
