//! A child that was sent is not its driver's until it comes back.
use wdm::*;

fn send<T: Function>(device: &Device<T>, mut child: Child<T, u32, 4>, level: &mut DispatchOrBelow) {
    let request = Request::Read { offset: 0, length: 4 };
    let _ = child.send(device, request, back, level);
    child.buffer()[0] = 1;
}

fn back<T>(_device: &Device<T>, _child: Child<T, u32, 4>, _ended: Ended, _level: &mut DispatchOrBelow) {}

fn main() {}
