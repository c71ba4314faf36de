//! Modelled PCI hardware: a bus with configuration space, and cards to put on it.
//!
//! [`pci::PciBus`] answers the kernel's [`kernel::hal::hardware::Hardware`]; a card is a [`pci::Model`]; [`parse`]
//! makes one from what a user typed (`pci9052,latency=50us`) and [`catalog()`] lists what can be typed. Everything is a
//! deterministic function of the calls made and the times handed in. It does no I/O, and knows no driver and no IRQL.
#![forbid(unsafe_code)]

pub mod bench;
mod bits;
mod catalog;
mod declared;
pub mod edu;
pub mod generic;
mod isa_dma;
pub mod pci;
pub mod pci9052;
mod plan;
mod ram;
mod register;
pub mod root;
mod sheet;
pub mod slave;
mod spec;
pub mod suggest;

pub use catalog::{Entry, Key, PLACEMENT, Signal, catalog, parse};
pub use spec::{ReadFile, SpecError};
