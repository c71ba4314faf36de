//! Reading, writing and control codes on an open file.
//!
//! Pages: *ReadFile function*, *DeviceIoControl function*, *Synchronous and Asynchronous I/O*, *ZwReadFile function*.
//! What user APCs interrupt is in `ke::user_apc`.

use abi::{
    DriverPtr, FILE_APPEND_DATA, FILE_OBJECT, FILE_WRITE_DATA, FO_ALERTABLE_IO, FO_NO_INTERMEDIATE_BUFFERING,
    FO_SYNCHRONOUS_IO, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, KEVENT, NtStatus,
};
use engine::Flow;

pub use super::buffers::Buffer;
use super::buffers::{self, Way};
use super::file::Issue;
use super::finish::is_error;
use super::irp::Origin;
use super::operation::{FILE_WRITE_TO_END_OF_FILE, Operation, Start};
use super::overlapped::{self, Overlapped};
use super::packet::Packet;
use super::parameters::{self, Fill, Requester};
use super::system_request::Answer;
use super::{allocate, asked, call, cancel, completion_port, fast_io, fast_path, file_lock, stack};
use crate::cx::Cx;
use crate::ke;
use crate::ke::user_apc::{self, WaitMode};
use crate::ob::handle::{self, Mode};
use crate::ob::{self, Handle, Kind};

/// `ReadFile`, waiting for the end.
///
/// # Errors
/// A verdict on a driver.
pub fn read(cx: &mut Cx<'_>, handle: Handle, buffer: Buffer, offset: Option<i64>) -> Flow<Answer> {
    perform(cx, handle, Operation::Read(buffer, offset))
}

/// `WriteFile`, waiting for the end.
///
/// # Errors
/// A verdict on a driver.
pub fn write(cx: &mut Cx<'_>, handle: Handle, buffer: Buffer, offset: Option<i64>) -> Flow<Answer> {
    perform(cx, handle, Operation::Write(buffer, offset))
}

/// `DeviceIoControl`, waiting for the end.
///
/// # Errors
/// A verdict on a driver.
pub fn device_control(
    cx: &mut Cx<'_>,
    handle: Handle,
    code: u32,
    input: Buffer,
    output: Buffer,
) -> Flow<Answer> {
    perform(cx, handle, Operation::Control(code, input, output))
}

/// Any operation on any handle, waiting for the end.
///
/// # Errors
/// A verdict on a driver.
pub fn perform(cx: &mut Cx<'_>, handle: Handle, operation: Operation) -> Flow<Answer> {
    if is_synchronous(cx, handle)? {
        return perform_in_call(cx, handle, &operation);
    }
    let Some(overlapped) = Overlapped::new(cx)? else {
        return Ok(Answer::failed(NtStatus::INSUFFICIENT_RESOURCES));
    };
    let mut answer = start(cx, handle, operation, &overlapped)?;
    if answer.status == NtStatus::PENDING {
        answer = overlapped.wait(cx)?;
    }
    overlapped.free(cx)?;
    Ok(answer)
}

/// Any operation as an application with an `OVERLAPPED` makes it: `PENDING` if an overlapped handle's has not ended.
///
/// # Errors
/// A verdict on a driver.
pub fn start(cx: &mut Cx<'_>, handle: Handle, operation: Operation, overlapped: &Overlapped) -> Flow<Answer> {
    let (event, status_block) = (Some(overlapped.event), overlapped.status_block);
    let request = Request {
        operation: &operation,
        event,
        status_block,
        key: 0,
        context: overlapped.id,
        apc: overlapped.apc,
    };
    traced(cx, handle, &request)
}

/// As applications ask on a synchronous handle, without an `OVERLAPPED`: the call waits, and its IRP has no event.
fn perform_in_call(cx: &mut Cx<'_>, handle: Handle, operation: &Operation) -> Flow<Answer> {
    let Some(status_block) = overlapped::take_own(cx) else {
        return Ok(Answer::failed(NtStatus::INSUFFICIENT_RESOURCES));
    };
    let request = Request { operation, event: None, status_block, key: 0, context: 0, apc: false };
    let answer = traced(cx, handle, &request)?;
    overlapped::keep_own(cx, status_block);
    Ok(answer)
}

/// Whether it is a handle of a file on which calls wait for the end of their requests.
fn is_synchronous(cx: &mut Cx<'_>, handle: Handle) -> Flow<bool> {
    match handle::entry(cx, handle, Mode::User) {
        Ok(entry) if entry.kind == Kind::File => {
            let file = DriverPtr::<FILE_OBJECT>::new(entry.object);
            Ok(cx.read(file + FILE_OBJECT::Flags)? & FO_SYNCHRONOUS_IO != 0)
        }
        _ => Ok(false),
    }
}

