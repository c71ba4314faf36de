//! A spin lock is held by a body: there is no guard that could be forgotten, and the level with it.
use wdm::*;

fn forget(lock: &SpinLock<u32>, passive: &mut Passive) {
    core::mem::forget(lock.lock(passive));
    delay_milliseconds(1, passive);
}

fn main() {}
