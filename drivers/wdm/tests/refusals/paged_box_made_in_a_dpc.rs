//! Paged pool is had at PASSIVE_LEVEL.
use wdm::*;

fn make(dispatch: &mut Dispatch) -> Result<PagedBox<u32>> {
    PagedBox::new(1, Tag::new(b"page"), dispatch)
}

fn main() {}
