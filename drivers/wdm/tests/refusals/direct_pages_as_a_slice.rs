//! An application can change its pages at any moment: there is no slice of them.
use wdm::*;

fn sum(irp: &Irp<'_>, level: &mut DispatchOrBelow) -> Result<usize> {
    let bytes: &[u8] = &irp.source(level)?;
    Ok(bytes.len())
}

fn main() {}
