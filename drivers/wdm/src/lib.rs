//! The crate a Windows driver is written in: stable Rust and `rust-lld`, without WDK.
//!
//! Windows refuses an IRQL mistake when it runs, with a blue screen; this crate refuses it when it compiles. A routine is
//! given a proof of the level it runs at ([`Passive`], [`Dispatch`], [`Dirql`]) and what may be called there takes that
//! proof. Registers have types, what a driver takes it owns and gives back by dropping it, and a request ([`Irp`]) has
//! exactly one owner. A driver implements [`Driver`] and [`Function`], names itself with [`driver!`], and needs no
//! `unsafe`. What no type can refuse (a drop above its level, a connection that was forgotten, a request completed with
//! `STATUS_PENDING`) is a bug check, [`PANIC_BUGCHECK`], with the line that made it.
//!
//! It follows Microsoft's pages; each module names its own.
//!
//! # A driver and its devices
//!
//! ```no_run
//! use wdm::*;
//!
//! struct Adder;
//! struct Card {
//!     registers: Rundown<MemoryWindow<Registers>>, // there from start to stop
//! }
//!
//! struct Registers;
//! impl Block for Registers {
//!     const LENGTH: u32 = 0x100;
//! }
//! const SUM: Register<Registers, u32> = Register::at(0x10);
//! const TAG: Tag = Tag::new(b"Card");
//!
//! impl Driver for Adder {
//!     type Function = Card;
//!     fn load(_registry: &RegistryPath<'_>, _passive: &mut Passive) -> Result<Self> {
//!         Ok(Self)
//!     }
//! }
//!
//! impl Function for Card {
//!     type Driver = Adder;
//!     const TAG: Tag = TAG;
//!
//!     fn add(_driver: &Adder, _pdo: &Pdo, passive: &mut Passive) -> Result<(Name, Self)> {
//!         Ok((Name::new(r"\Device\Card"), Self { registers: Rundown::new(TAG, passive)? }))
//!     }
//!
//!     fn start(device: &Device<Self>, resources: &Resources<'_>, passive: &mut Passive) -> Result<()> {
//!         let range = resources.memory().ok_or(NtStatus::DEVICE_CONFIGURATION_ERROR)?;
//!         let window = MemoryWindow::map(&range, passive)?;
//!         device.registers.put(window, passive).map_err(|_| NtStatus::INVALID_DEVICE_STATE)
//!     }
//!
//!     fn pause(_device: &Device<Self>, _passive: &mut Passive) -> Result<()> {
//!         Ok(())
//!     }
//!     fn resume(_device: &Device<Self>, _passive: &mut Passive) {}
//!
//!     fn stop(device: &Device<Self>, _why: Stop, passive: &mut Passive) {
//!         drop(device.registers.take(passive)); // waits for their users
//!     }
//!
//!     fn device_control<'irp>(
//!         device: &Device<Self>,
//!         mut irp: Irp<'irp>,
//!         level: &mut DispatchOrBelow,
//!     ) -> Answer<'irp> {
//!         let Some(registers) = device.registers.enter(level) else {
//!             return irp.complete(NtStatus::DEVICE_NOT_READY, 0, level);
//!         };
//!         match irp.output(&registers.read(SUM)) {
//!             Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, level),
//!             Err(status) => irp.complete(status, 0, level),
//!         }
//!     }
//! }
//!
//! driver!(Adder);
//! # fn main() {}
//! ```
//!
//! # Control codes: typed buffers
//!
//! What an application sends and gets are values of types that any bytes are good for:
//!
//! ```
//! use wdm::{Irp, Result};
//!
//! /// Two numbers in, their sum out.
//! fn add(irp: &mut Irp<'_>) -> Result<usize> {
//!     let [one, other] = irp.input::<[u32; 2]>()?; // STATUS_BUFFER_TOO_SMALL if there are not two
//!     irp.output(&one.wrapping_add(other))
//! }
//! ```
//!
//! # Interrupts
//!
//! The state of a service routine is its own; others reach it by synchronizing with it:
//!
//! ```
//! use wdm::*;
//!
//! struct Isr {
//!     count: u32,
//! }
//!
//! impl Service for Isr {
//!     fn service(&mut self, _dirql: &mut Dirql) -> Claim {
//!         self.count += 1;
//!         Claim::MineAndDpc // `Function::dpc_for_isr` runs soon
//!     }
//! }
//!
//! fn count(interrupt: &Interrupt<Isr>, level: &mut DispatchOrBelow) -> u32 {
//!     interrupt.synchronize(level, |isr, _dirql| isr.count)
//! }
//! ```
//!
//! [`Messages`] connects message-signaled interrupts, [`Message`] one of them, [`PassiveMessages`] those whose routine may wait.
//!
//! # Requests that wait
//!
//! A request that is put off is a [`PendingIrp`]. An [`IrpQueue`] keeps it until its turn comes or it is cancelled:
//!
//! ```
//! use wdm::*;
//!
//! struct Card {
//!     waiting: IrpQueue,
//! }
//!
//! fn wait<'irp>(device: &Device<Card>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
//!     let (irp, answer) = irp.pend();
//!     if let Err((irp, why)) = device.park(irp, |card| &card.waiting, level) {
//!         irp.complete(why.status(), 0, level);
//!     }
//!     answer
//! }
//!
//! fn event(device: &Device<Card>, dispatch: &mut Dispatch) {
//!     while let Some(irp) = device.waiting.pop(dispatch) {
//!         irp.complete(NtStatus::SUCCESS, 0, dispatch);
//!     }
//! }
//! ```
//!
//! [`Device::start_packet`] gives requests to `StartIo` one at a time, each with its turn, a [`Packet`]. A [`Slot`] keeps what one DPC will
//! take.
//!
//! # Locks, events, timers
//!
//! A [`SpinLock`] and a [`Mutex`] own what they guard and lend it to a body; an [`Event`] is waited for at `PASSIVE_LEVEL`:
//!
//! ```
//! use wdm::*;
//!
//! struct Counts {
//!     all: SpinLock<[u32; 2]>,
//!     changed: Event,
//! }
//!
//! fn count(counts: &Counts, which: usize, level: &mut DispatchOrBelow) {
//!     counts.all.with(level, |all, dispatch| {
//!         all[which % 2] += 1;
//!         counts.changed.set(dispatch);
//!     });
//! }
//!
//! fn wait(counts: &Counts, passive: &mut Passive) -> bool {
//!     counts.changed.wait_milliseconds(100, passive)
//! }
//!
//! fn poll<T: Function>(device: &Device<T>, passive: &mut Passive) -> Result<Timer<T>> {
//!     let timer = Timer::new(device, |_device, _dispatch| { /* looks */ }, Tag::new(b"poll"), passive)?;
//!     timer.set_milliseconds(10, passive);
//!     Ok(timer) // dropping it cancels it, and waits for its routine
//! }
//! ```
//!
//! # Where the other concepts stand
//!
//! Each of these has its example at its type:
//!
//! | concept | |
//! | --- | --- |
//! | levels, and what is refused at them | [`irql`] |
//! | registers by type, in memory or in ports | [`register`], [`MemoryWindow`], [`PortWindow`] |
//! | an application's own pages, copied and never borrowed | [`Source`], [`Destination`], [`Transfers::Direct`] |
//! | an application's own addresses (`METHOD_NEITHER`), captured where they mean something | [`Irp::capture_input`], [`Irp::lock_input`], [`Irp::lock_output`] |
//! | a routine that a system thread calls, and that removal waits for | [`WorkItem`] |
//! | memory shared with a card, and the pages of a request mapped for it | [`DmaAdapter`], [`CommonBuffers`], [`Mapped`] |
//! | requests of the driver's own: waited for, or had back | [`Device::control_below`], [`Child`] |
//! | requests passed down, for good or to be had back | [`Irp::forward`], [`Irp::forward_then`] |
//! | what is there from start to stop | [`Rundown`] |
//! | pool that is owned, or by several; paged and not | [`NonPagedBox`] ([`PoolBox`]), [`PagedBox`], [`Shared`] |
//! | one value that is put and taken without a lock | [`Slot`] |
//! | requests that wait while their device is stopped or asleep | [`ManagedQueue`] |
//! | data, methods and events for administrators | [`wmi`] |
//! | entries of the event log | [`LogEntry`] |
//! | who may open a device | [`Security`] |
//! | devices that hang on this one: a bus driver's children | [`Bus`], [`ChildDevice`], [`Identity`] |
//! | names, settings, lines for the debugger | [`SymbolicLink`], [`DeviceInterface`], [`RegistryPath`], [`Line`] |
#![cfg_attr(not(test), no_std)]

