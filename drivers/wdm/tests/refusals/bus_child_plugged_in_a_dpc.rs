//! Device objects are made at PASSIVE_LEVEL.
use wdm::*;

fn dpc<B: Bus>(device: &Device<B>, identity: &Identity, child: B::Child, dispatch: &mut Dispatch) {
    let _ = device.plug(identity, child, dispatch);
}

fn main() {}
