//! Cards with a PCI 9052 whose driver is `pci9052.sys`, for applications: counters, local memory, local configuration registers, interrupts, the EEPROM.
//!
//! One [`Card`] for both places where such a card can be: on Windows (`windows::open`, by the driver's device interface) and on the
//! bench, where dirql runs the driver's own bytes (`bench::with_card`). What the driver is asked stands in [`Card`] alone;
//! a place only carries requests ([`Device`]).

#![deny(unsafe_code)]

#[cfg(not(windows))]
pub mod bench;
mod card;
mod codes;
pub mod eeprom;
mod error;
pub mod registers;
#[cfg(windows)]
pub mod windows;

pub use card::{Card, Counters, Device};
pub use error::{Error, Result};
