//! A proof of a level cannot be made.
use wdm::*;

fn wait() {
    let mut passive = Passive(core::marker::PhantomData);
    delay_milliseconds(1, &mut passive);
}

fn main() {}
