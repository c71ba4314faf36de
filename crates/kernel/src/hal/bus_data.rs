//! Configuration space by bus and slot, the old way; bus addresses and interrupt lines translated.
//!
//! Pages: *HalGetBusDataByOffset function*, *HalSetBusDataByOffset function*, *HalTranslateBusAddress*,
//! *HalGetInterruptVector*. Only `PCIConfiguration` exists: this machine has no CMOS, EISA or PCMCIA data.

use abi::{DriverPtr, InterfaceTypeUndefined, Internal, Isa, PCI_INVALID_VENDORID, PCIBus, PCIConfiguration};
use engine::Flow;

use super::config;
use super::hardware::PciAddress;
use crate::cx::{Cx, Kernel};
use crate::pnp;

/// What a bus and slot number lead to.
enum Place {
    /// No such bus.
    NoBus,
    /// A bus, and no card in the slot.
    Empty,
    /// A function.
    Function(PciAddress),
}

fn place(k: &mut Kernel, bus: u32, slot: u32) -> Place {
    let functions = k.hal.hardware.functions();
    let Some(at) = config::address(bus, slot) else { return Place::NoBus };
    if bus != 0 && functions.iter().all(|function| function.address.bus != at.bus) {
        return Place::NoBus;
    }
    // Not by the list of functions: a card that has gone does not answer.
    let vendor = config::read(k.configuration(), at, 0, 2);
    if vendor == PCI_INVALID_VENDORID.to_le_bytes() { Place::Empty } else { Place::Function(at) }
}

/// `HalGetBusData`: [`get_by_offset`] from the start.
///
/// # Errors
/// As there.
pub(crate) fn get(
    cx: &mut Cx<'_>,
    kind: u32,
    bus: u32,
    slot: u32,
    buffer: DriverPtr<()>,
    length: u32,
) -> Flow<u32> {
    get_by_offset(cx, kind, bus, slot, buffer, 0, length)
}

/// `HalGetBusDataByOffset`: how many bytes were read; 0 without such a bus, 2 (an invalid vendor) from an empty slot.
///
/// # Errors
/// A verdict if the buffer cannot be written.
pub(crate) fn get_by_offset(
    cx: &mut Cx<'_>,
    kind: u32,
    bus: u32,
    slot: u32,
    buffer: DriverPtr<()>,
    offset: u32,
    length: u32,
) -> Flow<u32> {
    if kind != PCIConfiguration || length == 0 {
        return Ok(0);
    }
    let bytes = cx.with(|k| match place(k, bus, slot) {
        Place::NoBus => Vec::new(),
        Place::Empty if offset == 0 && length >= 2 => PCI_INVALID_VENDORID.to_le_bytes().to_vec(),
        Place::Empty => Vec::new(),
        Place::Function(at) => config::read(k.configuration(), at, offset, length),
    });
    cx.write_bytes(buffer.address, &bytes)?;
    Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}

/// `HalSetBusData`: [`set_by_offset`] from the start.
///
/// # Errors
/// As there.
pub(crate) fn set(
    cx: &mut Cx<'_>,
    kind: u32,
    bus: u32,
    slot: u32,
    buffer: DriverPtr<()>,
    length: u32,
) -> Flow<u32> {
    set_by_offset(cx, kind, bus, slot, buffer, 0, length)
}

/// `HalSetBusDataByOffset`: how many bytes were written.
///
/// # Errors
/// A verdict if the buffer cannot be read.
pub(crate) fn set_by_offset(
    cx: &mut Cx<'_>,
    kind: u32,
    bus: u32,
    slot: u32,
    buffer: DriverPtr<()>,
    offset: u32,
    length: u32,
) -> Flow<u32> {
    if kind != PCIConfiguration || length == 0 {
        return Ok(0);
    }
    let bytes = cx.read_bytes(buffer.address, length.min(config::SIZE).into())?;
    let written = cx.with(|k| match place(k, bus, slot) {
        Place::Function(at) => config::write(k.configuration(), at, offset, &bytes),
        Place::NoBus | Place::Empty => 0,
    });
    Ok(written)
}

/// `HalTranslateBusAddress`: on a PC bus addresses are system addresses; I/O space stays I/O space everywhere.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn translate_address(
    cx: &mut Cx<'_>,
    interface: u32,
    bus: u32,
    address: u64,
    space: DriverPtr<u32>,
    translated: DriverPtr<u64>,
) -> Flow<bool> {
    let wanted = cx.read(space)?;
    let known = interface == PCIBus || (bus == 0 && (interface == Internal || interface == Isa));
    if !known || interface == InterfaceTypeUndefined || wanted > 1 {
        return Ok(false);
    }
    let system = translate(cx, address, wanted);
    cx.write(translated, system)?;
    Ok(true)
}

/// Where the processors find a bus address; `space` is 0 for memory and 1 for I/O.
pub(crate) fn translate(cx: &mut Cx<'_>, address: u64, space: u32) -> u64 {
    if space == 0 { cx.with(|k| k.hal.platform.to_system(address)) } else { address }
}

/// `HalGetInterruptVector`: vector, level and processors for a PCI device's interrupt line register (3Ch) as `level`;
/// vector 0 for a line that no device has.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn interrupt_vector(
    cx: &mut Cx<'_>,
    interface: u32,
    _bus: u32,
    level: u32,
    _vector: u32,
    irql: DriverPtr<u8>,
    affinity: DriverPtr<u64>,
) -> Flow<u32> {
    let line = if interface == PCIBus { cx.with(|k| line_of_register(k, level)) } else { None };
    let Some(line) = line else { return Ok(0) };
    let routed = cx.with(|k| pnp::routed(k, line));
    cx.write(irql, routed.irql)?;
    cx.write(affinity, routed.affinity)?;
    Ok(routed.vector)
}

/// The line of the first function whose interrupt line register holds `value`, or `value` where that is a line itself.
fn line_of_register(k: &mut Kernel, value: u32) -> Option<u32> {
    let functions = k.hal.hardware.functions();
    let mut by_register = functions.iter().filter(|function| {
        config::read(k.hal.hardware.as_mut(), function.address, 0x3C, 1)
            .first()
            .is_some_and(|&l| value == l.into())
    });
    let found = by_register.find_map(|function| function.line);
    found.or_else(|| functions.iter().filter_map(|function| function.line).find(|&line| line == value))
}
