//! The educational device's interrupts, as a log: one request raises some, and another one takes the oldest that came out of a ring that the service routine fills.
//!
//! The bug: the request makes a `&mut` of the ring while the service routine may make another one: it does not run in step with that (`KeSynchronizeExecution`), and both change how
//! many entries there are. It shows when an interrupt comes as the request is at it.
//!
//! Device: PCI\VEN_1234&DEV_11E8
//! Rule: data-race
//! Needs: schedule, device
#![no_std]
#![no_main]

#[path = "../include/card.rs"]
mod card;
#[path = "../include/ddk.rs"]
mod ddk;

use core::cell::UnsafeCell;

use card::{Card, Function, GUID};
use ddk::*;

const INTERRUPT_STATUS: usize = 0x24;
const INTERRUPT_RAISE: usize = 0x60;
const INTERRUPT_ACKNOWLEDGE: usize = 0x64;

/// Those that there are: a card that is gone shows all bits.
const CAUSES: u32 = 0xFFFF;

const RAISE: u32 = control_code(0x80C);
const OLDEST: u32 = control_code(0x80D);

#[derive(Default)]
struct Ring {
    causes: [u32; 16],
    first: usize,
    count: usize,
}

impl Ring {
    /// In the place of the oldest if there is no room.
    fn note(&mut self, cause: u32) {
        self.causes[(self.first + self.count) % 16] = cause;
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
        Some(self.causes[first % 16])
    }
}

struct Log(UnsafeCell<Ring>);

impl Log {
    fn oldest(card: &Card<Self>) -> Option<u32> {
        let take = || unsafe { &mut *card.own.0.get() }.oldest();
        #[cfg(FIXED)]
        let oldest = card.in_step(take);
        #[cfg(not(FIXED))]
        let oldest = take();
        oldest
    }
}

impl Function for Log {
    const INTERFACE: GUID =
        GUID(0x10c3_d041, 0x6a1d, 0x4c0e, [0x9b, 0x53, 0x20, 0x7d, 0xe1, 0x88, 0x4f, 0x36]);

    fn new() -> Self {
        Self(UnsafeCell::new(Ring::default()))
    }

    fn serve(card: &Card<Self>) -> bool {
        let cause = card.read(INTERRUPT_STATUS);
        if cause == 0 || cause == u32::MAX {
            return false;
        }
        card.write(INTERRUPT_ACKNOWLEDGE, cause);
        unsafe { &mut *card.own.0.get() }.note(cause);
        true
    }

    fn quiet(card: &Card<Self>) {
        card.in_step(|| card.write(INTERRUPT_ACKNOWLEDGE, card.read(INTERRUPT_STATUS)));
    }

    unsafe fn control(
        card: &Card<Self>,
        code: u32,
        buffer: *mut u8,
        input: usize,
        output: usize,
    ) -> Result<usize, NTSTATUS> {
        let buffer: *mut u32 = buffer.cast();
        match code {
            RAISE if input >= size_of::<u32>() => {
                card.write(INTERRUPT_RAISE, unsafe { buffer.read_unaligned() } & CAUSES);
                Ok(0)
            }
            OLDEST if output >= size_of::<u32>() => {
                let cause = Self::oldest(card).ok_or(STATUS_NOT_FOUND)?;
                unsafe { buffer.write_unaligned(cause) };
                Ok(size_of::<u32>())
            }
            RAISE | OLDEST => Err(STATUS_BUFFER_TOO_SMALL),
            _ => Err(STATUS_INVALID_DEVICE_REQUEST),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn DriverEntry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    unsafe { card::load::<Log>(driver) }
}
