//! Files as drivers open and use them: the `Zw` routines, over what applications get.
//!
//! Pages: *ZwCreateFile function*, *ZwOpenFile function*, *ZwReadFile function*, *ZwWriteFile function*,
//! *ZwDeviceIoControlFile function*. Disks have no names here: a file on one is not found. A name relative to an open
//! directory is not supported.

use abi::{
    DriverPtr, FILE_OPEN, FILE_SYNCHRONOUS_IO_ALERT, FILE_SYNCHRONOUS_IO_NONALERT, IO_STATUS_BLOCK, NtStatus,
    OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES, SYNCHRONIZE,
};
use engine::{Args, Flow};

use super::file::{self, OpenOptions};
use super::operation::Operation;
use super::transfer::{self, Buffer, Request};
use crate::cx::Cx;
use crate::ob::handle::Mode;
use crate::ob::{self, Handle};
use crate::verdict::Verdict;

/// `ZwCreateFile`.
///
/// # Errors
/// A verdict if a pointer is bad, or on a driver.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn create_file(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    _allocation_size: DriverPtr<i64>,
    file_attributes: u32,
    share: u32,
    disposition: u32,
    options: u32,
    _ea: u64,
    _ea_length: u32,
) -> Flow<NtStatus> {
    let options = OpenOptions {
        access,
        share: u16::try_from(share & 7).unwrap_or(0),
        options,
        disposition,
        attributes: u16::try_from(file_attributes & 0xFFFF).unwrap_or(0),
    };
    open(cx, handle, attributes, status_block, &options)
}

/// `IoCreateFile`: as [`create_file`], with more options; a create file type other than 0 (pipes, mailslots) is refused.
///
/// # Errors
/// As [`create_file`].
pub fn io_create_file(cx: &mut Cx<'_>, args: &Args) -> Flow<NtStatus> {
    let mut given = [0; 14];
    for (index, value) in (0..).zip(&mut given) {
        *value = cx.read(DriverPtr::new(args.slot(index)))?;
    }
    let low = super::call::low_half;
    let [handle, access, attributes, status_block, size, file_attributes, share, disposition, options, ..] =
        given;
    if low(given[11]) != 0 {
        return Err(cx.stop(Verdict::not_implemented("IoCreateFile for a named pipe or mailslot")));
    }
    create_file(
        cx,
        DriverPtr::new(handle),
        low(access),
        DriverPtr::new(attributes),
        DriverPtr::new(status_block),
        DriverPtr::new(size),
        low(file_attributes),
        low(share),
        low(disposition),
        low(options),
        given[9],
        low(given[10]),
    )
}

/// `ZwOpenFile`.
///
/// # Errors
/// As [`create_file`].
pub fn open_file(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    share: u32,
    options: u32,
) -> Flow<NtStatus> {
    let share = u16::try_from(share & 7).unwrap_or(0);
    let options = OpenOptions { access, share, options, disposition: FILE_OPEN, attributes: 0 };
    open(cx, handle, attributes, status_block, &options)
}

fn open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    options: &OpenOptions,
) -> Flow<NtStatus> {
    let synchronous = options.options & (FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT) != 0;
    if synchronous && options.access & SYNCHRONIZE == 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    if cx.read(attributes + OBJECT_ATTRIBUTES::RootDirectory)? != 0 {
        let what = "ZwCreateFile with a name relative to an open directory";
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    let name = cx.read(attributes + OBJECT_ATTRIBUTES::ObjectName)?;
    let name = ob::string::read(cx, name)?;
    let kernel = cx.read(attributes + OBJECT_ATTRIBUTES::Attributes)? & OBJ_KERNEL_HANDLE != 0;
    let (status, information) = match file::create(cx, &name, options, Mode::Kernel, kernel)? {
        Ok(opened) => {
            cx.write(handle, opened.0)?;
            (NtStatus::SUCCESS, file::OPENED)
        }
        Err(status) => (status, 0),
    };
    cx.write(status_block + IO_STATUS_BLOCK::Status, status)?;
    cx.write(status_block + IO_STATUS_BLOCK::Information, information)?;
    Ok(status)
}

/// `ZwReadFile`.
///
/// # Errors
/// A verdict if a pointer is bad, or on a driver.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn read_file(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    _apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    offset: DriverPtr<i64>,
    _key: u64,
) -> Flow<NtStatus> {
    let offset = optional(cx, offset)?;
    let operation = Operation::Read(Buffer { address: buffer, length }, offset);
    issue(cx, handle, event, apc, status_block, operation)
}

/// `ZwWriteFile`.
///
/// # Errors
/// As [`read_file`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn write_file(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    _apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    offset: DriverPtr<i64>,
    _key: u64,
) -> Flow<NtStatus> {
    let offset = optional(cx, offset)?;
    let operation = Operation::Write(Buffer { address: buffer, length }, offset);
    issue(cx, handle, event, apc, status_block, operation)
}

/// `ZwDeviceIoControlFile`.
///
/// # Errors
/// As [`read_file`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn device_io_control_file(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    _apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    code: u32,
    input: u64,
    input_length: u32,
    output: u64,
    output_length: u32,
) -> Flow<NtStatus> {
    let input = Buffer { address: input, length: input_length };
    let output = Buffer { address: output, length: output_length };
    issue(cx, handle, event, apc, status_block, Operation::Control(code, input, output))
}

fn optional(cx: &mut Cx<'_>, offset: DriverPtr<i64>) -> Flow<Option<i64>> {
    Ok(if offset.is_null() { None } else { Some(cx.read(offset)?) })
}

fn issue(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    operation: Operation,
) -> Flow<NtStatus> {
    if apc != 0 {
        return Err(cx.stop(Verdict::not_implemented("a file operation with an APC routine")));
    }
    let event = (event != 0).then_some(Handle(event));
    let request = Request { operation: &operation, event, status_block };
    let answer = transfer::issue(cx, Handle(handle), &request, Mode::Kernel)?;
    Ok(answer.status)
}
