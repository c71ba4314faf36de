//! Ports have 32 bits at most.
use wdm::*;

struct Lcr;

impl Block for Lcr {
    const LENGTH: u32 = 0x80;
}

fn read(ports: &PortWindow<Lcr>, register: Register<Lcr, u64>) -> u64 {
    ports.read(register)
}

fn main() {}
