//! IRPs that come to the volume: each is answered at once, on the thread that brings it; but a lock may wait for its range.
//!
//! Pages: *IRP_MJ_CREATE (File Systems)* and its neighbours, *Synchronous and Asynchronous I/O*. A driver's read or write by an asynchronous handle
//! may be answered `STATUS_PENDING` instead, and carried out by a thread of the system's: Windows does either, so it is a choice.

use abi::{
    DEVICE_OBJECT, DriverPtr, FILE_OBJECT, FO_SYNCHRONOUS_IO, IO_STACK_LOCATION, IRP, IRP_MJ_CLEANUP,
    IRP_MJ_CLOSE, IRP_MJ_CREATE, IRP_MJ_DIRECTORY_CONTROL, IRP_MJ_FLUSH_BUFFERS, IRP_MJ_LOCK_CONTROL,
    IRP_MJ_QUERY_INFORMATION, IRP_MJ_QUERY_VOLUME_INFORMATION, IRP_MJ_READ, IRP_MJ_SET_INFORMATION,
    IRP_MJ_SET_VOLUME_INFORMATION, IRP_MJ_WRITE, NtStatus,
};
use engine::Flow;

use super::tree::NodeId;
use super::{contents, file_information, listing, locks, opening, volume};
use crate::cx::Cx;
use crate::io::system_request::Answer;
use crate::io::{complete, irp};
use crate::ke::{irql, thread, time};
use crate::pnp;
use crate::verdict::Verdict;

/// A request that is looked at.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) irp: DriverPtr<IRP>,
    pub(super) location: DriverPtr<IO_STACK_LOCATION>,
    pub(super) file: DriverPtr<FILE_OBJECT>,
}

impl Asked {
    /// The file or directory; a verdict by name if the volume as a whole was opened.
    pub(super) fn node(&self, cx: &mut Cx<'_>, what: &str) -> Flow<Result<NodeId, NtStatus>> {
        match cx.with(|k| k.fs.opens.get(&self.file.address).map(|open| open.node)) {
            None => Ok(Err(NtStatus::INVALID_PARAMETER)),
            Some(Some(node)) => Ok(Ok(node)),
            Some(None) => {
                Err(cx.stop(Verdict::not_implemented(&format!("{what} a volume that was opened as a whole"))))
            }
        }
    }
}

/// The time of what happens now, in units of 100 ns since 1601.
pub(super) fn now(cx: &mut Cx<'_>) -> i64 {
    let engine = cx.engine();
    let time = cx.with(|k| time::boot(k)) + time::interrupt_time(engine);
    i64::try_from(time).unwrap_or(i64::MAX)
}

/// The dispatch routine of the volume's driver.
///
/// # Errors
/// A verdict on the sender of the request; or on what dirql does not implement.
pub(crate) fn dispatch(
    cx: &mut Cx<'_>,
    _device: DriverPtr<DEVICE_OBJECT>,
    request: DriverPtr<IRP>,
) -> Flow<NtStatus> {
    let location = irp::current(cx, request)?;
    let file = cx.read(location + IO_STACK_LOCATION::FileObject)?.cast();
    let asked = Asked { irp: request, location, file };
    let major = cx.read(location + IO_STACK_LOCATION::MajorFunction)?;
    if matches!(major, IRP_MJ_READ | IRP_MJ_WRITE) && may_pend(cx, &asked)? && cx.choose("fs.pends", 2) == 1 {
        complete::mark_pending(cx, location)?;
        let work = move |cx: &mut Cx<'_>| carry_out(cx, &asked, major).map(|_| ());
        thread::spawn(cx, "request of the volume", Box::new(work))?;
        return Ok(NtStatus::PENDING);
    }
    carry_out(cx, &asked, major)
}

/// Whether the requester has said that it goes on meanwhile.
fn may_pend(cx: &mut Cx<'_>, asked: &Asked) -> Flow<bool> {
    let is_known = cx.with(|k| k.fs.opens.contains_key(&asked.file.address));
    Ok(is_known
        && irql::current(cx) == 0
        && cx.read(asked.irp + IRP::RequestorMode)? == 0
        && cx.read(asked.file + FILE_OBJECT::Flags)? & FO_SYNCHRONOUS_IO == 0)
}

/// Answers the request and completes it.
fn carry_out(cx: &mut Cx<'_>, asked: &Asked, major: u8) -> Flow<NtStatus> {
    let is_known = cx.with(|k| k.fs.opens.contains_key(&asked.file.address));
    let answer = match major {
        IRP_MJ_CREATE => opening::open(cx, asked)?,
        // It was opened on another device, or this request has none.
        _ if !is_known => Answer::failed(NtStatus::INVALID_PARAMETER),
        IRP_MJ_CLEANUP => opening::clean_up(cx, asked)?,
        IRP_MJ_CLOSE => opening::close(cx, asked)?,
        IRP_MJ_READ => contents::read(cx, asked)?,
        IRP_MJ_WRITE => contents::write(cx, asked)?,
        IRP_MJ_FLUSH_BUFFERS => Answer::failed(NtStatus::SUCCESS),
        IRP_MJ_QUERY_INFORMATION => file_information::query(cx, asked)?,
        IRP_MJ_SET_INFORMATION => file_information::set(cx, asked)?,
        IRP_MJ_QUERY_VOLUME_INFORMATION => volume::query(cx, asked)?,
        IRP_MJ_SET_VOLUME_INFORMATION => volume::set(cx, asked)?,
        IRP_MJ_LOCK_CONTROL => match locks::control(cx, asked)? {
            Some(answer) => answer,
            None => return Ok(NtStatus::PENDING),
        },
        IRP_MJ_DIRECTORY_CONTROL => listing::list(cx, asked)?,
        _ => Answer::failed(NtStatus::INVALID_DEVICE_REQUEST),
    };
    pnp::bus::complete(cx, asked.irp, Some(answer.status), Some(answer.information))
}
