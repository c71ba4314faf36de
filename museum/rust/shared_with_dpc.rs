//! A thermometer: a timer's DPC notes a sample in a ring ten times a second, and a request takes the oldest out.
//!
//! The bug: the DPC and the dispatch routine each make a `&mut` of the one ring, which the compiler takes for the only one there is, and no lock keeps the two
//! apart: on two processors both change how many samples there are. It shows when a request is made as the timer runs out.
//!
//! Device: none
//! Rule: data-race
//! Needs: schedule
#![no_std]
#![no_main]

#[path = "../include/ddk.rs"]
mod ddk;

#[cfg(not(FIXED))]
use core::cell::UnsafeCell;
use core::ffi::c_void;

use ddk::*;

names!("Thermometer");

const SAMPLE: u32 = control_code(0x80B);
/// Milliseconds.
const PERIOD: i32 = 100;

#[derive(Default)]
struct Ring {
    samples: [u32; 16],
    first: usize,
    count: usize,
    last: u32,
}

impl Ring {
    /// A new sample, in the place of the oldest if there is no room.
    fn note(&mut self) {
        self.last = self.last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.samples[(self.first + self.count) % 16] = self.last >> 24;
        if self.count < 16 {
            self.count += 1;
        } else {
            self.first = (self.first + 1) % 16;
        }
    }

    fn oldest(&mut self) -> Option<u32> {
        self.count = self.count.checked_sub(1)?;
        let first = self.first;
        self.first = (first + 1) % 16;
        Some(self.samples[first % 16])
    }
}

struct Thermometer {
    timer: KTIMER,
    dpc: KDPC,
    #[cfg(FIXED)]
    ring: SpinLock<Ring>,
    #[cfg(not(FIXED))]
    ring: UnsafeCell<Ring>,
}

impl Thermometer {
    #[cfg(FIXED)]
    fn with_ring<R>(&self, does: impl FnOnce(&mut Ring) -> R) -> R {
        does(&mut self.ring.lock())
    }

    #[cfg(not(FIXED))]
    fn with_ring<R>(&self, does: impl FnOnce(&mut Ring) -> R) -> R {
        does(unsafe { &mut *self.ring.get() })
    }
}

unsafe extern "C" fn on_time(_dpc: *mut KDPC, context: *mut c_void, _one: *mut c_void, _two: *mut c_void) {
    let thermometer = unsafe { &*context.cast::<Thermometer>() };
    thermometer.with_ring(Ring::note);
}

unsafe extern "C" fn control(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let thermometer = unsafe { &*extension_of::<Thermometer>(device) };
    let (code, _, output) = unsafe { control_of(irp) };
    if code != SAMPLE {
        return unsafe { complete(irp, STATUS_INVALID_DEVICE_REQUEST, 0) };
    }
    if output < size_of::<u32>() {
        return unsafe { complete(irp, STATUS_BUFFER_TOO_SMALL, 0) };
    }
    match thermometer.with_ring(Ring::oldest) {
        Some(sample) => unsafe {
            (*irp).SystemBuffer.cast::<u32>().write_unaligned(sample);
            complete(irp, STATUS_SUCCESS, size_of::<u32>())
        },
        None => unsafe { complete(irp, STATUS_NOT_FOUND, 0) },
    }
}

unsafe extern "C" fn unload(driver: *mut DRIVER_OBJECT) {
    unsafe {
        let thermometer = extension_of::<Thermometer>((*driver).only_device());
        KeCancelTimer(&raw mut (*thermometer).timer);
        KeFlushQueuedDpcs();
        delete(driver, NAMES.1);
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn DriverEntry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    let ring = Ring::default();
    #[cfg(FIXED)]
    let ring = SpinLock::new(ring);
    #[cfg(not(FIXED))]
    let ring = UnsafeCell::new(ring);
    let new = Thermometer { timer: KTIMER::new(), dpc: KDPC::new(), ring };
    match unsafe { create(driver, NAMES, control, unload, new) } {
        Ok(device) => unsafe {
            let thermometer = extension_of::<Thermometer>(device);
            KeInitializeTimer(&raw mut (*thermometer).timer);
            KeInitializeDpc(&raw mut (*thermometer).dpc, on_time, thermometer.cast());
            KeSetTimerEx(
                &raw mut (*thermometer).timer,
                i64::from(PERIOD) * -10_000,
                PERIOD,
                &raw mut (*thermometer).dpc,
            );
            STATUS_SUCCESS
        },
        Err(status) => status,
    }
}
