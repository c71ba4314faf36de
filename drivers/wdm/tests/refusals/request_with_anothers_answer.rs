//! One request's answer is not another's.
use wdm::*;

fn read<'a>(irp: Irp<'a>, other: Irp<'_>, passive: &mut Passive) -> Answer<'a> {
    let (_kept, _) = irp.pend();
    other.complete(NtStatus::SUCCESS, 0, passive)
}

fn main() {}
