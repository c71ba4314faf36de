//! Who has an IRP, and whether what a dispatch routine returned agrees with what it did.
//!
//! Pages: *Returning STATUS_PENDING*, *Marking an IRP pending* (in *IoMarkIrpPending macro*), *Implementing a
//! CompletionRoutine*, *Bug Check 0xC9* (23D, 23E, 224–226, 228). A frame lives from the call of a dispatch routine until
//! both the routine has returned and the IRP has left that stack location.

use std::collections::BTreeMap;

use abi::{DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IRP, NtStatus, SL_PENDING_RETURNED};
use engine::Flow;

use super::irp;
use super::violation::{device_name, io_manager, request_name};
use crate::cx::Cx;

/// How the IRP left a stack location.
#[derive(Clone, Copy, Debug)]
struct Left {
    marked: bool,
    status: NtStatus,
}

/// One call of a dispatch routine.
#[derive(Clone, Copy, Debug)]
struct Frame {
    irp: u64,
    device: u64,
    location: u8,
    request: (u8, u8),
    forwarded: bool,
    left: Option<Left>,
    returned: Option<NtStatus>,
}

/// The calls that are not settled.
#[derive(Default)]
pub(crate) struct Frames {
    open: BTreeMap<u64, Frame>,
    count: u64,
}

impl Frames {
    /// A dispatch routine is about to be called.
    pub(crate) fn enter(&mut self, irp: u64, device: u64, location: u8, request: (u8, u8)) -> u64 {
        for frame in self.open.values_mut() {
            if frame.irp == irp && frame.left.is_none() {
                frame.forwarded = true;
            }
        }
        self.count += 1;
        let frame = Frame { irp, device, location, request, forwarded: false, left: None, returned: None };
        self.open.insert(self.count, frame);
        self.count
    }

    /// The device that has the IRP: the last one it was sent to and has not left.
    pub(crate) fn holder(&self, irp: u64) -> Option<u64> {
        self.open
            .values()
            .rev()
            .find(|frame| frame.irp == irp && frame.left.is_none())
            .map(|frame| frame.device)
    }

    /// The IRPs that a device has: it was sent them, and they have not left it.
    pub(crate) fn held_by(&self, device: u64) -> Vec<u64> {
        let held = self.open.values().filter(|frame| frame.device == device && frame.left.is_none());
        held.filter(|frame| self.holder(frame.irp) == Some(device)).map(|frame| frame.irp).collect()
    }

    /// Whether a driver that was called after `number` has the IRP.
    fn is_below(&self, number: u64, irp: u64) -> bool {
        self.open.range(number + 1..).any(|(_, frame)| frame.irp == irp && frame.left.is_none())
    }

    /// The IRP leaves a location, on completion. Returns the calls that returned before, and what they returned.
    fn leave(&mut self, irp: u64, location: u8, left: Left) -> Vec<(Frame, NtStatus)> {
        let mut settled = Vec::new();
        self.open.retain(|_, frame| {
            if frame.irp != irp || frame.location != location || frame.left.is_some() {
                return true;
            }
            frame.left = Some(left);
            match frame.returned {
                Some(status) => {
                    settled.push((*frame, status));
                    false
                }
                None => true,
            }
        });
        settled
    }
}

/// The IRP leaves `location` with its `Control`: the calls that returned earlier are judged.
///
/// # Errors
/// The verdict.
pub(crate) fn left(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    location: u8,
    marked: bool,
    status: NtStatus,
) -> Flow<()> {
    let settled = cx.with(|k| k.io.frames.leave(irp.address, location, Left { marked, status }));
    for (frame, returned) in settled {
        if returned == NtStatus::PENDING && !marked {
            return Err(not_marked(cx, frame));
        }
        if returned != NtStatus::PENDING && marked {
            return Err(marked_but_returned(cx, frame, returned));
        }
    }
    Ok(())
}

/// A dispatch routine has returned `status`.
///
/// # Errors
/// The verdict.
pub(crate) fn returned(cx: &mut Cx<'_>, number: u64, status: NtStatus) -> Flow<()> {
    let Some(frame) = cx.with(|k| k.io.frames.open.get(&number).copied()) else {
        return Ok(());
    };
    if status.0 == u32::MAX {
        let message = format!("{} returned 0xFFFFFFFF, which is no NTSTATUS", who(cx, frame));
        return Err(stop(cx, "dispatch-illegal-status", 0x225, message, frame));
    }
    match frame.left {
        Some(left) => {
            cx.with(|k| k.io.frames.open.remove(&number));
            judge(cx, frame, left, status)
        }
        None => {
            let below = cx.with(|k| {
                k.io.frames.open.entry(number).and_modify(|frame| frame.returned = Some(status));
                k.io.frames.is_below(number, frame.irp)
            });
            if below { Ok(()) } else { judge_held(cx, frame, status) }
        }
    }
}

