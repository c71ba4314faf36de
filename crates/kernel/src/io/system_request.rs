//! Requests of the system's own: built, sent to the top of a device stack, waited for.
//!
//! Plug and Play, power, files and shutdown use it; reads, writes and control codes of applications are in `transfer`.

use abi::{DEVICE_OBJECT, DriverPtr, FILE_OBJECT, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, KEVENT, NtStatus};
use engine::Flow;

use super::irp::{self, Origin};
use super::{allocate, call, device};
use crate::cx::{Cx, Kernel};
use crate::ke;
use crate::ke::irql::PASSIVE_LEVEL;
use crate::mm::pool;
use crate::po::overdue;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// `IRP_MJ_*`.
    pub major: u8,
    /// `IRP_MN_*`.
    pub minor: u8,
    /// `Parameters.Others.Argument1` to `4`.
    pub parameters: [u64; 4],
    /// The file it is about, or null.
    pub file: DriverPtr<FILE_OBJECT>,
    /// `IoStatus.Status` to begin with: `NOT_SUPPORTED` for Plug and Play, power and WMI.
    pub status: NtStatus,
    /// `IoStatus.Information` to begin with.
    pub information: u64,
    /// `IRP::Flags`.
    pub flags: u32,
    /// `IRP::RequestorMode`.
    pub mode: u8,
    /// `IO_STACK_LOCATION::Flags`.
    pub location_flags: u8,
    /// `AssociatedIrp.SystemBuffer`, which stays the sender's; null if there is none.
    pub system_buffer: DriverPtr<()>,
    /// `Overlay.AllocationSize`.
    pub allocation: i64,
    /// The level at which it is sent; its end is waited for at PASSIVE_LEVEL.
    pub level: u8,
}

