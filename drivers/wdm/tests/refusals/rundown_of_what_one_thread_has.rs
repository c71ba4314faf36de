//! What is put by one thread is taken by another.
use wdm::*;

fn shared<T: Sync>() {}

fn put() {
    shared::<Rundown<std::sync::MutexGuard<'static, u32>>>();
}

fn main() {}
