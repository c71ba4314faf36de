//! An application's addresses mean nothing where a request is ended later.
use wdm::*;

fn later(mut irp: PendingIrp, passive: &mut Passive) {
    let _ = irp.lock_output(passive);
    irp.complete(NtStatus::SUCCESS, 0, passive);
}

fn main() {}
