//! `NtCreateFile` and its like: as the `Zw` routines, in the thread's previous mode.
//!
//! Page: *Using Nt and Zw Versions of the Native System Services Routines*. Where the previous mode is user mode, what the caller points to must
//! be an application's: a driver that passes its own memory there gets `ACCESS_VIOLATION`, as on Windows. A driver that passes an
//! application's own pointers there is reported by name.

use abi::{DriverPtr, IO_STATUS_BLOCK, NtStatus, OBJECT_ATTRIBUTES};
use engine::Flow;

use super::zw;
use crate::cx::Cx;
use crate::ex::mode;
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::verdict::Verdict;

/// Whether the call is the kernel's own; else what comes of it.
fn judge(cx: &mut Cx<'_>, name: &str, pointers: &[u64]) -> Flow<Result<(), NtStatus>> {
    if mode::previous_mode(cx)? == 0 {
        return Ok(Ok(()));
    }
    if pointers.iter().any(|pointer| *pointer >= USER_PROBE_ADDRESS) {
        return Ok(Err(NtStatus::ACCESS_VIOLATION));
    }
    let what = format!("{name} by a driver, on behalf of an application and with its pointers");
    Err(cx.stop(Verdict::not_implemented(&what)))
}

/// `NtCreateFile`.
///
/// # Errors
/// As [`zw::create_file`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn create(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    allocation_size: DriverPtr<i64>,
    file_attributes: u32,
    share: u32,
    disposition: u32,
    options: u32,
    ea: u64,
    ea_length: u32,
) -> Flow<NtStatus> {
    let pointers = [handle.address, attributes.address, status_block.address];
    if let Err(status) = judge(cx, "NtCreateFile", &pointers)? {
        return Ok(status);
    }
    zw::create_file(
        cx,
        handle,
        access,
        attributes,
        status_block,
        allocation_size,
        file_attributes,
        share,
        disposition,
        options,
        ea,
        ea_length,
    )
}

/// `NtOpenFile`.
///
/// # Errors
/// As [`zw::open_file`].
pub(crate) fn open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    share: u32,
    options: u32,
) -> Flow<NtStatus> {
    let pointers = [handle.address, attributes.address, status_block.address];
    match judge(cx, "NtOpenFile", &pointers)? {
        Ok(()) => zw::open_file(cx, handle, access, attributes, status_block, share, options),
        Err(status) => Ok(status),
    }
}

/// `NtReadFile`.
///
/// # Errors
/// As [`zw::read_file`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn read(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    offset: DriverPtr<i64>,
    key: DriverPtr<u32>,
) -> Flow<NtStatus> {
    match judge(cx, "NtReadFile", &[status_block.address, buffer])? {
        Ok(()) => {
            zw::read_file(cx, handle, event, apc, apc_context, status_block, buffer, length, offset, key)
        }
        Err(status) => Ok(status),
    }
}

/// `NtWriteFile`.
///
/// # Errors
/// As [`zw::write_file`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn write(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    offset: DriverPtr<i64>,
    key: DriverPtr<u32>,
) -> Flow<NtStatus> {
    match judge(cx, "NtWriteFile", &[status_block.address, buffer])? {
        Ok(()) => {
            zw::write_file(cx, handle, event, apc, apc_context, status_block, buffer, length, offset, key)
        }
        Err(status) => Ok(status),
    }
}
