//! What an administrator sets is any bytes: nothing in it leads to memory.
use wdm::*;

fn set(item: Item<'_>) -> Result<&'static u32> {
    item.value()
}

fn main() {}
