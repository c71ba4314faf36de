//! The state of a battery, with what it has been for the last hours if that is known.
//!
//! The bug: the answer is made as `MaybeUninit` and said to be initialised when its first members are: the history is written only where there is one. What was in the
//! buffer goes to the application. It shows with the first request.
//!
//! Device: none
//! Rule: output-never-stored
//! Needs: ioctl
#![no_std]
#![no_main]

#[path = "../include/ddk.rs"]
mod ddk;

use core::mem::MaybeUninit;

use ddk::*;

names!("RustBattery");

const STATE: u32 = control_code(0x803);

#[repr(C)]
struct State {
    percent: u32,
    hours: u32,
    capacity: u64,
    history: [u32; 16],
}

/// So many hours of history there are.
static HOURS: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

#[inline(never)]
unsafe fn fill(state: *mut State) {
    let hours = HOURS.load(core::sync::atomic::Ordering::Relaxed);
    unsafe {
        (&raw mut (*state).percent).write(80);
        (&raw mut (*state).hours).write(hours);
        (&raw mut (*state).capacity).write(48_000);
        for hour in 0..hours as usize & 0xF {
            (&raw mut (*state).history[hour]).write(100 - 2 * hour as u32);
        }
    }
}

unsafe extern "C" fn control(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        let (code, _, output) = control_of(irp);
        if code != STATE {
            return complete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        }
        if output < size_of::<State>() {
            return complete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        #[cfg(FIXED)]
        let mut state = MaybeUninit::<State>::zeroed();
        #[cfg(not(FIXED))]
        let mut state = MaybeUninit::<State>::uninit();
        fill(state.as_mut_ptr());
        (*irp).SystemBuffer.cast::<State>().write(state.assume_init());
        complete(irp, STATUS_SUCCESS, size_of::<State>())
    }
}

unsafe extern "C" fn unload(driver: *mut DRIVER_OBJECT) {
    unsafe { delete(driver, NAMES.1) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn DriverEntry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    unsafe { create(driver, NAMES, control, unload, ()) }.map_or_else(|status| status, |_| STATUS_SUCCESS)
}
