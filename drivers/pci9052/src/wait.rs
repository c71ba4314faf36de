//! Waiting for an interrupt: one request at a time is pended until the service routine has claimed one.
//!
//! It may wait through a stop and restart, and is cancelled like any other. Interrupts that end transfers are
//! not for it, and those that came before are not counted, but a line that is still active interrupts at once.

use wdm::{Answer, AtMostDispatch, Device, Dispatch, DispatchOrBelow, Irp, NtStatus, Way};

use crate::card::Card;
use crate::transfer::settle;

/// The request waits.
pub(crate) fn start<'irp>(
    device: &Device<Card>,
    irp: Irp<'irp>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    match device.held.way(level) {
        Way::Open => {}
        Way::Held => return irp.complete(NtStatus::DEVICE_BUSY, 0, level),
        Way::Closed => return irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, level),
    }
    let (irp, answer) = irp.pend();
    match device.park(irp, |card| &card.waiters, level) {
        Err((irp, why)) => irp.complete(why.status(), 0, level),
        Ok(()) => {
            if let Some(hardware) = device.hardware.enter(level) {
                hardware.unmask(level);
            }
            settle(device, level);
        }
    }
    answer
}

/// There was an interrupt: the DPC.
pub(crate) fn end(device: &Device<Card>, dispatch: &mut Dispatch) {
    while let Some(irp) = device.waiters.pop(dispatch) {
        irp.complete(NtStatus::SUCCESS, 0, dispatch);
    }
}

/// There is no card any more.
pub(crate) fn fail<L: AtMostDispatch>(device: &Device<Card>, level: &mut L) {
    while let Some(irp) = device.waiters.pop(level) {
        irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, level);
    }
}
