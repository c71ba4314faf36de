//! Who holds a spin lock does not wait.
use wdm::*;

fn wait(lock: &SpinLock<u32>, passive: &mut Passive) {
    lock.with(passive, |_value, _dispatch| delay_milliseconds(1, passive));
}

fn main() {}
