//! Pool is allocated at DISPATCH_LEVEL and below.
use wdm::*;

fn isr(dirql: &mut Dirql) {
    let _ = PoolBox::new(1_u32, Tag::new(b"pool"), dirql);
}

fn main() {}
