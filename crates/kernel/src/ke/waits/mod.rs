//! Dispatcher objects and those that wait for them: events, mutexes, semaphores, queues, timers, threads; and APCs, which come in a wait.
//!
//! Above `calls` and `sched`. Of `irq` above it knows three things: a timer queues its DPC, and two kinds of threads there must not wait.
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
