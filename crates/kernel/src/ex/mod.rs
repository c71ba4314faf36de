//! `Ex*`: work items, lookaside lists, interlocked lists, fast mutexes, resources.

pub mod exception;

use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// How many identifiers `ExUuidCreate` has made.
    pub(crate) uuids: u32,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}
