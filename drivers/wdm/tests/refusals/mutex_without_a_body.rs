//! A mutex is held by a body: there is no guard that could be shared between threads.
use wdm::*;

fn forget(mutex: &Mutex<u32>, passive: &mut Passive) {
    core::mem::forget(mutex.lock(passive));
}

fn main() {}