impl Request {
    /// A request of the kernel's with nothing in it.
    #[must_use]
    pub(crate) const fn new(major: u8, minor: u8) -> Self {
        Self {
            major,
            minor,
            parameters: [0; 4],
            file: DriverPtr::NULL,
            status: NtStatus::SUCCESS,
            information: 0,
            flags: 0,
            mode: 0,
            location_flags: 0,
            system_buffer: DriverPtr::NULL,
            allocation: 0,
            level: PASSIVE_LEVEL,
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// `IoStatus.Status`.
    pub status: NtStatus,
    /// `IoStatus.Information`.
    pub information: u64,
}

impl Answer {
    /// A failure before any driver was asked.
    #[must_use]
    pub const fn failed(status: NtStatus) -> Self {
        Self { status, information: 0 }
    }
}

/// Sends `request` to the top of the stack that `device` is in, and waits for the answer. At PASSIVE_LEVEL.
///
/// # Errors
/// A verdict on a driver in the stack.
pub(crate) fn send(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, request: &Request) -> Flow<Answer> {
    send_noting(cx, device, request, |_, _| ())
}

/// The same; `note` gets the IRP before any driver does.
///
/// # Errors
/// As [`send`].
pub(crate) fn send_noting(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    request: &Request,
    note: impl FnOnce(&mut Kernel, u64),
) -> Flow<Answer> {
    let Some(made) = Made::new(cx, device)? else {
        return Ok(Answer::failed(NtStatus::INSUFFICIENT_RESOURCES));
    };
    cx.with(|k| note(k, made.irp.address));
    made.send(cx, request)
}

/// A request that has not been sent, to the top of the stack that a device was in.
pub(crate) struct Made {
    pub(crate) irp: DriverPtr<IRP>,
    top: DriverPtr<DEVICE_OBJECT>,
    waiter: Waiter,
}

impl Made {
    /// The request, with nothing in it; none if there is no memory.
    ///
    /// # Errors
    /// A verdict if the device cannot be read.
    pub(crate) fn new(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<Option<Self>> {
        let top = device::attached(cx, device)?;
        let stack_size = cx.read(top + DEVICE_OBJECT::StackSize)?;
        let irp = allocate::make(cx, stack_size, Origin::System)?;
        let waiter = Waiter::new(cx)?;
        Ok(waiter.filter(|_| !irp.is_null()).map(|waiter| Self { irp, top, waiter }))
    }

    /// Sends it, and waits for the answer. At PASSIVE_LEVEL.
    ///
    /// # Errors
    /// A verdict on a driver in the stack.
    pub(crate) fn send(self, cx: &mut Cx<'_>, request: &Request) -> Flow<Answer> {
        let Self { irp, top, waiter } = self;
        cx.write(irp + IRP::Flags, request.flags)?;
        cx.write(irp + IRP::RequestorMode, request.mode)?;
        cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Status, request.status)?;
        cx.write((irp + IRP::IoStatus) + IO_STATUS_BLOCK::Information, request.information)?;
        cx.write(irp + IRP::UserIosb, waiter.status_block())?;
        cx.write(irp + IRP::UserEvent, waiter.event())?;
        let thread = ke::thread::current_object(cx);
        cx.write(irp + IRP::Tail_Overlay_Thread, thread)?;
        cx.write(irp + IRP::Tail_Overlay_OriginalFileObject, request.file.cast())?;
        cx.write(irp + IRP::AssociatedIrp_SystemBuffer, request.system_buffer)?;
        if request.allocation != 0 {
            cx.write(irp + IRP::Overlay_AllocationSize, request.allocation)?;
        }
        let location = irp::next(cx, irp)?;
        fill(cx, location, request)?;
        let status = call_at(cx, request.level, top, irp)?;
        if status == NtStatus::PENDING {
            overdue::wait_for_end(cx, request, irp, waiter.event())?;
        }
        waiter.take(cx)
    }
}

fn call_at(cx: &mut Cx<'_>, level: u8, top: DriverPtr<DEVICE_OBJECT>, irp: DriverPtr<IRP>) -> Flow<NtStatus> {
    if level == PASSIVE_LEVEL {
        return call::call_driver(cx, top, irp);
    }
    let old = ke::irql::raise(cx, level)?;
    let status = call::call_driver(cx, top, irp)?;
    ke::irql::lower(cx, old)?;
    Ok(status)
}

fn fill(cx: &mut Cx<'_>, location: DriverPtr<IO_STACK_LOCATION>, request: &Request) -> Flow<()> {
    let [first, second, third, fourth] = request.parameters.map(DriverPtr::new);
    cx.write(location + IO_STACK_LOCATION::MajorFunction, request.major)?;
    cx.write(location + IO_STACK_LOCATION::MinorFunction, request.minor)?;
    cx.write(location + IO_STACK_LOCATION::Flags, request.location_flags)?;
    cx.write(location + IO_STACK_LOCATION::Parameters_Others_Argument1, first)?;
    cx.write(location + IO_STACK_LOCATION::Parameters_Others_Argument2, second)?;
    cx.write(location + IO_STACK_LOCATION::Parameters_Others_Argument3, third)?;
    cx.write(location + IO_STACK_LOCATION::Parameters_Others_Argument4, fourth)?;
    cx.write(location + IO_STACK_LOCATION::FileObject, request.file.cast())
}

/// An event and a status block in nonpaged memory, for one request.
struct Waiter {
    block: u64,
}

impl Waiter {
    fn new(cx: &mut Cx<'_>) -> Flow<Option<Self>> {
        let size = size_of::<KEVENT>() + size_of::<IO_STATUS_BLOCK>();
        let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, size as u64, pool::tag(b"IoWt"))?;
        if block.is_null() {
            return Ok(None);
        }
        let waiter = Self { block: block.address };
        ke::event::initialize(cx, waiter.event(), 0, false)?;
        Ok(Some(waiter))
    }

    fn event(&self) -> DriverPtr<KEVENT> {
        DriverPtr::new(self.block)
    }

    fn status_block(&self) -> DriverPtr<IO_STATUS_BLOCK> {
        DriverPtr::new(self.block + size_of::<KEVENT>() as u64)
    }

    fn take(self, cx: &mut Cx<'_>) -> Flow<Answer> {
        let status = cx.read(self.status_block() + IO_STATUS_BLOCK::Status)?;
        let information = cx.read(self.status_block() + IO_STATUS_BLOCK::Information)?;
        pool::free(cx, DriverPtr::<()>::new(self.block))?;
        Ok(Answer { status, information })
    }
}
