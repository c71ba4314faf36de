//! `Cm*`, `Zw*Key`: the registry.

use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}