/// An application's request, with the events of its beginning and of its answer.
fn traced(cx: &mut Cx<'_>, handle: Handle, request: &Request<'_>) -> Flow<Answer> {
    let name = request.operation.name();
    let number = asked::begin(cx, name, |cx| request.operation.about(super::file::shown(cx, handle)));
    fast_path::mark_pending(cx, request.status_block)?;
    let answer = issue(cx, handle, request, Mode::User)?;
    // One that is pending is answered again when it ends.
    asked::end(cx, number, name, answer);
    Ok(answer)
}

/// An operation, and where its end is to be reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'o> {
    /// Not a copy: it was just made, in other pieces than it would be copied in.
    pub(crate) operation: &'o Operation,
    pub(crate) event: Option<Handle>,
    pub(crate) status_block: DriverPtr<IO_STATUS_BLOCK>,
    /// `Key` of `ZwReadFile` and `ZwWriteFile`: for locks of byte ranges.
    pub(crate) key: u32,
    /// What a completion port calls it by; 0 for a driver's own.
    pub(crate) context: u64,
    /// Its thread gets a user APC with the end.
    pub(crate) apc: bool,
}

impl Request<'_> {
    /// What is remembered of it while its IRP is under way.
    #[inline]
    pub(crate) fn issue(
        &self,
        number: u64,
        file: DriverPtr<FILE_OBJECT>,
        event: DriverPtr<KEVENT>,
        thread: u64,
        synchronous: bool,
    ) -> Issue {
        Issue {
            name: self.operation.name(),
            file: file.address,
            event: event.address,
            answered_later: !synchronous,
            context: self.context,
            apc: if self.apc { thread } else { 0 },
            request: number,
            blocks: None,
        }
    }
}

/// What `NtReadFile` and its like do, for an application or (`Mode::Kernel`) a driver.
pub(crate) fn issue(cx: &mut Cx<'_>, handle: Handle, request: &Request<'_>, mode: Mode) -> Flow<Answer> {
    if mode == Mode::User
        && let Some(begun) = cx.with(|k| {
            ke::patience::asks(k);
            fast_path::begin(k, handle, request)
        })
    {
        return fast_path::go(cx, &begun, request);
    }
    let entry = match handle::reference(cx, handle, Some(Kind::File), 0, mode)? {
        Ok(entry) => entry,
        Err(status) => return Ok(Answer::failed(status)),
    };
    let file = DriverPtr::<FILE_OBJECT>::new(entry.object);
    // A handle that may only append writes at the end, whatever the offset is.
    let at_end = match *request.operation {
        Operation::Write(buffer, _)
            if entry.access & (FILE_APPEND_DATA | FILE_WRITE_DATA) == FILE_APPEND_DATA =>
        {
            Some(Operation::Write(buffer, Some(FILE_WRITE_TO_END_OF_FILE)))
        }
        _ => None,
    };
    let request = &Request { operation: at_end.as_ref().unwrap_or(request.operation), ..*request };
    let access = if at_end.is_some() { FILE_APPEND_DATA } else { request.operation.access() };
    // What a handle was opened for binds applications; a driver's own requests are not checked.
    let answer = if mode == Mode::Kernel || access & !entry.access == 0 {
        with_event(cx, file, request, mode)?
    } else {
        Answer::failed(NtStatus::ACCESS_DENIED)
    };
    ob::object::dereference(cx, file)?;
    Ok(answer)
}

fn with_event(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    request: &Request<'_>,
    mode: Mode,
) -> Flow<Answer> {
    let event = match request.event {
        None => DriverPtr::NULL,
        Some(event) => match handle::reference(cx, event, Some(Kind::Event), 0, mode)? {
            Ok(entry) => DriverPtr::<KEVENT>::new(entry.object),
            Err(status) => return Ok(Answer::failed(status)),
        },
    };
    let synchronous = cx.read(file + FILE_OBJECT::Flags)? & FO_SYNCHRONOUS_IO != 0;
    if synchronous {
        file_lock::acquire(cx, file)?;
    }
    if let Some(answer) = fast(cx, file, request)? {
        finish_fast(cx, file, event, request, &answer)?;
        if synchronous {
            file_lock::release(cx, file)?;
        }
        return Ok(answer);
    }
    let sent = send(cx, file, event, request, synchronous, mode)?;
    if matches!(sent, Sent::Refused(_)) && !event.is_null() {
        ob::object::dereference(cx, event)?;
    }
    match sent {
        Sent::Refused(status) => {
            let answer = Answer::failed(status);
            if synchronous {
                advance(cx, file, request, &answer)?;
                file_lock::release(cx, file)?;
            }
            Ok(answer)
        }
        Sent::Done(status) => returned(cx, file, request, (synchronous, mode), status),
    }
}

