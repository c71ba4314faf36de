//! `Mm*`, pool: physical pages, pool, MDLs, mappings of device memory.

pub(crate) mod accessed;
pub(crate) mod accesses;
pub(crate) mod bus_master;
pub(crate) mod code_integrity;
pub(crate) mod contiguous;
pub(crate) mod copy;
pub(crate) mod dense;
pub(crate) mod io_space;
pub(crate) mod map;
pub(crate) mod mdl;
pub(crate) mod mdl_adjust;
pub(crate) mod mdl_lock;
pub(crate) mod mdl_map;
pub(crate) mod mdl_pages;
pub mod memory;
pub(crate) mod paging;
pub(crate) mod physical;
pub(crate) mod physical_access;
pub mod pool;
pub mod pool_check;
pub(crate) mod pool_exports;
pub(crate) mod pool_own;
#[cfg(test)]
mod pool_tests;
pub(crate) mod query_memory;
pub(crate) mod ranges;
pub mod ready;
pub(crate) mod reserved;
#[cfg(test)]
pub(crate) mod rig;
pub(crate) mod section;
pub(crate) mod shadow;
pub(crate) mod space;
pub(crate) mod spaces;
pub mod special_pool;
pub mod stack;
#[cfg(test)]
mod tests;
pub mod user;
pub(crate) mod user_access;
pub(crate) mod view;
pub(crate) mod view_exports;
pub(crate) mod virtual_memory;
mod zeroed;

use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// How drivers use applications' memory.
    pub(crate) user_access: user_access::State,
    /// Physical pages.
    pub physical: physical::Physical,
    /// Virtual addresses in use.
    pub space: space::Space,
    /// Page tables.
    pub map: map::Map,
    /// Ranges that wait, mapped.
    pub(crate) ready: ready::State,
    /// Ranges that lie side by side.
    pub dense: dense::State,
    /// Blocks of pool.
    pub pool: pool::State,
    /// Which of them lie on pages of their own.
    pub(crate) special_pool: special_pool::SpecialPool,
    /// What a checked machine knows of them besides.
    pub(crate) shadow: shadow::State,
    /// What MDLs hold.
    pub mdl: mdl::State,
    /// Device memory.
    pub io_space: io_space::State,
    /// Contiguous and noncached memory.
    pub contiguous: contiguous::State,
    /// Addresses reserved for mappings.
    pub reserved: reserved::State,
    /// Applications' memory.
    pub user: user::State,
    /// Sections.
    pub section: section::State,
    /// Their views.
    pub view: view::State,
    /// What processes have allocated.
    pub spaces: spaces::State,
    /// What of it is secured.
    pub virtual_memory: virtual_memory::State,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let special_pool = settings.special_pool.with(settings.verifier);
        let mut physical = physical::Physical::new(settings.memory);
        if settings.platform.low_memory {
            physical.keep_runs_low();
        }
        Self { physical, special_pool, ..Self::default() }
    }
}
