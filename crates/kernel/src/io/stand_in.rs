//! Devices in the place of others' that are not there: `--platform stand-ins`.
//!
//! A driver that opens another's device by name (*IoGetDeviceObjectPointer function*, *IoAttachDevice function*) may have been written for a computer that has
//! it. In its place stands one that can be opened and refuses whatever it is asked, later where bus drivers answer later: what a driver makes of success with
//! data that no device has given would prove nothing. Programs do not get stand-ins.

use abi::{
    DEVICE_OBJECT, DO_BUFFERED_IO, DO_DEVICE_INITIALIZING, DRIVER_OBJECT, DriverPtr, FILE_DEVICE_UNKNOWN,
    IRP, IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_CREATE, NtStatus,
};
use engine::Flow;

use super::device;
use crate::cx::{Cx, Kernel};
use crate::pnp;

/// Where devices are.
const DIRECTORY: &str = "\\Device\\";
const SERVICE: &str = "StandIn";

/// The driver of all stand-ins; null before the first.
#[derive(Default)]
pub(crate) struct State {
    driver: DriverPtr<DRIVER_OBJECT>,
}

/// Whether the device is a stand-in.
pub(crate) fn is_one(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> bool {
    let driver = k.io.stand_ins.driver;
    !driver.is_null()
        && k.io.devices.get(device.address).is_some_and(|device| device.driver == driver.address)
}

/// Makes a device of this name, where the platform has it so, nothing has that name, and devices have such names.
///
/// # Errors
/// As making a device.
pub(crate) fn make(cx: &mut Cx<'_>, name: &str) -> Flow<()> {
    let is_missing = |k: &mut Kernel| {
        k.hal.platform.stand_ins && k.ob.names.resolve(name) == Err(NtStatus::OBJECT_NAME_NOT_FOUND)
    };
    let is_devices = name.get(..DIRECTORY.len()).is_some_and(|head| head.eq_ignore_ascii_case(DIRECTORY));
    if !is_devices || !cx.with(is_missing) {
        return Ok(());
    }
    let Some(driver) = driver(cx)? else { return Ok(()) };
    let new = device::NewDevice {
        extension: 0,
        name: name.to_owned(),
        device_type: FILE_DEVICE_UNKNOWN,
        characteristics: 0,
        exclusive: false,
    };
    // Where there is no memory for it, it is not there.
    if let Ok(device) = device::create(cx, driver, new)? {
        let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
        cx.write(device + DEVICE_OBJECT::Flags, (flags | DO_BUFFERED_IO) & !DO_DEVICE_INITIALIZING)?;
    }
    Ok(())
}

/// The driver, which is made with the first device; none if there is no memory for it.
fn driver(cx: &mut Cx<'_>) -> Flow<Option<DriverPtr<DRIVER_OBJECT>>> {
    let known = cx.with(|k| k.io.stand_ins.driver);
    if !known.is_null() {
        return Ok(Some(known));
    }
    let agrees = [IRP_MJ_CREATE, IRP_MJ_CLEANUP, IRP_MJ_CLOSE].map(|major| (major, "StandInAgree"));
    let made = pnp::built_in::make(cx, SERVICE, &agrees)?;
    if let Some(driver) = made {
        cx.with(|k| k.io.stand_ins.driver = driver);
    }
    Ok(made)
}

/// Agrees to being opened and closed.
///
/// # Errors
/// As completing.
pub(crate) fn agree(
    cx: &mut Cx<'_>,
    _device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<NtStatus> {
    pnp::bus::complete(cx, irp, Some(NtStatus::SUCCESS), Some(0))
}
