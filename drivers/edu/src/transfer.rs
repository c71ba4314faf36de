//! Transfers by the card's bus master: reads and writes through the common buffer, direct requests into the application's own pages.
//!
//! Pages: *Using Common-Buffer Bus-Master DMA*, *Using Scatter/Gather DMA*. The card moves one contiguous piece at a time, with an
//! interrupt at its end. A direct request that is longer than what can be mapped at once goes in parts.

use wdm::{Device, Dispatch, Mapped, NtStatus, PendingIrp, Result};

use crate::card::Card;
use crate::hardware::{BUFFER_LENGTH, Hardware, LONGEST};
use crate::work::{self, Current};

/// Puts the bytes of a write where the card finds them.
///
/// # Errors
/// If there are more than the common buffer takes.
pub(crate) fn prepare(hardware: &Hardware, irp: &mut PendingIrp) -> Result<()> {
    if !irp.is_read() {
        hardware.dma.buffer(0).copy_to(0, irp.buffer())?;
    }
    Ok(())
}

/// Has the bytes of a read or write moved between the card and the common buffer.
pub(crate) fn buffered(device: &Device<Card>, hardware: &Hardware, irp: PendingIrp, dispatch: &mut Dispatch) {
    let (transfer, is_read) = (irp.transfer(), irp.is_read());
    let offset = u32::try_from(transfer.offset).unwrap_or(0); // it was looked at when the request came
    work::give(device, Current::Buffered(irp), dispatch, |_irp| {
        hardware.chip.transfer(hardware.dma.buffer(0).logical(), offset, transfer.length, is_read);
    });
}

/// What a read or write ends with; the bytes of a read come now.
pub(crate) fn finish(hardware: &Hardware, irp: &mut PendingIrp) -> (NtStatus, usize) {
    let length = irp.transfer().length as usize;
    if !hardware.chip.is_there() {
        return (NtStatus::DEVICE_NOT_CONNECTED, 0);
    }
    if irp.is_read() && hardware.dma.buffer(0).copy_from(0, irp.buffer()).is_err() {
        return (NtStatus::INVALID_BUFFER_SIZE, 0);
    }
    (NtStatus::SUCCESS, length)
}

/// A mapped part of a direct request, and how far the card has come in it.
pub(crate) struct Direct {
    mapped: Mapped,
    /// Bytes of the request that are over, those of earlier parts among them.
    done: u32,
    /// Bytes of this part that are over.
    of_part: u32,
    /// Bytes that the card moves now.
    moving: u32,
}

impl Direct {
    /// The piece under way is over: the card goes on with the next. Whether there is one.
    pub(crate) fn go_on(&mut self, hardware: &Hardware) -> bool {
        self.done += self.moving;
        self.of_part += self.moving;
        self.moving = 0;
        let mut before = 0;
        for element in self.mapped.elements() {
            let within = self.of_part - before;
            if within < element.length {
                let offset = self.done % BUFFER_LENGTH;
                self.moving = (element.length - within).min(BUFFER_LENGTH - offset);
                hardware.chip.transfer(element.address.offset(within), offset, self.moving, true);
                return true;
            }
            before += element.length;
        }
        false
    }

    /// The request, no longer mapped, and how many of its bytes are over.
    pub(crate) fn end(self, dispatch: &mut Dispatch) -> (PendingIrp, u32) {
        (self.mapped.end(dispatch), self.done)
    }
}

/// Has the next part of a direct request mapped, of which `done` bytes are over; or ends it.
pub(crate) fn direct(
    device: &Device<Card>,
    hardware: &Hardware,
    irp: PendingIrp,
    done: u32,
    dispatch: &mut Dispatch,
) {
    let length = irp.control().output;
    if done >= length {
        let there = hardware.chip.is_there();
        let (status, bytes) =
            if there { (NtStatus::SUCCESS, length) } else { (NtStatus::DEVICE_NOT_CONNECTED, 0) };
        return work::end(device, irp, status, bytes as usize, dispatch);
    }
    let part = done..done + (length - done).min(LONGEST);
    if let Err((irp, status)) = device.map(hardware.dma.adapter(), irp, part, mapped, dispatch) {
        work::end(device, irp, status, 0, dispatch);
    }
}

/// A part is mapped.
fn mapped(device: &Device<Card>, mapped: Mapped, dispatch: &mut Dispatch) {
    let Some(hardware) = device.hardware.enter(dispatch) else {
        let irp = mapped.end(dispatch);
        work::end(device, irp, NtStatus::DEVICE_NOT_CONNECTED, 0, dispatch);
        return work::settle(device, dispatch);
    };
    let done = mapped.part().start;
    let direct = Direct { mapped, done, of_part: 0, moving: 0 };
    work::give(device, Current::Direct(direct), dispatch, |current| {
        if let Current::Direct(direct) = current {
            direct.go_on(&hardware);
        }
    });
}
