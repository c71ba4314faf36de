//! What interrupts: lines and messages, their service routines, DPCs, and routines on all processors at once.
//!
//! The highest room: it may use all the others. `levels::settle` calls it when the level lets something in.
//!
//! An access to a device may change a line, so each ends in a look at the lines; where nothing has changed and nothing waits, it is two
//! comparisons (`interrupt_delivery`). An interrupt's own lock is taken and given back without the general path of `sched::spinlock` when
//! it is free. A DPC queued below DISPATCH_LEVEL where nothing else waits runs in place (`dpc_drain::run_here`), with the events, stack,
//! level and time that a queue of one would have. `ke/tests/short_ways.rs` compares both with the general paths.

pub(crate) mod dpc;
pub(in crate::ke) mod dpc_drain;
pub mod interrupt;
pub(crate) mod interrupt_delivery;
pub(crate) mod ipi;
mod kernel_worker;
pub(crate) mod message;
pub(crate) mod passive_isr;
pub(crate) mod stall;
pub(in crate::ke) mod threaded_dpc;
pub(crate) mod vectors;
pub(crate) mod watchdog;
