//! What an administrator gets has no bytes that were never set.
use wdm::zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "wdm::zerocopy")]
#[repr(C)]
struct Counters {
    bytes: u64,
    transfers: u32,
}

fn main() {}
