//! What the requester gets when packet and buffers are gone: its data, status block and events.
//!
//! Pages: *Types of APCs*, *ReadFile function*, *IoBuildDeviceIoControlRequest function*. A request that belongs to a thread is
//! delivered in that thread, by a special kernel APC (`ke::apc`), unless it runs now and may be notified at once. A request that
//! fails without having been pending leaves status block and events alone: its status was returned.

use abi::{
    DriverPtr, FILE_OBJECT, FO_SKIP_SET_EVENT, FO_SYNCHRONOUS_IO, IO_STATUS_BLOCK, IRP, KEVENT, NtStatus,
};
use engine::{BadAddress, Engine, Flow, StrandId};

use super::buffers::SHORT;
use super::fast_path::{self, event_at, is_event};
use super::file::Issue;
use super::finish::is_notified;
use super::irp::{Origin, Record};
use super::{completion_port, system_request::Answer};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ke::apc::{self, Apc};
use crate::rtl::frames;
use crate::verdict::Verdict;
use crate::{ke, ob};

/// What is still to be delivered.
pub(crate) struct CompletionNotice {
    pub(crate) origin: Origin,
    /// The application's request behind it.
    pub(crate) issue: Option<Box<Issue>>,
    pub(crate) status: NtStatus,
    pub(crate) information: u64,
    /// It was pending.
    pub(crate) pending: bool,
    /// What the requester gets.
    pub(crate) data: Option<Data>,
    pub(crate) status_block: DriverPtr<IO_STATUS_BLOCK>,
    pub(crate) event: DriverPtr<KEVENT>,
    pub(crate) file: DriverPtr<FILE_OBJECT>,
    /// The numbers of file and event among objects, or any.
    pub(crate) objects: [u32; 2],
}

/// What a system buffer held, and where it goes.
pub(crate) struct Data {
    bytes: Bytes,
    to: u64,
    /// To a driver's buffer: a bad pointer is its fault.
    is_drivers: bool,
}

enum Bytes {
    Short { bytes: [u8; SHORT], length: usize },
    Long(Vec<u8>),
}

impl Bytes {
    fn all(&self) -> &[u8] {
        match self {
            Self::Short { bytes, length } => &bytes[..*length],
            Self::Long(bytes) => bytes,
        }
    }

    fn all_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Short { bytes, length } => &mut bytes[..*length],
            Self::Long(bytes) => bytes,
        }
    }
}

/// No request moves more bytes.
const MOST: usize = 64 << 20;

impl Data {
    /// The first `length` bytes at `system`, for the buffer at `to`.
    ///
    /// # Errors
    /// If they are not there.
    pub(crate) fn take(
        engine: Engine,
        (system, length): (u64, u64),
        to: u64,
        is_drivers: bool,
    ) -> Result<Self, BadAddress> {
        let mut bytes = match usize::try_from(length) {
            Ok(length) if length <= SHORT => Bytes::Short { bytes: [0; SHORT], length },
            Ok(length) if length <= MOST => Bytes::Long(vec![0; length]),
            _ => return Err(BadAddress { address: system, write: false }),
        };
        engine.read_bytes(system, bytes.all_mut())?;
        Ok(Self { bytes, to, is_drivers })
    }

    /// Whether the requester's buffer was there.
    fn deliver(&self, cx: &mut Cx<'_>) -> Flow<bool> {
        let bytes = self.bytes.all();
        if self.is_drivers {
            cx.write_bytes(self.to, bytes)?;
            return Ok(true);
        }
        Ok(cx.engine().write_bytes(self.to, bytes).is_ok())
    }
}

/// The thread in which the end of a request is to be delivered, if that is not the one that runs now, or APCs are held back in it.
#[inline]
pub(crate) fn elsewhere(k: &Kernel, record: &Record, pending: bool) -> Option<StrandId> {
    if let Some(here) = k.ke.thread().filter(|here| here.object.address == record.thread) {
        // What returns to the I/O manager at once needs no APC.
        let returns = record.issue.is_some() && !pending;
        return (!returns && !apc::runs_at_once(k, here.strand)).then_some(here.strand);
    }
    // A thread that has ended gets no APC any more.
    if record.thread == 0 { None } else { k.ke.thread_of(record.thread).map(|thread| thread.strand) }
}

