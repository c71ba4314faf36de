//! The end of a request is waited for at PASSIVE_LEVEL.
use wdm::*;

fn dpc<T>(device: &Device<T>, dispatch: &mut Dispatch) {
    let _ = device.control_below(0x22_3000, &[], &mut [], dispatch);
}

fn main() {}
