//! Averages: the input has a count and so many numbers behind it, and the output is their mean.
//!
//! The bug: the slice of numbers is made by the count that the application claims, and not by how many its buffer has: `slice::from_raw_parts` believes whatever it is
//! given, and bounds are checked against that. It shows with a count that is too large.
//!
//! Device: none
//! Rule: pool-overrun, wild-read
//! Needs: ioctl
#![no_std]
#![no_main]

#[path = "../include/ddk.rs"]
mod ddk;

use core::slice;

use ddk::*;

names!("Averages");

const MEAN: u32 = control_code(0x801);

/// The mean of the numbers in a request's buffer of `bytes`.
unsafe fn mean(buffer: *const u32, bytes: usize) -> Result<u32, NTSTATUS> {
    if bytes < size_of::<u32>() {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let count = unsafe { buffer.read_unaligned() } as usize;
    #[cfg(FIXED)]
    if count > bytes / size_of::<u32>() - 1 {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let numbers = unsafe { slice::from_raw_parts(buffer.add(1), count) };
    let sum: u64 = numbers.iter().map(|number| u64::from(*number)).sum();
    sum.checked_div(count as u64).map(|mean| mean as u32).ok_or(STATUS_INVALID_PARAMETER)
}

unsafe extern "C" fn control(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let (code, input, output) = unsafe { control_of(irp) };
    if code != MEAN {
        return unsafe { complete(irp, STATUS_INVALID_DEVICE_REQUEST, 0) };
    }
    if output < size_of::<u32>() {
        return unsafe { complete(irp, STATUS_BUFFER_TOO_SMALL, 0) };
    }
    let buffer: *mut u32 = unsafe { (*irp).SystemBuffer }.cast();
    match unsafe { mean(buffer, input) } {
        Ok(mean) => unsafe {
            buffer.write_unaligned(mean);
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
    unsafe { create(driver, NAMES, control, unload, ()) }.map_or_else(|status| status, |_| STATUS_SUCCESS)
}
