//! What requests do: dispatch → queue → card → interrupt → DPC → completion, one at a time on the card.
//!
//! Page: *Holding Incoming IRPs When A Device Is Paused*. A request that is on the card cannot be cancelled: it ends soon, or
//! when its device is stopped. What a transfer is stands in [`crate::transfer`].

use wdm::{
    Answer, AtMostDispatch, Device, Dispatch, DispatchOrBelow, Irp, Next, NtStatus, Passive, PendingIrp,
};

use crate::card::{Card, DIRECT, FACTORIAL};
use crate::hardware::{BUFFER_LENGTH, Hardware};
use crate::transfer::{self, Direct};

/// Milliseconds that the card may take to come to rest.
const PATIENCE: u32 = 1000;

/// What is on the card.
pub(crate) enum Current {
    /// A request has its turn; its owner says here what became of it.
    Beginning,
    /// A factorial.
    Factorial(PendingIrp),
    /// A read or write by the common buffer.
    Buffered(PendingIrp),
    /// A part of a direct request.
    Direct(Direct),
}

/// The request waits its turn, if it asks for something that there is.
pub(crate) fn dispatch<'irp>(
    device: &Device<Card>,
    irp: Irp<'irp>,
    level: &mut DispatchOrBelow,
) -> Answer<'irp> {
    match length(&irp) {
        Ok(Some(0)) => return irp.complete(NtStatus::SUCCESS, 0, level),
        Ok(_) => {}
        Err(refused) => return irp.complete(refused, 0, level),
    }
    let (irp, answer) = irp.pend();
    match device.hold(irp, |card| &card.waiting, level) {
        Ok(()) => settle(device, level),
        Err((irp, why)) => irp.complete(why.status(), 0, level),
    }
    answer
}

/// Bytes to transfer, of a read or write.
///
/// # Errors
/// Why it cannot be carried out.
fn length(irp: &Irp<'_>) -> wdm::Result<Option<u32>> {
    if !irp.is_control() {
        let transfer = irp.transfer();
        let offset = u32::try_from(transfer.offset).unwrap_or(u32::MAX);
        let fits = offset < BUFFER_LENGTH && transfer.length <= BUFFER_LENGTH - offset;
        return if fits || transfer.length == 0 {
            Ok(Some(transfer.length))
        } else {
            Err(NtStatus::INVALID_PARAMETER)
        };
    }
    let control = irp.control();
    let short = match control.code {
        FACTORIAL => control.input < 4 || control.output < 4,
        _ => control.output == 0,
    };
    if short { Err(NtStatus::BUFFER_TOO_SMALL) } else { Ok(None) }
}

/// What waits goes on, waits or fails, as the way now is. To be called after the way has changed, and after something was put
/// to wait, because the way may have changed meanwhile.
pub(crate) fn settle<L: AtMostDispatch>(device: &Device<Card>, level: &mut L) {
    wdm::at_dispatch(level, |dispatch| {
        let claim = |dispatch: &mut Dispatch| {
            device.current.with(dispatch, |current, _dispatch| *current = Some(Current::Beginning));
        };
        while let Some(next) = device.waiting.next(dispatch, claim) {
            match next {
                Next::Go(irp) => match device.hardware.enter(dispatch) {
                    Some(hardware) => begin(device, &hardware, irp, dispatch),
                    None => end(device, irp, NtStatus::DEVICE_NOT_CONNECTED, 0, dispatch),
                },
                Next::Fail(irp) => irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, dispatch),
            }
        }
    });
}

fn begin(device: &Device<Card>, hardware: &Hardware, mut irp: PendingIrp, dispatch: &mut Dispatch) {
    if !irp.is_control() {
        let refused = transfer::prepare(hardware, &mut irp).err();
        match refused {
            Some(status) => end(device, irp, status, 0, dispatch),
            None => transfer::buffered(device, hardware, irp, dispatch),
        }
    } else if irp.control().code == DIRECT {
        transfer::direct(device, hardware, irp, 0, dispatch);
    } else {
        match irp.input() {
            Ok(number) => give(device, Current::Factorial(irp), dispatch, |_| hardware.chip.compute(number)),
            Err(status) => end(device, irp, status, 0, dispatch),
        }
    }
}

