//! What a lock guards does not leave it.
use wdm::*;

fn keep<'a>(lock: &'a SpinLock<u32>, passive: &mut Passive) -> &'a mut u32 {
    lock.with(passive, |value, _dispatch| value)
}

fn main() {}
