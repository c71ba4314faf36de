//! A turn comes with a request.
use wdm::*;

fn end<T: Function>(device: &Device<T>, dispatch: &mut Dispatch) {
    device.start_next_packet(Packet { device: core::ptr::null() }, dispatch);
}

fn main() {}
