//! Files by their names alone: asked about, or deleted, in one call.
//!
//! Pages: *ZwQueryFullAttributesFile function*, *ZwDeleteFile function*. Each opens the file, does its one thing, and closes it, as Windows
//! does; where a machine has no disk the name is reported as for `ZwCreateFile`.

use abi::{
    DELETE, DriverPtr, FILE_DELETE_ON_CLOSE, FILE_NETWORK_OPEN_INFORMATION, FILE_READ_ATTRIBUTES,
    FileNetworkOpenInformation, IO_STATUS_BLOCK, NtStatus, OBJECT_ATTRIBUTES,
};
use engine::Flow;

use super::file::{OpenOptions, SHARED};
use super::operation::Operation;
use super::transfer::{self, Buffer, Request};
use super::zw;
use crate::cx::Cx;
use crate::mm::pool;
use crate::ob;
use crate::ob::Handle;
use crate::ob::handle::Mode;

/// Bytes of a `FILE_NETWORK_OPEN_INFORMATION`.
const LENGTH: u32 = 0x38;
const _: () = assert!(size_of::<FILE_NETWORK_OPEN_INFORMATION>() == LENGTH as usize);

/// Opens the file for this alone.
fn open(
    cx: &mut Cx<'_>,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    access: u32,
    options: u32,
) -> Flow<Result<Handle, NtStatus>> {
    let named = match ob::attributes::read_for_file(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(Err(status)),
    };
    let options = OpenOptions { access, share: SHARED, options, ..OpenOptions::default() };
    Ok(zw::open_named(cx, &named, &options)?.map(|opened| opened.handle))
}

/// `ZwDeleteFile`.
///
/// # Errors
/// A verdict if a pointer is bad, or on a driver.
pub(crate) fn zw_delete(cx: &mut Cx<'_>, attributes: DriverPtr<OBJECT_ATTRIBUTES>) -> Flow<NtStatus> {
    match open(cx, attributes, DELETE, FILE_DELETE_ON_CLOSE)? {
        Ok(handle) => Ok(ob::handle::close(cx, handle)?.err().unwrap_or(NtStatus::SUCCESS)),
        Err(status) => Ok(status),
    }
}

/// `ZwQueryFullAttributesFile`.
///
/// # Errors
/// As [`zw_delete`].
pub(crate) fn zw_query_full_attributes(
    cx: &mut Cx<'_>,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    information: DriverPtr<FILE_NETWORK_OPEN_INFORMATION>,
) -> Flow<NtStatus> {
    let handle = match open(cx, attributes, FILE_READ_ATTRIBUTES, 0)? {
        Ok(handle) => handle,
        Err(status) => return Ok(status),
    };
    let status = ask(cx, handle, information)?;
    let _ = ob::handle::close(cx, handle)?;
    Ok(status)
}

fn ask(
    cx: &mut Cx<'_>,
    handle: Handle,
    information: DriverPtr<FILE_NETWORK_OPEN_INFORMATION>,
) -> Flow<NtStatus> {
    let size = size_of::<IO_STATUS_BLOCK>() as u64;
    let status_block: DriverPtr<IO_STATUS_BLOCK> =
        pool::allocate(cx, pool::Kind::NonPaged, size, pool::tag(b"IoFi"))?;
    if status_block.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let buffer = Buffer { address: information.address, length: LENGTH };
    let operation = Operation::Query(FileNetworkOpenInformation, buffer);
    let request =
        Request { operation: &operation, event: None, status_block, key: 0, context: 0, apc: false };
    let answer = transfer::issue(cx, handle, &request, Mode::Kernel)?;
    pool::free(cx, status_block)?;
    Ok(answer.status)
}
