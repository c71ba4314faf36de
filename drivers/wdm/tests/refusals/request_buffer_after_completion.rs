//! The system buffer goes with its request.
use wdm::*;

fn late(mut irp: PendingIrp, dispatch: &mut Dispatch) -> u8 {
    let buffer = irp.buffer();
    irp.complete(NtStatus::SUCCESS, 0, dispatch);
    buffer[0]
}

fn main() {}
