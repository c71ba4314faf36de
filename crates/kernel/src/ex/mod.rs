//! `Ex*`: work items, lookaside lists, interlocked lists, fast mutexes, resources,
//! timers.

pub mod exception;
pub mod fast_mutex;
pub mod list;
pub mod lookaside;
pub mod mode;
pub mod resource;
pub mod slist;
#[cfg(test)]
mod tests;
pub mod timer;
pub mod work_item;

use std::collections::{BTreeMap, BTreeSet};

use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// How many identifiers `ExUuidCreate` has made.
    pub(crate) uuids: u32,
    /// Work items in a queue.
    pub(crate) work_items: BTreeSet<u64>,
    /// Initialized lookaside lists, and the image that did.
    pub(crate) lookasides: BTreeMap<u64, Option<u64>>,
    /// Timers of `ExAllocateTimer`.
    pub(crate) timers: BTreeMap<u64, timer::ExTimer>,
    /// Initialized resources.
    pub(crate) resources: BTreeMap<u64, resource::State>,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}
