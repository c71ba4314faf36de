//! A work item that is queued is not its driver's.
use wdm::*;

fn twice<T: Function>(device: &Device<T>, item: WorkItem<T, u32>, dispatch: &mut Dispatch) {
    let _ = item.queue(device, 1, run, dispatch);
    let _ = item.queue(device, 2, run, dispatch);
}

fn run<T>(_device: &Device<T>, _state: u32, _item: WorkItem<T, u32>, _passive: &mut Passive) {}

fn main() {}
