//! `BUS_INTERFACE_STANDARD`: configuration space for drivers that cannot send requests, being at DISPATCH_LEVEL or above.
//!
//! Pages: *BUS_INTERFACE_STANDARD structure*, *GET_SET_DEVICE_DATA callback function*, *IRP_MN_QUERY_INTERFACE*, *TRANSLATE_BUS_ADDRESS
//! callback function*. Its routines are rows of `exports/internal.rs`; `Context` is the physical device object.

use abi::{
    BUS_INTERFACE_STANDARD, DEVICE_DESCRIPTION, DMA_ADAPTER, DriverPtr, GUID_BUS_INTERFACE_STANDARD,
    IO_STACK_LOCATION, NtStatus, PCI_WHICHSPACE_CONFIG,
};
use engine::Flow;

use super::node::{NodeId, State};
use crate::cx::Cx;
use crate::hal::{bus_data, config, dma};
use crate::ldr;
use crate::verdict::Verdict;

/// Answers `IRP_MN_QUERY_INTERFACE`; none for interfaces the bus driver does not have.
pub(super) fn query(
    cx: &mut Cx<'_>,
    id: NodeId,
    location: DriverPtr<IO_STACK_LOCATION>,
) -> Flow<Option<NtStatus>> {
    let kind = cx.read(location + IO_STACK_LOCATION::Parameters_QueryInterface_InterfaceType)?;
    if cx.read(kind)? != GUID_BUS_INTERFACE_STANDARD {
        return Ok(None);
    }
    let size = cx.read(location + IO_STACK_LOCATION::Parameters_QueryInterface_Size)?;
    let to = cx.read(location + IO_STACK_LOCATION::Parameters_QueryInterface_Interface)?;
    let to: DriverPtr<BUS_INTERFACE_STANDARD> = to.cast();
    let own = u16::try_from(size_of::<BUS_INTERFACE_STANDARD>()).unwrap_or(u16::MAX);
    if size < own {
        return Ok(Some(NtStatus::INVALID_PARAMETER));
    }
    cx.write(to + BUS_INTERFACE_STANDARD::Size, own)?;
    cx.write(to + BUS_INTERFACE_STANDARD::Version, 1)?;
    cx.write(to + BUS_INTERFACE_STANDARD::Context, id.pdo().cast())?;
    for (field, routine) in [
        (BUS_INTERFACE_STANDARD::InterfaceReference, "PciInterfaceReference"),
        (BUS_INTERFACE_STANDARD::InterfaceDereference, "PciInterfaceDereference"),
        (BUS_INTERFACE_STANDARD::TranslateBusAddress, "PciTranslateBusAddress"),
        (BUS_INTERFACE_STANDARD::GetDmaAdapter, "PciGetDmaAdapter"),
        (BUS_INTERFACE_STANDARD::SetBusData, "PciSetBusData"),
        (BUS_INTERFACE_STANDARD::GetBusData, "PciGetBusData"),
    ] {
        cx.write(to + field, ldr::internal_address(routine))?;
    }
    reference(cx, id.0)?;
    Ok(Some(NtStatus::SUCCESS))
}

/// The node an interface belongs to.
fn node(cx: &mut Cx<'_>, routine: &str, context: u64) -> Flow<NodeId> {
    let id = NodeId(context);
    if cx.with(|k| k.pnp.nodes.get(&id).is_some_and(|node| node.card().is_some())) {
        return Ok(id);
    }
    let message = format!(
        "{routine} of BUS_INTERFACE_STANDARD was given {context:#x}, which is not the interface's Context"
    );
    Err(cx.stop(Verdict::error("interface-context", message)))
}

/// `InterfaceReference`.
///
/// # Errors
/// A verdict if the context is not the interface's.
pub(crate) fn reference(cx: &mut Cx<'_>, context: u64) -> Flow<()> {
    let id = node(cx, "InterfaceReference", context)?;
    cx.with(|k| k.pnp.node_mut(id).interfaces += 1);
    Ok(())
}

/// `InterfaceDereference`.
///
/// # Errors
/// A verdict if the context is not the interface's, or there is no reference left.
pub(crate) fn dereference(cx: &mut Cx<'_>, context: u64) -> Flow<()> {
    let id = node(cx, "InterfaceDereference", context)?;
    let left = cx.with(|k| {
        let node = k.pnp.node_mut(id);
        node.interfaces = node.interfaces.checked_sub(1)?;
        Some(())
    });
    match left {
        Some(()) => Ok(()),
        None => {
            let message = "InterfaceDereference of BUS_INTERFACE_STANDARD was called more often than the interface was asked for";
            Err(cx.stop(Verdict::error("interface-reference", message)))
        }
    }
}

/// `TranslateBusAddress`: on a PC bus addresses are system addresses.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn translate(
    cx: &mut Cx<'_>,
    context: u64,
    address: u64,
    _length: u32,
    space: DriverPtr<u32>,
    translated: DriverPtr<u64>,
) -> Flow<bool> {
    node(cx, "TranslateBusAddress", context)?;
    let wanted = cx.read(space)?;
    if wanted > 1 {
        return Ok(false);
    }
    let system = bus_data::translate(cx, address, wanted);
    cx.write(translated, system)?;
    Ok(true)
}

/// `GetDmaAdapter`: as `IoGetDmaAdapter`, for the interface's device.
///
/// # Errors
/// A verdict if the context is not the interface's, or a pointer is bad.
pub(crate) fn dma_adapter(
    cx: &mut Cx<'_>,
    context: u64,
    description: DriverPtr<DEVICE_DESCRIPTION>,
    registers: DriverPtr<u32>,
) -> Flow<DriverPtr<DMA_ADAPTER>> {
    let id = node(cx, "GetDmaAdapter", context)?;
    dma::get(cx, id.pdo(), description, registers)
}

/// `GetBusData`: how many bytes were read.
///
/// # Errors
/// A verdict if the buffer cannot be written.
pub(crate) fn get_data(
    cx: &mut Cx<'_>,
    context: u64,
    space: u32,
    buffer: DriverPtr<()>,
    offset: u32,
    length: u32,
) -> Flow<u32> {
    let id = node(cx, "GetBusData", context)?;
    if space != PCI_WHICHSPACE_CONFIG || is_gone(cx, id) {
        return Ok(0);
    }
    let bytes = cx.with(|k| {
        let at = k.pnp.card(id).function.address;
        config::read(k.configuration(), at, offset, length)
    });
    cx.write_bytes(buffer.address, &bytes)?;
    Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}

/// `SetBusData`: how many bytes were written.
///
/// # Errors
/// A verdict if the buffer cannot be read.
pub(crate) fn set_data(
    cx: &mut Cx<'_>,
    context: u64,
    space: u32,
    buffer: DriverPtr<()>,
    offset: u32,
    length: u32,
) -> Flow<u32> {
    let id = node(cx, "SetBusData", context)?;
    if space != PCI_WHICHSPACE_CONFIG || is_gone(cx, id) {
        return Ok(0);
    }
    let bytes = cx.read_bytes(buffer.address, length.min(config::SIZE).into())?;
    Ok(cx.with(|k| {
        let at = k.pnp.card(id).function.address;
        config::write(k.configuration(), at, offset, &bytes)
    }))
}

fn is_gone(cx: &mut Cx<'_>, id: NodeId) -> bool {
    cx.with(|k| k.pnp.node(id).state == State::Deleted)
}
