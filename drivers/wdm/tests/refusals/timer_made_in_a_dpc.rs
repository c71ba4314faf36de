//! Timers are made at PASSIVE_LEVEL.
use wdm::*;

fn dpc<T: Function>(device: &Device<T>, dispatch: &mut Dispatch) {
    let _ = Timer::new(device, fired, Tag::new(b"time"), dispatch);
}

fn fired<T>(_device: &Device<T>, _dispatch: &mut Dispatch) {}

fn main() {}
