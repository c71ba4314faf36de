//! `Ex*`: work items, lookaside lists, interlocked lists, fast mutexes, resources, push locks, reader/writer spin locks,
//! run-down protection, timers.

pub(crate) mod altitude;
pub(crate) mod callback;
pub(crate) mod exception;
pub(crate) mod fast_mutex;
pub(crate) mod firmware;
pub(crate) mod list;
pub(crate) mod lookaside;
pub(crate) mod mode;
pub(crate) mod push_lock;
pub(crate) mod resource;
pub(crate) mod routines;
pub(crate) mod rundown;
pub(crate) mod slist;
pub(crate) mod spinlock;
pub(crate) mod system_information;
#[cfg(test)]
mod tests;
pub(crate) mod timer;
pub(crate) mod work_item;
pub(crate) mod zone;

use std::collections::BTreeMap;

use crate::address_map::AddressMap;
use crate::cx::Kernel;
use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// The threads that wait for another to initialize an `RTL_RUN_ONCE`.
    pub(crate) run_once: BTreeMap<u64, Vec<engine::StrandId>>,
    /// How many locally unique identifiers have been given.
    pub(crate) luids: u64,
    /// What the next number of `rand` follows from.
    pub(crate) random: u32,
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
    /// The threads that wait for the release of run-down protection.
    pub(crate) rundowns: rundown::Waiters,
    /// Fast and guarded mutexes that a thread owns, and the moment when it acquired each.
    pub(crate) mutexes: AddressMap<u64>,
    /// Events of fast mutexes that a thread waits for.
    pub(crate) contended: Vec<u64>,
    /// Callback objects.
    pub(crate) callbacks: callback::State,
    /// Initialized resources.
    pub(crate) resources: BTreeMap<u64, resource::State>,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self { random: 1, ..Self::default() }
    }
}

/// Whether [`in_use`] finds nothing anywhere.
#[inline]
pub(crate) fn is_nothing_in_use(k: &Kernel) -> bool {
    k.ex.push_locks.is_empty() && k.ex.rundowns.is_empty()
}

/// What lies in memory that is about to be freed and a thread holds or waits for.
pub(crate) struct InUse {
    pub(crate) at: u64,
    /// What it is.
    pub(crate) what: &'static str,
    /// When it was acquired, each time.
    pub(crate) acquired: Vec<u64>,
    /// The current thread has it, and no other has or wants it.
    pub(crate) is_own: bool,
}

/// What a thread holds or waits for in `base..base+length`.
pub(crate) fn in_use(k: &Kernel, base: u64, length: u64) -> Option<InUse> {
    if is_nothing_in_use(k) {
        return None;
    }
    let within = base..base.saturating_add(length);
    let strand = k.ke.processor().thread;
    let lock = k.ex.push_locks.range(within.clone()).next();
    let lock = lock.map(|(at, state)| InUse {
        at: *at,
        what: "push lock",
        acquired: push_lock::acquired(k, *at),
        is_own: state.is_alone(strand),
    });
    let awaited = || k.ex.rundowns.range(within).next();
    lock.or_else(|| {
        let (at, _) = awaited()?;
        Some(InUse { at: *at, what: "run-down protection", acquired: Vec::new(), is_own: false })
    })
}
