//! A request is completed once.
use wdm::*;

fn twice(irp: PendingIrp, dispatch: &mut Dispatch) {
    irp.complete(NtStatus::SUCCESS, 0, dispatch);
    irp.complete(NtStatus::SUCCESS, 0, dispatch);
}

fn main() {}
