//! Requests are completed at DISPATCH_LEVEL and below.
use wdm::*;

fn isr(irp: PendingIrp, dirql: &mut Dirql) {
    irp.complete(NtStatus::SUCCESS, 0, dirql);
}

fn main() {}
