//! A register is written as wide as it is.
use wdm::*;

struct Lcr;

impl Block for Lcr {
    const LENGTH: u32 = 0x80;
}

const STATUS: Register<Lcr, u16> = Register::at(0x12);

fn clear(window: &MemoryWindow<Lcr>) {
    window.write(STATUS, 0_u32);
}

fn main() {}
