//! `Cm*`: the registry. `registry` is the tree, `boot` what is in it at first, the rest is what drivers call.

pub mod access;
mod boot;
pub mod registry;

use crate::nt::Settings;

/// State of this prefix.
pub struct State {
    /// The tree.
    pub registry: registry::Registry,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut registry = registry::Registry::default();
        boot::fill(&mut registry, settings);
        Self { registry }
    }
}
