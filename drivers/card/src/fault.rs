//! Faults that safe code can still make, because no type can refuse them: each is a bug check of the crate's own ("RUST"), at the line
//! that makes it, before memory is harmed.
//!
//! | fault | |
//! | --- | --- |
//! | 1 | forgets a timer, so that it is there when the device is removed |
//! | 2 | forgets the hardware when the device is stopped: interrupt, adapter, windows |
//! | 3 | drops a request at the level of its interrupt |
//! | 4 | frees pool there |
//! | 5 | unmaps a window there |
//! | 6 | disconnects an interrupt at `DISPATCH_LEVEL` |
//! | 7 | deletes a link with a spin lock held |
//! | 8 | completes a request with `STATUS_PENDING` |
//! | 9 | drops a timer at `DISPATCH_LEVEL` |
//! | 10 | frees common buffers at `DISPATCH_LEVEL` |
//! | 11 | synchronizes with an interrupt at `DISPATCH_LEVEL`, which is a fault where its line has `PASSIVE_LEVEL` |
//! | 12 | drops what lies in paged pool at `DISPATCH_LEVEL` |

use core::sync::atomic::Ordering;

use wdm::{
    Answer, Device, Dispatch, DispatchOrBelow, Irp, Name, NtStatus, PagedBox, Passive, PoolBox, Result,
    SpinLock, SymbolicLink, Timer, at_dispatch,
};

use crate::TAG;
use crate::card::Card;
use crate::hardware::Hardware;

/// Makes a fault, and ends the request if that is no part of it.
pub(crate) fn make<'irp>(
    device: &Device<Card>,
    irp: Irp<'irp>,
    fault: u32,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    let made = match fault {
        3 => {
            let (irp, answer) = irp.pend();
            if let Some(hardware) = device.hardware.enter(level) {
                hardware.interrupt.synchronize(level, |_isr, _dirql| drop(irp));
            }
            return answer;
        }
        8 => return irp.complete(NtStatus::PENDING, 0, level),
        _ => match level.as_passive() {
            Some(passive) => at_passive(device, fault, passive),
            None => Err(NtStatus::INVALID_DEVICE_REQUEST),
        },
    };
    match made {
        Ok(()) => irp.complete(NtStatus::SUCCESS, 0, level),
        Err(status) => irp.complete(status, 0, level),
    }
}

fn at_passive(device: &Device<Card>, fault: u32, passive: &mut Passive) -> Result<()> {
    match fault {
        1 => core::mem::forget(Timer::new(device, fired, TAG, passive)?),
        2 => device.forgets.store(1, Ordering::Release),
        4 => {
            let block = PoolBox::new([0_u32; 4], TAG, passive)?;
            let hardware = device.hardware.enter(passive).ok_or(NtStatus::DEVICE_NOT_CONNECTED)?;
            hardware.interrupt.synchronize(passive, |_isr, _dirql| drop(block));
        }
        5 => {
            let Hardware { interrupt, memory, .. } = taken(device, passive)?;
            interrupt.synchronize(passive, |_isr, _dirql| drop(memory));
        }
        6 => {
            let Hardware { interrupt, .. } = taken(device, passive)?;
            at_dispatch(passive, |_dispatch| drop(interrupt));
        }
        7 => {
            let (link, target) = (Name::new(r"\DosDevices\CardRust-1"), Name::new(r"\Device\CardRust-0"));
            let link = SymbolicLink::create(link, &target, passive)?;
            SpinLock::new(()).with(passive, |(), _dispatch| drop(link));
        }
        9 => {
            let timer = Timer::new(device, fired, TAG, passive)?;
            at_dispatch(passive, |_dispatch| drop(timer));
        }
        10 => {
            let Hardware { dma, .. } = taken(device, passive)?;
            at_dispatch(passive, |_dispatch| drop(dma));
        }
        11 => {
            let hardware = device.hardware.enter(passive).ok_or(NtStatus::DEVICE_NOT_CONNECTED)?;
            at_dispatch(passive, |dispatch| hardware.interrupt.synchronize(dispatch, |_isr, _dirql| ()));
        }
        12 => {
            let block = PagedBox::new([0_u32; 4], TAG, passive)?;
            at_dispatch(passive, |_dispatch| drop(block));
        }
        _ => return Err(NtStatus::INVALID_PARAMETER),
    }
    Ok(())
}

/// The hardware, quiet.
fn taken(device: &Device<Card>, passive: &mut Passive) -> Result<Hardware> {
    let hardware = device.hardware.take(passive).ok_or(NtStatus::DEVICE_NOT_CONNECTED)?;
    hardware.chip.quiet();
    Ok(hardware)
}

fn fired(_device: &Device<Card>, _dispatch: &mut Dispatch) {}
