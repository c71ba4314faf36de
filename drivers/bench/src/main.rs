//! `bench_rust.sys`: a function driver, in Rust, of dirql's bench card, whose sources interrupt by a message each. It connects them
//! all at once at their level, all at once at `PASSIVE_LEVEL`, or each vector for itself, as `Connect` in the device's hardware key
//! says, and counts what comes in each of these ways.
//!
//! An application opens `\\.\BenchRust-0`:
//!
//! | function | access | input | output | |
//! | --- | --- | --- | --- | --- |
//! | 900h | any | sources | | raises them; ends when each has been served |
//! | 901h | any | | [`counts::Counted`] | how the interrupts are connected, and what came since the start |
//! | 902h | any | whose, source | how often | keeps a routine out, raises a source, and tells how often it was served meanwhile |
//!
//! Codes are buffered; numbers have 32 bits, little endian. There is one device, and no more than eight messages. Requests fail
//! while it has no power.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod card;
mod counts;
mod hardware;
mod isr;

use wdm::{Driver, Passive, RegistryPath, Result, Tag};

use card::Card;

/// Names the driver's memory in pool listings.
const TAG: Tag = Tag::new(b"BncR");
/// The most messages that are served.
const MESSAGES: usize = 8;

/// The driver.
struct Bench;

impl Driver for Bench {
    type Function = Card;

    fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> {
        Ok(Self)
    }
}

wdm::driver!(Bench);