/// The driver has returned `status`; the pair says whether the handle is synchronous, and the requester's mode.
pub(crate) fn returned(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    request: &Request<'_>,
    (synchronous, mode): (bool, Mode),
    status: NtStatus,
) -> Flow<Answer> {
    let answer = match status {
        NtStatus::PENDING if synchronous => {
            let _ = wait_for_end(cx, file, request, mode)?;
            result(cx, request)?
        }
        status if status == NtStatus::PENDING || is_error(status) => Answer::failed(status),
        _ => result(cx, request)?,
    };
    if synchronous {
        advance(cx, file, request, &answer)?;
        file_lock::release(cx, file)?;
    }
    Ok(answer)
}

/// An alertable file's wait is ended by a user APC, an application's by its thread's end: either has the request cancelled, and its
/// end is waited for.
fn wait_for_end(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    request: &Request<'_>,
    mode: Mode,
) -> Flow<NtStatus> {
    let event = file + FILE_OBJECT::Event;
    let alertable = cx.read(file + FILE_OBJECT::Flags)? & FO_ALERTABLE_IO != 0;
    if mode == Mode::Kernel && !alertable {
        return ke::wait::for_object(cx, event);
    }
    let status_block = request.status_block;
    cancel::wait_for_end(cx, event, WaitMode::of(mode.value(), alertable), |cx| {
        if user_apc::is_to_end(cx) {
            let thread = ke::thread::current_object(cx);
            return cancel::cancel_thread(cx, thread);
        }
        cancel::cancel_request(cx, status_block)
    })
}

/// The answer of a driver that needs no IRP for it.
fn fast(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>, request: &Request<'_>) -> Flow<Option<Answer>> {
    let Operation::Control(code, input, output) = *request.operation else {
        return Ok(None);
    };
    let device = stack::related_device(cx, file)?;
    fast_io::device_control(cx, file, device, code, input, output)
}

fn finish_fast(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    event: DriverPtr<KEVENT>,
    request: &Request<'_>,
    answer: &Answer,
) -> Flow<()> {
    cx.write(request.status_block + IO_STATUS_BLOCK::Status, answer.status)?;
    cx.write(request.status_block + IO_STATUS_BLOCK::Information, answer.information)?;
    if event.is_null() {
        ke::event::set(cx, file + FILE_OBJECT::Event, 0, false)?;
    } else {
        ke::event::set(cx, event, 0, false)?;
        ob::object::dereference(cx, event)?;
    }
    completion_port::tell(cx, file, request.context, *answer, false)
}

/// The status block, which the completion has written.
fn result(cx: &mut Cx<'_>, request: &Request<'_>) -> Flow<Answer> {
    let status = cx.read(request.status_block + IO_STATUS_BLOCK::Status)?;
    let information = cx.read(request.status_block + IO_STATUS_BLOCK::Information)?;
    Ok(Answer { status, information })
}

enum Sent {
    /// No driver was asked.
    Refused(NtStatus),
    /// What the driver returned.
    Done(NtStatus),
}

fn send(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    event: DriverPtr<KEVENT>,
    request: &Request<'_>,
    synchronous: bool,
    mode: Mode,
) -> Flow<Sent> {
    let operation = *request.operation;
    let offset = match start_offset(cx, file, operation, (synchronous, mode))? {
        Ok(offset) => offset,
        Err(status) => return Ok(Sent::Refused(status)),
    };
    // Only whole pages, from and to which nothing is copied on the way.
    let unbuffered = cx.read(file + FILE_OBJECT::Flags)? & FO_NO_INTERMEDIATE_BUFFERING != 0;
    if matches!(operation, Operation::Scatter(..) | Operation::Gather(..)) && !unbuffered {
        return Ok(Sent::Refused(NtStatus::INVALID_PARAMETER));
    }
    let device = stack::related_device(cx, file)?;
    let stack_size = cx.read(device + abi::DEVICE_OBJECT::StackSize)?;
    let Some(mut packet) = allocate::packet(cx, stack_size, Origin::System)? else {
        return Ok(Sent::Refused(NtStatus::INSUFFICIENT_RESOURCES));
    };
    parameters::fill(&mut packet, &operation, offset, request.key);
    packet.add_flags(parameters::flags(&operation));
    if let Err(status) = give_buffers(cx, &mut packet, device, operation, mode)? {
        let irp = packet.write(cx)?;
        super::finish::abandon(cx, irp)?;
        return Ok(Sent::Refused(status));
    }
    ke::event::clear(cx, file + FILE_OBJECT::Event)?;
    if !event.is_null() {
        ke::event::clear(cx, event)?;
    }
    let thread = ke::thread::current_object(cx);
    Requester { mode, thread, file, event, status_block: request.status_block }.fill(&mut packet);
    packet.put(IO_STACK_LOCATION::FileObject, file.cast());
    let irp = packet.write(cx)?;
    ob::object::reference(cx, file)?;
    remember(cx, irp, file, event, request, thread.address, synchronous);
    let status = call::call_driver(cx, device, irp)?;
    Ok(Sent::Done(status))
}

