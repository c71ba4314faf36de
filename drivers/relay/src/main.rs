//! `relay_rust.sys`: a filter driver, in Rust, above a function driver that computes factorials (`edu.sys`, `edu_rust.sys`). What goes
//! through it comes back changed, and it asks the driver below on its own account.
//!
//! | request | |
//! | --- | --- |
//! | read | goes down; what comes back has all its bits turned |
//! | C40h, buffered: a number | its output is the sum of the factorials of 1 to that number, asked for by one child after the other |
//! | C41h, buffered: a number | the same, waited for at `PASSIVE_LEVEL` |
//! | C42h, buffered | how many children have come back, and how many requests |
//! | everything else | goes down |
//!
//! Numbers have 32 bits, little endian.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod filter;
mod sum;

use core::sync::atomic::{AtomicU32, Ordering};

use wdm::{Driver, Passive, RegistryPath, Result, Tag};

use filter::Filter;

/// Names the driver's memory in pool listings.
const TAG: Tag = Tag::new(b"RlyR");

/// What all devices share.
struct Relay {
    devices: AtomicU32,
}

impl Driver for Relay {
    type Function = Filter;

    fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> {
        Ok(Self { devices: AtomicU32::new(0) })
    }
}

impl Relay {
    /// The number of the next device.
    fn next_device(&self) -> u32 {
        self.devices.fetch_add(1, Ordering::Relaxed)
    }
}

wdm::driver!(Relay);
