//! Who has an IRP, and whether what a dispatch routine returned agrees with what it did.
//!
//! Pages: *Returning STATUS_PENDING*, *Marking an IRP pending* (in *IoMarkIrpPending macro*), *Implementing a
//! CompletionRoutine*, *Bug Check 0xC9* (23D, 23E, 224–226, 228). A frame lives from the call of a dispatch routine until
//! both the routine has returned and the IRP has left that stack location.

use abi::{Code, DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IRP, NtStatus, SL_PENDING_RETURNED};
use engine::Flow;

use super::cancel_routine;
use super::complete::COMPLETION;
use super::irp;
use super::violation::{device_name, io_manager, request_name};
use crate::cx::{Cx, Kernel};
use crate::verdict::{Related, Verdict};
use crate::witness::{self, Noted};

/// How the IRP left a stack location.
#[derive(Clone, Copy, Debug)]
struct Left {
    marked: bool,
    status: NtStatus,
}

/// The state of the only call of a dispatch routine with an IRP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Only {
    place: usize,
    /// The routine has returned.
    is_over: bool,
}

/// One call of a dispatch routine.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Counts calls from 1.
    number: u64,
    irp: u64,
    device: u64,
    location: u8,
    request: (u8, u8),
    /// Its location was marked when it was called: a driver above has skipped to it and marked it, and returns `STATUS_PENDING` whatever this one returns.
    was_marked: bool,
    forwarded: bool,
    /// How it was, the last time.
    passed: Passed,
    left: Option<Left>,
    returned: Option<NtStatus>,
    /// The routine does not return: an exception left it.
    unwound: bool,
    /// The completion routine of the driver above, and its context, as the location had them.
    above: (u64, u64),
    moments: Moments,
}

/// How a driver has passed an IRP down.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Passed {
    /// In the next stack location, without a completion routine.
    #[default]
    Copied,
    /// The same, with a completion routine.
    WithRoutine,
    /// In its own stack location.
    Skipped,
}

/// When a driver came to have an IRP.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Moments {
    /// Another driver sent it.
    sent: Noted,
    /// Its dispatch routine returned `STATUS_PENDING`.
    pended: Noted,
}

impl Frame {
    /// Whether its driver may have the IRP: if an exception left it, the IRP belongs to the routine that caught that.
    const fn has_it(&self) -> bool {
        self.left.is_none() && !self.unwound
    }

    /// Whether the routine may have returned `status` for an IRP that is `marked` in its location.
    fn may_return(&self, status: NtStatus, marked: bool) -> bool {
        (status == NtStatus::PENDING) == marked || marked && self.was_marked
    }
}

/// The calls that are not settled, by number: the newest is last.
#[derive(Default)]
pub(crate) struct Frames {
    open: Vec<Frame>,
    count: u64,
}

impl Frames {
    /// A dispatch routine is about to be called.
    pub(crate) fn enter(
        &mut self,
        irp: u64,
        device: u64,
        location: u8,
        request: (u8, u8),
        was_marked: bool,
        sent: Noted,
    ) -> u64 {
        for frame in &mut self.open {
            if frame.irp == irp && frame.left.is_none() {
                frame.forwarded = true;
                frame.passed = if frame.location == location { Passed::Skipped } else { Passed::Copied };
            }
        }
        self.count += 1;
        let (number, forwarded, left, returned, unwound) = (self.count, false, None, None, false);
        let moments = Moments { sent, pended: Noted::NONE };
        self.open.push(Frame {
            number,
            irp,
            device,
            location,
            request,
            was_marked,
            forwarded,
            passed: Passed::default(),
            left,
            returned,
            unwound,
            above: (0, 0),
            moments,
        });
        number
    }

    /// Whether the IRP has not left the location of the call with this number yet, and so is there.
    pub(crate) fn is_held_since(&self, number: u64) -> bool {
        self.place(number).is_some_and(|place| self.open[place].has_it())
    }

    /// Where the call with this number stands: mostly last.
    fn place(&self, number: u64) -> Option<usize> {
        self.open.iter().rposition(|frame| frame.number == number)
    }

    /// The newest call was made with this completion routine of the driver above, and its context.
    pub(crate) fn set_above(&mut self, above: (u64, u64)) {
        let Some((frame, earlier)) = self.open.split_last_mut() else { return };
        frame.above = above;
        let sent_it = |above: &&mut Frame| above.irp == frame.irp && above.location == frame.location + 1;
        if above.0 != 0
            && let Some(sender) = earlier.iter_mut().rev().find(sent_it)
        {
            sender.passed = Passed::WithRoutine;
        }
    }

    /// The device that has the IRP, where, and with which completion routine and context of the driver above.
    pub(crate) fn sender(&self, irp: u64) -> Option<(u64, u8, (u64, u64))> {
        self.held(irp).map(|frame| (frame.device, frame.location, frame.above))
    }

