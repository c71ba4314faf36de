//! Finding the devices: a physical device object for each function on the bus, and the questions Windows asks of each before it
//! looks for a driver.
//!
//! Pages: *Adding a PnP Device to a Running System*, *IRP_MN_QUERY_ID*, *IRP_MN_QUERY_CAPABILITIES* ("When Sent"). Cards that are plugged
//! in later are not looked for; what drivers report is found by [`super::relations`].

use abi::{
    BusQueryCompatibleIDs, BusQueryContainerID, BusQueryDeviceID, BusQueryHardwareIDs, BusQueryInstanceID,
    DEVICE_CAPABILITIES, DeviceTextDescription, DeviceTextLocationInformation, DriverPtr,
    IRP_MN_QUERY_BUS_INFORMATION, IRP_MN_QUERY_DEVICE_TEXT, IRP_MN_QUERY_ID,
    IRP_MN_QUERY_RESOURCE_REQUIREMENTS, IRP_MN_QUERY_RESOURCES, KEVENT,
};
use engine::Flow;

use super::node::{Answers, NodeId};
use super::resource::{self, Interrupt, Resource};
use super::{built_in, bus, capabilities, identity, request, tree};
use crate::cx::{Cx, Kernel};
use crate::event::Event;
use crate::ke;
use crate::ke::irql::PASSIVE_LEVEL;
use crate::mm::pool;
use crate::verdict::Verdict;

/// A step of Plug and Play, as traces tell it.
pub(super) fn tell(cx: &mut Cx<'_>, id: NodeId, what: &'static str) {
    let name = cx.with(|k| k.pnp.node(id).name.clone());
    step(cx, what, name);
}

/// A step of Plug and Play, or of power: of this device or state.
pub(crate) fn step(cx: &mut Cx<'_>, step: &'static str, of: String) {
    cx.emit(Event::Pnp { step, of, after: None, value: None });
}

/// Finds all functions and asks what they are. Once, on a system thread at PASSIVE_LEVEL; later calls do nothing.
///
/// # Errors
/// [`engine::Leave`] if the machine ends meanwhile.
pub fn enumerate(cx: &mut Cx<'_>) -> Flow<()> {
    if !cx.with(|k| k.pnp.bus_driver.is_null()) {
        return Ok(());
    }
    let idle: DriverPtr<KEVENT> =
        pool::allocate(cx, pool::Kind::NonPaged, size_of::<KEVENT>() as u64, pool::tag(b"Pnp "))?;
    if idle.is_null() {
        return Err(cx.stop(Verdict::not_implemented("running out of memory while a machine starts")));
    }
    ke::event::initialize(cx, idle, abi::SynchronizationEvent, true)?;
    let driver = built_in::load(cx, "pci", "PciDispatchPnp")?;
    let functions = cx.with(|k| {
        (k.pnp.idle, k.pnp.bus_driver) = (idle, driver);
        k.hal.hardware.functions()
    });
    for function in functions {
        let id = bus::add(cx, driver, function)?;
        tell(cx, id, "found");
        ask_who(cx, id)?;
    }
    Ok(())
}

/// Asks a device that was just found who it is, and remembers the answers.
pub(super) fn ask_who(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    let answers = questions(cx, id)?;
    cx.with(|k| {
        let is_unique = capabilities::flags(&answers.capabilities) & DEVICE_CAPABILITIES::UniqueID != 0;
        let parent = k.pnp.node(id).parent;
        let prefix = match parent {
            _ if is_unique => String::new(),
            None => identity::PARENT_PREFIX.to_owned(),
            Some(parent) => identity::prefix_below(&k.pnp.node(parent).instance_path(), tree::depth(k, id)),
        };
        let flags = capabilities::flags(&answers.capabilities);
        let node = k.pnp.node_mut(id);
        // "The PnP manager only checks this bit right after the device is enumerated."
        node.hardware_disabled = flags & DEVICE_CAPABILITIES::HardwareDisabled != 0;
        node.answers = Answers { prefix, ..answers };
    });
    Ok(())
}

/// What Windows asks the bus driver as soon as a device is reported.
fn questions(cx: &mut Cx<'_>, id: NodeId) -> Flow<Answers> {
    Ok(Answers {
        prefix: String::new(),
        device_id: request::text(cx, id, IRP_MN_QUERY_ID, BusQueryDeviceID)?,
        capabilities: request::capabilities(cx, id)?,
        description: request::text(cx, id, IRP_MN_QUERY_DEVICE_TEXT, DeviceTextDescription)?,
        location: request::text(cx, id, IRP_MN_QUERY_DEVICE_TEXT, DeviceTextLocationInformation)?,
        instance_id: request::text(cx, id, IRP_MN_QUERY_ID, BusQueryInstanceID)?,
        hardware_ids: request::strings(cx, id, IRP_MN_QUERY_ID, BusQueryHardwareIDs)?,
        compatible_ids: request::strings(cx, id, IRP_MN_QUERY_ID, BusQueryCompatibleIDs)?,
        container: request::text(cx, id, IRP_MN_QUERY_ID, BusQueryContainerID)?,
        bus: request::block(cx, id, IRP_MN_QUERY_BUS_INFORMATION, [0; 4], request::bus_information_length)?,
        boot_resources: request::block(
            cx,
            id,
            IRP_MN_QUERY_RESOURCES,
            [0; 4],
            request::resource_list_length,
        )?,
        requirements: request::block(
            cx,
            id,
            IRP_MN_QUERY_RESOURCE_REQUIREMENTS,
            [0; 4],
            request::requirements_length,
        )?,
    })
}

/// What the firmware gave a function: all that can be assigned to it. Other devices have nothing.
pub(super) fn available(cx: &mut Cx<'_>, id: NodeId) -> Vec<Resource> {
    cx.with(|k| {
        let Some(card) = k.pnp.node(id).card() else { return Vec::new() };
        let interrupt = card.function.line.map(|line| routed(k, line));
        resource::of_function(&card.function, interrupt)
    })
}

/// A line as drivers connect to it.
pub(crate) fn routed(k: &Kernel, line: u32) -> Interrupt {
    let (vector, irql) = if k.hal.platform.relayed_lines {
        (ke::vectors::vector_of_relayed_line(line), PASSIVE_LEVEL)
    } else {
        (ke::interrupt::vector_of_line(line), ke::interrupt::irql_of_line(line))
    };
    Interrupt {
        line,
        vector,
        irql,
        // Lines are delivered in group 0.
        affinity: ke::affinity::of_group(k, 0),
        latched: false,
        shared: true,
    }
}
