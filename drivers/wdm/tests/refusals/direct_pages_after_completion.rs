//! Pages are unlocked with their request.
use wdm::*;

fn read<'irp>(irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
    let Ok(pages) = irp.destination(level) else { panic!() };
    let answer = irp.complete(NtStatus::SUCCESS, 0, level);
    let _ = pages.copy_to(0, &[1]);
    answer
}

fn main() {}
