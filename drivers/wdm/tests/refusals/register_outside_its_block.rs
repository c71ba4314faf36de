//! A register lies inside its block.
use wdm::*;

struct Lcr;

impl Block for Lcr {
    const LENGTH: u32 = 0x80;
}

pub const BEYOND: Register<Lcr, u32> = Register::at(0x80);

fn main() {}