mod bus;
mod child;
mod configuration;
mod device;
mod direct;
mod dma;
mod dpc;
mod driver;
mod event;
mod event_log;
#[cfg(test)]
mod fake;
mod interface;
mod interrupt;
mod irp;
pub mod irql;
mod lock;
mod managed_queue;
mod neither;
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
mod security;
mod shared_bytes;
mod slot;
mod sys;
#[cfg(test)]
mod tests;
mod text;
mod timer;
mod window;
pub mod wmi;
mod work_item;

/// The chapters of the guide, whose code is compiled as that of these pages is.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../docs/guide/wdm/levels.md")]
    struct Levels;
    #[doc = include_str!("../../../docs/guide/wdm/devices.md")]
    struct Devices;
    #[doc = include_str!("../../../docs/guide/wdm/queues.md")]
    struct Queues;
    #[doc = include_str!("../../../docs/guide/wdm/interrupts.md")]
    struct Interrupts;
    #[doc = include_str!("../../../docs/guide/wdm/dma.md")]
    struct Dma;
    #[doc = include_str!("../../../docs/guide/wdm/buffers.md")]
    struct Buffers;
    #[doc = include_str!("../../../docs/guide/wdm/timers.md")]
    struct Timers;
    #[doc = include_str!("../../../docs/guide/wdm/wmi.md")]
    struct Wmi;
    #[doc = include_str!("../../../docs/guide/wdm/power.md")]
    struct Power;
    #[doc = include_str!("../../../docs/guide/wdm/children.md")]
    struct Children;
    #[doc = include_str!("../../../docs/guide/wdm/registry.md")]
    struct Registry;
    #[doc = include_str!("../../../docs/guide/wdm/security.md")]
    struct Security;
}

