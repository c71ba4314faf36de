//! `Hal*` and what stands below it: hardware, accesses of drivers to it, bus data.

pub mod access;
pub mod bus_data;
pub mod config;
pub mod hardware;
pub mod platform;
#[cfg(test)]
pub(crate) mod rig;
pub(crate) mod stale;
#[cfg(test)]
mod tests;

use hardware::Hardware;
use platform::Platform;

/// State of this prefix.
pub struct State {
    /// The devices, ports and lines of the machine.
    pub hardware: Box<dyn Hardware>,
    /// What stands between it and the processors.
    pub platform: Platform,
    /// What the access that is under way leaves to do.
    pub(crate) after: access::After,
    pub(crate) stale: stale::Stale,
}

impl State {
    /// On this hardware.
    #[must_use]
    pub fn new(hardware: Box<dyn Hardware>, platform: Platform) -> Self {
        Self { hardware, platform, after: access::After::Nothing, stale: stale::Stale::default() }
    }
}
