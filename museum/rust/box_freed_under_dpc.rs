//! A metronome for each handle: a timer beats from the opening of a file on, and a request asks how often it has.
//!
//! The bug: the box with the timer and its DPC is freed when the handle is closed, once the timer is cancelled: a DPC that the timer has queued already is not
//! awaited, and still counts in the box. It shows when the handle is closed as the timer runs out.
//!
//! Device: none
//! Rule: freed-queued-dpc, use-after-free
//! Needs: schedule
#![no_std]
#![no_main]

#[path = "../include/ddk.rs"]
mod ddk;

use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, Ordering};

use ddk::*;

names!("Metronome");

const BEATS: u32 = control_code(0x802);
/// Milliseconds.
const PERIOD: i32 = 20;

struct Works {
    timer: KTIMER,
    dpc: KDPC,
    beats: AtomicU32,
}

/// Its works beat.
struct Metronome(PoolBox<Works>);

impl Drop for Metronome {
    fn drop(&mut self) {
        unsafe {
            KeCancelTimer(&mut self.0.timer);
            #[cfg(FIXED)]
            KeFlushQueuedDpcs();
        }
    }
}

unsafe extern "C" fn beat(_dpc: *mut KDPC, context: *mut c_void, _one: *mut c_void, _two: *mut c_void) {
    let works = unsafe { &*context.cast::<Works>() };
    works.beats.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" fn open(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let new = Works { timer: KTIMER::new(), dpc: KDPC::new(), beats: AtomicU32::new(0) };
    match PoolBox::new(new) {
        Ok(works) => unsafe {
            let works = works.into_raw();
            let (timer, dpc) = (&raw mut (*works).timer, &raw mut (*works).dpc);
            KeInitializeTimer(timer);
            KeInitializeDpc(dpc, beat, works.cast());
            (*(*stack(irp)).FileObject).FsContext = works.cast();
            KeSetTimerEx(timer, i64::from(PERIOD) * -10_000, PERIOD, dpc);
            complete(irp, STATUS_SUCCESS, 0)
        },
        Err(status) => unsafe { complete(irp, status, 0) },
    }
}

unsafe extern "C" fn close(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        let works: *mut Works = (*(*stack(irp)).FileObject).FsContext.cast();
        drop(Metronome(PoolBox::from_raw(works)));
        complete(irp, STATUS_SUCCESS, 0)
    }
}

unsafe extern "C" fn control(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe {
        let (code, _, output) = control_of(irp);
        if code != BEATS {
            return complete(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
        }
        if output < size_of::<u32>() {
            return complete(irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        let works: *const Works = (*(*stack(irp)).FileObject).FsContext.cast();
        let beats = (*works).beats.load(Ordering::Relaxed);
        (*irp).SystemBuffer.cast::<u32>().write_unaligned(beats);
        complete(irp, STATUS_SUCCESS, size_of::<u32>())
    }
}

unsafe extern "C" fn unload(driver: *mut DRIVER_OBJECT) {
    unsafe { delete(driver, NAMES.1) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn DriverEntry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    match unsafe { create(driver, NAMES, control, unload, ()) } {
        Ok(_) => unsafe {
            (*driver).MajorFunction[IRP_MJ_CREATE] = Some(open);
            (*driver).MajorFunction[IRP_MJ_CLOSE] = Some(close);
            STATUS_SUCCESS
        },
        Err(status) => status,
    }
}
