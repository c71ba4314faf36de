//! Custom events: a driver notifies those who have its device open.
//!
//! Pages: *IoReportTargetDeviceChange function*, *IoReportTargetDeviceChangeAsynchronous function*, *TARGET_DEVICE_CUSTOM_NOTIFICATION structure*, *Using PnP Custom
//! Notification*. Applications are not notified.

use abi::{
    Code, DEVICE_OBJECT, DriverPtr, FILE_OBJECT, GUID, GUID_TARGET_DEVICE_QUERY_REMOVE,
    GUID_TARGET_DEVICE_REMOVE_CANCELLED, GUID_TARGET_DEVICE_REMOVE_COMPLETE, KEVENT, NtStatus,
    TARGET_DEVICE_CUSTOM_NOTIFICATION,
};
use engine::Flow;
use zerocopy::IntoBytes;

use super::queue::{self, Custom, Notice};
use super::target::on_device;
use super::{TAG, Wanted, call};
use crate::cx::Cx;
use crate::io::{driver, unload};
use crate::mm::pool;
use crate::pnp::node::{self, NodeId};
use crate::{ke, wmi};

/// The system's own events.
const SYSTEM: [GUID; 3] = [
    GUID_TARGET_DEVICE_QUERY_REMOVE,
    GUID_TARGET_DEVICE_REMOVE_CANCELLED,
    GUID_TARGET_DEVICE_REMOVE_COMPLETE,
];

type Notification = DriverPtr<TARGET_DEVICE_CUSTOM_NOTIFICATION>;

/// A copy of a driver's event, or why it is none.
fn copy(cx: &mut Cx<'_>, event: Notification) -> Flow<Result<Vec<u8>, NtStatus>> {
    let guid: wmi::Guid = cx.read((event + TARGET_DEVICE_CUSTOM_NOTIFICATION::Event).cast())?;
    if SYSTEM.iter().any(|known| known.as_bytes() == guid) {
        return Ok(Err(NtStatus::INVALID_DEVICE_REQUEST));
    }
    let size = cx.read(event + TARGET_DEVICE_CUSTOM_NOTIFICATION::Size)?;
    if u64::from(size) < TARGET_DEVICE_CUSTOM_NOTIFICATION::CustomDataBuffer.offset() {
        return Ok(Err(NtStatus::INVALID_PARAMETER));
    }
    cx.read_bytes(event.address, size.into()).map(Ok)
}

/// `IoReportTargetDeviceChange`: returns when all callbacks have returned.
///
/// # Errors
/// A verdict if a pointer is bad, or `device` is no physical device object.
pub(crate) fn report(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    event: Notification,
) -> Flow<NtStatus> {
    let device = node::of_pdo(cx, "IoReportTargetDeviceChange", device)?;
    let bytes = match copy(cx, event)? {
        Ok(bytes) => bytes,
        Err(status) => return Ok(status),
    };
    let done: DriverPtr<KEVENT> = pool::allocate(cx, pool::Kind::NonPaged, size_of::<KEVENT>() as u64, TAG)?;
    if done.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    ke::event::initialize(cx, done, abi::NotificationEvent, false)?;
    queue::add(cx, Notice::Custom(Custom { device, bytes, then: None, done }))?;
    let _ = ke::wait::for_object(cx, done)?;
    pool::free(cx, done)?;
    Ok(NtStatus::SUCCESS)
}

/// `IoReportTargetDeviceChangeAsynchronous`: returns at once; `callback` is called when all have been notified.
///
/// # Errors
/// As [`report`].
pub(crate) fn report_later(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    event: Notification,
    callback: DriverPtr<Code>,
    context: u64,
) -> Flow<NtStatus> {
    let device = node::of_pdo(cx, "IoReportTargetDeviceChangeAsynchronous", device)?;
    let bytes = match copy(cx, event)? {
        Ok(bytes) => bytes,
        Err(status) => return Ok(status),
    };
    let then = driver::calling(cx).map(|driver| (callback, context, unload::begin_work(cx, driver)));
    queue::add(cx, Notice::Custom(Custom { device, bytes, then, done: DriverPtr::NULL }))?;
    Ok(NtStatus::SUCCESS)
}

/// Tells those who have the device open, each with its own file.
///
/// # Errors
/// What a callback comes to.
pub(super) fn tell(cx: &mut Cx<'_>, device: NodeId, bytes: &[u8]) -> Flow<()> {
    for entry in on_device(cx, device) {
        let file = cx.with(|k| match k.pnp.notify.find(entry)?.wanted {
            Wanted::Target { file, .. } => Some(file),
            _ => None,
        });
        let block: Notification = pool::allocate(cx, pool::Kind::Paged, bytes.len() as u64, TAG)?;
        let (Some(file), false) = (file, block.is_null()) else { continue };
        cx.write_bytes(block.address, bytes)?;
        let file: DriverPtr<FILE_OBJECT> = DriverPtr::new(file);
        cx.write(block + TARGET_DEVICE_CUSTOM_NOTIFICATION::FileObject, file)?;
        call(cx, entry, block.address)?;
        pool::free(cx, block)?;
    }
    Ok(())
}
