//! Work items are queued at DISPATCH_LEVEL and below.
use wdm::*;

fn isr<T: Function>(device: &Device<T>, dirql: &mut Dirql) {
    let _ = WorkItem::<T, u32>::new(device, Tag::new(b"work"), dirql);
}

fn main() {}
