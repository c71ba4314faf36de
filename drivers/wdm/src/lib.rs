//! The crate a Windows driver is written in: stable Rust and `rust-lld`, without WDK.
//!
//! Windows refuses an IRQL mistake when it runs, with a blue screen; this crate refuses it when it compiles. A routine is
//! given a proof of the level it runs at ([`Passive`], [`Dispatch`], [`Dirql`]) and what may be called there takes that
//! proof. Registers have types, what a driver takes it owns and gives back by dropping it, and a request ([`Irp`]) has
//! exactly one owner. A driver implements [`Driver`] and [`Function`], names itself with [`driver!`], and needs no
//! `unsafe`.
//!
//! It follows Microsoft's pages; each module names its own. There is no WMI yet.
#![cfg_attr(not(test), no_std)]

mod child;
mod device;
mod direct;
mod dma;
mod dpc;
mod driver;
mod event;
#[cfg(test)]
mod fake;
mod interface;
mod interrupt;
mod irp;
pub mod irql;
mod lock;
mod packet;
mod panic;
mod pnp;
mod pool;
mod power;
mod print;
mod queue;
mod raw;
pub mod register;
mod registry;
mod remove_lock;
mod resource;
mod rundown;
mod shared_bytes;
mod slot;
mod sys;
#[cfg(test)]
mod tests;
mod text;
mod timer;
mod window;
mod work_item;

pub use abi::{self, GUID, NtStatus};

pub use child::{Child, Ended, Request};
pub use device::{Device, Pdo};
pub use direct::{Destination, Source};
pub use dma::{BusMaster, Caching, CommonBuffer, CommonBuffers, DmaAdapter, Element, LogicalAddress, Mapped};
pub use driver::{Driver, Function, Transfers};
pub use event::{Event, Mutex, delay_milliseconds, stall_microseconds};
pub use interface::{DeviceInterface, SymbolicLink};
pub use interrupt::{
    Claim, Interrupt, Message, MessageService, MessageTable, Messages, PassiveMessageService,
    PassiveMessages, PassiveService, Service,
};
pub use irp::{Answer, Control, FileId, Irp, PendingIrp, Returned, Transfer};
pub use irql::{AtMostDispatch, Dirql, Dispatch, DispatchOrBelow, Passive, at_dispatch};
pub use lock::SpinLock;
pub use packet::Packet;
pub use panic::PANIC_BUGCHECK;
pub use pnp::Stop;
pub use pool::{PoolBox, Shared, Tag};
pub use print::Line;
pub use queue::{IrpQueue, Refused};
pub use register::{Block, PortWidth, Register, Width};
pub use registry::RegistryPath;
pub use resource::{
    InterruptLine, MemoryRange, MessageVector, MessageVectors, PortRange, Resource, Resources,
};
pub use rundown::{Rundown, User};
pub use shared_bytes::OutOfBuffer;
pub use slot::Slot;
pub use text::Name;
pub use timer::Timer;
pub use window::{MemoryWindow, OutOfWindow, PortWindow, Window};
pub use work_item::WorkItem;

/// What [`driver!`] expands to uses these; a driver does not.
#[doc(hidden)]
pub mod entry {
    pub use abi::{DRIVER_OBJECT, UNICODE_STRING};

    pub use crate::driver::{DriverCell, Entry, enter};
}

/// A value, or the status that says why there is none.
pub type Result<T> = core::result::Result<T, NtStatus>;
