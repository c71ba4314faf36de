//! Dispatcher objects and those that wait for them: events, mutexes, semaphores, queues, timers, threads; and APCs, which come in a wait.
//!
//! Above `calls` and `sched`. Of what is above it knows that a timer queues its DPC, that a wait is looked at in threaded DPCs and in
//! routines at PASSIVE_LEVEL (`irq`), the words for objects (`who_waits`), where objects may lie (`pageable_object`), the order of locks (`lock_order`), and the routines that a stopping system calls at a thread's end.
//!
//! An object's state is its memory: drivers read it, and may damage it, so each look checks the header. Who waits is known here by address
//! ([`State`]), and the lists in driver memory are kept the same.
//! `wait_fast` is the ordinary wait (one object, for ever) and the ordinary signal (an event, one thread): they look at everything they
//! need, change nothing unless all is ordinary, and emit what `wait` and `dispatcher` would. `ke/tests/fast_waits.rs` compares them.
//! What an APC delivers without calling a routine is done in place (`apc::take`), with no change of level, unless a reader reads levels.

pub(crate) mod apc;
pub(crate) mod dispatcher;
pub mod event;
pub(crate) mod guarded_mutex;
pub mod integrity;
pub(crate) mod links;
pub(crate) mod mutex;
pub(crate) mod nt_timer;
pub(crate) mod queue;
pub(crate) mod semaphore;
pub mod thread;
pub(crate) mod timer;
pub mod user_apc;
pub mod wait;
pub(in crate::ke) mod wait_fast;

use engine::StrandId;

use crate::few::Few;
use crate::sorted_map::SortedMap;

/// What this room keeps.
#[derive(Default)]
pub(crate) struct State {
    /// The threads that wait for an object, by its address, in the order of arrival.
    waits: SortedMap<u64, Few<StrandId, 2>>,
    /// How many APCs are queued to threads, in all.
    apcs: usize,
}

impl State {
    /// Whether no thread waits for an object.
    #[inline]
    pub(super) fn is_no_thread_waiting(&self) -> bool {
        self.waits.is_empty()
    }

    /// Whether a thread waits for the object at this address.
    #[inline]
    pub(crate) fn is_awaited(&self, object: u64) -> bool {
        !self.waits.is_empty() && self.waits.contains_key(&object)
    }

    /// Whether no thread has an APC to run.
    #[inline]
    pub(super) fn is_no_apc_queued(&self) -> bool {
        self.apcs == 0
    }
}
