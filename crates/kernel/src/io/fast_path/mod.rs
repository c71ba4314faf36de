//! The fast path of nearly every request of an application: buffered, small, answered by one driver. Each part of its life
//! (begun and sent, completed, answered) is one or two looks at the kernel's state, in which everything is found once.
//!
//! Pages: those of `transfer`, `complete` and `finish`, which are the general path and explain each step. A part looks at all there
//! is before it changes anything, and where there is more to do (another method, several locations, a completion routine, a thread
//! that waits, whatever a verdict could be about) it leaves all to them. Events, memory and addresses are the same on both paths,
//! except for what cannot be seen: fields of an IRP between two of the kernel's own steps. A checked machine, and one that learns
//! who touches what, has no fast path.

mod begin;
mod complete;

use abi::{DISPATCHER_HEADER, DriverPtr, FILE_OBJECT, IO_STATUS_BLOCK, KEVENT, LIST_ENTRY, NtStatus};
use engine::{Engine, Flow, View};

use super::call::low_half;
use super::finish::is_error;
use super::operation::Start;
use super::system_request::Answer;
use super::transfer::{self, Request};
use super::{asked, irp, pending};
use crate::cx::{Cx, Kernel};
use crate::event::Kind;
use crate::ke::dispatcher::Kind as ObjectKind;
use crate::ke::{self, callout};
use crate::ob::handle::Mode;
use crate::ob::object;

pub(crate) use begin::{Begun, begin};
pub(crate) use complete::{complete, ending, is_any_awaited, let_go, signal};

/// Calls the driver's dispatch routine, and waits for the answer if the requester does.
///
/// # Errors
/// As the general path.
pub(crate) fn go(cx: &mut Cx<'_>, begun: &Begun, request: &Request<'_>) -> Flow<Answer> {
    let Begun { irp, device, file, dispatch, major, frame, synchronous, .. } = *begun;
    if cx.count_event(Kind::IrpSent) {
        asked::sent(cx, irp, device, (major, 0));
    }
    let role = irp::dispatch_role(major);
    let called = callout::call_routine(cx, role, dispatch, irp.address, &[device.address, irp.address]);
    if called.is_err() {
        pending::unwound(cx, frame);
    }
    let status = NtStatus(low_half(called?));
    match cx.with(|k| end(k, begun, request, status)) {
        End::Answered(answer) => return Ok(answer),
        End::Judged => {}
        End::Unjudged => pending::judge_returned(cx, frame, dispatch, status)?,
    }
    let answer = transfer::returned(cx, file, request, (synchronous, Mode::User), status)?;
    object::dereference(cx, file)?;
    Ok(answer)
}

/// How far the fast path led.
enum End {
    /// The request is answered.
    Answered(Answer),
    /// The status is judged (it agrees with what the driver did); the general path answers.
    Judged,
    /// The general path judges and answers.
    Unjudged,
}

/// The dispatch routine has returned.
fn end(k: &mut Kernel, begun: &Begun, request: &Request<'_>, status: NtStatus) -> End {
    if !k.io.frames.is_settled_by(begun.frame, status) {
        return End::Unjudged;
    }
    match answered(k, begun, request, status) {
        Some(answer) => End::Answered(answer),
        None => End::Judged,
    }
}

/// The answer that the completion has left, with the file for the next request: if no thread waits for either.
fn answered(k: &mut Kernel, begun: &Begun, request: &Request<'_>, status: NtStatus) -> Option<Answer> {
    let engine = k.engine;
    if is_error(status) || (status == NtStatus::PENDING && !has_ended(k, begun)) {
        return None;
    }
    let (file, block) = (engine.view(begun.file)?, engine.view_of_user(request.status_block)?);
    let (answer, position) = engine.peek(|| {
        let answer = Answer {
            status: block.get(IO_STATUS_BLOCK::Status),
            information: block.get(IO_STATUS_BLOCK::Information),
        };
        let from = request.operation.moves_from().map(|start| offset(file, start));
        let position = from.filter(|_| begun.synchronous && !is_error(answer.status));
        let others_wait = begun.synchronous && file.get(FILE_OBJECT::Waiters) != 0;
        (!others_wait).then_some((answer, position))
    })?;
    if !object::dereference_at_hint(k, begun.number, begun.file.address) {
        return None;
    }
    engine.peek_own("a file is an object", || {
        if let Some(from) = position {
            file.set(FILE_OBJECT::CurrentByteOffset, from.wrapping_add(answer.information.cast_signed()));
        }
        if begun.synchronous {
            file.set(FILE_OBJECT::Busy, 0);
        }
    });
    Some(answer)
}

/// Whether a wait for the end of a request that was pending is over before it begins.
fn has_ended(k: &Kernel, begun: &Begun) -> bool {
    let Some(file) = k.engine.view(begun.file) else { return false };
    let header = file.part(FILE_OBJECT::Event).part(KEVENT::Header);
    let is_over = k.engine.peek(|| {
        // A notification event: no wait resets it.
        let stays = header.get(DISPATCHER_HEADER::Type) == ObjectKind::NotificationEvent as u8;
        Some(stays && header.get(DISPATCHER_HEADER::SignalState) > 0)
    });
    is_over == Some(true) && begun.synchronous && ke::wait::may_begin_at_once(k) && k.is_nothing_pending()
}

/// Its request has not ended.
///
/// # Errors
/// A verdict if it is not memory.
#[inline]
pub(crate) fn mark_pending(cx: &mut Cx<'_>, block: DriverPtr<IO_STATUS_BLOCK>) -> Flow<()> {
    let engine = cx.engine();
    let set = |block: View<IO_STATUS_BLOCK>| block.set(IO_STATUS_BLOCK::Status, NtStatus::PENDING);
    if engine.peek(|| engine.view_of_user(block).map(set)).is_some() {
        return Ok(());
    }
    cx.write(block + IO_STATUS_BLOCK::Status, NtStatus::PENDING)
}

/// Where that is in a file.
#[inline]
fn offset(file: View<FILE_OBJECT>, start: Start) -> i64 {
    match start {
        Start::Position => file.get(FILE_OBJECT::CurrentByteOffset),
        Start::At(offset) => offset,
    }
}

/// Where an event is, if there is one.
#[inline]
pub(super) fn at_or_null(event: Option<View<KEVENT>>) -> DriverPtr<KEVENT> {
    event.map_or(DriverPtr::NULL, View::at)
}

/// The event at this address, which may be null; none if it is not plain memory.
#[inline]
pub(super) fn event_at(engine: Engine, event: DriverPtr<KEVENT>) -> Option<Option<View<KEVENT>>> {
    if event.is_null() { Some(None) } else { engine.view(event).map(Some) }
}

/// Whether it is an event, as `KeSetEvent` asks.
#[inline]
pub(super) fn is_event(event: View<KEVENT>) -> bool {
    let header = event.part(KEVENT::Header);
    let kind = header.get(DISPATCHER_HEADER::Type);
    let next: DriverPtr<LIST_ENTRY> = header.part(DISPATCHER_HEADER::WaitListHead).get(LIST_ENTRY::Flink);
    let is_one =
        kind == ObjectKind::NotificationEvent as u8 || kind == ObjectKind::SynchronizationEvent as u8;
    is_one && !next.is_null()
}

/// Signals it, or not. No thread waits for it.
#[inline]
pub(super) fn set_state(event: View<KEVENT>, state: i32) {
    event.part(KEVENT::Header).set(DISPATCHER_HEADER::SignalState, state);
}
