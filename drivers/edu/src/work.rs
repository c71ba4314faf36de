//! Factorials: `DispatchDeviceControl` → queue → card → interrupt → DPC → completion, one at a time on the card.
//!
//! Page: *Holding Incoming IRPs When A Device Is Paused*. A request that is on the card cannot be cancelled: it ends soon, or
//! when its device is stopped.

use wdm::{
    Answer, AtMostDispatch, Device, Dispatch, DispatchOrBelow, Irp, NtStatus, Passive, PendingIrp, Refused,
};

use crate::card::Card;
use crate::hardware::Hardware;

/// Milliseconds that the card may take to come to rest.
const PATIENCE: u32 = 1000;

/// The request on the card, and whether it may have another: three things close the way, independently.
pub(crate) struct Work {
    /// The device is not started, or is going: requests fail.
    pub(crate) closed: bool,
    /// The device is to be stopped or removed, or is stopped.
    pub(crate) paused: bool,
    /// The device is not in D0.
    pub(crate) asleep: bool,
    current: Option<PendingIrp>,
}

impl Work {
    /// Before the first start.
    pub(crate) const fn new() -> Self {
        Self { closed: true, paused: false, asleep: false, current: None }
    }

    fn may_start(&self) -> bool {
        !self.closed && !self.paused && !self.asleep && self.current.is_none()
    }
}

/// A number to compute the factorial of: the request waits its turn.
pub(crate) fn dispatch<'irp>(
    device: &Device<Card>,
    irp: Irp<'irp>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    if irp.control().input < 4 || irp.control().output < 4 {
        return irp.complete(NtStatus::BUFFER_TOO_SMALL, 0, level);
    }
    let (irp, answer) = irp.pend();
    match device.park(irp, |card| &card.waiting, level) {
        Ok(()) => settle(device, level),
        Err((irp, Refused::Cancelled)) => irp.complete(NtStatus::CANCELLED, 0, level),
        Err((irp, Refused::Full)) => irp.complete(NtStatus::DEVICE_BUSY, 0, level),
    }
    answer
}

/// What waits goes on, waits or fails, as the way now is. To be called after the way has changed, and after something was put
/// to wait, because the way may have changed meanwhile.
pub(crate) fn settle<L: AtMostDispatch>(device: &Device<Card>, level: &mut L) {
    if !device.work.with(level, |work| work.closed) {
        return next(device, level);
    }
    while let Some(irp) = device.waiting.pop(level) {
        irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, level);
    }
}

/// Gives the card the next request, if it may have one.
fn next<L: AtMostDispatch>(device: &Device<Card>, level: &mut L) {
    let mut guard = device.work.lock(level);
    let (work, dispatch) = guard.split();
    if !work.may_start() {
        return;
    }
    let Some(hardware) = device.hardware.enter(dispatch) else { return };
    let Some(mut irp) = device.waiting.pop(dispatch) else { return };
    let number = irp.buffer().first_chunk().copied().map_or(0, u32::from_le_bytes);
    device.idle.clear(dispatch);
    work.current = Some(irp);
    hardware.chip.compute(number); // the DPC that follows, maybe at once, waits for the lock
}

/// The card has computed: the DPC.
pub(crate) fn end(device: &Device<Card>, hardware: &Hardware, dispatch: &mut Dispatch) {
    let mut guard = device.work.lock(dispatch);
    let (work, locked) = guard.split();
    let Some(product) = hardware.chip.take_product() else { return };
    let ended = work.current.take();
    device.idle.set(locked);
    drop(guard);
    next(device, dispatch);
    match (ended, product) {
        (Some(mut irp), Ok(product)) => {
            if let Some(answer) = irp.buffer().first_chunk_mut() {
                *answer = product.to_le_bytes();
            }
            irp.complete(NtStatus::SUCCESS, 4, dispatch);
        }
        (Some(irp), Err(status)) => irp.complete(status, 0, dispatch),
        (None, _) => {} // somebody has given it up
    }
}

/// Waits until the card has nothing to do, but not longer than is reasonable. Whether that came.
pub(crate) fn rest(device: &Device<Card>, passive: &mut Passive) -> bool {
    device.idle.wait_milliseconds(PATIENCE, passive)
}

/// The card will not end what it has.
pub(crate) fn abandon(device: &Device<Card>, status: NtStatus, passive: &mut Passive) {
    let mut guard = device.work.lock(passive);
    let (work, dispatch) = guard.split();
    let left = work.current.take();
    device.idle.set(dispatch);
    drop(guard);
    if let Some(irp) = left {
        irp.complete(status, 0, passive);
    }
}
