//! A child's bus is there as long as the child, and no longer: a visit lends both.
use wdm::*;

fn keep<B: Bus>(device: &Device<B>, level: &mut DispatchOrBelow) {
    let mut kept = None;
    device.visit_children(|child, _dispatch| kept = Some(child.bus()), level);
    let _bus: Option<&Device<B>> = kept;
}

fn main() {}
