//! A request is completed: its data, its memory, and its requester. Pages: *IofCompleteRequest function*, *ReadFile function*.

use abi::{
    DriverPtr, FILE_OBJECT, FO_SYNCHRONOUS_IO, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_BUFFERED_IO,
    IRP_DEALLOCATE_BUFFER, KEVENT, NtStatus, SL_PENDING_RETURNED,
};
use engine::{Engine, Flow, StrandId, View};

use super::super::completion_notice::{self, CompletionNotice, Data};
use super::super::finish::{self, is_error, is_notified};
use super::super::irp::{self, Blocks, Origin, Record};
use super::super::pending::Only;
use super::{Answer, asked, at_or_null, event_at, is_event, set_state};
use crate::cx::{Cx, Kernel};
use crate::event::Kind;
use crate::ke::irql;
use crate::mm::pool::{self, Block, Freeing};
use crate::mm::pool_own;
use crate::ob::object;
use crate::witness;

/// A request that is completed, and all that completing it needs.
pub(crate) struct Ending {
    irp: DriverPtr<IRP>,
    /// The number of its record.
    number: u32,
    only: Only,
    blocks: Blocks,
    file: View<FILE_OBJECT>,
    event: Option<View<KEVENT>>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    status: NtStatus,
    information: u64,
    /// The driver has marked it pending.
    marked: bool,
    synchronous: bool,
    /// Where the data go.
    user: Option<u64>,
    /// The thread that is to be notified, if it is not the one that runs now.
    elsewhere: Option<StrandId>,
}

/// How to complete this IRP, if the fast path applies. Changes nothing.
pub(crate) fn ending(k: &Kernel, irp: DriverPtr<IRP>) -> Option<Ending> {
    k.engine.peek(|| plan(k, irp))
}

#[inline]
fn plan(k: &Kernel, irp: DriverPtr<IRP>) -> Option<Ending> {
    let engine = k.engine;
    let number = k.io.irps.live.number(0, irp.address)?;
    let record = k.io.irps.live.at(number)?;
    let issue = record.issue.as_ref()?;
    let blocks = issue.blocks?;
    let header = engine.view(irp)?;
    let marked = passes_on_straight(engine, header)?;
    if issue.answered_later && marked {
        return None;
    }
    let io_status = header.part(IRP::IoStatus);
    let (status, information) =
        (io_status.get(IO_STATUS_BLOCK::Status), io_status.get(IO_STATUS_BLOCK::Information));
    if !is_final(status, information, record) {
        return None;
    }
    let user = destination(header, &blocks, status, information)?;
    let file: DriverPtr<FILE_OBJECT> = header.get(IRP::Tail_Overlay_OriginalFileObject).cast();
    let event = header.get(IRP::UserEvent);
    if file.address != issue.file || event.address != issue.event {
        return None;
    }
    let (file, event) = (engine.view(file)?, event_at(engine, event)?);
    let synchronous = file.get(FILE_OBJECT::Flags) & FO_SYNCHRONOUS_IO != 0;
    let status_block = header.get(IRP::UserIosb);
    let location = header.get(IRP::StackCount);
    let are_events = event.is_none_or(is_event) && is_event(file.part(FILE_OBJECT::Event));
    let only = k.io.frames.only(irp.address, location, marked)?;
    if !are_events || status_block.is_null() || !are_free_to_go(k, &blocks) {
        return None;
    }
    Some(Ending {
        irp,
        number,
        only,
        blocks,
        file,
        event,
        status_block,
        status,
        information,
        marked,
        synchronous,
        user,
        elsewhere: completion_notice::elsewhere(k, record, marked),
    })
}