/// The IRP was completed before the routine returned.
fn judge(cx: &mut Cx<'_>, frame: Frame, left: Left, status: NtStatus) -> Flow<()> {
    match (status == NtStatus::PENDING, left.marked) {
        (true, false) => Err(not_marked(cx, frame)),
        (false, true) => Err(marked_but_returned(cx, frame, status)),
        (false, false) if !frame.forwarded && status != left.status => {
            let message = format!(
                "{} returned {status}, and completed the IRP {:#x} with {}",
                who(cx, frame),
                frame.irp,
                left.status
            );
            Err(stop(cx, "dispatch-status-differs", 0x224, message, frame))
        }
        _ => Ok(()),
    }
}

/// The routine returned and the IRP is still in its location: nobody below has it.
fn judge_held(cx: &mut Cx<'_>, frame: Frame, status: NtStatus) -> Flow<()> {
    let location = irp::location(DriverPtr::new(frame.irp), frame.location);
    let marked = cx.read(location + IO_STACK_LOCATION::Control)? & SL_PENDING_RETURNED != 0;
    match (status == NtStatus::PENDING, marked) {
        (true, false) => Err(not_marked(cx, frame)),
        (false, true) => Err(marked_but_returned(cx, frame, status)),
        (false, false) => {
            let message = format!(
                "{} returned {status}, but the IRP {:#x} was neither completed nor passed down nor marked pending",
                who(cx, frame),
                frame.irp
            );
            Err(stop(cx, "irp-forgotten", 0x226, message, frame))
        }
        (true, true) => Ok(()),
    }
}

fn not_marked(cx: &mut Cx<'_>, frame: Frame) -> engine::Leave {
    let (code, whose) = if frame.forwarded {
        (
            0x228,
            ": its completion routine did not pass the mark on (if (Irp->PendingReturned) IoMarkIrpPending(Irp))",
        )
    } else {
        (0x23D, "")
    };
    let message = format!(
        "{} returned STATUS_PENDING, but the IRP {:#x} was not marked with IoMarkIrpPending{whose}",
        who(cx, frame),
        frame.irp
    );
    stop(cx, "pending-not-marked", code, message, frame)
}

fn marked_but_returned(cx: &mut Cx<'_>, frame: Frame, status: NtStatus) -> engine::Leave {
    let message = format!(
        "{} marked the IRP {:#x} pending and returned {status}; it must return STATUS_PENDING",
        who(cx, frame),
        frame.irp
    );
    stop(cx, "pending-marked", 0x23E, message, frame)
}

fn who(cx: &mut Cx<'_>, frame: Frame) -> String {
    let name = device_name(cx, DriverPtr::<DEVICE_OBJECT>::new(frame.device));
    format!("the dispatch routine for {} of {name}", request_name(frame.request.0, frame.request.1))
}

fn stop(cx: &mut Cx<'_>, rule: &'static str, code: u64, message: String, frame: Frame) -> engine::Leave {
    cx.stop(io_manager(rule, code, message, DriverPtr::new(frame.device), DriverPtr::new(frame.irp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Left = Left { marked: false, status: NtStatus::SUCCESS };

    #[test]
    fn the_last_driver_that_got_an_irp_has_it_until_it_completes() {
        let mut frames = Frames::default();
        frames.enter(1, 0xA, 2, (3, 0));
        frames.enter(1, 0xB, 1, (3, 0));
        assert_eq!(frames.holder(1), Some(0xB));
        frames.leave(1, 1, DONE);
        assert_eq!(frames.holder(1), Some(0xA));
        frames.leave(1, 2, DONE);
        assert_eq!(frames.holder(1), None);
    }

    #[test]
    fn a_skipped_location_is_left_by_both_drivers_at_once() {
        let mut frames = Frames::default();
        let upper = frames.enter(1, 0xA, 1, (3, 0));
        frames.enter(1, 0xB, 1, (3, 0));
        assert!(frames.open[&upper].forwarded);
        assert!(frames.leave(1, 1, DONE).is_empty(), "neither has returned yet");
        assert_eq!(frames.holder(1), None);
    }
}
