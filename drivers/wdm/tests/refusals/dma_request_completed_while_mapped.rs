//! A request is not completed while the card has its pages.
use wdm::*;

fn early(mapped: &Mapped, dispatch: &mut Dispatch) {
    mapped.request().complete(NtStatus::SUCCESS, 0, dispatch);
}

fn main() {}
