//! What the PCI bus driver answers to `IRP_MJ_PNP` on a physical device object.
//!
//! Pages: *Plug and Play Minor IRPs* and the page of each, under "bus drivers". What is not listed is completed with the status
//! it came with. Ejection, locks and legacy bus information are not a PCI card's.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    BusQueryCompatibleIDs, BusQueryDeviceID, BusQueryHardwareIDs, BusQueryInstanceID, DEVICE_OBJECT,
    DEVICE_RELATIONS, DeviceTextDescription, DeviceTextLocationInformation, DriverPtr, GUID_BUS_TYPE_PCI,
    IO_STACK_LOCATION, IRP, IRP_MN_CANCEL_REMOVE_DEVICE, IRP_MN_CANCEL_STOP_DEVICE, IRP_MN_DEVICE_ENUMERATED,
    IRP_MN_DEVICE_USAGE_NOTIFICATION, IRP_MN_QUERY_BUS_INFORMATION, IRP_MN_QUERY_CAPABILITIES,
    IRP_MN_QUERY_DEVICE_RELATIONS, IRP_MN_QUERY_DEVICE_TEXT, IRP_MN_QUERY_ID, IRP_MN_QUERY_INTERFACE,
    IRP_MN_QUERY_REMOVE_DEVICE, IRP_MN_QUERY_RESOURCE_REQUIREMENTS, IRP_MN_QUERY_RESOURCES,
    IRP_MN_QUERY_STOP_DEVICE, IRP_MN_READ_CONFIG, IRP_MN_REMOVE_DEVICE, IRP_MN_START_DEVICE,
    IRP_MN_STOP_DEVICE, IRP_MN_SURPRISE_REMOVAL, IRP_MN_WRITE_CONFIG, NtStatus, PCI_WHICHSPACE_CONFIG,
    PCIBus, PowerDeviceD0, PowerDeviceD3, TargetDeviceRelation,
};
use engine::Flow;

use super::node::NodeId;
use super::resource::{self, Form};
use super::{
    bus, bus_interface, capabilities, card_power, elsewhere, enumerate, message, policy, remove_check,
    requirements, usage, wake,
};
use crate::cx::{Cx, Kernel};
use crate::hal::config;
use crate::hal::stale::Why;
use crate::mm::pool;
use crate::{io, ob};

const TAG: u32 = pool::tag(b"Pci ");

/// What a request is completed with; what is `None` stays as it came.
#[derive(Clone, Copy, Default)]
pub(super) struct Reply {
    pub(super) status: Option<NtStatus>,
    pub(super) information: Option<u64>,
}

impl Reply {
    pub(super) const UNCHANGED: Self = Self { status: None, information: None };

    pub(super) const fn status(status: NtStatus) -> Self {
        Self { status: Some(status), information: None }
    }

    pub(super) const fn success(information: u64) -> Self {
        Self { status: Some(NtStatus::SUCCESS), information: Some(information) }
    }
}

pub(super) type Location = DriverPtr<IO_STACK_LOCATION>;

