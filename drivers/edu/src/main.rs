//! `edu_rust.sys`: the function driver, in Rust, of QEMU's educational device (docs/specs/edu.rst there).
//!
//! An application opens `\\.\EduRust-0`: each request is pended, given to the card when its turn comes, and completed by the DPC
//! after the card's interrupt, a message if the INF allows it and the line otherwise. Writes go by DMA into the card's buffer at the
//! request's offset, reads come from there, both through a common buffer; a direct request comes from there into the application's
//! own pages.
//!
//! | function | access | input | output | |
//! | --- | --- | --- | --- | --- |
//! | C00h | any | number | its factorial, 32 bits of it | waits its turn, and can be cancelled until then |
//! | C01h | any | | version, messages, level, interrupts, passed on | how the interrupt is connected, and what came since the start |
//!
//! | C02h | any | | the card's buffer, and again from its beginning | direct (`METHOD_OUT_DIRECT`), of any length |
//! | C03h | any | offset | up to 16 bytes of configuration space from there | as many as there are |
//!
//! The other codes are buffered; numbers have 32 bits, little endian. Requests wait while the device is stopped or without power.
//! The INF's `DmaBits` says how wide the card's addresses are.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod card;
mod hardware;
mod transfer;
mod work;

use core::sync::atomic::{AtomicU32, Ordering};

use wdm::{Driver, Passive, RegistryPath, Result, Tag};

use card::Card;

/// Names the driver's memory in pool listings.
const TAG: Tag = Tag::new(b"EduR");

/// What all cards share.
struct Edu {
    cards: AtomicU32,
}

impl Driver for Edu {
    type Function = Card;

    fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> {
        Ok(Self { cards: AtomicU32::new(0) })
    }
}

impl Edu {
    /// The number of the next card.
    fn next_card(&self) -> u32 {
        self.cards.fetch_add(1, Ordering::Relaxed)
    }
}

wdm::driver!(Edu);
