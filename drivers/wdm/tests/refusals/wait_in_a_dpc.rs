//! Waits are at PASSIVE_LEVEL.
use wdm::*;

fn dpc(event: &Event, dispatch: &mut Dispatch) {
    event.wait(dispatch);
}

fn main() {}
