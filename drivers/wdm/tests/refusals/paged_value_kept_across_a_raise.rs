//! A reference into paged pool does not last to where the level is raised.
use wdm::*;

fn keep(settings: &PagedBox<u32>, passive: &mut Passive) -> u32 {
    let setting = settings.get(passive);
    at_dispatch(passive, |_dispatch| *setting)
}

fn main() {}