/// Whether the IRP leaves its last location, with no routine on the way; and then, whether that was marked pending.
#[inline]
fn passes_on_straight(engine: Engine, header: View<IRP>) -> Option<bool> {
    let (number, count) = (header.get(IRP::CurrentLocation), header.get(IRP::StackCount));
    let location = engine.view(irp::location(header.at(), count))?;
    let control = location.get(IO_STACK_LOCATION::Control);
    let straight = number == count
        && location.get(IO_STACK_LOCATION::CompletionRoutine).is_null()
        && header.get(IRP::CancelRoutine).is_null()
        && header.get(IRP::MdlAddress).is_null();
    straight.then_some(control & SL_PENDING_RETURNED != 0)
}

/// Whether it may end with this status.
#[inline]
fn is_final(status: NtStatus, information: u64, record: &Record) -> bool {
    let fits = record.output.is_none_or(|most| is_error(status) || information <= most.into());
    fits && status != NtStatus::PENDING && status.0 != u32::MAX
}

/// Where data are copied, if any are. None: the buffers are not the original ones.
#[inline]
fn destination(
    header: View<IRP>,
    blocks: &Blocks,
    status: NtStatus,
    information: u64,
) -> Option<Option<u64>> {
    const BUFFERED: u32 = IRP_BUFFERED_IO | IRP_DEALLOCATE_BUFFER;
    let flags = header.get(IRP::Flags);
    let given = if blocks.buffer.is_some() { BUFFERED } else { 0 };
    let system = blocks.buffer.map_or(0, |buffer| buffer.address);
    let is_given = flags & BUFFERED == given && header.get(IRP::AssociatedIrp_SystemBuffer).address == system;
    if !is_given || header.get(IRP::RequestorMode) == 0 {
        return None;
    }
    let user = header.get(IRP::UserBuffer);
    let wanted = finish::has_data(flags, status, information);
    Some((wanted && system != 0 && !user.is_null()).then_some(user.address))
}

#[inline]
fn are_free_to_go(k: &Kernel, blocks: &Blocks) -> bool {
    match blocks.buffer {
        Some(buffer) => pool_own::are_free_to_go(k, [buffer, blocks.packet]),
        None => pool_own::are_free_to_go(k, [blocks.packet]),
    }
}

/// Completes it.
///
/// # Errors
/// A verdict on a block that was written to after it was freed; as waking the threads that wait.
pub(crate) fn complete(cx: &mut Cx<'_>, ending: &Ending) -> Flow<()> {
    let moment = witness::moment(cx);
    if cx.count_event(Kind::IrpCompleted) {
        let Ending { irp, status, information, .. } = *ending;
        asked::completed(cx, irp, Answer { status, information });
    }
    match cx.with(|k| carry_out(k, ending, moment)) {
        Then::Nothing => Ok(()),
        Then::Tell(status) => {
            let (file, event) = (ending.file.at(), at_or_null(ending.event));
            if is_notified(ending.status, ending.marked) {
                completion_notice::signal(cx, file, event, status)?;
            }
            completion_notice::release(cx, file, event)
        }
        Then::Settle(thread) => {
            completion_notice::tell_queued(cx, ending.irp, thread);
            irql::settle(cx)
        }
        Then::Damaged(damaged) => pool::check_quarantined(cx, Some(damaged)),
    }
}

/// What is left to do.
enum Then {
    Nothing,
    /// Events and references: threads may become ready by them. With how the request ended.
    Tell(NtStatus),
    /// Nothing: another thread does the rest.
    Settle(StrandId),
    /// The verdict on an old block.
    Damaged((u64, Block)),
}

fn carry_out(k: &mut Kernel, ending: &Ending, moment: u64) -> Then {
    k.io.frames.leave_only(ending.only, ending.marked, ending.status);
    let (mut status, mut information) = (ending.status, ending.information);
    let notice = ending.elsewhere.map(|thread| (thread, notice(k, ending)));
    if let (Some(buffer), Some(user), None) = (ending.blocks.buffer, ending.user, &notice)
        && !k.engine.copy_plain(user, buffer.address, information)
    {
        (status, information) = (NtStatus::ACCESS_VIOLATION, 0);
    }
    if let Some(buffer) = ending.blocks.buffer
        && let Some(damaged) = pool_own::retire_own(k, buffer, Freeing::NONE)
    {
        return Then::Damaged(pool::after_free(k, damaged));
    }
    k.io.irps.retire_at(ending.number, ending.irp.address, moment);
    if let Some(damaged) = pool_own::retire_own(k, ending.blocks.packet, Freeing::NONE) {
        return Then::Damaged(pool::after_free(k, damaged));
    }
    if let Some((thread, notice)) = notice {
        notice.queue(k, thread, ending.irp);
        return Then::Settle(thread);
    }
    if is_notified(ending.status, ending.marked) {
        write_status(k.engine, ending.status_block, status, information);
    }
    if tell(k, ending, status) { Then::Nothing } else { Then::Tell(status) }
}