impl CompletionNotice {
    /// Delivers it in `thread`.
    ///
    /// # Errors
    /// [`engine::Leave`] of what runs at once.
    pub(crate) fn tell_in(self, cx: &mut Cx<'_>, thread: StrandId, irp: DriverPtr<IRP>) -> Flow<()> {
        cx.with(|k| self.queue(k, thread, irp));
        tell_queued(cx, irp, thread);
        ke::irql::settle(cx)
    }

    /// The same; its caller settles.
    pub(crate) fn queue(self, k: &mut Kernel, thread: StrandId, irp: DriverPtr<IRP>) {
        if self.pending && self.issue.is_some() {
            k.io.ends.note(self.status_block, k.engine.now());
        }
        apc::queue(k, thread, Apc { what: "the end of the IRP", whose: irp.address, work: self });
    }

    /// As [`CompletionNotice::tell`], of an application's request whose answer is not traced, if no thread becomes ready by it, nothing is
    /// deleted and all of it is memory. False: nothing is done.
    pub(crate) fn tell_at_once(&self, k: &mut Kernel) -> bool {
        let plain = self
            .issue
            .as_ref()
            .is_some_and(|issue| !issue.answered_later && issue.event == self.event.address);
        plain && self.tell_plainly(k).is_some()
    }

    fn tell_plainly(&self, k: &mut Kernel) -> Option<()> {
        let engine = k.engine;
        let (file, event) = (engine.view(self.file)?, event_at(engine, self.event)?);
        let block = engine.view_of_user(self.status_block)?;
        let synchronous = engine.peek(|| {
            let synchronous = file.get(FILE_OBJECT::Flags) & FO_SYNCHRONOUS_IO != 0;
            // Without an event, a file that is not synchronous tells the end by its own.
            let are_events = event.map_or(synchronous, is_event) && is_event(file.part(FILE_OBJECT::Event));
            // Rewritten unchanged, to find out whether it can be written.
            block.set(IO_STATUS_BLOCK::Status, block.get(IO_STATUS_BLOCK::Status));
            block.set(IO_STATUS_BLOCK::Information, block.get(IO_STATUS_BLOCK::Information));
            are_events.then_some(synchronous)
        })?;
        if fast_path::is_any_awaited(k, file, event) || !self.copies(engine) {
            return None;
        }
        if !fast_path::let_go(k, self.objects, file, event) {
            return None;
        }
        if is_notified(self.status, self.pending) {
            engine.peek_own("it was read a moment ago, and no driver ran since", || {
                block.set(IO_STATUS_BLOCK::Status, self.status);
                block.set(IO_STATUS_BLOCK::Information, self.information);
                fast_path::signal(file, event, synchronous, self.status);
            });
        }
        Some(())
    }

    /// The data go to the application's buffer, if that is there; a driver's is not for here.
    fn copies(&self, engine: Engine) -> bool {
        let Some(data) = &self.data else { return true };
        !data.is_drivers && engine.write_bytes(data.to, data.bytes.all()).is_ok()
    }

