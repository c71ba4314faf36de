//! What a mutex guards does not leave it.
use wdm::*;

fn keep<'a>(mutex: &'a Mutex<u32>, passive: &mut Passive) -> &'a mut u32 {
    mutex.with(passive, |value, _passive| value)
}

fn main() {}
