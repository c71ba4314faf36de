//! An interrupt service routine cannot tell the PnP manager that a child is gone.
use wdm::*;

fn isr<B: Bus>(device: &Device<B>, dirql: &mut Dirql) {
    device.unplug(|_child| true, dirql);
}

fn main() {}
