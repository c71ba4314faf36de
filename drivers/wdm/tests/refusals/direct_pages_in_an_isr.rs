//! Pages are mapped at DISPATCH_LEVEL and below.
use wdm::*;

fn isr(irp: &PendingIrp, dirql: &mut Dirql) {
    let _ = irp.destination(dirql);
}

fn main() {}
