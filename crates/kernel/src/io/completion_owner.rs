//! Whose a completion routine is that lies in the stack location of a request that is sent: it must be the sender's.
//!
//! Pages: *IoSkipCurrentIrpStackLocation macro*, *IoSetCompletionRoutine macro*. A driver that
//! skips its location sends the location that the driver above has set up, completion routine included. *Not looked at*: a driver that copies
//! the whole structure, and that routine with it.

use abi::{DEVICE_OBJECT, DriverPtr, IRP};
use engine::Flow;

use super::violation::device_name;
use crate::cx::Cx;
use crate::ldr::symbols;
use crate::verdict::Verdict;

/// The IRP is sent with this routine and context in location `number`.
///
/// # Errors
/// A verdict if the routine of the driver above was overwritten.
pub(super) fn check(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, number: u8, here: (u64, u64)) -> Flow<()> {
    let Some((sender, own, above)) = cx.with(|k| k.io.frames.sender(irp.address)) else { return Ok(()) };
    if number == own && here != above {
        return overwritten(cx, (DriverPtr::new(sender), irp), here.0, above.0);
    }
    Ok(())
}

#[cold]
fn overwritten(
    cx: &mut Cx<'_>,
    (sender, irp): (DriverPtr<DEVICE_OBJECT>, DriverPtr<IRP>),
    routine: u64,
    above: u64,
) -> Flow<()> {
    let (name, routine) = (device_name(cx, sender), cx.with(|k| symbols::code(k, routine)));
    let did = format!(
        "{name} has set the completion routine {routine} in the IRP {:#x} and skipped its stack location",
        irp.address
    );
    if above == 0 {
        let message = format!(
            "{did}: the location is that of the driver above, and the routine is called as its routine, with its device object or with none"
        );
        cx.report(Verdict::warning("completion-routine-skipped", message));
        return Ok(());
    }
    let above = cx.with(|k| symbols::code(k, above));
    let message = format!(
        "{did}: it has taken the place of {above}, which the driver above has set and which is never called"
    );
    Err(cx.stop(Verdict::error("completion-routine-skipped", message)))
}
