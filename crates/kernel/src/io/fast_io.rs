//! Fast I/O: a control code that the driver answers without an IRP.
//!
//! Page: *FAST_IO_DISPATCH structure* (`FastIoDeviceControl`). The other entries are for file systems with a cache, which
//! do not exist here.

use abi::{
    DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, FAST_IO_DISPATCH, FILE_OBJECT, IO_STATUS_BLOCK, NtStatus,
};
use engine::Flow;

use super::routine;
use super::system_request::Answer;
use super::transfer::Buffer;
use crate::cx::Cx;
use crate::event::Role;
use crate::mm::pool;

/// Asks the driver of `device`; none if it has no such routine, or wants an IRP.
///
/// # Errors
/// A verdict on the driver.
pub(crate) fn device_control(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
    device: DriverPtr<DEVICE_OBJECT>,
    code: u32,
    input: Buffer,
    output: Buffer,
) -> Flow<Option<Answer>> {
    let driver = cx.read(device + DEVICE_OBJECT::DriverObject)?;
    let table: DriverPtr<FAST_IO_DISPATCH> = cx.read(driver + DRIVER_OBJECT::FastIoDispatch)?.cast();
    let entry = FAST_IO_DISPATCH::FastIoDeviceControl;
    if table.is_null()
        || u64::from(cx.read(table + FAST_IO_DISPATCH::SizeOfFastIoDispatch)?) < entry.offset() + 8
    {
        return Ok(None);
    }
    let routine = cx.read(table + entry)?;
    if routine.is_null() {
        return Ok(None);
    }
    let size = size_of::<IO_STATUS_BLOCK>() as u64;
    let block: DriverPtr<IO_STATUS_BLOCK> =
        pool::allocate(cx, pool::Kind::NonPaged, size, pool::tag(b"IoFa"))?;
    if block.is_null() {
        return Ok(Some(Answer::failed(NtStatus::INSUFFICIENT_RESOURCES)));
    }
    let wait = 1;
    let arguments = [
        file.address,
        wait,
        input.address,
        input.length.into(),
        output.address,
        output.length.into(),
        code.into(),
        block.address,
        device.address,
    ];
    let handled =
        routine::call(cx, Role::FastIoDeviceControl, routine, device.address, &arguments)? & 0xFF != 0;
    let status = cx.read(block + IO_STATUS_BLOCK::Status)?;
    let information = cx.read(block + IO_STATUS_BLOCK::Information)?;
    pool::free(cx, block)?;
    Ok(handled.then_some(Answer { status, information }))
}
