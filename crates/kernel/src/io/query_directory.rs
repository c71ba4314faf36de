//! What a directory has, and what a volume is: asked by handles.
//!
//! Pages: *ZwQueryDirectoryFile function*, *ZwQueryVolumeInformationFile function*. Both ask the driver of the file's device, but for the
//! kind of the device, which the I/O manager knows.

use abi::{
    DEVICE_OBJECT, DriverPtr, FILE_OBJECT, FileFsDeviceInformation, IO_STATUS_BLOCK, NtStatus,
    SL_RESTART_SCAN, SL_RETURN_SINGLE_ENTRY, UNICODE_STRING,
};
use engine::Flow;

use super::information;
use super::operation::{Listing, Operation};
use super::transfer::{self, Buffer, Request};
use super::zw;
use crate::cx::Cx;
use crate::ob::handle::Mode;
use crate::ob::{self, Handle};
use crate::verdict::Verdict;

/// `ZwQueryDirectoryFile`.
///
/// # Errors
/// A verdict if a pointer is bad, or on a driver.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn zw_query_directory(
    cx: &mut Cx<'_>,
    file: u64,
    event: u64,
    apc: u64,
    _apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    class: u32,
    single: bool,
    pattern: DriverPtr<UNICODE_STRING>,
    restart: bool,
) -> Flow<NtStatus> {
    if apc != 0 {
        return Err(cx.stop(Verdict::not_implemented("ZwQueryDirectoryFile with an APC routine")));
    }
    let mut flags = if single { SL_RETURN_SINGLE_ENTRY } else { 0 };
    flags |= if restart { SL_RESTART_SCAN } else { 0 };
    let listing = Listing { class, buffer: Buffer { address: buffer, length }, pattern, flags };
    let operation = Operation::List(listing);
    let event = (event != 0).then_some(Handle(event));
    let request = Request { operation: &operation, event, status_block, key: 0, context: 0, apc: false };
    Ok(transfer::issue(cx, Handle(file), &request, Mode::Kernel)?.status)
}

/// `ZwSetVolumeInformationFile`.
///
/// # Errors
/// As [`zw_query_directory`].
pub(crate) fn zw_set_volume(
    cx: &mut Cx<'_>,
    file: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    class: u32,
) -> Flow<NtStatus> {
    let operation = Operation::SetVolume(class, Buffer { address: buffer, length });
    information::ask(cx, file, status_block, &operation)
}

/// `ZwQueryVolumeInformationFile`.
///
/// # Errors
/// As [`zw_query_directory`].
pub(crate) fn zw_query_volume(
    cx: &mut Cx<'_>,
    file: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    class: u32,
) -> Flow<NtStatus> {
    let (object, _) = match information::file_of(cx, file)? {
        Ok(found) => found,
        Err(status) => return Ok(status),
    };
    let device = cx.read(object + FILE_OBJECT::DeviceObject)?;
    ob::object::dereference(cx, object)?;
    let is_volume = cx.with(|k| k.fs.is_volume(device.address));
    if class == FileFsDeviceInformation && !is_volume {
        if length < 8 {
            return Ok(NtStatus::INFO_LENGTH_MISMATCH);
        }
        let kind = cx.read(device + DEVICE_OBJECT::DeviceType)?;
        let characteristics = cx.read(device + DEVICE_OBJECT::Characteristics)?;
        cx.write(DriverPtr::<u32>::new(buffer), kind)?;
        cx.write(DriverPtr::<u32>::new(buffer).index(1), characteristics)?;
        return zw::answer(cx, status_block, NtStatus::SUCCESS, 8);
    }
    let operation = Operation::QueryVolume(class, Buffer { address: buffer, length });
    information::ask(cx, file, status_block, &operation)
}
