//! Spin locks are taken at DISPATCH_LEVEL and below.
use wdm::*;

fn isr(lock: &SpinLock<u32>, dirql: &mut Dirql) {
    lock.with(dirql, |value, _dispatch| *value += 1);
}

fn main() {}
