//! Pages are mapped for a card at DISPATCH_LEVEL.
use wdm::*;

fn begin<T: Function>(device: &Device<T>, adapter: &DmaAdapter, irp: PendingIrp, passive: &mut Passive) {
    let _ = device.map(adapter, irp, 0..1, go, passive);
}

fn go<T>(_device: &Device<T>, _mapped: Mapped, _dispatch: &mut Dispatch) {}

fn main() {}
