//! `Mm*`, pool: physical pages, pool, MDLs, mappings of device memory.

pub mod map;
pub mod physical;
pub mod pool;
pub mod pool_check;
pub mod pool_exports;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
pub(crate) mod rig;
pub mod space;
pub mod stack;

use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// Physical pages.
    pub physical: physical::Physical,
    /// Virtual addresses in use.
    pub space: space::Space,
    /// Page tables.
    pub map: map::Map,
    /// Blocks of pool.
    pub pool: pool::State,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}
