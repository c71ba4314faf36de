//! `pci9052.sys`: the function driver of cards with a PLX PCI 9050/9052 that have 64 KiB of local memory and a peripheral
//! which raises LINTi1 when it has ended an operation.
//!
//! An application opens `\\.\Pci9052-0` (or the device interface of [`INTERFACE`]) and
//!
//! - writes and reads local memory, 0 to FFF7h: `StartIo` moves the bytes and rings the peripheral's doorbell, the service
//!   routine claims the interrupt that follows, the DPC completes the request and starts the next one;
//! - waits for an interrupt, reads and writes local configuration registers and EEPROM words, asks for counters: see
//!   [`control`]'s codes.
//!
//! An administrator reads counters by WMI, sets how long a stop waits, and gets an event when that was not enough: see [`wmi`], and `pci9052.mof`. That, and why a card
//! could not be started, is in the event log, too.
//!
//! Reads and writes can be cancelled at any time and wait while the device is stopped or without power. Settings:
//! `StopTimeout` in the service's `Parameters` (ms that a stop waits for the transfer under way; 1000) and `UsePorts` in
//! the device's hardware key (1: reach registers by BAR1 and BAR3, not BAR0 and BAR2).
//!
//! The driver is safe Rust over `wdm`. The chip has no DMA and messages; requests to the power manager are not here yet.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod card;
mod control;
mod eeprom;
mod hardware;
mod isr;
mod registers;
mod transfer;
mod wait;
mod wmi;

use core::sync::atomic::{AtomicU32, Ordering};

use wdm::{Driver, GUID, Line, Name, Passive, RegistryPath, Result, Tag};

use card::Card;

/// Names the driver's memory in pool listings.
const TAG: Tag = Tag::new(b"9052");
/// The class of device interface by which applications find such cards.
const INTERFACE: GUID = GUID::new(0x5d62_4f94, 0x8850, 0x40c3, 0xa3fa_a4fd_2080_baf3);
/// Milliseconds that a stop waits for the transfer under way, where the registry says nothing.
const STOP_TIMEOUT: u32 = 1000;

/// What all cards share.
struct Pci9052 {
    cards: AtomicU32,
    stop_timeout: u32,
}

impl Driver for Pci9052 {
    type Function = Card;

    fn load(registry: &RegistryPath<'_>, passive: &mut Passive) -> Result<Self> {
        let stop_timeout = registry.parameter(&Name::new("StopTimeout"), STOP_TIMEOUT, passive);
        Line::new("pci9052: loaded, stop timeout ").decimal(stop_timeout).text(" ms").print();
        Ok(Self { cards: AtomicU32::new(0), stop_timeout })
    }
}

impl Pci9052 {
    /// The number of the next card.
    fn next_card(&self) -> u32 {
        self.cards.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Pci9052 {
    fn drop(&mut self) {
        Line::new("pci9052: unloaded").print();
    }
}

wdm::driver!(Pci9052);
