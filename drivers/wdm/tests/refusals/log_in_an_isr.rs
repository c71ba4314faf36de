//! An entry of the event log takes memory: it is written at DISPATCH_LEVEL and below.
use wdm::*;

fn isr<T: Function>(device: &Device<T>, entry: &LogEntry, dirql: &mut Dirql) {
    device.log(entry, &[1], dirql);
}

fn main() {}
