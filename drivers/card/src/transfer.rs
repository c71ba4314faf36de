//! Reads and writes: dispatch → `StartIo` → mapped pages → card → interrupt → DPC → completion, one at a time.
//!
//! Pages: *Using Scatter/Gather DMA*, *StartIo routine*. Mistakes that a driver can make though it is safe Rust, because what it tells
//! the card are numbers: 1: the card goes where the last transfer went; 2: it moves 8 bytes more than were mapped; 3: it moves them
//! the other way.

use core::sync::atomic::Ordering;

use wdm::{
    Answer, CommonBuffer, Device, Dispatch, DispatchOrBelow, Irp, LogicalAddress, Mapped, NtStatus, Packet,
    PendingIrp, Transfer,
};

use crate::card::Card;
use crate::control;
use crate::hardware::{Hardware, Memory, Order};

const STALE: u32 = 1;
const LONGER: u32 = 2;
const OTHER_WAY: u32 = 3;

/// Bytes of a piece in the card's list: address (8), length (4), flags (4).
const PIECE: usize = 16;
/// Of a piece's flags.
const LAST: u32 = 1;

/// `IRP_MJ_READ` and `IRP_MJ_WRITE`.
pub(crate) fn dispatch<'irp>(
    device: &Device<Card>,
    irp: Irp<'irp>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    match place(irp.transfer()) {
        _ if !device.gate.is_open() => return irp.complete(NtStatus::DEVICE_NOT_READY, 0, level),
        None => return irp.complete(NtStatus::INVALID_PARAMETER, 0, level),
        Some(_) if irp.transfer().length == 0 => return irp.complete(NtStatus::SUCCESS, 0, level),
        Some(offset) if device.by_processor.load(Ordering::Relaxed) != 0 => {
            let copied = if irp.is_read() {
                control::get(device, &irp, offset, level)
            } else {
                control::put(device, &irp, offset, level)
            };
            return control::answer(irp, copied, level);
        }
        Some(_) => {}
    }
    let (irp, answer) = irp.pend();
    if let Err((irp, why)) = device.start_packet(irp, level) {
        irp.complete(why.status(), 0, level);
    }
    answer
}

/// Where in the card's memory a transfer begins, if it lies in it.
fn place(transfer: Transfer) -> Option<u32> {
    use wdm::Block;

    let offset = u32::try_from(transfer.offset).ok()?;
    let end = offset.checked_add(transfer.length)?;
    (end <= Memory::LENGTH).then_some(offset)
}

/// `StartIo`.
pub(crate) fn start(device: &Device<Card>, irp: PendingIrp, packet: Packet, dispatch: &mut Dispatch) {
    let length = irp.transfer().length;
    // The gate may have been closed since; what closes it waits for packets from then on.
    let hardware = match device.hardware.enter(dispatch) {
        Some(hardware) if device.gate.is_open() => hardware,
        other => {
            let status = other.map_or(NtStatus::DEVICE_NOT_CONNECTED, |_| NtStatus::DEVICE_NOT_READY);
            device.start_next_packet(packet, dispatch);
            return irp.complete(status, 0, dispatch);
        }
    };
    let refused = match device.turn.put(packet) {
        Ok(()) => device.map(hardware.dma.adapter(), irp, 0..length, go, dispatch).err(),
        Err(packet) => {
            device.start_next_packet(packet, dispatch); // there is one turn at a time
            Some((irp, NtStatus::DEVICE_BUSY))
        }
    };
    if let Some((irp, status)) = refused {
        next(device, dispatch);
        irp.complete(status, 0, dispatch);
    }
}

/// The next request has its turn.
fn next(device: &Device<Card>, dispatch: &mut Dispatch) {
    if let Some(packet) = device.turn.take() {
        device.start_next_packet(packet, dispatch);
    }
}

/// The pages are mapped: the card starts.
fn go(device: &Device<Card>, mapped: Mapped, dispatch: &mut Dispatch) {
    let hardware = device.hardware.enter(dispatch);
    let order = hardware.as_ref().and_then(|hardware| order(device, hardware.dma.buffer(0), &mapped));
    let refused = match (&hardware, order) {
        (Some(hardware), Some(order)) => match device.on_card.put(mapped) {
            Ok(()) => return hardware.chip.transfer(&order),
            Err(mapped) => mapped,
        },
        _ => mapped,
    };
    let irp = refused.end(dispatch);
    next(device, dispatch);
    irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, dispatch);
}

/// What the card gets. None if its list is too short.
fn order(device: &Device<Card>, list: CommonBuffer<'_>, mapped: &Mapped) -> Option<Order> {
    let request = mapped.request();
    let offset = place(request.transfer())?;
    let (mut length, mut to_memory) = (request.transfer().length, request.is_read());
    let mut pieces = mapped.elements();
    let mistake = device.mistake.swap(0, Ordering::AcqRel);
    let (mut memory, is_list) = match pieces.len() {
        1 => (pieces.next()?.address, false),
        _ => (write_list(list, mapped)?, true),
    };
    match mistake {
        STALE => memory = device.last.take()?,
        LONGER => length += 8,
        OTHER_WAY => to_memory = !to_memory,
        _ => {}
    }
    let _old = device.last.take();
    let _kept = device.last.put(memory);
    Some(Order { memory, is_list, offset, length, to_memory })
}

/// Writes the card's list of pieces; where the card finds it.
fn write_list(list: CommonBuffer<'_>, mapped: &Mapped) -> Option<LogicalAddress> {
    let count = mapped.elements().len();
    for (index, piece) in mapped.elements().enumerate() {
        let at = index * PIECE;
        let flags = if index + 1 == count { LAST } else { 0 };
        list.write(at, piece.address.bits()).ok()?;
        list.write(at + 8, piece.length).ok()?;
        list.write(at + 12, flags).ok()?;
    }
    Some(list.logical())
}

/// The card has ended a transfer: the DPC.
pub(crate) fn end(device: &Device<Card>, hardware: &Hardware, dispatch: &mut Dispatch) {
    let Some(mapped) = device.on_card.take() else { return }; // it has been given up
    let moved = hardware.chip.moved();
    let irp = mapped.end(dispatch);
    device.transfers.fetch_add(1, Ordering::Relaxed);
    next(device, dispatch);
    match moved {
        Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes as usize, dispatch),
        Err(status) => irp.complete(status, 0, dispatch),
    }
}

/// The card will not end what it has.
pub(crate) fn abandon(device: &Device<Card>, dispatch: &mut Dispatch) {
    if let Some(mapped) = device.on_card.take() {
        let irp = mapped.end(dispatch);
        next(device, dispatch);
        irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, dispatch);
    }
}
