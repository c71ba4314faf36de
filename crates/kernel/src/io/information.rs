//! What is known of an open file, asked and set by its handle.
//!
//! Pages: *ZwQueryInformationFile function*, *ZwSetInformationFile function*. As Windows' I/O manager does, this one answers for the position of a
//! synchronous file, for access, mode and alignment by itself; everything else its driver is asked, in a system buffer.

use abi::{
    DEVICE_OBJECT, DriverPtr, FILE_OBJECT, FO_ALERTABLE_IO, FO_SYNCHRONOUS_IO, FileAccessInformation,
    FileAlignmentInformation, FileModeInformation, FilePositionInformation, IO_STATUS_BLOCK, NtStatus,
};
use engine::Flow;

use super::operation::Operation;
use super::stack;
use super::system_request::Answer;
use super::transfer::{self, Buffer, Request};
use super::zw;
use crate::cx::Cx;
use crate::ob::handle::{self, Mode};
use crate::ob::{self, Handle, Kind};

/// `FILE_SYNCHRONOUS_IO_ALERT`, `FILE_SYNCHRONOUS_IO_NONALERT`.
const ALERT: u32 = 0x10;
const NONALERT: u32 = 0x20;

/// `FILE_MODE_INFORMATION` by the flags of a file object.
pub(crate) const fn mode_of(flags: u32) -> u32 {
    match (flags & FO_SYNCHRONOUS_IO != 0, flags & FO_ALERTABLE_IO != 0) {
        (false, _) => 0,
        (true, true) => ALERT,
        (true, false) => NONALERT,
    }
}

/// What the I/O manager answers for itself of this class.
fn own(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>, access: u32, class: u32) -> Flow<Option<Vec<u8>>> {
    let flags = cx.read(file + FILE_OBJECT::Flags)?;
    let is_synchronous = flags & FO_SYNCHRONOUS_IO != 0;
    Ok(match class {
        class if class == FilePositionInformation && is_synchronous => {
            Some(cx.read(file + FILE_OBJECT::CurrentByteOffset)?.to_le_bytes().to_vec())
        }
        class if class == FileAccessInformation => Some(access.to_le_bytes().to_vec()),
        class if class == FileModeInformation => Some(mode_of(flags).to_le_bytes().to_vec()),
        class if class == FileAlignmentInformation => {
            let device = stack::related_device(cx, file)?;
            Some(cx.read(device + DEVICE_OBJECT::AlignmentRequirement)?.to_le_bytes().to_vec())
        }
        _ => None,
    })
}

/// The file of a handle, with a reference, and the access that was granted.
pub(super) fn file_of(cx: &mut Cx<'_>, file: u64) -> Flow<Result<(DriverPtr<FILE_OBJECT>, u32), NtStatus>> {
    let entry = handle::reference(cx, Handle(file), Some(Kind::File), 0, Mode::Kernel)?;
    Ok(entry.map(|entry| (DriverPtr::new(entry.object), entry.access)))
}

/// What the I/O manager answers a query or a setting without the driver, if it does.
fn answered(
    cx: &mut Cx<'_>,
    handle: Handle,
    operation: &Operation,
    mode: Mode,
) -> Flow<Result<Option<Answer>, NtStatus>> {
    let entry = match handle::reference(cx, handle, Some(Kind::File), 0, mode)? {
        Ok(entry) => entry,
        Err(status) => return Ok(Err(status)),
    };
    let file = DriverPtr::new(entry.object);
    let answer = match *operation {
        Operation::Query(class, buffer) => match own(cx, file, entry.access, class)? {
            Some(bytes) if (buffer.length as usize) < bytes.len() => {
                Some(Answer::failed(NtStatus::INFO_LENGTH_MISMATCH))
            }
            Some(bytes) => {
                cx.write_bytes(buffer.address, &bytes)?;
                Some(Answer { status: NtStatus::SUCCESS, information: bytes.len() as u64 })
            }
            None => None,
        },
        Operation::Set(class, buffer) => set_own(cx, file, class, (buffer.address, buffer.length))?
            .map(|status| Answer { status, information: 0 }),
        _ => None,
    };
    ob::object::dereference(cx, file)?;
    Ok(Ok(answer))
}

/// Any operation on any handle of an application's, waiting for the end; the driver is not asked for what the I/O manager knows.
///
/// # Errors
/// A verdict on a driver.
pub fn perform(cx: &mut Cx<'_>, handle: Handle, operation: Operation) -> Flow<Answer> {
    if matches!(operation, Operation::Query(..) | Operation::Set(..)) {
        match answered(cx, handle, &operation, Mode::User)? {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(status) => return Ok(Answer::failed(status)),
        }
    }
    transfer::perform(cx, handle, operation)
}

/// `ZwQueryInformationFile`.
///
/// # Errors
/// A verdict if a pointer is bad, or on a driver.
pub fn zw_query(
    cx: &mut Cx<'_>,
    file: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    class: u32,
) -> Flow<NtStatus> {
    zw(cx, file, status_block, &Operation::Query(class, Buffer { address: buffer, length }))
}

/// `ZwSetInformationFile`.
///
/// # Errors
/// As [`zw_query`].
pub fn zw_set(
    cx: &mut Cx<'_>,
    file: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    class: u32,
) -> Flow<NtStatus> {
    zw(cx, file, status_block, &Operation::Set(class, Buffer { address: buffer, length }))
}

fn zw(
    cx: &mut Cx<'_>,
    file: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    operation: &Operation,
) -> Flow<NtStatus> {
    match answered(cx, Handle(file), operation, Mode::Kernel)? {
        Ok(None) => ask(cx, file, status_block, operation),
        Ok(Some(Answer { status: NtStatus::SUCCESS, information })) => {
            zw::answer(cx, status_block, NtStatus::SUCCESS, information)
        }
        Ok(Some(Answer { status, .. })) | Err(status) => Ok(status),
    }
}

/// What comes of what the I/O manager sets by itself: the position of a synchronous file.
fn set_own(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    class: u32,
    (buffer, length): (u64, u32),
) -> Flow<Option<NtStatus>> {
    if class != FilePositionInformation || cx.read(file + FILE_OBJECT::Flags)? & FO_SYNCHRONOUS_IO == 0 {
        return Ok(None);
    }
    if length < 8 {
        return Ok(Some(NtStatus::INFO_LENGTH_MISMATCH));
    }
    let position: i64 = cx.read(DriverPtr::new(buffer))?;
    if position < 0 {
        return Ok(Some(NtStatus::INVALID_PARAMETER));
    }
    cx.write(file + FILE_OBJECT::CurrentByteOffset, position)?;
    Ok(Some(NtStatus::SUCCESS))
}

/// Asks the file's driver.
pub(super) fn ask(
    cx: &mut Cx<'_>,
    file: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    operation: &Operation,
) -> Flow<NtStatus> {
    let request = Request { operation, event: None, status_block, key: 0, context: 0, apc: false };
    Ok(transfer::issue(cx, Handle(file), &request, Mode::Kernel)?.status)
}
