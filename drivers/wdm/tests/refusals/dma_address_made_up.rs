//! A logical address comes from a buffer or from mapped pages only.
use wdm::*;

fn go() -> LogicalAddress {
    LogicalAddress(0x1000)
}

fn main() {}
