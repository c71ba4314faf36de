//! Paged pool is read where it may be brought in.
use wdm::*;

fn read(settings: &PagedBox<[u32; 4]>, dispatch: &mut Dispatch) -> u32 {
    settings.get(dispatch)[0]
}

fn main() {}