    /// Whether a device has a request of this kind that it has not sent down.
    pub(crate) fn keeps(&self, device: u64, request: (u8, u8)) -> bool {
        let is_it = |frame: &Frame| frame.device == device && frame.request == request;
        self.open.iter().any(|frame| is_it(frame) && frame.has_it() && !frame.forwarded)
    }

    /// Whether a device's dispatch routine has been called for a request of this kind, and has not returned or has the request still.
    pub(crate) fn has(&self, device: u64, request: (u8, u8)) -> bool {
        self.open.iter().any(|frame| frame.device == device && frame.request == request)
    }

    /// When the driver that has the IRP was sent it, and when its dispatch routine returned `STATUS_PENDING`.
    pub(crate) fn had_since(&self, irp: u64) -> (Option<u64>, Option<u64>) {
        let moments = self.held(irp).map(|frame| frame.moments).unwrap_or_default();
        (moments.sent.number(), moments.pended.number())
    }

    /// The device that has the IRP: the last one it was sent to and has not left.
    pub(crate) fn holder(&self, irp: u64) -> Option<u64> {
        self.held(irp).map(|frame| frame.device)
    }

    fn held(&self, irp: u64) -> Option<&Frame> {
        let mut newest_first = self.open.iter().rev();
        newest_first.find(|frame| frame.irp == irp && frame.has_it())
    }

    /// The IRPs that a device has: it was sent them, and they have not left it.
    pub(crate) fn held_by(&self, device: u64) -> Vec<u64> {
        self.calls_held_by(device).into_iter().map(|(_, irp)| irp).collect()
    }

    /// The same, by the number of the call with which it got each.
    pub(crate) fn calls_held_by(&self, device: u64) -> Vec<(u64, u64)> {
        let held = self.open.iter().filter(|frame| frame.device == device && frame.has_it());
        let held = held.filter(|frame| self.holder(frame.irp) == Some(device));
        held.map(|frame| (frame.number, frame.irp)).collect()
    }

    /// Whether the driver that got an IRP with this call has it still.
    pub(crate) fn is_held(&self, number: u64) -> bool {
        self.open.iter().any(|frame| frame.number == number && frame.has_it())
    }

    /// The IRP is freed.
    pub(crate) fn forget(&mut self, irp: u64) {
        self.open.retain(|frame| frame.irp != irp || !frame.unwound);
    }

    /// Whether a driver that was called after `number` has the IRP.
    fn is_below(&self, number: u64, irp: u64) -> bool {
        let mut later = self.open.iter().rev().take_while(|frame| frame.number > number);
        later.any(|frame| frame.irp == irp && frame.has_it())
    }

    /// The only call of a dispatch routine with this IRP, if there can be no verdict when the IRP leaves `location` with or without its
    /// mark.
    #[inline]
    pub(crate) fn only(&self, irp: u64, location: u8, marked: bool) -> Option<Only> {
        let mut of_irp = self.open.iter().enumerate().filter(|(_, frame)| frame.irp == irp);
        let (place, frame) = of_irp.next()?;
        let agrees = frame.returned.is_none_or(|status| frame.may_return(status, marked));
        let plain = frame.location == location && frame.has_it() && agrees && of_irp.next().is_none();
        plain.then_some(Only { place, is_over: frame.returned.is_some() })
    }

    /// The IRP leaves its only call.
    #[inline]
    pub(crate) fn leave_only(&mut self, only: Only, marked: bool, status: NtStatus) {
        if only.is_over {
            self.open.remove(only.place);
        } else {
            self.open[only.place].left = Some(Left { marked, status });
        }
    }

    /// The call with this number has returned `status`. True if that settles it: the IRP has left it before, and there is no
    /// verdict.
    #[inline]
    pub(crate) fn is_settled_by(&mut self, number: u64, status: NtStatus) -> bool {
        let Some(frame) = self.open.last() else { return false };
        let Some(left) = frame.left else { return false };
        let pending = status == NtStatus::PENDING;
        let agrees =
            frame.may_return(status, left.marked) && (pending || left.marked || status == left.status);
        let plain = frame.number == number && agrees && status.0 != u32::MAX;
        if plain {
            self.open.pop();
        }
        plain
    }

    /// The IRP leaves a location, on completion. Returns the first call that returned before and what it returned, if that does
    /// not go with the mark.
    fn leave(&mut self, irp: u64, location: u8, left: Left) -> Option<(Frame, NtStatus)> {
        let mut wrong = None;
        self.open.retain_mut(|frame| {
            if frame.irp != irp || frame.location != location || frame.left.is_some() {
                return true;
            }
            frame.left = Some(left);
            match frame.returned {
                None if frame.unwound => false,
                Some(status) => {
                    if wrong.is_none() && !frame.may_return(status, left.marked) {
                        wrong = Some((*frame, status));
                    }
                    false
                }
                None => true,
            }
        });
        wrong
    }
}

