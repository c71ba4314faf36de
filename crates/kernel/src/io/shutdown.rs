//! Shutdown notification: `IRP_MJ_SHUTDOWN` for those who asked.
//!
//! Pages: *IoRegisterShutdownNotification function*, *IoUnregisterShutdownNotification function*, *IRP_MJ_SHUTDOWN*.
//! *IoRegisterLastChanceShutdownNotification function*: those get it after all others. There are no file systems to be flushed between.

use abi::{DEVICE_OBJECT, DO_SHUTDOWN_REGISTERED, DriverPtr, IRP_MJ_SHUTDOWN, NtStatus};
use engine::Flow;

use super::system_request::{self, Request};
use crate::cx::Cx;

/// `IoRegisterShutdownNotification`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn register(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<NtStatus> {
    let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
    cx.write(device + DEVICE_OBJECT::Flags, flags | DO_SHUTDOWN_REGISTERED)?;
    cx.with(|k| k.io.shutdown.push(device.address));
    Ok(NtStatus::SUCCESS)
}

/// `IoRegisterLastChanceShutdownNotification`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn register_last_chance(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<NtStatus> {
    let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
    cx.write(device + DEVICE_OBJECT::Flags, flags | DO_SHUTDOWN_REGISTERED)?;
    cx.with(|k| k.io.last_chance.push(device.address));
    Ok(NtStatus::SUCCESS)
}

/// `IoUnregisterShutdownNotification`: from both lists.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn unregister(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
    cx.write(device + DEVICE_OBJECT::Flags, flags & !DO_SHUTDOWN_REGISTERED)?;
    cx.with(|k| {
        for list in [&mut k.io.shutdown, &mut k.io.last_chance] {
            list.retain(|registered| *registered != device.address);
        }
    });
    Ok(())
}

/// The system shuts down: the last to register is the first to get IRP_MJ_SHUTDOWN. On a system thread.
///
/// # Errors
/// A verdict on a driver.
pub(crate) fn shut_down(cx: &mut Cx<'_>) -> Flow<()> {
    while let Some(device) = cx.with(|k| k.io.shutdown.pop().or_else(|| k.io.last_chance.pop())) {
        let _ = system_request::send(cx, DriverPtr::new(device), &Request::new(IRP_MJ_SHUTDOWN, 0))?;
    }
    Ok(())
}