/// What is to be delivered in another thread.
fn notice(k: &mut Kernel, ending: &Ending) -> CompletionNotice {
    let Ending { number, status, information, marked: pending, status_block, .. } = *ending;
    let data = ending.blocks.buffer.zip(ending.user).map(|(buffer, user)| {
        let data = Data::take(k.engine, (buffer.address, information), user, false);
        data.expect("the buffer is memory of ours, and no longer than was asked for")
    });
    let record = k.io.irps.live.at_mut(number);
    let issue = record.and_then(|record| record.issue.take());
    let (event, file, objects) = (at_or_null(ending.event), ending.file.at(), ending.blocks.objects);
    let origin = Origin::System;
    CompletionNotice { origin, issue, status, information, pending, data, status_block, event, file, objects }
}

/// The status block of an application may have gone away.
#[inline]
fn write_status(engine: Engine, to: DriverPtr<IO_STATUS_BLOCK>, status: NtStatus, information: u64) {
    if let Some(block) = engine.view_of_user(to) {
        let _ = engine.try_store(|| {
            block.set(IO_STATUS_BLOCK::Status, status);
            block.set(IO_STATUS_BLOCK::Information, information);
        });
    }
}

/// Whether a thread waits for the file or the event of a request.
pub(crate) fn is_any_awaited(k: &Kernel, file: View<FILE_OBJECT>, event: Option<View<KEVENT>>) -> bool {
    let is_awaited = |event: View<KEVENT>| k.ke.waits.is_awaited(event.at().address);
    event.is_some_and(is_awaited) || is_awaited(file.part(FILE_OBJECT::Event))
}

/// As [`completion_notice::signal`], where no thread waits and there is an event or the file is synchronous.
#[inline]
pub(crate) fn signal(
    file: View<FILE_OBJECT>,
    event: Option<View<KEVENT>>,
    synchronous: bool,
    status: NtStatus,
) {
    if let Some(event) = event {
        set_state(event, 1);
    }
    if synchronous {
        file.set(FILE_OBJECT::FinalStatus, status);
        set_state(file.part(FILE_OBJECT::Event), 1);
    }
}

/// The references of a request to its objects go, if neither object goes with them.
pub(crate) fn let_go(
    k: &mut Kernel,
    [of_file, of_event]: [u32; 2],
    file: View<FILE_OBJECT>,
    event: Option<View<KEVENT>>,
) -> bool {
    let event = at_or_null(event).address;
    if event != 0 && !object::dereference_at_hint(k, of_event, event) {
        return false;
    }
    let gone = object::dereference_at_hint(k, of_file, file.at().address);
    if !gone && event != 0 {
        k.ob.objects.change(event, |object| object.references += 1);
    }
    gone
}

/// Events and references, if no thread becomes ready by them.
fn tell(k: &mut Kernel, ending: &Ending, status: NtStatus) -> bool {
    let (file, event) = (ending.file, ending.event);
    if is_any_awaited(k, file, event) || !k.is_nothing_pending() {
        return false;
    }
    if !let_go(k, ending.blocks.objects, file, event) {
        return false;
    }
    if is_notified(ending.status, ending.marked) {
        let signal = || signal(file, event, ending.synchronous, status);
        k.engine.peek_own("files and events are objects", signal);
    }
    true
}