pub use abi::{self, GUID, NtStatus};
pub use zerocopy;

pub use bus::{Bus, ChildDevice, Identity};
pub use child::{Child, Ended, Request};
pub use configuration::Configuration;
pub use device::{Device, Pdo};
pub use direct::{Destination, Source};
pub use dma::{BusMaster, Caching, CommonBuffer, CommonBuffers, DmaAdapter, Element, LogicalAddress, Mapped};
pub use driver::{Driver, Function, Transfers};
pub use event::{Event, Mutex, delay_milliseconds, stall_microseconds};
pub use event_log::LogEntry;
pub use interface::{DeviceInterface, SymbolicLink};
pub use interrupt::{
    Claim, Interrupt, Message, MessageService, MessageTable, Messages, PassiveMessageService,
    PassiveMessages, PassiveService, Service,
};
pub use irp::{Answer, Control, FileId, Irp, PendingIrp, Returned, Transfer};
pub use irql::{AtMostDispatch, Dirql, Dispatch, DispatchOrBelow, Passive, at_dispatch};
pub use lock::SpinLock;
pub use managed_queue::{ManagedQueue, Next, Way};
pub use packet::Packet;
pub use panic::PANIC_BUGCHECK;
pub use pnp::Stop;
pub use pool::{NonPagedBox, PagedBox, PoolBox, Shared, Tag};
pub use print::Line;
pub use queue::{IrpQueue, Refused};
pub use register::{Block, PortWidth, Register, Width};
pub use registry::RegistryPath;
pub use resource::{
    InterruptLine, MemoryRange, MessageVector, MessageVectors, PortRange, Resource, Resources,
};
pub use rundown::{Rundown, User};
pub use security::Security;
pub use shared_bytes::OutOfBuffer;
pub use slot::Slot;
pub use text::Name;
pub use timer::Timer;
pub use window::{MemoryWindow, OutOfWindow, PortWindow, Window};
pub use wmi::{DataBlock, EventBlock, Item, Method, Offered};
pub use work_item::WorkItem;

/// What [`driver!`] expands to uses these; a driver does not.
#[doc(hidden)]
pub mod entry {
    pub use abi::{DRIVER_OBJECT, UNICODE_STRING};

    pub use crate::driver::{DriverCell, Entry, enter, enter_bus};
}

/// A value, or the status that says why there is none.
pub type Result<T> = core::result::Result<T, NtStatus>;
