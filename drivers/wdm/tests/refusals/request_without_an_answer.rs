//! A dispatch routine returns what its request came to.
use wdm::*;

fn read<'irp>(irp: Irp<'irp>, _level: &mut DispatchOrBelow) -> Answer<'irp> {
    let (_irp, _answer) = irp.pend();
}

fn main() {}
