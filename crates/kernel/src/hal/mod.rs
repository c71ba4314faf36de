//! `Hal*` and what stands below it: hardware, accesses of drivers to it, bus data.

pub mod access;
pub mod bus_data;
pub mod config;
pub mod hardware;
#[cfg(test)]
pub(crate) mod rig;
pub(crate) mod stale;
#[cfg(test)]
mod tests;

use hardware::Hardware;

/// State of this prefix.
pub struct State {
    /// The devices, ports and lines of the machine.
    pub hardware: Box<dyn Hardware>,
    /// What the access that is under way leaves to do.
    pub(crate) after: access::After,
    pub(crate) stale: stale::Stale,
}

impl State {
    /// On this hardware.
    #[must_use]
    pub fn new(hardware: Box<dyn Hardware>) -> Self {
        Self { hardware, after: access::After::Nothing, stale: stale::Stale::default() }
    }
}