/// An exception left the dispatch routine: there is no status to judge.
pub(crate) fn unwound(cx: &mut Cx<'_>, number: u64) {
    cx.with(|k| {
        let Some(place) = k.io.frames.place(number) else { return };
        if k.io.frames.open[place].left.is_some() {
            k.io.frames.open.remove(place);
        } else {
            k.io.frames.open[place].unwound = true;
        }
    });
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
    match cx.with(|k| k.io.frames.leave(irp.address, location, Left { marked, status })) {
        None => Ok(()),
        Some((frame, _)) if !marked => not_marked(cx, frame),
        Some((frame, returned)) => Err(marked_but_returned(cx, frame, returned)),
    }
}

/// A verdict on an IRP that a driver keeps, with the moments when the driver came to have it.
pub(crate) fn of_irp(cx: &mut Cx<'_>, irp: u64, verdict: Verdict) -> Verdict {
    let related = cx.with(|k| moments(k, irp));
    Verdict { related: [verdict.related, related].concat(), ..verdict }
}

/// When the driver that has an IRP came to have it, and what it did with it then.
pub(crate) fn moments(k: &Kernel, irp: u64) -> Vec<Related> {
    let Moments { sent, pended } = k.io.frames.held(irp).map(|frame| frame.moments).unwrap_or_default();
    let record = k.io.irps.live.get(irp);
    let (allocated, queued) =
        record.map_or((None, None), |record| (record.allocated.number(), record.queued.number()));
    let (sent, pended) = (sent.number(), pended.number());
    let all = [("allocated", allocated), ("sent", sent), ("queued", queued), ("marked pending", pended)];
    let all = all.into_iter().chain(cancel_routine::moments(k, irp));
    all.filter_map(|(what, event)| Some(Related { what, event: event? })).collect()
}

/// The dispatch routine of the call `number` has returned `status`.
///
/// # Errors
/// The verdict.
pub(crate) fn returned(
    cx: &mut Cx<'_>,
    number: u64,
    dispatch: DriverPtr<Code>,
    status: NtStatus,
) -> Flow<()> {
    if cx.with(|k| k.io.frames.is_settled_by(number, status)) {
        return Ok(());
    }
    judge_returned(cx, number, dispatch, status)
}

/// As [`returned`], of a call that [`Frames::is_settled_by`] has not settled: there is a verdict, or the IRP has not left yet.
///
/// # Errors
/// The verdict.
pub(crate) fn judge_returned(
    cx: &mut Cx<'_>,
    number: u64,
    dispatch: DriverPtr<Code>,
    status: NtStatus,
) -> Flow<()> {
    let Some((place, frame)) = cx.with(|k| {
        let place = k.io.frames.place(number)?;
        Some((place, k.io.frames.open[place]))
    }) else {
        return Ok(());
    };
    if status.0 == u32::MAX {
        let message = format!("{} returned 0xFFFFFFFF, which is no NTSTATUS", who(cx, frame));
        let (device, irp) = (DriverPtr::new(frame.device), DriverPtr::new(frame.irp));
        // The I/O manager treats it as any other error.
        cx.verify(io_manager("dispatch-illegal-status", 0x225, message, device, irp).as_verifier())?;
    }
    match frame.left {
        Some(left) => {
            cx.with(|k| k.io.frames.open.remove(place));
            judge(cx, frame, left, status)
        }
        None => {
            let pended = (status == NtStatus::PENDING).then(|| witness::moment_of(cx, dispatch)).into();
            // While a completion routine runs on another thread, the mark may still come: the IRP is judged when it leaves.
            let elsewhere = cx.with(|k| {
                k.io.frames.open[place].returned = Some(status);
                k.io.frames.open[place].moments.pended = pended;
                k.io.frames.is_below(number, frame.irp) || frame.forwarded && is_on_its_way_up(k, frame.irp)
            });
            if elsewhere { Ok(()) } else { judge_held(cx, frame, status) }
        }
    }
}

/// Whether a completion routine runs with this IRP: it has left the drivers below that routine's.
fn is_on_its_way_up(k: &Kernel, irp: u64) -> bool {
    let mut calls = k.ke.sched.threads().iter().flat_map(|thread| &thread.callouts);
    calls.any(|call| call.role == COMPLETION && call.object == irp)
}

