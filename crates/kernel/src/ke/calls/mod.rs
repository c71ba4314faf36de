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
