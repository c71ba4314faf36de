//! Plug and Play: device nodes, resources, the PCI bus driver, the order of start, stop and remove.
//!
//! [`bus`] is the driver of the cards' physical device objects, [`root`] that of the root-enumerated devices'; children are drivers' own
//! ([`relations`]). [`enumerate`](mod@enumerate), [`start`](mod@start),
//! [`stop`](mod@stop), [`remove`](mod@remove) and [`surprise`] are the PnP manager, which knows devices only by what their stacks answer.
//! What it asks for runs on a system thread at PASSIVE_LEVEL.

pub(crate) mod answer_later;
mod arbiter;
pub(crate) mod assign;
pub(crate) mod built_in;
pub(crate) mod bus;
pub(crate) mod bus_interface;
pub(crate) mod bus_pnp;
pub(crate) mod bus_power;
mod capabilities;
pub(crate) mod card_power;
pub(crate) mod claim;
pub mod detected;
pub mod eject;
pub mod elsewhere;
pub(crate) mod enumerate;
pub mod identity;
pub mod install;
pub mod installer;
pub(crate) mod invalidate;
pub(crate) mod judge;
pub(crate) mod lock;
pub(crate) mod message;
pub mod node;
pub(crate) mod notify;
pub(crate) mod policy;
pub(crate) mod problem;
pub(crate) mod property;
pub mod property_data;
pub(crate) mod remove_check;

pub(crate) mod registry;
pub(crate) mod related;
pub(crate) mod relations;
mod removal_set;
pub mod remove;
mod request;
pub(crate) mod requirements;
pub(crate) mod resource;
pub mod root;
pub mod serve_again;
mod shown;
pub mod start;
pub mod stop;
pub(crate) mod supply;
pub(crate) mod surprise;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod usage;
pub mod wake;
pub mod wanted;

use std::collections::BTreeMap;
use std::rc::Rc;

use abi::{DRIVER_OBJECT, DriverPtr, KEVENT};

pub use enumerate::enumerate;
pub(crate) use enumerate::routed;
pub use install::{Filters, Installation, install};
pub use installer::Installer;
pub(crate) use lock::exclusively_asleep_too;
pub use message::messages_of;
pub use node::{Described, NodeId, devices, instance_path, interrupt_of, is_physical, named, state};
pub use notify::foreign;
pub use remove::{query_remove, remove};
pub use resource::window_lengths;
pub use start::{Drivers, StartFailure, start};
pub use stop::{query_stop, restart, stop};
pub use surprise::surprise_remove;

use node::{Card, Node, Origin};

/// State of this prefix.
#[derive(Default)]
pub struct State {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// `\Driver\pci`; null before the first enumeration.
    pub(crate) bus_driver: DriverPtr<DRIVER_OBJECT>,
    /// `\Driver\PnpManager`; null before the first root-enumerated device.
    pub(crate) root_driver: DriverPtr<DRIVER_OBJECT>,
    /// Who finds drivers for devices that drivers report; none before the library has said so.
    pub(crate) installer: Option<Rc<dyn Installer>>,
    /// The services of the drivers that have reported a root device.
    pub(crate) reported: Vec<String>,
    /// The drivers that are there from the beginning are loaded.
    pub(crate) has_started: bool,
    /// What the user should know of devices that were found on the way.
    pub(crate) notes: Vec<String>,
    /// Signaled while no thread changes the state of a device.
    pub(crate) idle: DriverPtr<KEVENT>,
    /// Threads that change one's state as soon as the system is awake: each waits for its event.
    until_awake: Vec<DriverPtr<KEVENT>>,
    /// The INFs that were installed, in their order.
    pub(crate) infs: Vec<String>,
    /// How many physical device objects were made.
    pub(crate) made: u32,
    /// Resources that drivers have claimed.
    pub(crate) claims: claim::Claims,
    /// Requests that are refused later.
    pub(crate) answers: answer_later::State,
    /// Properties that drivers have set.
    pub(crate) properties: property_data::Properties,
    /// Registrations for notifications.
    pub(crate) notify: notify::State,
    /// Requests that drivers had when they had completed the surprise removal of their devices.
    left: Vec<remove_check::Left>,
}

impl State {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).unwrap_or_else(|| panic!("no device node {id:?}"))
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("no device node {id:?}"))
    }

    /// The function of a node that `\Driver\pci` made.
    pub(crate) fn card(&self, id: NodeId) -> &Card {
        self.node(id).card().unwrap_or_else(|| panic!("the node {id:?} is no card"))
    }

    /// As [`State::card`].
    pub(crate) fn card_mut(&mut self, id: NodeId) -> &mut Card {
        match &mut self.node_mut(id).origin {
            Origin::Card(card) => card,
            Origin::Root(_) | Origin::Child => panic!("the node {id:?} is no card"),
        }
    }

    /// What the user should know of a device, once.
    pub(crate) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The number of a physical device object that is made now.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }
}
