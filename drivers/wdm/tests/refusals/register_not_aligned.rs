//! A register is aligned.
use wdm::*;

struct Lcr;

impl Block for Lcr {
    const LENGTH: u32 = 0x80;
}

pub const BETWEEN: Register<Lcr, u32> = Register::at(0x12);

fn main() {}
