//! Whether device and driver objects are still what the I/O manager made of them: a driver that writes over one is reported where the
//! object is next opened, deleted or unloaded, or at the end of the run.
//!
//! Pages: *DEVICE_OBJECT structure*, *DRIVER_OBJECT structure*. Only members that no driver may change are compared; what
//! a driver may set (flags, the extension, sizes of stacks and sectors, dispatch routines) is its own.

use abi::{DEVICE_OBJECT, DRIVER_EXTENSION, DRIVER_OBJECT, DriverPtr, IO_TYPE_DEVICE, IO_TYPE_DRIVER};
use engine::Flow;

use super::driver;
use super::violation::device_name;
use crate::cx::Cx;
use crate::verdict::Verdict;

/// A device object that is there: its type, its driver, what is attached to it, how many files are open.
///
/// # Errors
/// A verdict if it was written over.
pub(crate) fn check_device(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let known = cx.with(|k| k.io.devices.get(device.address).map(|known| (known.driver, known.deleted)));
    let Some((owner, is_deleted)) = known else { return Ok(()) };
    let kind = cx.read(device + DEVICE_OBJECT::Type)?;
    let driver = cx.read(device + DEVICE_OBJECT::DriverObject)?.address;
    let above = cx.read(device + DEVICE_OBJECT::AttachedDevice)?.address;
    let next = cx.read(device + DEVICE_OBJECT::NextDevice)?.address;
    let files = cx.read(device + DEVICE_OBJECT::ReferenceCount)?;
    let (attached, listed) = cx.with(|k| {
        let attached = k.io.devices.get(above).is_some_and(|known| known.below == device.address);
        (attached, k.io.devices.contains(next))
    });
    let wrong = if kind != IO_TYPE_DEVICE {
        format!("Type is {kind:#x}, not {IO_TYPE_DEVICE:#x}")
    } else if driver != owner {
        format!("DriverObject is {driver:#x}, not {owner:#x}")
    } else if above != 0 && !attached {
        format!("AttachedDevice is {above:#x}, which is not attached to it")
    } else if next != 0 && !listed && !is_deleted {
        // One that is deleted, and still referenced, is in no list any more: what it points to may be gone.
        format!("NextDevice is {next:#x}, which is no device object")
    } else if files < 0 {
        format!("ReferenceCount is {files}")
    } else {
        return Ok(());
    };
    let name = device_name(cx, device);
    let message = format!("the device object {name} was written over: its {wrong}");
    Err(cx.stop(Verdict::error("device-object-damaged", message)))
}

/// A driver object that is there, and all its device objects.
///
/// # Errors
/// A verdict if one was written over.
pub(crate) fn check_driver(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    let devices: Vec<u64> = cx.with(|k| k.io.devices.keys_where(|known| known.driver == driver.address));
    let kind = cx.read(driver + DRIVER_OBJECT::Type)?;
    let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension)?;
    let whole = kind == IO_TYPE_DRIVER
        && extension.address == driver.address + size_of::<DRIVER_OBJECT>() as u64
        && cx.read(extension + DRIVER_EXTENSION::DriverObject)? == driver;
    if !whole {
        let service = driver::service(cx, driver);
        let message = format!(
            "the driver object of {service} has the type {kind} and its extension at {:#x}: it was written over",
            extension.address
        );
        return Err(cx.stop(Verdict::error("driver-object-damaged", message)));
    }
    for device in devices {
        check_device(cx, DriverPtr::new(device))?;
    }
    Ok(())
}

/// Every driver object and every device object: at the end of the run.
///
/// # Errors
/// A verdict if one was written over.
pub fn check_all(cx: &mut Cx<'_>) -> Flow<()> {
    let drivers: Vec<u64> = cx.with(|k| k.io.drivers.keys().copied().collect());
    for driver in drivers {
        check_driver(cx, DriverPtr::new(driver))?;
    }
    Ok(())
}
