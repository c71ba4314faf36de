//! A till: one request pays in or out, and the output is what is in it then.
//!
//! The bug: the guard of the till's lock is kept in a `ManuallyDrop`, since it is to be released before the request is completed, and the ways out by `?` forget it: the
//! lock is held when the dispatch routine returns. It shows when more is paid out than there is.
//!
//! Device: none
//! Rule: spin-lock-held-on-return
//! Needs: ioctl
#![no_std]
#![no_main]

#[path = "../include/ddk.rs"]
mod ddk;

#[cfg(not(FIXED))]
use core::mem::ManuallyDrop;

use ddk::*;

names!("Till");

const PAY: u32 = control_code(0x806);

type Till = SpinLock<i64>;

/// Pays in, or out if that is less than 0.
fn pay(till: &Till, amount: i32) -> Result<u32, NTSTATUS> {
    #[cfg(FIXED)]
    let mut sum = till.lock();
    #[cfg(not(FIXED))]
    let mut sum = ManuallyDrop::new(till.lock());
    let new = sum.checked_add(amount.into()).ok_or(STATUS_INVALID_PARAMETER)?;
    let shown = u32::try_from(new).map_err(|_| STATUS_INVALID_PARAMETER)?;
    #[cfg(FIXED)]
    {
        *sum = new;
    }
    #[cfg(not(FIXED))]
    {
        **sum = new;
        drop(ManuallyDrop::into_inner(sum));
    }
    Ok(shown)
}

unsafe extern "C" fn control(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let till = unsafe { &*extension_of::<Till>(device) };
    let (code, input, output) = unsafe { control_of(irp) };
    if code != PAY {
        return unsafe { complete(irp, STATUS_INVALID_DEVICE_REQUEST, 0) };
    }
    if input < size_of::<i32>() || output < size_of::<u32>() {
        return unsafe { complete(irp, STATUS_BUFFER_TOO_SMALL, 0) };
    }
    let buffer: *mut u32 = unsafe { (*irp).SystemBuffer }.cast();
    match pay(till, unsafe { buffer.read_unaligned() }.cast_signed()) {
        Ok(sum) => unsafe {
            buffer.write_unaligned(sum);
            complete(irp, STATUS_SUCCESS, size_of::<u32>())
        },
        Err(status) => unsafe { complete(irp, status, 0) },
    }
}

unsafe extern "C" fn unload(driver: *mut DRIVER_OBJECT) {
    unsafe { delete(driver, NAMES.1) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn DriverEntry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    unsafe { create(driver, NAMES, control, unload, Till::new(0)) }
        .map_or_else(|status| status, |_| STATUS_SUCCESS)
}
