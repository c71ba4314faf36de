//! A table of four filters: one request puts a filter into a place, another one takes it out.
//!
//! The bug: the box is made a raw pointer, which owns nothing, before the place is looked at: where there is a filter already the request fails, and the new one is
//! forgotten. It shows when a place is filled twice.
//!
//! Device: none
//! Rule: pool-leak
//! Needs: ioctl
#![no_std]
#![no_main]

#[path = "../include/ddk.rs"]
mod ddk;

use core::ptr::null_mut;

use ddk::*;

names!("Filters");

const PUT: u32 = control_code(0x804);
const TAKE: u32 = control_code(0x805);

#[derive(Clone, Copy)]
struct Filter {
    cutoff: u32,
    taps: [u16; 30],
}

type Table = SpinLock<[*mut Filter; 4]>;

/// Puts a filter into its place.
fn put(table: &Table, place: usize, cutoff: u32) -> Result<(), NTSTATUS> {
    let filter = PoolBox::new(Filter { cutoff, taps: [cutoff as u16; 30] })?;
    let mut table = table.lock();
    let place = table.get_mut(place).ok_or(STATUS_INVALID_PARAMETER)?;
    #[cfg(not(FIXED))]
    let filter = filter.into_raw();
    if !place.is_null() {
        return Err(STATUS_DEVICE_BUSY);
    }
    #[cfg(FIXED)]
    let filter = filter.into_raw();
    *place = filter;
    Ok(())
}

/// Takes one out: what it filters.
fn take(table: &Table, place: usize) -> Result<u32, NTSTATUS> {
    let filter = match table.lock().get_mut(place) {
        Some(place) if !place.is_null() => core::mem::replace(place, null_mut()),
        _ => return Err(STATUS_NOT_FOUND),
    };
    let filter = unsafe { PoolBox::from_raw(filter) };
    Ok(filter.cutoff + u32::from(filter.taps[0]))
}

unsafe extern "C" fn control(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let table = unsafe { &*extension_of::<Table>(device) };
    let (code, input, output) = unsafe { control_of(irp) };
    let buffer: *mut [u32; 2] = unsafe { (*irp).SystemBuffer }.cast();
    if code != PUT && code != TAKE {
        return unsafe { complete(irp, STATUS_INVALID_DEVICE_REQUEST, 0) };
    }
    if input < size_of::<[u32; 2]>() || output < size_of::<u32>() {
        return unsafe { complete(irp, STATUS_BUFFER_TOO_SMALL, 0) };
    }
    let [place, cutoff] = unsafe { buffer.read_unaligned() };
    let place = place as usize;
    let done = if code == PUT { put(table, place, cutoff).map(|()| cutoff) } else { take(table, place) };
    match done {
        Ok(answer) => unsafe {
            buffer.cast::<u32>().write_unaligned(answer);
            complete(irp, STATUS_SUCCESS, size_of::<u32>())
        },
        Err(status) => unsafe { complete(irp, status, 0) },
    }
}

unsafe extern "C" fn unload(driver: *mut DRIVER_OBJECT) {
    unsafe {
        let table = &*extension_of::<Table>((*driver).only_device());
        for place in 0..4 {
            let _ = take(table, place);
        }
        delete(driver, NAMES.1);
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn DriverEntry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    unsafe { create(driver, NAMES, control, unload, Table::new([null_mut(); 4])) }
        .map_or_else(|status| status, |_| STATUS_SUCCESS)
}
