//! A request that was passed on is the driver's below.
use wdm::*;

fn read<'irp, T: Function>(device: &Device<T>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
    let answer = irp.forward_then(device, back, level);
    let _ = irp.transfer();
    answer
}

fn back<T>(_device: &Device<T>, irp: Returned, level: &mut DispatchOrBelow) {
    irp.complete_as_it_is(level);
}

fn main() {}
