//! What drivers have stored into an IRP by the time that the kernel looks at it, for readers: `irp-found`.
//!
//! Pages: *IoMarkIrpPending macro*, *IoSetCancelRoutine function*, *IoSetCompletionRoutine macro*, *IoSkipCurrentIrpStackLocation macro*: all are
//! inlined into drivers, so no call says when. Nothing is read where no reader wants it, and what is read here is no driver's doing.

use abi::{DriverPtr, IO_STACK_LOCATION, IRP};

use super::irp;
use crate::cx::Cx;
use crate::event::{Event, Kind};

/// Where the kernel looks at an IRP. The names are those of the event.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// It is sent to a driver.
    Sent,
    /// The dispatch routine has returned.
    Returned,
    /// `IoStartPacket`.
    Started,
    /// `IoCsqInsertIrp`.
    Queued,
    /// `IoCancelIrp`.
    Cancelled,
    /// Its completion leaves a location.
    Left,
}

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Returned => "returned",
            Self::Started => "started",
            Self::Queued => "queued",
            Self::Cancelled => "cancelled",
            Self::Left => "left",
        }
    }
}

/// What stands in the current stack location of an IRP.
#[inline]
pub(super) fn tell(cx: &Cx<'_>, irp: DriverPtr<IRP>, place: Place) {
    if cx.nt().wants(Kind::IrpFound) {
        let number = cx.engine().unattributed(|| cx.engine().read(irp + IRP::CurrentLocation));
        tell_wanted(cx, irp, number.unwrap_or(0), place);
    }
}

/// What stands in the stack location with this number.
#[inline]
pub(super) fn tell_location(cx: &Cx<'_>, irp: DriverPtr<IRP>, number: u8, place: Place) {
    if cx.nt().wants(Kind::IrpFound) {
        tell_wanted(cx, irp, number, place);
    }
}

#[cold]
fn tell_wanted(cx: &Cx<'_>, irp: DriverPtr<IRP>, number: u8, place: Place) {
    let engine = cx.engine();
    let found = engine.unattributed(|| {
        let count = engine.read(irp + IRP::StackCount).ok()?;
        let cancel = engine.read(irp + IRP::CancelRoutine).ok()?.address;
        if number == 0 || number > count {
            // No driver has it, or the one that made it has no location.
            return Some((0, 0, cancel));
        }
        let location = irp::location(irp, number);
        let control = engine.read(location + IO_STACK_LOCATION::Control).ok()?;
        let completion = engine.read(location + IO_STACK_LOCATION::CompletionRoutine).ok()?.address;
        Some((control, completion, cancel))
    });
    let Some((control, completion, cancel)) = found else { return };
    let (irp, place) = (irp.address, place.name());
    cx.emit_counted(Event::IrpFound { irp, place, location: number, control, completion, cancel });
}
