//! A proof of a level stays on its processor: another thread cannot be given it.
use wdm::*;

fn later<T: Function>(device: &Device<T>, proof: Passive, dispatch: &mut Dispatch) {
    let Ok(item) = WorkItem::<T, Passive>::new(device, Tag::new(b"work"), dispatch) else { return };
    let _ = item.queue(device, proof, run, dispatch);
}

fn run<T>(_device: &Device<T>, _state: Passive, _item: WorkItem<T, Passive>, _passive: &mut Passive) {}

fn main() {}
