//! Reads and writes of local memory: `DispatchWrite` → `StartIo` → doorbell → interrupt → DPC → completion.
//!
//! Pages: *IoStartPacket*, *StartIo routine*, *DpcForIsr routine*. One request at a time is on the card. A request that is
//! cancelled there is completed at once; the card's operation runs on, and the next request starts when it has ended.

use core::sync::atomic::Ordering;

use wdm::{
    Answer, AtMostDispatch, Device, Dispatch, DispatchOrBelow, Irp, Next, NtStatus, Packet, PendingIrp,
    Transfer, Way,
};

use crate::card::Card;
use crate::hardware::Hardware;
use crate::registers::LOCAL_MEMORY;
use crate::wait;

/// `IRP_MJ_READ` and `IRP_MJ_WRITE`.
pub(crate) fn dispatch<'irp>(
    device: &Device<Card>,
    irp: Irp<'irp>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    let way = device.held.way(level);
    match place(irp.transfer()) {
        _ if way == Way::Closed => return irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, level),
        None => return irp.complete(NtStatus::INVALID_PARAMETER, 0, level),
        Some(_) if irp.transfer().length == 0 => return irp.complete(NtStatus::SUCCESS, 0, level),
        Some(_) => {}
    }
    let (irp, answer) = irp.pend();
    if way == Way::Open {
        go(device, irp, level);
    } else {
        hold(device, irp, level);
        settle(device, level);
    }
    answer
}

/// Where in local memory a transfer begins, if it lies in it.
fn place(transfer: Transfer) -> Option<u32> {
    let offset = u32::try_from(transfer.offset).ok()?;
    let end = offset.checked_add(transfer.length)?;
    (end <= LOCAL_MEMORY).then_some(offset)
}

/// The request goes to `StartIo` when its turn comes.
fn go<L: AtMostDispatch>(device: &Device<Card>, irp: PendingIrp, level: &mut L) {
    if let Err((irp, why)) = device.start_packet(irp, level) {
        irp.complete(why.status(), 0, level);
    }
}

/// The request waits until the card is back.
fn hold<L: AtMostDispatch>(device: &Device<Card>, irp: PendingIrp, level: &mut L) {
    if let Err((irp, why)) = device.hold(irp, |card| &card.held, level) {
        irp.complete(why.status(), 0, level);
    }
}

/// The request waits until the card is back, before all that came after it.
fn hold_again<L: AtMostDispatch>(device: &Device<Card>, irp: PendingIrp, level: &mut L) {
    if let Err((irp, why)) = device.hold_again(irp, |card| &card.held, level) {
        irp.complete(why.status(), 0, level);
    }
}

/// What waits goes on, or fails, as the way now is. To be called after the way has changed, and after something was put to
/// wait, because the way may have changed meanwhile.
pub(crate) fn settle<L: AtMostDispatch>(device: &Device<Card>, level: &mut L) {
    while let Some(next) = device.held.next(level, |_dispatch| ()) {
        match next {
            Next::Go(irp) => go(device, irp, level),
            Next::Fail(irp) => irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, level),
        }
    }
    if device.held.way(level) == Way::Closed {
        wait::fail(device, level);
    }
}

/// `StartIo`.
pub(crate) fn start(device: &Device<Card>, irp: PendingIrp, packet: Packet, dispatch: &mut Dispatch) {
    match device.held.way(dispatch) {
        Way::Open => {}
        Way::Held => {
            device.start_next_packet(packet, dispatch);
            hold_again(device, irp, dispatch);
            return settle(device, dispatch);
        }
        Way::Closed => return fail(device, irp, Some(packet), NtStatus::DEVICE_NOT_CONNECTED, dispatch),
    }
    if let Err((irp, packet, status)) = give(device, irp, packet, dispatch) {
        fail(device, irp, packet, status, dispatch);
    }
}

/// Ends a request that the card has not been given, and its turn, if it has not been given up.
fn fail(
    device: &Device<Card>,
    irp: PendingIrp,
    packet: Option<Packet>,
    status: NtStatus,
    dispatch: &mut Dispatch,
) {
    if let Some(packet) = packet {
        device.start_next_packet(packet, dispatch);
    }
    irp.complete(status, 0, dispatch);
}

/// Gives the card a request: the bytes of a write first, then the doorbell.
fn give(
    device: &Device<Card>,
    mut irp: PendingIrp,
    packet: Packet,
    dispatch: &mut Dispatch,
) -> Result<(), (PendingIrp, Option<Packet>, NtStatus)> {
    let Some(hardware) = device.hardware.enter(dispatch) else {
        return Err((irp, Some(packet), NtStatus::DEVICE_NOT_CONNECTED));
    };
    let Some(offset) = place(irp.transfer()) else {
        return Err((irp, Some(packet), NtStatus::INVALID_PARAMETER));
    };
    if !irp.is_read() && hardware.windows.local.copy_to(offset, irp.buffer()).is_err() {
        return Err((irp, Some(packet), NtStatus::INVALID_PARAMETER));
    }
    if let Err(packet) = device.on_card.put(packet) {
        return Err((irp, Some(packet), NtStatus::DEVICE_BUSY));
    }
    if let Err((irp, why)) = device.park(irp, |card| &card.in_flight, dispatch) {
        return Err((irp, device.on_card.take(), why.status()));
    }
    hardware.unmask(dispatch);
    hardware.windows.ring();
    Ok(())
}

/// The card has ended an operation: the DPC. Whether it was a transfer.
pub(crate) fn end(device: &Device<Card>, hardware: &Hardware, dispatch: &mut Dispatch) -> bool {
    let Some(packet) = device.on_card.take() else { return false }; // it has been given up
    let irp = device.in_flight.pop(dispatch).map(|mut irp| {
        let (status, bytes) = result(device, hardware, &mut irp);
        (irp, status, bytes)
    });
    device.start_next_packet(packet, dispatch);
    if let Some((irp, status, bytes)) = irp {
        irp.complete(status, bytes, dispatch);
    }
    true
}

/// What a request on the card ends with; the bytes of a read come now.
fn result(device: &Device<Card>, hardware: &Hardware, irp: &mut PendingIrp) -> (NtStatus, usize) {
    let Some(offset) = place(irp.transfer()) else { return (NtStatus::INVALID_PARAMETER, 0) };
    if irp.is_read() && hardware.windows.local.copy_from(offset, irp.buffer()).is_err() {
        return (NtStatus::INVALID_PARAMETER, 0);
    }
    let (counters, length) = (&device.counters, irp.transfer().length);
    counters.transfers.fetch_add(1, Ordering::Relaxed);
    let bytes = if irp.is_read() { &counters.read } else { &counters.written };
    bytes.fetch_add(length.into(), Ordering::Relaxed);
    (NtStatus::SUCCESS, length as usize)
}

/// The card will not end what it has: its request waits to be done again, or fails where there is no card any more.
pub(crate) fn abandon(device: &Device<Card>, dispatch: &mut Dispatch) {
    let Some(packet) = device.on_card.take() else { return };
    if let Some(irp) = device.in_flight.pop(dispatch) {
        hold_again(device, irp, dispatch); // `settle`, which follows, fails it if it must
    }
    device.start_next_packet(packet, dispatch);
}
