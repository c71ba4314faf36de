//! A gearbox: the input says which gear is to be in, and the output is what the engine makes of it: revolutions, or the distance that was rolled.
//!
//! The bug: the number of the gear becomes an `enum` by `transmute`, whatever it is: `match` has no arm for it, and looks it up beyond the end of its table. It shows with a gear that
//! there is not.
//!
//! Device: none
//! Rule: wild-read, wild-call, execute-of-data
//! Needs: ioctl
#![no_std]
#![no_main]

#[path = "../include/ddk.rs"]
mod ddk;

use ddk::*;

names!("Gearbox");

const SHIFT: u32 = control_code(0x80E);

#[derive(Clone, Copy)]
#[repr(u32)]
#[cfg_attr(not(FIXED), expect(dead_code, reason = "what makes one names none"))]
enum Gear {
    Park = 0,
    Reverse = 1,
    Neutral = 2,
    First = 3,
    Second = 4,
    Third = 5,
    Fourth = 6,
    Overdrive = 7,
}

#[cfg(FIXED)]
fn gear(number: u32) -> Result<Gear, NTSTATUS> {
    const ALL: [Gear; 8] = [
        Gear::Park,
        Gear::Reverse,
        Gear::Neutral,
        Gear::First,
        Gear::Second,
        Gear::Third,
        Gear::Fourth,
        Gear::Overdrive,
    ];
    ALL.get(number as usize).copied().ok_or(STATUS_INVALID_PARAMETER)
}

#[cfg(not(FIXED))]
fn gear(number: u32) -> Result<Gear, NTSTATUS> {
    Ok(unsafe { core::mem::transmute::<u32, Gear>(number) })
}

#[derive(Default)]
struct Engine {
    revolutions: u32,
    rolled: u32,
    shifts: u32,
}

impl Engine {
    fn shift(&mut self, gear: Gear) -> u32 {
        self.shifts += 1;
        match gear {
            Gear::Park => {
                self.revolutions = 0;
                return self.rolled;
            }
            Gear::Reverse => self.rolled = self.rolled.saturating_sub(self.revolutions / 90),
            Gear::Neutral => self.revolutions = 800,
            Gear::First => self.revolutions = self.revolutions.max(900) + 40,
            Gear::Second => self.rolled += self.revolutions / 60,
            Gear::Third => self.rolled += self.revolutions / 45 + self.shifts,
            Gear::Fourth => {
                self.revolutions -= self.revolutions / 16;
                self.rolled += 50;
            }
            Gear::Overdrive => self.rolled ^= self.revolutions << 1,
        }
        self.revolutions
    }
}

unsafe extern "C" fn control(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let engine = unsafe { &*extension_of::<SpinLock<Engine>>(device) };
    let (code, input, output) = unsafe { control_of(irp) };
    if code != SHIFT {
        return unsafe { complete(irp, STATUS_INVALID_DEVICE_REQUEST, 0) };
    }
    if input < size_of::<u32>() || output < size_of::<u32>() {
        return unsafe { complete(irp, STATUS_BUFFER_TOO_SMALL, 0) };
    }
    let buffer: *mut u32 = unsafe { (*irp).SystemBuffer }.cast();
    match gear(unsafe { buffer.read_unaligned() }) {
        Ok(gear) => unsafe {
            let answer = engine.lock().shift(gear);
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
    unsafe { create(driver, NAMES, control, unload, SpinLock::new(Engine::default())) }
        .map_or_else(|status| status, |_| STATUS_SUCCESS)
}
