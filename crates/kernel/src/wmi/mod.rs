//! `IoWMI*` and the routines of `wmilib.sys`: blocks of data, methods and events that drivers offer by GUIDs.
//!
//! Pages: *Implementing WMI*, *Registering as a WMI Data Provider*, *WMI Minor IRPs*. `registration` asks a provider what it has, `ask` sends it
//! a request and judges what comes back, `node` builds and reads the blocks that travel. `library` and `finish` are the WMI library of a provider;
//! `block`, `consumer`, `event` and `shown` are for those who ask; `trace` and `callback` are for trace providers, where a session traces (`etw::session`). Binary MOF resources are not read: data
//! are bytes. Names of instances that collide are not changed.

mod ask;
pub(crate) mod block;
mod callback;
pub mod consumer;
pub(crate) mod event;
pub(crate) mod finish;
mod judge;
pub(crate) mod library;
pub(crate) mod names;
mod node;
mod provider;
pub(crate) mod recorder;
mod reginfo;
pub(crate) mod registration;
pub mod shown;
pub(crate) mod trace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::rtl::guid;

pub(crate) use ask::passes;
pub(crate) use callback::callbacks_of;
pub(crate) use provider::device_deleted;

/// A GUID as it lies in memory.
pub type Guid = [u8; 16];

/// The GUID that a text stands for: `{6B29FC40-CA47-1067-B31D-00DD010662DA}`.
#[must_use]
pub fn parse_guid(text: &str) -> Option<Guid> {
    let (a, b, c, d) = guid::parse(text)?;
    let mut all = [0; 16];
    all[..4].copy_from_slice(&a.to_le_bytes());
    all[4..6].copy_from_slice(&b.to_le_bytes());
    all[6..8].copy_from_slice(&c.to_le_bytes());
    all[8..].copy_from_slice(&d);
    Some(all)
}

/// The text of a GUID, as [`parse_guid`] reads it.
#[must_use]
pub fn guid_text(guid: &Guid) -> String {
    let [a0, a1, a2, a3, b0, b1, c0, c1, d @ ..] = *guid;
    let (b, c) = (u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
    guid::text((u32::from_le_bytes([a0, a1, a2, a3]), b, c, d))
}

/// State of this prefix.
#[derive(Default)]
pub struct State {
    /// Devices that are registered, in the order of their registration.
    providers: Vec<provider::Provider>,
    /// Devices that were registered and are not any more.
    left: BTreeSet<u64>,
    /// The last identifier of a provider.
    last_id: u32,
    /// Callbacks that are registered instead of devices, by address.
    callbacks: BTreeMap<u64, callback::Callback>,
    /// Requests that are under way.
    passing: Vec<ask::Passing>,
    last_request: u64,
    /// Data block objects by address.
    opened: BTreeMap<u64, block::Opened>,
    /// How many listen to the events of a block.
    listeners: BTreeMap<Guid, u32>,
    /// How many have a block open.
    users: BTreeMap<Guid, u32>,
    /// The blocks whose events an application wants.
    watched: BTreeSet<Guid>,
    /// Events that an application has not taken yet.
    events: VecDeque<(Guid, Vec<u8>)>,
    /// `IoWMIAllocateInstanceIds`: how many were given.
    instance_ids: BTreeMap<Guid, u32>,
    recorder: recorder::State,
}
