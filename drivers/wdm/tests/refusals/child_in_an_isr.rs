//! Requests are made at DISPATCH_LEVEL and below.
use wdm::*;

fn isr<T: Function>(device: &Device<T>, dirql: &mut Dirql) {
    let _ = Child::<T, u32, 4>::new(device, 0, Tag::new(b"Chld"), dirql);
}

fn main() {}
