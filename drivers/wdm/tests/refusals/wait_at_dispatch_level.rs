//! The level before cannot be used while it is raised.
use wdm::*;

fn wait(event: &Event, passive: &mut Passive) {
    at_dispatch(passive, |_dispatch| event.wait(passive));
}

fn main() {}
