//! `Io*`: drivers, devices, files, IRPs. The names other prefixes call are in the submodules.

pub mod irp;

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
