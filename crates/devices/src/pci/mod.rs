//! PCI as a driver's machine has it: one bus, functions in slots, configuration space, windows, interrupt lines,
//! messages.
//!
//! Follows the PCI Local Bus Specification 3.0. A card is a [`Model`]; [`PciBus`] owns the cards and everything that is
//! the same for all of them. It has no bridges and no second bus. Writes arrive at once: posting, which is a choice of
//! the machine, is not modelled here yet.

mod assign;
mod bus;
mod config;
mod express;
mod header;
mod message;
mod model;
mod msi;
mod msix;
mod power;

pub use assign::{PlacementError, legacy_irq};
pub(crate) use bus::PME;
pub use bus::PciBus;
pub(crate) use express::{ERRORS, EXPRESS, EXTENDED};
pub use header::{Bar, Header, Location, Messages, Place, PowerManagement};
pub(crate) use model::level;
pub use model::{Access, Master, Model, Placement};
pub(crate) use power::VERSION as POWER_VERSION;

pub use crate::isa_dma::Moved;
