//! What a child keeps must live until it comes back.
use wdm::*;

fn send<'a, T: Function>(device: &Device<T>, local: &'a u32, level: &mut DispatchOrBelow) {
    let _ = Child::<T, &'a u32, 4>::new(device, local, Tag::new(b"Chld"), level);
}

fn main() {}
