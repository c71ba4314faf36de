//! A window has the registers of its block.
use wdm::*;

struct Lcr;

impl Block for Lcr {
    const LENGTH: u32 = 0x80;
}

struct Ram;

impl Block for Ram {
    const LENGTH: u32 = 0x1000;
}

fn read(window: &MemoryWindow<Ram>, register: Register<Lcr, u32>) -> u32 {
    window.read(register)
}

fn main() {}
