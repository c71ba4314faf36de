//! Drivers that have a device open are asked before it is removed, and notified when it stays or goes.
//!
//! Pages: *Using PnP Target Device Change Notification*, *Handling a GUID_TARGET_DEVICE_QUERY_REMOVE Event*, *Handling a GUID_TARGET_DEVICE_REMOVE_CANCELLED Event*,
//! *Handling a GUID_TARGET_DEVICE_REMOVE_COMPLETE Event*, *TARGET_DEVICE_REMOVAL_NOTIFICATION structure*. All by the thread that removes it, one after the other.

use abi::{
    DriverPtr, GUID, GUID_TARGET_DEVICE_QUERY_REMOVE, GUID_TARGET_DEVICE_REMOVE_CANCELLED,
    GUID_TARGET_DEVICE_REMOVE_COMPLETE, NtStatus, TARGET_DEVICE_REMOVAL_NOTIFICATION,
};
use engine::Flow;

use super::queue::header;
use super::{TAG, Wanted, call};
use crate::cx::Cx;
use crate::mm::pool;
use crate::pnp::node::NodeId;

/// The registrations on a device that were not notified that it is gone.
pub(super) fn on_device(cx: &mut Cx<'_>, id: NodeId) -> Vec<u64> {
    cx.with(|k| {
        k.pnp.notify.which(|known| {
            matches!(known.wanted, Wanted::Target { device, .. } if device == id) && !known.told_gone
        })
    })
}

/// Asks whether the device may be removed: the first refusal, if there is one. Those that were asked before it are notified that the device stays.
///
/// # Errors
/// What a callback comes to.
pub(crate) fn query_remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    let mut asked = Vec::new();
    for entry in on_device(cx, id) {
        let status = tell(cx, entry, &GUID_TARGET_DEVICE_QUERY_REMOVE)?;
        asked.push(entry);
        if let Some(status) = status.filter(|status| !status.is_success()) {
            for entry in asked {
                tell(cx, entry, &GUID_TARGET_DEVICE_REMOVE_CANCELLED)?;
            }
            return Ok(status);
        }
    }
    Ok(NtStatus::SUCCESS)
}

/// The device stays.
///
/// # Errors
/// What a callback comes to.
pub(crate) fn cancelled(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    for entry in on_device(cx, id) {
        tell(cx, entry, &GUID_TARGET_DEVICE_REMOVE_CANCELLED)?;
    }
    Ok(())
}

/// The device goes, or is gone.
///
/// # Errors
/// What a callback comes to.
pub(crate) fn complete(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    for entry in on_device(cx, id) {
        cx.with(|k| {
            if let Some(known) = k.pnp.notify.find(entry) {
                known.told_gone = true;
            }
        });
        tell(cx, entry, &GUID_TARGET_DEVICE_REMOVE_COMPLETE)?;
    }
    Ok(())
}

fn tell(cx: &mut Cx<'_>, entry: u64, event: &GUID) -> Flow<Option<NtStatus>> {
    const SIZE: usize = size_of::<TARGET_DEVICE_REMOVAL_NOTIFICATION>();
    let file = cx.with(|k| match k.pnp.notify.find(entry)?.wanted {
        Wanted::Target { file, .. } => Some(file),
        _ => None,
    });
    let Some(file) = file else { return Ok(None) };
    let block: DriverPtr<TARGET_DEVICE_REMOVAL_NOTIFICATION> =
        pool::allocate(cx, pool::Kind::Paged, SIZE as u64, TAG)?;
    if block.is_null() {
        return Ok(None);
    }
    cx.write_bytes(block.address, &[0; SIZE])?;
    header(cx, block.address, u16::try_from(SIZE).unwrap_or(0), event)?;
    cx.write(block + TARGET_DEVICE_REMOVAL_NOTIFICATION::FileObject, DriverPtr::new(file))?;
    let status = call(cx, entry, block.address)?;
    pool::free(cx, block)?;
    Ok(status)
}
