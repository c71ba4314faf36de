//! `Cm*`: the registry. `registry` is the tree, `boot` what is in it at first, `callbacks` who filters it, `application` what applications ask of it, `absent`
//! what drivers ask for and what is not there; the rest is what drivers call.

pub mod absent;
pub mod access;
pub mod application;
mod boot;
pub(crate) mod callbacks;
mod information;
pub(crate) mod key;
pub mod registry;
pub(crate) mod relative;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod value;

use std::collections::BTreeMap;

use crate::nt::Settings;

/// State of this prefix.
pub struct State {
    /// The tree.
    pub registry: registry::Registry,
    /// Which key an open key object stands for, by the object's body.
    pub(crate) open: BTreeMap<u64, registry::KeyId>,
    /// Drivers that filter it.
    pub(crate) callbacks: callbacks::State,
    /// What drivers have asked for and what was not there, in the order in which they did.
    pub absent: Vec<absent::Absent>,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut registry = registry::Registry::default();
        boot::fill(&mut registry, settings);
        Self { registry, open: BTreeMap::new(), callbacks: callbacks::State::default(), absent: Vec::new() }
    }
}
