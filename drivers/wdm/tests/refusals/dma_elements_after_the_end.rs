//! The list of mapped pages is put at the end of the transfer.
use wdm::*;

fn end(mapped: Mapped, dispatch: &mut Dispatch) -> u32 {
    let mut elements = mapped.elements();
    let irp = mapped.end(dispatch);
    drop(irp);
    elements.next().map_or(0, |element| element.length)
}

fn main() {}
