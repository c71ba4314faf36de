//! The value of an item lies in the request's buffer, which is gone with it.
use wdm::*;

struct Kept(Option<Item<'static>>);

fn set(kept: &mut Kept, item: Item<'_>) {
    kept.0 = Some(item);
}

fn main() {}
