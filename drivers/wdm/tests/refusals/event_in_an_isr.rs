//! Events are set at DISPATCH_LEVEL and below.
use wdm::*;

fn isr(event: &Event, dirql: &mut Dirql) {
    event.set(dirql);
}

fn main() {}
