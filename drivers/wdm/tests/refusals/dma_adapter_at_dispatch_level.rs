//! Adapters are gotten at PASSIVE_LEVEL.
use wdm::*;

fn dpc<T: Function>(device: &Device<T>, dispatch: &mut Dispatch) {
    let _ = DmaAdapter::get(device, &BusMaster::new(32, 4096), dispatch);
}

fn main() {}
