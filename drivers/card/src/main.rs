//! `card_rust.sys`: a function driver, in Rust, of dirql's bench card with memory (`bench,ram`): what `card.sys` does in C by stories,
//! it does for an application. Its device is \\.\CardRust-0.
//!
//! Reads and writes are direct, at any offset of the card's 64 KiB: the application's pages are mapped, the card reads of them in a list
//! that lies in a common buffer, moves the bytes itself, and interrupts. Control codes:
//!
//! | function | method | input | output | |
//! | --- | --- | --- | --- | --- |
//! | E00h | in direct | offset | pages | copies them to the card's memory, by the processor |
//! | E01h | out direct | offset | pages | copies the card's memory to them, by the processor |
//! | E02h | buffered | milliseconds | how many such before | a work item sleeps as long, and ends the request |
//! | E03h | buffered | milliseconds, times | | a work item sleeps as long, as often; the request ends at once |
//! | E04h | buffered | a mistake of [`transfer`] | | the next transfer makes it |
//! | E05h | buffered | | interrupts, transfers | what came since the start |
//! | E06h | buffered | 1 or 0 | | 1: reads and writes are copied by the processor, too |
//! | E07h | buffered | a fault of [`fault`] | | makes it |
//! | E08h | neither | bytes | | copies them to the card's memory, at 0 |
//! | E09h | neither | offset, milliseconds | pages | a work item sleeps as long, and copies the card's memory to them |
//! | E0Ah | buffered | a number below 100 | its square | reads it from paged pool |
//!
//! Numbers have 32 bits, little endian. There is one device. Requests fail while it has no power.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod card;
mod control;
mod fault;
mod gate;
mod hardware;
mod transfer;

use wdm::{Driver, Passive, RegistryPath, Result, Tag};

use card::Card;

/// Names the driver's memory in pool listings.
const TAG: Tag = Tag::new(b"CrdR");

/// The driver.
struct TheDriver;

impl Driver for TheDriver {
    type Function = Card;

    fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> {
        Ok(Self)
    }
}

wdm::driver!(TheDriver);
