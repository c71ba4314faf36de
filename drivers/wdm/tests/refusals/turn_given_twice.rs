//! The next request is asked for once.
use wdm::*;

fn end<T: Function>(device: &Device<T>, packet: Packet, dispatch: &mut Dispatch) {
    device.start_next_packet(packet, dispatch);
    device.start_next_packet(packet, dispatch);
}

fn main() {}
