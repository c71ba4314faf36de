//! Pages are probed at PASSIVE_LEVEL, where they may be brought in.
use wdm::*;

fn early(irp: &mut Irp<'_>, dispatch: &mut Dispatch) -> Result<()> {
    irp.lock_output(dispatch)
}

fn main() {}
