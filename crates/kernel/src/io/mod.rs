//! `Io*`: drivers, devices, files, IRPs. The names other prefixes call are in the submodules.
//!
//! What drivers see (driver and device objects, IRPs, files) lies in machine memory and is read from there each time,
//! because inlined macros change it without telling; what Windows keeps for itself is in [`State`], by address.

pub(crate) mod allocate;
mod asked;
pub(crate) mod boot_display;
pub(crate) mod buffers;
pub(crate) mod build;
pub(crate) mod call;
pub mod cancel;
pub(crate) mod cancel_routine;
pub(crate) mod checks;
pub(crate) mod complete;
pub(crate) mod completion_notice;
mod completion_owner;
pub mod completion_port;
pub(crate) mod controller;
mod create;
pub(crate) mod csq;
pub(crate) mod device;
pub(crate) mod device_queue;
pub(crate) mod directory;
pub mod driver;
pub(crate) mod driver_extension;
pub(crate) mod error_log;
pub mod event;
mod fast_io;
mod fast_path;
pub mod file;
mod file_lock;
mod finish;
mod found;
pub(crate) mod hard_error;
pub mod information;
pub mod integrity;
pub mod interface;
pub(crate) mod interrupt;
pub(crate) mod invariant;
pub(crate) mod irp;
pub(crate) mod library;
pub(crate) mod links;
pub(crate) mod load;
mod message_table;
pub(crate) mod named_file;
pub(crate) mod nt_file;
pub mod offered;
mod operation;
pub(crate) mod overlapped;
pub mod owed;
mod own_request;
mod packet;
mod parameters;
pub(crate) mod pending;
pub(crate) mod priority_hint;
pub(crate) mod query;
pub(crate) mod query_directory;
pub mod registry_key;
pub(crate) mod reinitialize;
pub(crate) mod remove_lock;
pub(crate) mod routine;
pub(crate) mod share_access;
pub(crate) mod shutdown;
pub(crate) mod stack;
pub(crate) mod stand_in;
pub(crate) mod start_packet;
pub(crate) mod system_request;
#[cfg(test)]
mod tests;
pub(crate) mod timer;
mod transfer;
pub(crate) mod unload;
mod unload_check;
pub(crate) mod violation;
pub(crate) mod work_item;
pub(crate) mod zw;

use std::collections::{BTreeMap, BTreeSet};

use crate::address_map::AddressMap;
use crate::nt::Settings;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// Drivers by driver object.
    pub(crate) drivers: BTreeMap<u64, driver::Driver>,
    /// Devices by device object.
    pub(crate) devices: AddressMap<device::Device>,
    /// Open files by file object.
    pub(crate) files: BTreeMap<u64, file::File>,
    pub(crate) openers: share_access::Openers,
    pub(crate) irps: irp::Irps,
    /// Which request of an application each thread is in, where a reader wants these events.
    pub(crate) asked: asked::Asked,
    pub(crate) frames: pending::Frames,
    /// Buffers that must not change while their requests are under way.
    pub(crate) invariant: invariant::State,
    /// The numbers of the last request's objects: see `fast_path`.
    pub(crate) near: [u32; 2],
    pub(crate) cancel: cancel::State,
    pub(crate) controllers: controller::State,
    /// A display driver has taken the screen.
    pub(crate) display_lost: bool,
    pub(crate) interfaces: interface::Interfaces,
    /// Images whose `DllInitialize` was called, by base.
    pub(crate) libraries: BTreeSet<u64>,
    /// Symbolic links made by drivers: the link's whole name, the driver's object.
    pub(crate) links: BTreeMap<String, u64>,
    /// Interrupt objects by address.
    pub(crate) interrupts: BTreeMap<u64, interrupt::Connected>,
    /// Tables of connected messages by address: their interrupt objects.
    pub(crate) message_tables: BTreeMap<u64, Vec<u64>>,
    pub(crate) remove_locks: BTreeMap<u64, remove_lock::Tags>,
    pub(crate) work_items: BTreeMap<u64, work_item::Item>,
    pub(crate) timers: BTreeMap<u64, timer::Timer>,
    pub(crate) stand_ins: stand_in::State,
    pub(crate) shutdown: Vec<u64>,
    /// The same, for the last-chance notification.
    pub(crate) last_chance: Vec<u64>,
    pub(crate) reinitialize: Vec<reinitialize::Reinitialization>,
    pub(crate) error_log: error_log::State,
    /// `IoSetTopLevelIrp`, by thread object.
    pub(crate) top_level: BTreeMap<u64, u64>,
    /// What `IoGetConfigurationInformation` returns; 0 before the first call.
    pub(crate) configuration: u64,
    /// Counts the status blocks and events made for applications.
    pub(crate) overlapped: u64,
    pub(crate) ends: overlapped::Ends,
    pub(crate) status_blocks: overlapped::OfThreads,
    /// Counts names of devices that asked for one.
    pub(crate) named_devices: u32,
    #[cfg(test)]
    pub(crate) rust_routines: BTreeMap<u64, routine::RustRoutine>,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(_settings: &Settings) -> Self {
        Self::default()
    }
}

/// Changes the entry of `map` under `key`, if there is one.
pub(crate) fn change<V>(map: &mut BTreeMap<u64, V>, key: u64, change: impl FnOnce(&mut V)) {
    if let Some(value) = map.get_mut(&key) {
        change(value);
    }
}
