//! A purse of coupons: one request puts a coupon in, another one takes the last out, and counts how often that was in vain.
//!
//! The bug: the guard of the purse's lock is a temporary of what `match` looks at, and so lives to the end of the `match`: the arm that counts what was in vain acquires the lock
//! again. It shows when a coupon is taken from an empty purse.
//!
//! Device: none
//! Rule: spin-lock-recursion
//! Needs: ioctl
#![no_std]
#![no_main]

#[path = "../include/ddk.rs"]
mod ddk;

use ddk::*;

names!("Purse");

const PUT: u32 = control_code(0x807);
const TAKE: u32 = control_code(0x808);

#[derive(Default)]
struct Coupons {
    held: [u32; 8],
    count: usize,
    in_vain: u32,
}

impl Coupons {
    fn push(&mut self, coupon: u32) -> Option<()> {
        *self.held.get_mut(self.count)? = coupon;
        self.count += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<u32> {
        self.count = self.count.checked_sub(1)?;
        self.held.get(self.count).copied()
    }
}

type Purse = SpinLock<Coupons>;

/// The last coupon that was put in; 0: there is none.
fn take(purse: &Purse) -> u32 {
    #[cfg(FIXED)]
    let last = purse.lock().pop();
    #[cfg(FIXED)]
    let last = match last {
        Some(coupon) => coupon,
        None => {
            purse.lock().in_vain += 1;
            0
        }
    };
    #[cfg(not(FIXED))]
    let last = match purse.lock().pop() {
        Some(coupon) => coupon,
        None => {
            purse.lock().in_vain += 1;
            0
        }
    };
    last
}

unsafe extern "C" fn control(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let purse = unsafe { &*extension_of::<Purse>(device) };
    let (code, input, output) = unsafe { control_of(irp) };
    if input < size_of::<u32>() || output < size_of::<u32>() {
        return unsafe { complete(irp, STATUS_BUFFER_TOO_SMALL, 0) };
    }
    let buffer: *mut u32 = unsafe { (*irp).SystemBuffer }.cast();
    let answer = match code {
        PUT => {
            let coupon = unsafe { buffer.read_unaligned() };
            purse.lock().push(coupon).map(|()| coupon).ok_or(STATUS_DEVICE_BUSY)
        }
        TAKE => Ok(take(purse)),
        _ => Err(STATUS_INVALID_DEVICE_REQUEST),
    };
    match answer {
        Ok(answer) => unsafe {
            buffer.write_unaligned(answer);
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
    unsafe { create(driver, NAMES, control, unload, Purse::new(Coupons::default())) }
        .map_or_else(|status| status, |_| STATUS_SUCCESS)
}