fn remember(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    file: DriverPtr<FILE_OBJECT>,
    event: DriverPtr<KEVENT>,
    request: &Request<'_>,
    thread: u64,
    synchronous: bool,
) {
    let operation = request.operation;
    cx.with(|k| {
        let issue = request.issue(asked::current(k), file, event, thread, synchronous);
        let issue = k.io.irps.boxed(issue);
        if let Some(record) = k.io.irps.live.get_mut(irp.address) {
            record.thread = thread;
            record.output = operation.output();
            record.issue = Some(issue);
        }
    });
}

/// The offset to read or write at: the one asked for, or the file's position.
fn start_offset(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    operation: Operation,
    (synchronous, mode): (bool, Mode),
) -> Flow<Result<i64, NtStatus>> {
    Ok(match operation.start(synchronous, mode) {
        Some(Start::Position) => Ok(cx.read(file + FILE_OBJECT::CurrentByteOffset)?),
        Some(Start::At(offset)) => Ok(offset),
        None => Err(NtStatus::INVALID_PARAMETER),
    })
}

fn give_buffers(
    cx: &mut Cx<'_>,
    packet: &mut Packet,
    device: DriverPtr<abi::DEVICE_OBJECT>,
    operation: Operation,
    mode: Mode,
) -> Flow<Result<(), NtStatus>> {
    match operation {
        Operation::Read(buffer, _) => buffers::for_transfer(cx, packet, device, buffer, Way::In, mode),
        Operation::Write(buffer, _) => buffers::for_transfer(cx, packet, device, buffer, Way::Out, mode),
        Operation::Scatter(segments, _) => buffers::for_segments(cx, packet, device, segments, Way::In),
        Operation::Gather(segments, _) => buffers::for_segments(cx, packet, device, segments, Way::Out),
        Operation::Control(code, input, output)
        | Operation::InternalControl(code, input, output)
        | Operation::FsControl(code, input, output) => {
            buffers::for_control(cx, packet, code, input, output, mode)
        }
        Operation::Query(_, buffer) | Operation::QueryVolume(_, buffer) => {
            buffers::buffered(cx, packet, Buffer::default(), buffer, mode)
        }
        Operation::List(listing) => buffers::for_transfer(cx, packet, device, listing.buffer, Way::In, mode),
        Operation::Set(_, buffer) | Operation::SetVolume(_, buffer) => {
            buffers::buffered(cx, packet, buffer, Buffer::default(), mode)
        }
        Operation::Lock(range) => {
            // A copy: the requester's own number may be gone before the request is.
            let length = Buffer { address: range.length, length: 8 };
            let given = buffers::buffered(cx, packet, length, Buffer::default(), mode)?;
            let place = packet.header(IRP::AssociatedIrp_SystemBuffer).cast();
            packet.put(IO_STACK_LOCATION::Parameters_LockControl_Length, place);
            Ok(given)
        }
        Operation::Flush(_) => Ok(Ok(())),
    }
}

/// The position moves on by what was transferred.
fn advance(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    request: &Request<'_>,
    answer: &Answer,
) -> Flow<()> {
    let from = match request.operation.moves_from() {
        None => return Ok(()),
        Some(Start::Position) => cx.read(file + FILE_OBJECT::CurrentByteOffset)?,
        Some(Start::At(offset)) => offset,
    };
    if is_error(answer.status) {
        return Ok(());
    }
    let position = from.wrapping_add(answer.information.cast_signed());
    cx.write(file + FILE_OBJECT::CurrentByteOffset, position)
}
