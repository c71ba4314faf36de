//! A child's buffer is read while the child is here.
use wdm::*;

fn back<T: Function>(device: &Device<T>, mut child: Child<T, u32, 4>, level: &mut DispatchOrBelow) -> u8 {
    let buffer = child.buffer();
    let request = Request::Read { offset: 0, length: 4 };
    let _ = child.send(device, request, again, level);
    buffer[0]
}

fn again<T>(_device: &Device<T>, _child: Child<T, u32, 4>, _ended: Ended, _level: &mut DispatchOrBelow) {}

fn main() {}
