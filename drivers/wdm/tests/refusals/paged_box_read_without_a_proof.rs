//! A paged value has no plain reference: an interrupt could have it.
use wdm::*;

fn read(settings: &PagedBox<u32>) -> u32 {
    **settings
}

fn main() {}
