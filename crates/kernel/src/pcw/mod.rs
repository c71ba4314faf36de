//! `Pcw*`: performance counters, version 2, that drivers provide.
//!
//! Pages: *PcwRegister function*, *PcwUnregister function*, *PcwCreateInstance function*, *PcwCloseInstance function*, *PcwAddInstance function*, *PCW_CALLBACK
//! callback function*. `provider` is what a driver registers, `instance` what it keeps open for the system to read, `query` who asks: first the
//! instances that are open, then the callback. Whether names of instances are unique is not looked at; there are no silos. No page says which
//! numbers instances of `PcwCreateInstance` get: they are counted from 0 in each registration.

pub(crate) mod instance;
pub(crate) mod provider;
pub mod query;

use std::collections::BTreeMap;

use abi::{Code, DriverPtr};
use engine::Leave;

use crate::cx::{Cx, Kernel};
use crate::ex::routines::Routines;
use crate::mm::pool;
use crate::verdict::Verdict;

const TAG: u32 = pool::tag(b"Pcw ");

/// Where a counter lies in the data of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Counter {
    id: u16,
    /// Which block of data.
    block: usize,
    offset: u64,
    size: u64,
}

/// A block of data that the driver has given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Block {
    address: u64,
    size: u64,
}

/// An instance of `PcwCreateInstance`.
struct Instance {
    /// Its handle.
    at: u64,
    name: String,
    id: u32,
    blocks: Vec<Block>,
}

/// A counter set that is registered.
struct Set {
    /// Its handle.
    at: u64,
    name: String,
    counters: Vec<Counter>,
    /// Its callback, if it has one.
    callback: Routines,
    instances: Vec<Instance>,
    /// The number of the next instance.
    next_id: u32,
    /// The image that has registered it, and where.
    owner: Option<u64>,
    caller: u64,
}

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// In the order of their registration.
    sets: Vec<Set>,
    /// Queries in progress, by the buffers that callbacks were given.
    gathering: BTreeMap<u64, query::Gathering>,
}

impl State {
    fn set(&mut self, at: u64) -> Option<&mut Set> {
        self.sets.iter_mut().find(|set| set.at == at)
    }

    /// The code of all callbacks.
    pub(crate) fn all(&self) -> impl Iterator<Item = DriverPtr<Code>> {
        self.sets.iter().flat_map(|set| set.callback.code())
    }
}

/// A counter set, found by its handle at each use.
fn callback_of(at: u64) -> impl Fn(&mut Kernel) -> Option<&mut Routines> {
    move |k: &mut Kernel| Some(&mut k.pcw.set(at)?.callback)
}

/// The verdict on a handle that is none: Windows takes it for a pointer.
fn no_handle(cx: &mut Cx<'_>, ddi: &str, handle: u64, what: &str) -> Leave {
    let message = format!("{ddi} was called with {handle:#x}, which is no {what}");
    cx.stop(Verdict::error("not-a-counter-handle", message))
}
