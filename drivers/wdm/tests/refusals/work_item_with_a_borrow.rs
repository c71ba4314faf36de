//! What a work item is given must live until it runs.
use wdm::*;

fn later<'a, T: Function>(device: &Device<T>, local: &'a u32, dispatch: &mut Dispatch) {
    let Ok(item) = WorkItem::<T, &'a u32>::new(device, Tag::new(b"work"), dispatch) else { return };
    let _ = item.queue(device, local, run, dispatch);
}

fn run<'a, T>(_device: &Device<T>, _state: &'a u32, _item: WorkItem<T, &'a u32>, _passive: &mut Passive) {}

fn main() {}