    /// The requester's buffer, its status block, events and references.
    ///
    /// # Errors
    /// A verdict on a driver's bad pointer; as waking the threads that wait.
    pub(crate) fn tell(mut self, cx: &mut Cx<'_>) -> Flow<()> {
        // By the driver's status: a failure to copy the data does not matter here.
        let always = self.origin == Origin::System && self.issue.is_none();
        let tell = always || is_notified(self.status, self.pending);
        if tell && self.issue.is_none() && self.pending {
            self.check_stack(cx)?;
        }
        let delivered = match &self.data {
            Some(data) => data.deliver(cx)?,
            None => true,
        };
        if !delivered {
            (self.status, self.information) = (NtStatus::ACCESS_VIOLATION, 0);
        }
        if tell && !self.status_block.is_null() {
            self.write_status(cx)?;
        }
        let Some(issue) = &self.issue else {
            if tell && !self.event.is_null() {
                ke::event::set(cx, self.event, 0, false)?;
            }
            return Ok(());
        };
        if tell {
            signal(cx, self.file, self.event, self.status)?;
        }
        let answer = Answer { status: self.status, information: self.information };
        completion_port::tell(cx, self.file, issue.context, answer, self.pending)?;
        if tell && issue.apc != 0 {
            ke::user_apc::queue(cx, DriverPtr::new(issue.apc))?;
        }
        if issue.answered_later && self.pending {
            let Issue { request, name, .. } = **issue;
            cx.emit(Event::Answer { request, name, status: self.status.0, information: self.information });
        }
        release(cx, self.file, DriverPtr::new(issue.event))
    }

    /// What is on the stack of the thread that has sent the request must be there still: the routine that waits for it has not returned.
    fn check_stack(&self, cx: &mut Cx<'_>) -> Flow<()> {
        let parts = [(self.status_block.address, "status block", 0xC), (self.event.address, "event", 0xD)];
        for (address, what, code) in parts {
            if is_left(cx, address) {
                let message = format!(
                    "a request is completed whose {what} {address:#x} is a local variable of a routine that has returned: its sender has not waited for the end after STATUS_PENDING"
                );
                let verdict = Verdict::error("irp-on-dead-stack", message);
                return Err(cx.stop(verdict.bug_check(0xC9, [code, 0, address, 0])));
            }
        }
        Ok(())
    }

    /// The status block of an application may have gone away; a driver's may not.
    fn write_status(&self, cx: &mut Cx<'_>) -> Flow<()> {
        let Self { status_block: to, status, information, .. } = *self;
        if self.issue.is_some() {
            let engine = cx.engine();
            let _ = engine.write(to + IO_STATUS_BLOCK::Status, status);
            let _ = engine.write(to + IO_STATUS_BLOCK::Information, information);
            return Ok(());
        }
        cx.write(to + IO_STATUS_BLOCK::Status, status)?;
        cx.write(to + IO_STATUS_BLOCK::Information, information)
    }
}

/// Whether the address lies on the current thread's stack, below all that its routines have there.
fn is_left(cx: &mut Cx<'_>, address: u64) -> bool {
    let is_own = cx.with(|k| k.ke.thread().is_some_and(|thread| thread.has_on_stack(address)));
    is_own && (cx.engine().depth() == 0 || address < frames::stack_top(cx))
}

/// The end of an IRP is queued for a thread.
#[inline]
pub(crate) fn tell_queued(cx: &Cx<'_>, irp: DriverPtr<IRP>, thread: StrandId) {
    cx.detail(Kind::ApcQueued, || Event::ApcQueued { object: irp.address, thread });
}

/// A request's references go.
///
/// # Errors
/// As deleting a file.
pub(crate) fn release(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>, event: DriverPtr<KEVENT>) -> Flow<()> {
    if !event.is_null() {
        ob::object::dereference(cx, event)?;
    }
    ob::object::dereference(cx, file).map(|_| ())
}

/// Notifies the code that waits for the end of a request.
///
/// # Errors
/// As setting an event.
pub(crate) fn signal(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    user_event: DriverPtr<KEVENT>,
    status: NtStatus,
) -> Flow<()> {
    if !user_event.is_null() {
        ke::event::set(cx, user_event, 0, false)?;
    }
    let flags = cx.read(file + FILE_OBJECT::Flags)?;
    let synchronous = flags & FO_SYNCHRONOUS_IO != 0;
    if synchronous {
        cx.write(file + FILE_OBJECT::FinalStatus, status)?;
    }
    if synchronous || (user_event.is_null() && flags & FO_SKIP_SET_EVENT == 0) {
        ke::event::set(cx, file + FILE_OBJECT::Event, 0, false)?;
    }
    Ok(())
}