/// `IRP_MJ_PNP` on a physical device object.
///
/// # Errors
/// A verdict if the request points to bad memory.
pub(crate) fn dispatch(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<NtStatus> {
    let id = NodeId(device.address);
    let location = io::irp::current(cx, irp)?;
    let minor = cx.read(location + IO_STACK_LOCATION::MinorFunction)?;
    if !cx.with(|k| k.pnp.nodes.get(&id).is_some_and(|node| node.card().is_some())) {
        return bus::complete(cx, irp, Some(NtStatus::NO_SUCH_DEVICE), None);
    }
    bus::reply(cx, irp, minor, move |cx| answer(cx, id, minor, location))
}

fn answer(cx: &mut Cx<'_>, id: NodeId, minor: u8, location: Location) -> Flow<Reply> {
    match minor {
        IRP_MN_START_DEVICE => Ok(power(cx, id, true)),
        IRP_MN_STOP_DEVICE | IRP_MN_REMOVE_DEVICE => {
            if minor == IRP_MN_REMOVE_DEVICE {
                wake::device_goes(cx, id)?;
            }
            let state = if minor == IRP_MN_STOP_DEVICE { "stopped" } else { "removed" };
            cx.with(|k| remove_check::release_windows(k, id, Why::GivenBack(state)));
            Ok(power(cx, id, false))
        }
        IRP_MN_QUERY_STOP_DEVICE
        | IRP_MN_CANCEL_STOP_DEVICE
        | IRP_MN_QUERY_REMOVE_DEVICE
        | IRP_MN_CANCEL_REMOVE_DEVICE
        | IRP_MN_SURPRISE_REMOVAL
        | IRP_MN_DEVICE_ENUMERATED => Ok(Reply::status(NtStatus::SUCCESS)),
        IRP_MN_DEVICE_USAGE_NOTIFICATION => usage::reached_bottom(cx, id, location),
        IRP_MN_QUERY_CAPABILITIES => capabilities(cx, location, |k, own| {
            let identity = k.pnp.card(id).identity;
            let pmc = capabilities::power_management(k.hal.hardware.as_mut(), identity.at);
            capabilities::fill(own, &identity, pmc);
        }),
        IRP_MN_QUERY_ID => query_id(cx, id, location),
        IRP_MN_QUERY_DEVICE_TEXT => query_text(cx, id, location),
        IRP_MN_QUERY_RESOURCES => query_resources(cx, id),
        IRP_MN_QUERY_RESOURCE_REQUIREMENTS => query_requirements(cx, id),
        IRP_MN_QUERY_BUS_INFORMATION => query_bus(cx, id),
        IRP_MN_QUERY_DEVICE_RELATIONS => query_relations(cx, id, location),
        IRP_MN_QUERY_INTERFACE => {
            Ok(bus_interface::query(cx, id, location)?.map_or(Reply::UNCHANGED, Reply::status))
        }
        IRP_MN_READ_CONFIG => read_config(cx, id, location),
        IRP_MN_WRITE_CONFIG => write_config(cx, id, location),
        _ => Ok(Reply::UNCHANGED),
    }
}

fn power(cx: &mut Cx<'_>, id: NodeId, on: bool) -> Reply {
    cx.with(|k| {
        card_power::raise(k, id);
        if on {
            elsewhere::settle(k, id);
        }
        bus::decode(k, id, on);
        k.pnp.node_mut(id).power = if on { PowerDeviceD0 } else { PowerDeviceD3 };
    });
    Reply::status(NtStatus::SUCCESS)
}

/// `IRP_MN_QUERY_CAPABILITIES`, to whose `DEVICE_CAPABILITIES` `fill` adds what the bus knows.
pub(super) fn capabilities(
    cx: &mut Cx<'_>,
    location: Location,
    fill: impl FnOnce(&mut Kernel, &mut [u8; capabilities::SIZE as usize]),
) -> Flow<Reply> {
    let to = cx.read(location + IO_STACK_LOCATION::Parameters_DeviceCapabilities_Capabilities)?;
    let size = cx.read(to + abi::DEVICE_CAPABILITIES::Size)?;
    let version = cx.read(to + abi::DEVICE_CAPABILITIES::Version)?;
    if version != 1 || size < capabilities::SIZE {
        return Ok(Reply::status(NtStatus::UNSUCCESSFUL));
    }
    let bytes = cx.read_bytes(to.address, capabilities::SIZE.into())?;
    let mut own = [0; capabilities::SIZE as usize];
    own.copy_from_slice(&bytes);
    cx.with(|k| fill(k, &mut own));
    cx.write_bytes(to.address, &own)?;
    Ok(Reply::status(NtStatus::SUCCESS))
}

fn query_id(cx: &mut Cx<'_>, id: NodeId, location: Location) -> Flow<Reply> {
    let kind = cx.read(location + IO_STACK_LOCATION::Parameters_QueryId_IdType)?;
    let identity = cx.with(|k| k.pnp.card(id).identity);
    match kind {
        BusQueryDeviceID => give(cx, &ob::string::encode(&identity.device_id())),
        BusQueryInstanceID => give(cx, &ob::string::encode(&identity.instance_id())),
        BusQueryHardwareIDs => give(cx, &multiple(&identity.hardware_ids())),
        BusQueryCompatibleIDs => give(cx, &multiple(&identity.compatible_ids())),
        _ => Ok(Reply::UNCHANGED),
    }
}

/// `REG_MULTI_SZ`: each string with its zero, and a zero at the end.
pub(crate) fn multiple(strings: &[String]) -> Vec<u8> {
    strings.iter().flat_map(|string| ob::string::encode(string)).chain([0, 0]).collect()
}

fn query_text(cx: &mut Cx<'_>, id: NodeId, location: Location) -> Flow<Reply> {
    let kind = cx.read(location + IO_STACK_LOCATION::Parameters_QueryDeviceText_DeviceTextType)?;
    let identity = cx.with(|k| k.pnp.card(id).identity);
    match kind {
        DeviceTextDescription => give(cx, &ob::string::encode(identity.description())),
        DeviceTextLocationInformation => give(cx, &ob::string::encode(&identity.location())),
        _ => Ok(Reply::UNCHANGED),
    }
}

/// The boot configuration: what firmware assigned, with the interrupt line register's number as the line.
fn query_resources(cx: &mut Cx<'_>, id: NodeId) -> Flow<Reply> {
    let available = enumerate::available(cx, id);
    if available.is_empty() {
        return Ok(Reply::UNCHANGED);
    }
    let bus = cx.with(|k| k.pnp.node(id).bus());
    give(cx, &resource::list(&available, bus, Form::Raw))
}

fn query_requirements(cx: &mut Cx<'_>, id: NodeId) -> Flow<Reply> {
    let available = enumerate::available(cx, id);
    if available.is_empty() {
        return Ok(Reply::UNCHANGED);
    }
    let at = cx.with(|k| k.pnp.card(id).function.address);
    let (messages, policy) = (message::offer(cx, id), policy::of_device(cx, id));
    give(cx, &requirements::list(&available, at, messages, policy))
}

fn query_bus(cx: &mut Cx<'_>, id: NodeId) -> Flow<Reply> {
    let bus = cx.with(|k| k.pnp.card(id).function.address.bus);
    let mut bytes = zerocopy::IntoBytes::as_bytes(&GUID_BUS_TYPE_PCI).to_vec();
    bytes.extend_from_slice(&PCIBus.to_le_bytes());
    bytes.extend_from_slice(&u32::from(bus).to_le_bytes());
    give(cx, &bytes)
}

/// Of all relations a physical device object has one: itself, referenced.
pub(super) fn query_relations(cx: &mut Cx<'_>, id: NodeId, location: Location) -> Flow<Reply> {
    let kind = cx.read(location + IO_STACK_LOCATION::Parameters_QueryDeviceRelations_Type)?;
    if kind != TargetDeviceRelation {
        return Ok(Reply::UNCHANGED);
    }
    let size = size_of::<DEVICE_RELATIONS>() as u64;
    let relations: DriverPtr<DEVICE_RELATIONS> = pool::allocate(cx, pool::Kind::Paged, size, TAG)?;
    if relations.is_null() {
        return Ok(Reply::status(NtStatus::INSUFFICIENT_RESOURCES));
    }
    ob::object::reference(cx, id.pdo())?;
    cx.write(relations + DEVICE_RELATIONS::Count, 1)?;
    cx.write(relations + DEVICE_RELATIONS::Objects, id.pdo())?;
    Ok(Reply::success(relations.address))
}

fn read_config(cx: &mut Cx<'_>, id: NodeId, location: Location) -> Flow<Reply> {
    let Some((buffer, offset, length)) = config_range(cx, location)? else {
        return Ok(Reply { status: Some(NtStatus::INVALID_DEVICE_REQUEST), information: Some(0) });
    };
    let bytes = cx.with(|k| {
        let at = k.pnp.card(id).function.address;
        config::read(k.configuration(), at, offset, length)
    });
    // Of nothing the buffer is not looked at.
    if !bytes.is_empty() {
        cx.write_bytes(buffer, &bytes)?;
    }
    Ok(Reply::success(bytes.len() as u64))
}

fn write_config(cx: &mut Cx<'_>, id: NodeId, location: Location) -> Flow<Reply> {
    let Some((buffer, offset, length)) = config_range(cx, location)? else {
        return Ok(Reply { status: Some(NtStatus::INVALID_DEVICE_REQUEST), information: Some(0) });
    };
    let bytes = match length.min(config::SIZE) {
        0 => Vec::new(),
        length => cx.read_bytes(buffer, length.into())?,
    };
    let written = cx.with(|k| {
        let at = k.pnp.card(id).function.address;
        config::write(k.configuration(), at, offset, &bytes)
    });
    Ok(Reply::success(written.into()))
}

/// Buffer, offset and length of a request for configuration space; none for another space: the cards have no ROM.
fn config_range(cx: &mut Cx<'_>, location: Location) -> Flow<Option<(u64, u32, u32)>> {
    let space = cx.read(location + IO_STACK_LOCATION::Parameters_ReadWriteConfig_WhichSpace)?;
    let buffer = cx.read(location + IO_STACK_LOCATION::Parameters_ReadWriteConfig_Buffer)?;
    let offset = cx.read(location + IO_STACK_LOCATION::Parameters_ReadWriteConfig_Offset)?;
    let length = cx.read(location + IO_STACK_LOCATION::Parameters_ReadWriteConfig_Length)?;
    Ok((space == PCI_WHICHSPACE_CONFIG).then_some((buffer.address, offset, length)))
}

/// Success, with a copy of `bytes` in paged pool that the asker frees.
pub(super) fn give(cx: &mut Cx<'_>, bytes: &[u8]) -> Flow<Reply> {
    let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::Paged, bytes.len() as u64, TAG)?;
    if block.is_null() {
        return Ok(Reply { status: Some(NtStatus::INSUFFICIENT_RESOURCES), information: Some(0) });
    }
    cx.write_bytes(block.address, bytes)?;
    Ok(Reply::success(block.address))
}
