//! Runs a driver's own bytes, natively, inside one deterministic machine.
//!
//! The seams that every floor above relies on: the [`arena`](windows) at constant addresses with its allocator scope,
//! strands with two stacks, the gate through which translated driver code reaches the kernel and comes back,
//! [`Leave`], driver memory through [`Engine::read`] and [`Engine::write`], the instruction clock, the [`Chooser`].
//! It knows no NT: what an export, a fault or a device access means is the [`Guest`]'s business.
//!
//! All `unsafe` of the product but the ABI's and the drivers' own lives here.

mod arena;
mod blocks;
mod by_strand;
pub mod chooser;
mod clock;
mod compares;
mod emergency_log;
mod fill;
mod fresh;
mod gone;
mod guest;
mod heap;
mod host;
pub mod interrupts;
mod jail;
mod laid;
mod leave;
mod machine;
mod memory;
mod nameless;
pub mod outbox;
mod page_set;
mod page_table;
pub mod pass;
mod processor;
mod registers;
mod rewind;
mod root;
mod shadow;
mod sharing;
mod signals;
mod small_blocks;
pub mod standard_output;
mod strand;
mod translate;
mod turn;
mod view;
pub mod windows;

pub use abi::DriverPtr;
pub use by_strand::ByStrand;
pub use chooser::{
    BEFORE_DPC, Chooser, DELAY, Defaults, Delay, DelayPlace, Point, Question, SHARED, SLICE_END, TAKER,
    TO_THE_CHOOSER,
};
pub use compares::{Asked, Compare};
pub use fill::Fill;
pub use guest::{
    Access, AccessKind, Args, Caller, DriverState, Extended, Fault, FaultKind, Guest, MemoryAccess,
    Reference, Reports, Runner, Special, Step, Table, TakeOver, Touch, TouchKind,
};
pub use heap::outside;
pub use host::{Host, StartError};
pub use jail::Jail;
pub use leave::{Flow, Leave};
pub use machine::{Engine, Stack};
pub use memory::{BadAddress, Protection};
pub use processor::Cpu;
pub use registers::{Context, LeftBehind, Registers};
pub use rewind::{Snapshot, Tracking};
pub use root::{Run, Turn};
pub use sharing::mixed;
pub use strand::{Progress, StrandId};
#[doc(hidden)]
pub use translate::encode_for_the_other_maker;
pub use translate::{ANSWERS, Answer, Carried, Moved, RETURN_TO_KERNEL, Short, TakenLock};
pub use view::View;
