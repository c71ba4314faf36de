//! The devices as a driver engineer meets them: stories over the kernel's `Hardware`.
//!
//! One test program, so that the rig is built once. It knows no private item of the crate.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

mod bench;
mod bus;
mod catalog;
mod config;
mod edu;
mod eeprom;
mod generic;
mod lspci;
mod messages;
mod pci9052;
mod pci9052_bits;
mod pci9052_time;
mod rig;
mod sheet;
mod slave;
