//! `Ob*`: names, references, handles.
//!
//! Bodies of objects are driver-visible memory and belong to their makers; what the object manager knows about
//! them is here, by address.

pub(crate) mod account;
pub(crate) mod attributes;
pub(crate) mod callbacks;
pub(crate) mod directory;
pub mod duplicate;
pub mod handle;
pub(crate) mod names;
pub mod object;
pub(crate) mod object_type;
pub(crate) mod query;
pub(crate) mod string;

use crate::address_map::AddressMap;
use crate::nt::Settings;
use crate::sorted_map::SortedMap;

pub use handle::Handle;
pub use object::{Kind, Object, Procedures};

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// The tree of names.
    pub names: names::Names,
    /// All objects by the address of their bodies.
    pub objects: AddressMap<Object>,
    /// Handles, by process (0: the kernel's own, which is the system process's).
    pub(crate) tables: SortedMap<u64, handle::Table>,
    /// Directories and symbolic links that are open.
    pub(crate) opened: directory::State,
    /// References that drivers have taken.
    pub(crate) account: account::State,
    /// Drivers that filter handles of processes and threads.
    pub(crate) callbacks: callbacks::State,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}
