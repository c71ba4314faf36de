//! Calls of drivers' routines: the checks around them, the stacks they run on, and the exceptions that end them.
//!
//! Above `sched`. It knows nothing of what a routine is for: `waits`, `irq` and the other prefixes call [`callout`] with a role.
//!
//! `callout` has two ways to call: `call_routine`, which emits events and looks at everything that the routine must leave as it found it,
//! and `try_begin` with `called`, in which the caller's borrow of the kernel does both sides in one look. Words for a verdict are put
//! together out of line, when there is one.

pub(crate) mod attach;
pub(crate) mod callout;
pub mod depth;
pub(crate) mod exception;
pub(crate) mod expand;
pub(crate) mod extended;
pub(crate) mod fault;
pub(crate) mod handler;
pub mod stack;
pub(crate) mod system_service;

use std::collections::BTreeMap;

use crate::nt::Settings;

/// What this room keeps.
pub(crate) struct State {
    /// The greatest stack depth seen of any thread's driver stack that is gone already.
    deepest_stacks: BTreeMap<String, u64>,
    /// Bytes of each kernel stack.
    kernel_stack: u64,
    /// How deep routines of drivers went, if that is asked for.
    depths: Option<depth::State>,
}

impl State {
    /// As at boot.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            deepest_stacks: BTreeMap::new(),
            kernel_stack: settings.stack,
            depths: settings.stack_depths.then(depth::State::default),
        }
    }

    /// Bytes of each kernel stack.
    pub(in crate::ke) fn stack_bytes(&self) -> u64 {
        self.kernel_stack
    }

    /// A stack of this name was used so deep.
    pub(super) fn note_depth(&mut self, name: &str, depth: u64) {
        stack::note_depth(&mut self.deepest_stacks, name, depth);
    }
}
