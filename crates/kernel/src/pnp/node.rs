//! Device nodes: one for each function on the bus, each root-enumerated device and each child that a driver reports, with its state
//! and what the PnP manager learned about it.
//!
//! Pages: *Device Nodes and Device Stacks*, *State Transitions for PnP Devices*. Who hangs on whom is [`super::tree`]'s.

use abi::{DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, IRP, InterfaceTypeUndefined, PCIBus, PowerDeviceD0};
use engine::Flow;

use super::identity::Identity;
use super::install::Installation;
use super::problem::Problem;
use super::resource::{Interrupt, Resource};
use super::start::Drivers;
use super::wanted::dword;
use super::{card_power, root, tree};
use crate::cx::{Cx, Kernel};
use crate::hal::hardware::Function;
use crate::io;
use crate::ke::vectors;
use crate::verdict::Verdict;

/// A device node, by its physical device object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u64);

impl NodeId {
    /// Its physical device object.
    #[must_use]
    pub const fn pdo(self) -> DriverPtr<DEVICE_OBJECT> {
        DriverPtr::new(self.0)
    }
}

/// Where a device is on its way, as *State Transitions for PnP Devices* names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Known to the bus; no driver has been added (or all have been removed).
    Enumerated,
    /// Its driver's `AddDevice` was called.
    Added,
    /// Started.
    Started,
    /// `IRP_MN_QUERY_STOP_DEVICE` succeeded.
    StopPending,
    /// Stopped, to be started with other resources.
    Stopped,
    /// `IRP_MN_QUERY_REMOVE_DEVICE` succeeded.
    RemovePending,
    /// It has reported its failure, and its drivers were sent IRP_MN_SURPRISE_REMOVAL; files are still open.
    Failed,
    /// Gone; files are still open.
    SurpriseRemoved,
    /// Its card is gone and so is its device object.
    Deleted,
}

impl State {
    /// For messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enumerated => "without a driver",
            Self::Added => "not started",
            Self::Started => "started",
            Self::StopPending => "about to be stopped",
            Self::Stopped => "stopped",
            Self::RemovePending => "about to be removed",
            Self::Failed => "failed, with files still open",
            Self::SurpriseRemoved => "gone, with files still open",
            Self::Deleted => "gone",
        }
    }
}

/// What the PnP manager asked the bus driver when the device was enumerated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answers {
    /// `BusQueryDeviceID`.
    pub device_id: String,
    /// `BusQueryInstanceID`.
    pub instance_id: String,
    /// What the PnP manager puts in front of an instance id that is unique on its bus only; else empty.
    pub prefix: String,
    /// `BusQueryHardwareIDs`, the best first.
    pub hardware_ids: Vec<String>,
    /// `BusQueryCompatibleIDs`, the best first.
    pub compatible_ids: Vec<String>,
    /// `DeviceTextDescription`.
    pub description: String,
    /// `DeviceTextLocationInformation`.
    pub location: String,
    /// `BusQueryContainerID`; empty if the bus driver knows of none.
    pub container: String,
    /// `DEVICE_CAPABILITIES`, as answered last.
    pub capabilities: Vec<u8>,
    /// `PNP_BUS_INFORMATION`.
    pub bus: Vec<u8>,
    /// Boot configuration: a `CM_RESOURCE_LIST`.
    pub boot_resources: Vec<u8>,
    /// An `IO_RESOURCE_REQUIREMENTS_LIST`.
    pub requirements: Vec<u8>,
}

/// A function on the PCI bus.
pub(crate) struct Card {
    pub(crate) function: Function,
    pub(crate) identity: Identity,
    /// Where it is from its next start on, if that is elsewhere.
    pub(crate) moves: Option<Function>,
    /// The request that waits for its wake signal; null without.
    pub(crate) waiting: DriverPtr<IRP>,
    /// What the bus driver keeps for it while it is below D0.
    pub(crate) kept: Option<card_power::Kept>,
}

