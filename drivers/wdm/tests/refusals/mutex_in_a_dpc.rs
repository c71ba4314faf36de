//! Mutexes are waited for at PASSIVE_LEVEL.
use wdm::*;

fn dpc(mutex: &Mutex<u32>, dispatch: &mut Dispatch) {
    mutex.with(dispatch, |value, _passive| *value += 1);
}

fn main() {}
