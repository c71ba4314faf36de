//! Plug and Play: device nodes, resources, the PCI bus driver, the order of start, stop and remove.
//!
//! [`bus`] is the driver of the physical device objects; [`enumerate`](mod@enumerate), [`start`](mod@start),
//! [`stop`](mod@stop) and [`remove`](mod@remove) are the PnP manager, which knows devices only by what their stacks answer.
//! What it asks for runs on a system thread at PASSIVE_LEVEL.

pub mod assign;
pub mod bus;
pub mod bus_interface;
pub mod bus_pnp;
pub mod bus_power;
mod capabilities;
pub mod claim;
pub mod elsewhere;
pub mod enumerate;
pub mod identity;
pub mod install;
pub mod invalidate;
mod judge;
mod leftovers;
pub mod message;
pub mod node;
pub mod notify;
pub mod policy;
pub mod property;
pub mod property_data;

pub mod registry;
pub mod remove;
mod request;
pub mod requirements;
pub mod resource;
mod shown;
pub mod start;
pub mod stop;
pub mod supply;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use abi::{DRIVER_OBJECT, DriverPtr, KEVENT};

pub use enumerate::enumerate;
pub(crate) use enumerate::{exclusively, routed};
pub use install::{Filters, Installation, install};
pub use message::messages_of;
pub use node::{Described, NodeId, devices, instance_path, interrupt_of, is_physical, named, state};
pub use remove::{query_remove, remove, surprise_remove};
pub use start::{Drivers, StartFailure, start};
pub use stop::{query_stop, restart, stop};

use node::Node;

/// State of this prefix.
#[derive(Default)]
pub struct State {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// `\Driver\pci`; null before the first enumeration.
    pub(crate) bus_driver: DriverPtr<DRIVER_OBJECT>,
    /// Signaled while nobody changes the state of a device.
    pub(crate) idle: DriverPtr<KEVENT>,
    /// The INFs that were installed, in their order.
    pub(crate) infs: Vec<String>,
    /// How many physical device objects were made.
    pub(crate) made: u32,
    /// Resources that drivers have claimed.
    pub(crate) claims: claim::Claims,
    /// Properties that drivers have set.
    pub(crate) properties: property_data::Properties,
    /// Who is told of what.
    pub(crate) notify: notify::State,
}

impl State {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).unwrap_or_else(|| panic!("no device node {id:?}"))
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("no device node {id:?}"))
    }
}