/// Whose a physical device object is.
pub(crate) enum Origin {
    /// `\Driver\pci`'s.
    Card(Card),
    /// The PnP manager's own: a root-enumerated device.
    Root(root::Device),
    /// A driver's, which reported it as a child of its device.
    Child,
}

/// A device node.
pub(crate) struct Node {
    /// Names it to people: `pci9052#0`.
    pub(crate) name: String,
    pub(crate) origin: Origin,
    /// The device whose driver reported it; none below the root.
    pub(crate) parent: Option<NodeId>,
    pub(crate) state: State,
    pub(crate) answers: Answers,
    pub(crate) installation: Option<Installation>,
    /// The function driver that was added, while it is.
    pub(crate) driver: DriverPtr<DRIVER_OBJECT>,
    /// The filter drivers that were added, while they are.
    pub(crate) filters: Vec<DriverPtr<DRIVER_OBJECT>>,
    /// Those that were added last, though they may have been removed.
    pub(crate) added_last: Option<Drivers>,
    /// What it was started with, while it has it.
    pub(crate) resources: Vec<Resource>,
    /// What its stack could use, as its drivers have filtered it last: an `IO_RESOURCE_REQUIREMENTS_LIST`.
    pub(crate) requirements: Vec<u8>,
    /// `PNP_DEVICE_STATE`, as answered last.
    pub(crate) device_state: u32,
    /// Whether the physical device object has seen the request that is under way.
    pub(crate) seen: bool,
    /// Whether it has seen the system's power request that is under way, and the device's.
    pub(crate) power_seen: [bool; 2],
    /// References to interfaces of the bus driver.
    pub(crate) interfaces: u64,
    /// `PowerDevice*`.
    pub(crate) power: u32,
    /// A driver has detected it and runs it: it counts as started without having been.
    pub(crate) detected: bool,
    /// It is not on its bus any more: once it is removed, its device object goes.
    pub(crate) missing: bool,
    /// Its card has gone, which the system need not know yet.
    pub(crate) is_loose: bool,
    /// `IRP_MN_REMOVE_DEVICE` was sent since drivers were added last.
    pub(crate) told_to_go: bool,
    /// Its device object's memory is another's by now.
    pub(crate) freed: bool,
    /// Why it does not run; none while it does, and before anything was tried.
    pub(crate) problem: Option<Problem>,
    /// What must be on before it when the system wakes, as it was named last.
    pub(crate) needs_power_of: Vec<NodeId>,
    /// Who was asked with it whether it may be removed, itself included, in that order.
    pub(crate) removed_with: Vec<NodeId>,
    /// How many paging, hibernation and dump files are on it.
    pub(crate) special_files: [u32; 3],
    /// It said when it was found that its hardware is disabled: it is not started.
    pub(crate) hardware_disabled: bool,
    /// It is locked in its slot: it is not ejected.
    pub(crate) locked: bool,
    /// How many physical device objects there were when it was made, itself included.
    pub(crate) number: u32,
}

impl Node {
    /// The node of a physical device object that was just made, the `number`-th: nothing is known of it yet.
    pub(crate) fn new(name: String, origin: Origin, parent: Option<NodeId>, number: u32) -> Self {
        Self {
            name,
            origin,
            parent,
            state: State::Enumerated,
            answers: Answers::default(),
            installation: None,
            driver: DriverPtr::NULL,
            filters: Vec::new(),
            added_last: None,
            resources: Vec::new(),
            requirements: Vec::new(),
            device_state: 0,
            seen: false,
            power_seen: [false; 2],
            interfaces: 0,
            power: PowerDeviceD0,
            detected: false,
            missing: false,
            is_loose: false,
            told_to_go: false,
            freed: false,
            problem: None,
            needs_power_of: Vec::new(),
            removed_with: Vec::new(),
            special_files: [0; 3],
            hardware_disabled: false,
            locked: false,
            number,
        }
    }

