//! A doorbell: one request waits until another one rings.
//!
//! The bug: the cancel routine frees the box that its request points to and completes the request, but the device still points to that box: who rings next
//! follows the pointer. It shows when the bell is rung after a request that waited was cancelled.
//!
//! Device: none
//! Rule: use-after-free
//! Needs: cancel
#![no_std]
#![no_main]

#[path = "../include/ddk.rs"]
mod ddk;

use core::ptr::null_mut;

use ddk::*;

names!("Doorbell");

const WAIT: u32 = control_code(0x809);
const RING: u32 = control_code(0x80A);

/// A request that waits.
struct Waiter {
    irp: *mut IRP,
    rings: u32,
}

/// A waiter is freed by what takes the cancel routine of its request off, or else by that routine.
struct Bell {
    waiter: *mut Waiter,
    rings: u32,
}

type Door = SpinLock<Bell>;

#[cfg(FIXED)]
fn forget(mut bell: SpinGuard<'_, Bell>, waiter: *mut Waiter) -> SpinGuard<'_, Bell> {
    if bell.waiter == waiter {
        bell.waiter = null_mut();
    }
    bell
}

unsafe extern "C" fn cancel(device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    unsafe {
        IoReleaseCancelSpinLock((*irp).CancelIrql);
        let door = &*extension_of::<Door>(device);
        let waiter: *mut Waiter = (*irp).DriverContext[0].cast();
        let bell = door.lock();
        #[cfg(FIXED)]
        let bell = forget(bell, waiter);
        drop(bell);
        drop(PoolBox::from_raw(waiter));
        complete(irp, STATUS_CANCELLED, 0);
    }
}

/// The request waits, if it is cancelled meanwhile until its cancel routine has run; or it is to be completed with the status.
unsafe fn wait(door: &Door, irp: *mut IRP) -> Result<(), NTSTATUS> {
    let waiter = PoolBox::new(Waiter { irp, rings: 0 })?;
    let mut bell = door.lock();
    if !bell.waiter.is_null() {
        return Err(STATUS_DEVICE_BUSY);
    }
    let waiter = waiter.into_raw();
    unsafe {
        (*irp).DriverContext[0] = waiter.cast();
        set_cancel_routine(irp, Some(cancel));
        if (&raw const (*irp).Cancel).read_volatile() != 0 && set_cancel_routine(irp, None).is_some() {
            drop(PoolBox::from_raw(waiter));
            return Err(STATUS_CANCELLED);
        }
        mark_pending(irp);
    }
    bell.waiter = waiter;
    Ok(())
}

/// The waiter that is there, if its request is not being cancelled.
unsafe fn next(bell: &mut Bell) -> Option<PoolBox<Waiter>> {
    let waiter = core::mem::replace(&mut bell.waiter, null_mut());
    unsafe {
        let irp = waiter.as_ref()?.irp;
        set_cancel_routine(irp, None)?;
        Some(PoolBox::from_raw(waiter))
    }
}

unsafe fn ring(door: &Door) -> u32 {
    let mut bell = door.lock();
    bell.rings += 1;
    let rings = bell.rings;
    let waiter = unsafe { next(&mut bell) };
    drop(bell);
    if let Some(mut waiter) = waiter {
        waiter.rings = rings;
        unsafe {
            (*waiter.irp).SystemBuffer.cast::<u32>().write_unaligned(waiter.rings);
            complete(waiter.irp, STATUS_SUCCESS, size_of::<u32>());
        }
    }
    rings
}

unsafe extern "C" fn control(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        let door = &*extension_of::<Door>(device);
        let (code, _, output) = control_of(irp);
        if output < size_of::<u32>() {
            return complete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        match code {
            WAIT => match wait(door, irp) {
                Ok(()) => STATUS_PENDING,
                Err(status) => complete(irp, status, 0),
            },
            RING => {
                let rings = ring(door);
                (*irp).SystemBuffer.cast::<u32>().write_unaligned(rings);
                complete(irp, STATUS_SUCCESS, size_of::<u32>())
            }
            _ => complete(irp, STATUS_INVALID_DEVICE_REQUEST, 0),
        }
    }
}

/// Nothing waits for a handle that is closed.
unsafe extern "C" fn cleanup(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        let door = &*extension_of::<Door>(device);
        let file = (*stack(irp)).FileObject;
        let mut bell = door.lock();
        let is_its = bell.waiter.as_ref().is_some_and(|waiter| (*stack(waiter.irp)).FileObject == file);
        let waiter = if is_its { next(&mut bell) } else { None };
        drop(bell);
        if let Some(waiter) = waiter {
            complete(waiter.irp, STATUS_CANCELLED, 0);
        }
        complete(irp, STATUS_SUCCESS, 0)
    }
}

unsafe extern "C" fn unload(driver: *mut DRIVER_OBJECT) {
    unsafe { delete(driver, NAMES.1) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn DriverEntry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    match unsafe { create(driver, NAMES, control, unload, Door::new(Bell { waiter: null_mut(), rings: 0 })) }
    {
        Ok(_) => unsafe {
            (*driver).MajorFunction[IRP_MJ_CLEANUP] = Some(cleanup);
            STATUS_SUCCESS
        },
        Err(status) => status,
    }
}
