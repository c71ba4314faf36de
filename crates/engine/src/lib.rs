//! Runs a driver's own bytes, natively, inside one deterministic machine.
//!
//! The seams that every floor above relies on: the [`arena`](windows) at constant addresses with its allocator scope,
//! strands with two stacks, the gate through which translated driver code reaches the kernel and comes back,
//! [`Leave`], driver memory through [`Engine::read`] and [`Engine::write`], the instruction clock, the [`Chooser`].
//! It knows no NT: what an export, a fault or a device access means is the [`Guest`]'s business.
//!
//! All `unsafe` of the product but the ABI's and the drivers' own lives here.

pub mod chooser;
mod clock;
mod guest;
mod heap;
mod leave;
mod machine;
mod memory;
mod registers;
mod signals;
mod strand;
mod translate;
pub mod windows;

pub use abi::DriverPtr;
pub use chooser::{Chooser, Defaults, Point};
pub use guest::{Access, Args, Caller, Fault, FaultKind, Guest, Special};
pub use heap::outside;
pub use leave::{Flow, Leave};
pub use machine::{Engine, Stack, StartError};
pub use memory::{BadAddress, Protection};
pub use registers::Registers;
pub use strand::{Progress, StrandId};
pub use translate::RETURN_TO_KERNEL;
