//! `Ex*`: work items, lookaside lists, interlocked lists, fast mutexes, resources, push locks, reader/writer spin locks,
//! run-down protection, timers.

pub mod exception;
pub mod fast_mutex;
pub mod list;
pub mod lookaside;
pub mod mode;
pub mod push_lock;
pub mod resource;
pub mod rundown;
pub mod slist;
pub mod spinlock;
#[cfg(test)]
mod tests;
pub mod timer;
pub mod work_item;

use std::collections::BTreeMap;

use crate::address_map::AddressMap;
use crate::cx::Kernel;
use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// How many identifiers `ExUuidCreate` has made.
    pub(crate) uuids: u64,
    /// Work items in a queue, with the moment when they were put there.
    pub(crate) work_items: BTreeMap<u64, u64>,
    /// Initialized lookaside lists, and the image that did.
    pub(crate) lookasides: BTreeMap<u64, Option<u64>>,
    /// Timers of `ExAllocateTimer`.
    pub(crate) timers: BTreeMap<u64, timer::ExTimer>,
    /// Push locks that a thread holds.
    pub(crate) push_locks: BTreeMap<u64, push_lock::State>,
    /// Who waits for the release of run-down protection.
    pub(crate) rundowns: rundown::Waiters,
    /// Fast and guarded mutexes that a thread owns, and the moment when it acquired each.
    pub(crate) mutexes: AddressMap<u64>,
    /// Events of fast mutexes that a thread waits for.
    pub(crate) contended: Vec<u64>,
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

/// Whether [`in_use`] finds nothing anywhere.
#[inline]
pub(crate) fn is_nothing_in_use(k: &Kernel) -> bool {
    k.ex.push_locks.is_empty() && k.ex.rundowns.is_empty()
}

/// What a thread holds or waits for in `base..base+length`, what it is, and when it was acquired: memory that is about to be freed.
pub(crate) fn in_use(k: &Kernel, base: u64, length: u64) -> Option<(u64, &'static str, Vec<u64>)> {
    if is_nothing_in_use(k) {
        return None;
    }
    let within = base..base.saturating_add(length);
    let lock = k.ex.push_locks.range(within.clone()).next();
    let lock = lock.map(|(at, _)| (*at, "push lock", push_lock::acquired(k, *at)));
    let awaited = || k.ex.rundowns.range(within).next();
    lock.or_else(|| awaited().map(|(at, _)| (*at, "run-down protection", Vec::new())))
}
