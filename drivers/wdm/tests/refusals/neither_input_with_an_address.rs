//! An address inside of what an application gives is not to be had as one.
use wdm::*;

fn ask(irp: &Irp<'_>, passive: &mut Passive) -> Result<&'static u32> {
    irp.capture_input::<&'static u32>(passive)
}

fn main() {}
