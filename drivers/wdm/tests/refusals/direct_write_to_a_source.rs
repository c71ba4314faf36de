//! Pages of a write were locked for reading only.
use wdm::*;

fn write(irp: &Irp<'_>, level: &mut DispatchOrBelow) -> Result<()> {
    irp.source(level)?.copy_to(0, &[1])?;
    Ok(())
}

fn main() {}
