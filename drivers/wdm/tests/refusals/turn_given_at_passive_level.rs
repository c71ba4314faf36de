//! IoStartNextPacket is called at DISPATCH_LEVEL.
use wdm::*;

fn end<T: Function>(device: &Device<T>, packet: Packet, passive: &mut Passive) {
    device.start_next_packet(packet, passive);
}

fn main() {}
