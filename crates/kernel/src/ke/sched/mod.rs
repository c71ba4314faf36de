//! Threads on processors: whose turn it is, how long it lasts, and what a turn may use up.
//!
//! Above `timing` and `levels`. A turn looks for interrupts and due timers when it begins and when its slice ends, and so `scheduler`,
//! `slice` and `spin` name `irq::interrupt_delivery` and `waits::timer` above; verdicts on what never goes on are worded by `stuck`.
//!
//! A slice is set once and ends at whatever comes first: a deadline, the quantum, the policy's question, a look at a busy wait. No event
//! depends on where slices end; so the fast path of switches (`switch_fast`) keeps a slice that serves the next thread too
//! (`slice::serves`), and else leaves the work to `scheduler`. Guards ask the cheap question first: whether any thread is ready, whether
//! there is one processor, whether the chooser can depart at all. The flag of the last is computed anew on each turn.
//!
//! Threads lie in a list by strand (`threads`), so that finding the current one is an index and a comparison. What returns through a switch
//! of stacks mispredicts each return, so `suspend` and `run_turn` are always inlined into their callers.

pub(crate) mod affinity;
mod assign_processor;
pub(crate) mod budget;
pub(crate) mod node;
pub mod patience;
pub(crate) mod priority;
pub(crate) mod processor;
pub(in crate::ke) mod ready;
pub(crate) mod region;
pub mod scheduler;
pub(crate) mod slice;
pub(in crate::ke) mod spin;
pub(crate) mod spinlock;
pub(in crate::ke) mod switch_fast;
pub(in crate::ke) mod thread_record;
pub(in crate::ke) mod threads;
