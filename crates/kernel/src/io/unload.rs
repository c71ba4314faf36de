//! Unloading a driver: when it may begin, what its image stays for, what it must not leave.
//!
//! Pages: *Unload*, *Writing an Unload Routine*, *ZwUnloadDriver function*, *IoQueueWorkItem function*. As on Windows a driver goes with the
//! last reference to its driver object: a file on one of its devices puts the unloading off, a queued work item keeps the image until its
//! routine has returned, and a Plug and Play driver stays as long as one of its devices does.

use abi::{DEVICE_OBJECT, DRIVER_OBJECT, DRVO_UNLOAD_INVOKED, DriverPtr, KEVENT, NtStatus};
use engine::Flow;

use super::driver::{Leaving, forget, set_flags};
use super::{device, integrity, routine, stack, unload_check};
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::{ke, ldr, pnp};

const TAG: u32 = pool::tag(b"Driv");

/// Unloads: calls the driver's `Unload` routine and reports what it left. On a system thread, at PASSIVE_LEVEL.
/// `INVALID_DEVICE_REQUEST` if it has no such routine or is unloaded already, `DEVICE_BUSY` while one of its devices is in a stack, `PENDING` if files are open
/// on its devices: then it is unloaded with the last of them.
///
/// # Errors
/// A verdict on the driver.
pub fn unload(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<NtStatus> {
    if cx.read(driver + DRIVER_OBJECT::DriverUnload)?.is_null() {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    }
    if is_leaving(cx, driver, Leaving::Begun) {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    }
    integrity::check_driver(cx, driver)?;
    for device in device::of_driver(cx, driver)? {
        let above = cx.read(device + DEVICE_OBJECT::AttachedDevice)?;
        // A Plug and Play driver stays as long as one of its devices: one that refused to be removed is no leak.
        let in_stack =
            cx.with(|k| pnp::is_physical(k, stack::bottom(k, device)) && !pnp::is_physical(k, device));
        if !above.is_null() || in_stack {
            return Ok(NtStatus::DEVICE_BUSY);
        }
    }
    if has_files(cx, driver)? {
        set_leaving(cx, driver, Leaving::WithLastFile);
        return Ok(NtStatus::PENDING);
    }
    carry_out(cx, driver)?;
    Ok(NtStatus::SUCCESS)
}

/// Whether the driver object is there.
#[must_use]
pub fn is_loaded(k: &Kernel, driver: DriverPtr<DRIVER_OBJECT>) -> bool {
    k.io.drivers.contains_key(&driver.address)
}

fn has_files(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<bool> {
    for device in device::of_driver(cx, driver)? {
        if cx.read(device + DEVICE_OBJECT::ReferenceCount)? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn set_leaving(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>, leaving: Leaving) {
    cx.with(|k| {
        if let Some(record) = k.io.drivers.get_mut(&driver.address) {
            record.leaving = leaving;
        }
    });
}

fn is_leaving(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>, leaving: Leaving) -> bool {
    cx.with(|k| k.io.drivers.get(&driver.address).is_some_and(|record| record.leaving == leaving))
}

/// The driver of a device, if its unloading has begun or was put off: the device cannot be opened any more.
pub(crate) fn going(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> Option<DriverPtr<DRIVER_OBJECT>> {
    let driver = k.io.devices.get(device.address)?.driver;
    let leaving = k.io.drivers.get(&driver)?.leaving;
    (leaving != Leaving::No).then_some(DriverPtr::new(driver))
}

/// A file on a device of this driver was closed, which is going: if its unloading was put off, it goes with the last one. On a thread of the system's,
/// which the closing thread waits for.
pub(crate) fn file_closed(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    if !is_leaving(cx, driver, Leaving::WithLastFile) || has_files(cx, driver)? {
        return Ok(());
    }
    ke::thread::wait_for_system(cx, "I/O manager", move |cx| carry_out(cx, driver))
}

fn carry_out(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    set_leaving(cx, driver, Leaving::Begun);
    let unload = cx.read(driver + DRIVER_OBJECT::DriverUnload)?;
    set_flags(cx, driver, DRVO_UNLOAD_INVOKED)?;
    ke::patience::renew(cx);
    routine::call(cx, Role::Unload, unload, driver.address, &[driver.address])?;
    unload_check::report(cx, driver, unload_check::When::Unloaded)?;
    let base = cx.with(|k| k.io.drivers.get(&driver.address).map_or(0, |driver| driver.base));
    forget(cx, driver)?;
    if base == 0 { Ok(()) } else { ldr::unload(cx, base) }
}

fn event(cx: &mut Cx<'_>) -> Flow<DriverPtr<KEVENT>> {
    let event: DriverPtr<KEVENT> = pool::allocate(cx, pool::Kind::NonPaged, size_of::<KEVENT>() as u64, TAG)?;
    if event.is_null() {
        return Err(cx.stop(Verdict::not_implemented("running out of memory while a driver is unloaded")));
    }
    ke::event::initialize(cx, event, abi::NotificationEvent, false)?;
    Ok(event)
}

/// A work item for a device or driver object is queued; the driver whose image stays for it.
pub(crate) fn begin_work(cx: &mut Cx<'_>, object: u64) -> u64 {
    cx.with(|k| {
        let driver = k.io.devices.get(object).map_or(object, |device| device.driver);
        if let Some(record) = k.io.drivers.get_mut(&driver) {
            record.working += 1;
        }
        driver
    })
}

/// The routine of a work item has returned, and its reference is given back.
pub(crate) fn end_work(cx: &mut Cx<'_>, driver: u64) -> Flow<()> {
    let idle = cx.with(|k| {
        let record = k.io.drivers.get_mut(&driver)?;
        record.working -= 1;
        (record.working == 0 && !record.idle.is_null()).then_some(record.idle)
    });
    match idle {
        Some(idle) => ke::event::set(cx, idle, 0, false).map(|_| ()),
        None => Ok(()),
    }
}

/// Waits until no work item of the driver's objects is queued or runs: on Windows the image is unloaded with the last reference to the
/// driver object, and each of them holds one.
pub(crate) fn wait_for_work(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<()> {
    if cx.with(|k| k.io.drivers.get(&driver.address).is_none_or(|record| record.working == 0)) {
        return Ok(());
    }
    let idle = event(cx)?;
    set_idle_event(cx, driver, idle);
    let _ = ke::wait::for_object(cx, idle)?;
    set_idle_event(cx, driver, DriverPtr::NULL);
    pool::free(cx, idle)
}

fn set_idle_event(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>, event: DriverPtr<KEVENT>) {
    cx.with(|k| {
        if let Some(record) = k.io.drivers.get_mut(&driver.address) {
            record.idle = event;
        }
    });
}