/// Puts what had its turn on the card, unless it was given up meanwhile: then it fails.
pub(crate) fn give(
    device: &Device<Card>,
    what: Current,
    dispatch: &mut Dispatch,
    start: impl FnOnce(&mut Current),
) {
    let refused = device.current.with(dispatch, |current, _dispatch| match current {
        Some(Current::Beginning) => {
            start(current.insert(what)); // the DPC that follows, maybe at once, waits for the lock
            None
        }
        _ => Some(what),
    });
    if let Some(irp) = refused.and_then(|what| what.into_request(dispatch)) {
        irp.complete(NtStatus::DEVICE_NOT_CONNECTED, 0, dispatch);
    }
}

impl Current {
    /// The request, if it is still here; what of it was mapped no longer is.
    fn into_request(self, dispatch: &mut Dispatch) -> Option<PendingIrp> {
        match self {
            Self::Beginning => None,
            Self::Factorial(irp) | Self::Buffered(irp) => Some(irp),
            Self::Direct(direct) => Some(direct.end(dispatch).0),
        }
    }
}

/// Ends a request that had its turn. Behind it, the next one is to have its own: [`settle`].
pub(crate) fn end(
    device: &Device<Card>,
    irp: PendingIrp,
    status: NtStatus,
    bytes: usize,
    dispatch: &mut Dispatch,
) {
    device.current.with(dispatch, |current, _dispatch| *current = None);
    device.waiting.done(dispatch);
    irp.complete(status, bytes, dispatch);
}

/// The card has ended something: the DPC.
pub(crate) fn ended(device: &Device<Card>, hardware: &Hardware, dispatch: &mut Dispatch) {
    let ended = device.current.with(dispatch, |current, _dispatch| {
        if !hardware.chip.take_end() {
            return None;
        }
        if let Some(Current::Direct(direct)) = current
            && direct.go_on(hardware)
        {
            return None;
        }
        // Nothing is under way, or it only begins, so there is nothing to end: what it was has been given up.
        match current {
            None | Some(Current::Beginning) => None,
            Some(_) => current.replace(Current::Beginning),
        }
    });
    match ended {
        Some(Current::Factorial(mut irp)) => {
            match hardware.chip.product().and_then(|product| irp.output(&product)) {
                Ok(bytes) => end(device, irp, NtStatus::SUCCESS, bytes, dispatch),
                Err(status) => end(device, irp, status, 0, dispatch),
            }
        }
        Some(Current::Buffered(mut irp)) => {
            let (status, bytes) = transfer::finish(hardware, &mut irp);
            end(device, irp, status, bytes, dispatch);
        }
        Some(Current::Direct(direct)) => {
            let (irp, done) = direct.end(dispatch);
            transfer::direct(device, hardware, irp, done, dispatch);
        }
        Some(Current::Beginning) | None => {}
    }
    settle(device, dispatch);
}

/// Waits until the card has nothing to do, but not longer than is reasonable. Whether that came.
pub(crate) fn rest(device: &Device<Card>, passive: &mut Passive) -> bool {
    device.waiting.wait_until_idle(PATIENCE, passive)
}

/// The card will not end what it has.
pub(crate) fn abandon(device: &Device<Card>, status: NtStatus, passive: &mut Passive) {
    let left = device.current.with(passive, |current, _dispatch| current.take());
    device.waiting.done(passive);
    if let Some(left) = left
        && let Some(irp) = wdm::at_dispatch(passive, |dispatch| left.into_request(dispatch))
    {
        irp.complete(status, 0, passive);
    }
}