    /// The function on the PCI bus that it is, if it is one.
    pub(crate) const fn card(&self) -> Option<&Card> {
        match &self.origin {
            Origin::Card(card) => Some(card),
            Origin::Root(_) | Origin::Child => None,
        }
    }

    /// The bus that its lists of resources name: `INTERFACE_TYPE` and number.
    pub(crate) fn bus(&self) -> (u32, u32) {
        if let Some(card) = self.card() {
            return (PCIBus, card.function.address.bus.into());
        }
        // Its requirements begin with the size, its boot configuration with the count of its lists.
        let asked = [&self.requirements, &self.answers.requirements, &self.answers.boot_resources];
        let named = asked.iter().find_map(|list| Some((dword(list, 4)?, dword(list, 8)?)));
        named.unwrap_or((InterfaceTypeUndefined, 0))
    }

    /// Below `Enum` in the registry; names the device to the system.
    pub(crate) fn instance_path(&self) -> String {
        super::identity::instance_path(
            &self.answers.device_id,
            &self.answers.instance_id,
            &self.answers.prefix,
        )
    }

    /// Its drivers have been removed, or not been added.
    pub(crate) fn forget_drivers(&mut self) {
        self.driver = DriverPtr::NULL;
        self.filters.clear();
    }

    /// Whether a driver was added to it.
    pub(crate) fn has_driver(&self, driver: u64) -> bool {
        self.filters.iter().chain([&self.driver]).any(|added| added.address == driver)
    }

    pub(crate) fn interrupt(&self) -> Option<Interrupt> {
        self.resources.iter().find_map(|resource| match resource {
            Resource::Interrupt(interrupt) => Some(*interrupt),
            _ => None,
        })
    }
}

/// A device as others see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// The node.
    pub id: NodeId,
    /// The model's name on the bus, e.g. `pci9052#0`.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Its instance path.
    pub instance_path: String,
    /// What the bus driver answered.
    pub answers: Answers,
    /// A driver has detected it and runs it, without having been added to it.
    pub detected: bool,
}

/// All devices that are not gone, parents before their children: the cards in the order of their places on the bus, then the
/// root-enumerated ones in the order in which they were found.
pub fn devices(cx: &mut Cx<'_>) -> Vec<Described> {
    cx.with(|k| {
        let describe = |id: NodeId| {
            let node = k.pnp.node(id);
            Described {
                id,
                name: node.name.clone(),
                state: node.state,
                instance_path: node.instance_path(),
                answers: node.answers.clone(),
                detected: node.detected,
            }
        };
        tree::all(k).into_iter().map(describe).collect()
    })
}

/// The node whose name on the bus is `name`.
pub fn named(cx: &mut Cx<'_>, name: &str) -> Option<NodeId> {
    cx.with(|k| {
        let mut nodes = k.pnp.nodes.iter().filter(|(_, node)| node.state != State::Deleted);
        nodes.find(|(_, node)| node.name == name).map(|(id, _)| *id)
    })
}

/// The state of a node.
///
/// # Panics
/// If there is no such node: ids come from [`devices`] and [`named`].
pub fn state(cx: &mut Cx<'_>, id: NodeId) -> State {
    cx.with(|k| k.pnp.node(id).state)
}

