//! `bus_rust.sys`: a bus without hardware, in Rust. What is in its slots is plugged in and out by control codes of `\\.\DirqlBusRustN`, where N is 0
//! for the first bus.
//!
//! | request | |
//! | --- | --- |
//! | C50h, buffered: a slot, and a kind in the second byte | plugs such a child in |
//! | C51h, buffered: a slot | pulls the child of that slot out |
//! | C52h, buffered | its output is how many children there are, and how many bytes they have been written |
//! | C53h, buffered: a slot | pulls it out at `DISPATCH_LEVEL`, as a DPC would |
//!
//! Kind 0 is a `DIRQLBUS\Child`, which another driver drives; 1 a raw port, which this driver answers for itself (`port.rs`); 2 a hub, a bus as
//! this one; 3 a port that cannot be started. Numbers have 32 bits, little endian.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod bus;
mod port;

use core::sync::atomic::{AtomicU32, Ordering};

use wdm::{Driver, Passive, RegistryPath, Result, Tag};

use bus::Slots;

/// Names the driver's memory in pool listings.
const TAG: Tag = Tag::new(b"BusR");

/// What all buses share.
struct BusDriver {
    buses: AtomicU32,
}

impl Driver for BusDriver {
    type Function = Slots;

    fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> {
        Ok(Self { buses: AtomicU32::new(0) })
    }
}

impl BusDriver {
    /// The number of the next bus.
    fn next_bus(&self) -> u32 {
        self.buses.fetch_add(1, Ordering::Relaxed)
    }
}

wdm::bus_driver!(BusDriver);
