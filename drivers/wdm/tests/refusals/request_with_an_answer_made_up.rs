//! Only a request makes its answer.
use wdm::*;

fn read<'irp>(_irp: Irp<'irp>, _level: &mut DispatchOrBelow) -> Answer<'irp> {
    Answer { status: NtStatus::SUCCESS }
}

fn main() {}
