//! `IoOpenDeviceRegistryKey`: the keys of a device and of its driver.
//!
//! Page: *IoOpenDeviceRegistryKey function*. The keys exist once the device was installed; the hardware key is made when it is
//! opened first. Hardware profiles are not modelled: their key is the device's own.

use abi::{DEVICE_OBJECT, DriverPtr, NtStatus, PLUGPLAY_REGKEY_DEVICE, PLUGPLAY_REGKEY_DRIVER};
use engine::Flow;

use super::install;
use super::node::{self, NodeId};
use crate::cm;
use crate::cx::Cx;

/// `IoOpenDeviceRegistryKey`.
///
/// # Errors
/// A verdict if `handle` cannot be written.
pub(crate) fn open(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    kind: u32,
    access: u32,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    if !cx.with(|k| node::is_physical(k, device)) {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    }
    let keys = install::keys(cx, NodeId(device.address));
    // PLUGPLAY_REGKEY_CURRENT_HWPROFILE is a flag beside one of the two.
    let path = match kind & (PLUGPLAY_REGKEY_DEVICE | PLUGPLAY_REGKEY_DRIVER) {
        PLUGPLAY_REGKEY_DEVICE => keys.hardware,
        PLUGPLAY_REGKEY_DRIVER => match keys.driver {
            Some(path) => path,
            None => return Ok(NtStatus::OBJECT_NAME_NOT_FOUND),
        },
        _ => return Ok(NtStatus::INVALID_PARAMETER),
    };
    let key = match kind & PLUGPLAY_REGKEY_DEVICE {
        0 => cm::access::open(cx, &path),
        _ => cm::access::create(cx, &path),
    };
    let opened = match key {
        Ok(key) => cm::key::open_handle(cx, key, access, true)?,
        Err(status) => Err(status),
    };
    match opened {
        Ok(opened) => {
            cx.write(handle, opened.0)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}
