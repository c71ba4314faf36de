//! `RtlUnwindEx`, `RtlUnwind`: leave driver frames, calling their termination handlers, and go on in one of them.
//!
//! Pages: *RtlUnwindEx function*, *RtlUnwind function*, *x64 exception handling*. An unwind that begins in a
//! termination handler of another one goes on where that one stands (a collided unwind). An exit unwind (no target frame)
//! and a consolidating one (C++) are not there.

use abi::{
    CONTEXT, DriverPtr, EXCEPTION_COLLIDED_UNWIND, EXCEPTION_RECORD, EXCEPTION_TARGET_UNWIND,
    EXCEPTION_UNWINDING, NtStatus,
};
use engine::{Flow, Leave};

use super::frames::{self, Next, Position};
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::ke::exception::{self, unhandled};
use crate::ke::handler::{self, Disposition, Question, Room};
use crate::verdict::Verdict;

/// Where an unwind ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The frame, as handlers call it.
    pub(crate) frame: u64,
    /// The instruction.
    pub(crate) ip: u64,
    /// What is in `rax` there.
    pub(crate) value: u64,
}

/// `RtlUnwindEx`.
///
/// # Errors
/// It does not return: where the driver goes on, or a verdict on a target that is not on the stack.
pub(crate) fn unwind_ex(
    cx: &mut Cx<'_>,
    frame: u64,
    ip: u64,
    record: DriverPtr<EXCEPTION_RECORD>,
    value: u64,
    _context: DriverPtr<CONTEXT>,
    _history: u64,
) -> Flow<()> {
    Err(unwind(cx, Target { frame, ip, value }, record))
}

/// `RtlUnwind`.
///
/// # Errors
/// As [`unwind_ex`].
pub(crate) fn unwind_plain(
    cx: &mut Cx<'_>,
    frame: u64,
    ip: u64,
    record: DriverPtr<EXCEPTION_RECORD>,
    value: u64,
) -> Flow<()> {
    Err(unwind(cx, Target { frame, ip, value }, record))
}

/// Unwinds from where the driver called the kernel.
pub(crate) fn unwind(cx: &mut Cx<'_>, target: Target, record: DriverPtr<EXCEPTION_RECORD>) -> Leave {
    if target.frame == 0 {
        return cx.stop(Verdict::not_implemented("an exit unwind (RtlUnwindEx without a target frame)"));
    }
    match attempt(cx, target, record) {
        Ok(leave) | Err(leave) => leave,
    }
}

fn attempt(cx: &mut Cx<'_>, target: Target, record: DriverPtr<EXCEPTION_RECORD>) -> Flow<Leave> {
    let start = frames::innermost(cx).expect("a driver asks for an unwind");
    let room = Room::below(frames::stack_top(cx));
    let record = if record.is_null() { own_record(cx, &room, &start)? } else { record };
    if cx.read(record + EXCEPTION_RECORD::ExceptionCode)? == NtStatus::UNWIND_CONSOLIDATE {
        return Err(cx.stop(Verdict::not_implemented("an unwind that consolidates frames (C++ exceptions)")));
    }
    let flags = cx.read(record + EXCEPTION_RECORD::ExceptionFlags)? | EXCEPTION_UNWINDING;
    let mut next = frames::begin(cx, &start);
    loop {
        let (at, scope, collided) = match next {
            Next::Frame(at) => (at, 0, 0),
            Next::Collided(at, scope) => (at, scope, EXCEPTION_COLLIDED_UNWIND),
            Next::End => return Err(off_the_stack(cx, &target)),
        };
        let frame = frames::frame(cx, &at.context);
        let here = frame.is_some_and(|frame| frame.establisher == target.frame);
        if let Some(frame) = frame
            && let Some(handler) = frame.handler.filter(|handler| handler.termination)
        {
            if !frames::is_sound(cx, frame.establisher) {
                return Err(off_the_stack(cx, &target));
            }
            let last = if here { EXCEPTION_TARGET_UNWIND } else { 0 };
            cx.write(record + EXCEPTION_RECORD::ExceptionFlags, flags | last | collided)?;
            let question = Question {
                record,
                context: room.working,
                frame,
                handler,
                position: at,
                target: Some(target.ip),
                scope,
            };
            match handler::ask(cx, &room, &question)? {
                Disposition::ContinueSearch => {}
                // ExceptionContinueExecution, which ends no unwind.
                Disposition::ContinueExecution => {
                    return Err(exception::wrong_disposition(cx, 0, handler.routine));
                }
                Disposition::Other(other) => {
                    return Err(exception::wrong_disposition(cx, other, handler.routine));
                }
            }
        }
        if here {
            return Ok(arrive(cx, &at, &target));
        }
        next = frames::up(cx, &at);
    }
}

/// A record for an unwind that is for no exception.
fn own_record(cx: &mut Cx<'_>, room: &Room, start: &Position) -> Flow<DriverPtr<EXCEPTION_RECORD>> {
    let record = exception::Record::raised(NtStatus::UNWIND, start.context.rip);
    if cx.engine().write(room.record, record.laid_out()).is_err() {
        return Err(handler::no_room(cx, room.bottom(), start.context.rip));
    }
    Ok(room.record)
}

/// The target frame goes on.
fn arrive(cx: &mut Cx<'_>, at: &Position, target: &Target) -> Leave {
    if cx.count_event(Kind::Unwound) {
        cx.emit(Event::Unwound { frame: target.frame, to: target.ip });
    }
    let mut context = at.context;
    context.rip = target.ip;
    context.registers.general[0] = target.value;
    cx.engine().resume_at(at.depth, &context)
}

/// The target is none of the frames.
fn off_the_stack(cx: &mut Cx<'_>, target: &Target) -> Leave {
    let rip = frames::innermost(cx).map_or(0, |at| at.context.rip);
    let what = format!("an unwind to the frame {:#x}, which is not on the stack,", target.frame);
    unhandled(cx, NtStatus::INVALID_UNWIND_TARGET, &what, rip)
}