/// Whether `device` is a physical device object of a device that has been enumerated.
#[must_use]
pub fn is_physical(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> bool {
    k.pnp.nodes.get(&NodeId(device.address)).is_some_and(|node| node.state != State::Deleted)
}

/// Whether `device` is or was the physical device object of a device in the tree.
pub(crate) fn is_node(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> bool {
    k.pnp.nodes.contains_key(&NodeId(device.address))
}

/// A Plug and Play request has come to a device: if that is a child that a driver reported, its bus driver has it now.
pub(crate) fn reached(k: &mut Kernel, device: DriverPtr<DEVICE_OBJECT>) {
    if let Some(node) = k.pnp.nodes.get_mut(&NodeId(device.address)) {
        node.seen = true;
    }
}

/// A power request of this kind (`POWER_STATE_TYPE`) has come to a device, as [`reached`].
pub(crate) fn power_reached(k: &mut Kernel, device: DriverPtr<DEVICE_OBJECT>, kind: u32) {
    if let Some(node) = k.pnp.nodes.get_mut(&NodeId(device.address)) {
        node.power_seen[usize::from(kind != abi::SystemPowerState)] = true;
    }
}

/// A power request of this kind is about to be sent to the top of the device's stack.
pub(crate) fn power_asked(k: &mut Kernel, id: NodeId, kind: u32) {
    if let Some(node) = k.pnp.nodes.get_mut(&id) {
        node.power_seen[usize::from(kind != abi::SystemPowerState)] = false;
    }
}

/// The node of a physical device object, or the verdict Windows has for a routine that needs one.
///
/// # Errors
/// Bug check CAh, 2.
pub(crate) fn of_pdo(cx: &mut Cx<'_>, ddi: &str, device: DriverPtr<DEVICE_OBJECT>) -> Flow<NodeId> {
    if cx.with(|k| is_physical(k, device)) {
        return Ok(NodeId(device.address));
    }
    let message = format!(
        "{ddi} was given {:#x}, which is not the physical device object of an enumerated device (AddDevice's second argument is one)",
        device.address
    );
    let verdict = Verdict::error("not-a-physical-device", message);
    Err(cx.stop(verdict.bug_check(0xCA, [2, device.address, 0, 0])))
}

/// Whether files can be opened on a device: not on one whose stack has not been started, was surprise-removed, or is being removed. After
/// IRP_MN_QUERY_REMOVE_DEVICE its drivers refuse ("the driver must fail any subsequent create requests").
#[must_use]
pub fn can_be_opened(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> bool {
    let bottom = io::stack::bottom(k, device);
    k.pnp.nodes.get(&NodeId(bottom.address)).is_none_or(|node| match node.state {
        State::Started | State::StopPending | State::Stopped => true,
        State::RemovePending => !node.told_to_go,
        _ => false,
    })
}

/// The name in the registry of the device with this physical device object: `PCI\VEN_…\3&…`.
#[must_use]
pub fn instance_path(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> Option<String> {
    k.pnp.nodes.get(&NodeId(device.address)).map(Node::instance_path)
}

/// The line interrupt that a device was started with, by its physical device object.
#[must_use]
pub fn interrupt_of(k: &Kernel, device: DriverPtr<DEVICE_OBJECT>) -> Option<Interrupt> {
    k.pnp.nodes.get(&NodeId(device.address)).and_then(Node::interrupt)
}

/// The vectors that the devices of a driver were given, in words, if they were given some, and none is this one.
pub(crate) fn other_vectors(k: &Kernel, driver: u64, vector: u32) -> Option<String> {
    let mut given = Vec::new();
    for node in k.pnp.nodes.values().filter(|node| node.has_driver(driver)) {
        let own = node.interrupt().map(|interrupt| interrupt.vector);
        given.extend(own.into_iter().chain(node.messages().map(|m| m.vector)).map(|v| (&node.name, v)));
    }
    if given.iter().any(|(_, given)| vectors::of_processors(*given) == vector || *given == vector) {
        return None;
    }
    let words: Vec<String> = given.iter().map(|(name, vector)| format!("{name} has {vector:#x}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The devices of a stack from the bottom: the physical device object first.
pub(crate) fn stack(cx: &mut Cx<'_>, id: NodeId) -> Flow<Vec<DriverPtr<DEVICE_OBJECT>>> {
    let mut devices = vec![id.pdo()];
    loop {
        let top = devices[devices.len() - 1];
        let above = cx.read(top + DEVICE_OBJECT::AttachedDevice)?;
        if above.is_null() || devices.contains(&above) {
            return Ok(devices);
        }
        devices.push(above);
    }
}
