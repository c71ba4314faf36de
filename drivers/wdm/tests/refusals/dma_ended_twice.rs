//! Mapped pages are unmapped once.
use wdm::*;

fn twice(mapped: Mapped, dispatch: &mut Dispatch) {
    drop(mapped.end(dispatch));
    drop(mapped.end(dispatch));
}

fn main() {}