/// The IRP was completed before the routine returned.
fn judge(cx: &mut Cx<'_>, frame: Frame, left: Left, status: NtStatus) -> Flow<()> {
    match (status == NtStatus::PENDING, left.marked) {
        _ if left.marked && frame.was_marked => Ok(()),
        (true, false) => not_marked(cx, frame),
        (false, true) => Err(marked_but_returned(cx, frame, status)),
        (false, false) if !frame.forwarded && status != left.status => {
            let message = format!(
                "{} returned {status}, and completed the IRP {:#x} with {}",
                who(cx, frame),
                frame.irp,
                left.status
            );
            let (device, irp) = (DriverPtr::new(frame.device), DriverPtr::new(frame.irp));
            cx.verify(io_manager("dispatch-status-differs", 0x224, message, device, irp).as_verifier())
        }
        _ => Ok(()),
    }
}

/// The routine returned and the IRP is still in its location: no driver below has it.
fn judge_held(cx: &mut Cx<'_>, frame: Frame, status: NtStatus) -> Flow<()> {
    let location = irp::location(DriverPtr::new(frame.irp), frame.location);
    let control = cx.read(location + IO_STACK_LOCATION::Control)?;
    let marked = control & SL_PENDING_RETURNED != 0;
    match (status == NtStatus::PENDING, marked) {
        _ if marked && frame.was_marked => Ok(()),
        (true, false) => {
            not_marked(cx, frame)?;
            cx.write(location + IO_STACK_LOCATION::Control, control | SL_PENDING_RETURNED)
        }
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

#[cold]
fn not_marked(cx: &mut Cx<'_>, frame: Frame) -> Flow<()> {
    let (code, whose) = match (frame.forwarded, frame.passed) {
        (false, _) => (0x23D, ""),
        (true, Passed::Skipped) => (
            0x23D,
            ": where the stack location is skipped (IoSkipCurrentIrpStackLocation), what IoCallDriver has returned is returned",
        ),
        (true, Passed::Copied) => (
            0x23D,
            ": where an IRP is passed down without a completion routine, what IoCallDriver has returned is returned",
        ),
        (true, Passed::WithRoutine) => (
            0x228,
            ": either its completion routine passes the mark on (if (Irp->PendingReturned) IoMarkIrpPending(Irp)) and what IoCallDriver has \
             returned is returned, or IoMarkIrpPending is called before the IRP is passed down, and STATUS_PENDING is returned",
        ),
    };
    let message = format!(
        "{} returned STATUS_PENDING, but the IRP {:#x} was not marked with IoMarkIrpPending{whose}",
        who(cx, frame),
        frame.irp
    );
    let (device, irp) = (DriverPtr::new(frame.device), DriverPtr::new(frame.irp));
    cx.stop_or_log(io_manager("pending-not-marked", code, message, device, irp))
}

#[cold]
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

#[cold]
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
        frames.enter(1, 0xA, 2, (3, 0), false, Noted::NONE);
        frames.enter(1, 0xB, 1, (3, 0), false, Noted::NONE);
        assert_eq!(frames.holder(1), Some(0xB));
        frames.leave(1, 1, DONE);
        assert_eq!(frames.holder(1), Some(0xA));
        frames.leave(1, 2, DONE);
        assert_eq!(frames.holder(1), None);
    }

    #[test]
    fn a_routine_that_an_exception_left_is_forgotten_with_its_irp() {
        let mut frames = Frames::default();
        let number = frames.enter(1, 0xA, 1, (3, 0), false, Noted::NONE);
        frames.open[0].unwound = true;
        assert_eq!(frames.holder(1), None, "the routine that caught the exception has to complete the IRP");
        assert!(frames.leave(1, 1, DONE).is_none());
        assert_eq!(frames.place(number), None);
    }

    #[test]
    fn a_skipped_location_is_left_by_both_drivers_at_once() {
        let mut frames = Frames::default();
        let upper = frames.enter(1, 0xA, 1, (3, 0), false, Noted::NONE);
        frames.enter(1, 0xB, 1, (3, 0), false, Noted::NONE);
        assert!(frames.open[frames.place(upper).unwrap()].forwarded);
        assert!(frames.leave(1, 1, DONE).is_none(), "neither has returned yet");
        assert_eq!(frames.holder(1), None);
    }

    #[test]
    fn a_mark_that_was_there_before_is_of_the_driver_that_skipped() {
        let mut frames = Frames::default();
        let upper = frames.enter(1, 0xA, 1, (3, 0), false, Noted::NONE);
        let lower = frames.enter(1, 0xB, 1, (3, 0), true, Noted::NONE);
        assert!(frames.leave(1, 1, Left { marked: true, ..DONE }).is_none());
        assert!(frames.is_settled_by(lower, NtStatus::SUCCESS));
        assert!(!frames.is_settled_by(upper, NtStatus::SUCCESS), "it has marked it");
        assert!(frames.is_settled_by(upper, NtStatus::PENDING));
    }
}
