//! A service routine has no proof for what is paged.
use wdm::*;

struct Isr {
    settings: Shared<PagedBox<u32>>,
}

impl Service for Isr {
    fn service(&mut self, dirql: &mut Dirql) -> Claim {
        if *self.settings.get(dirql) == 0 { Claim::Other } else { Claim::Mine }
    }
}

fn main() {}
