//! Who takes waits for users.
use wdm::*;

fn dpc(place: &Rundown<u32>, dispatch: &mut Dispatch) {
    let _ = place.take(dispatch);
}

fn main() {}
