//! A service routine runs on any processor.
use wdm::*;

struct Isr {
    shared: *mut u32,
}

impl Service for Isr {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        Claim::Mine
    }
}

fn main() {}
