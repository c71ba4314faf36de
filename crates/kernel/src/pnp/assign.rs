//! Resources that drivers of Windows NT 4 ask for: those of a card in a slot, or of their choice.
//!
//! Pages, of the Windows 2000 DDK: *HalAssignSlotResources*, *IoAssignResources*, *Calling IoAssignResources or HalAssignSlotResources*, *IoQueryDeviceDescription*. A card keeps
//! what the firmware gave it; its decoding is turned on. The description of the hardware below `\Registry\Machine\Hardware\Description` has no controllers
//! and no peripherals, and what would tell of a bus alone is not here.

use abi::{
    CmResourceTypeDevicePrivate, CmResourceTypeInterrupt, Code, DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr,
    IO_RESOURCE_REQUIREMENTS_LIST, NtStatus, PCI_ENABLE_BUS_MASTER, PCI_ENABLE_IO_SPACE,
    PCI_ENABLE_MEMORY_SPACE, PCIBus, UNICODE_STRING,
};
use engine::Flow;

use super::claim::{self, Claimer};
use super::node::State;
use super::resource::{self, Form};
use super::wanted::Requirements;
use super::{arbiter, routed};
use crate::cx::Cx;
use crate::fields::Fields;
use crate::hal::config;
use crate::hal::hardware::Function;
use crate::mm::pool;
use crate::verdict::Verdict;

const TAG: u32 = pool::tag(b"CmRl");
/// Bytes of a partial descriptor.
const DESCRIPTOR: usize = 0x14;
/// Bytes of what stands before the descriptors of a list with one full descriptor.
const HEAD: usize = 20;
/// The command register, in configuration space.
const COMMAND: u32 = 4;

/// `HalAssignSlotResources`: what the firmware gave the card, in pool that the caller frees.
///
/// # Errors
/// A verdict if a pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn slot(
    cx: &mut Cx<'_>,
    _path: DriverPtr<UNICODE_STRING>,
    _class: DriverPtr<UNICODE_STRING>,
    driver: DriverPtr<DRIVER_OBJECT>,
    device: DriverPtr<DEVICE_OBJECT>,
    bus_type: u32,
    bus: u32,
    slot: u32,
    list: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let found = cx.with(|k| {
        let at = config::address(bus, slot).filter(|_| bus_type == PCIBus)?;
        k.hal.hardware.functions().into_iter().find(|function| function.address == at)
    });
    let Some(function) = found else { return Ok(NtStatus::NO_SUCH_DEVICE) };
    let has_driver = cx.with(|k| {
        let nodes = k.pnp.nodes.values();
        nodes
            .filter(|node| node.state != State::Deleted)
            .filter(|node| !node.driver.is_null())
            .any(|node| node.card().is_some_and(|card| card.function.address == function.address))
    });
    let resources = cx.with(|k| resource::of_function(&function, function.line.map(|line| routed(k, line))));
    let (by, ranges) =
        (Claimer::new(driver, device), resources.iter().filter_map(resource::range).collect::<Vec<_>>());
    let is_taken = has_driver || cx.with(|k| claim::are_taken(k, by, &ranges, false));
    if is_taken {
        return Ok(NtStatus::CONFLICTING_ADDRESSES);
    }
    let whole = resource::list(&resources, (PCIBus, function.address.bus.into()), Form::Raw);
    // What is private to the PCI driver is not for drivers of those days.
    let descriptors = whole[HEAD..].chunks_exact(DESCRIPTOR);
    let own: Vec<&[u8]> = descriptors.filter(|one| one[0] != CmResourceTypeDevicePrivate).collect();
    let count = u32::try_from(own.len()).unwrap_or(u32::MAX);
    let bytes = Fields::default().bytes(&whole[..HEAD - 4]).u32(count).bytes(&own.concat()).done();
    if !give(cx, &bytes, list)? {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    turn_on(cx, &function);
    cx.with(|k| claim::take(k, by, ranges));
    Ok(NtStatus::SUCCESS)
}

/// The card answers at its windows, and may be a bus master.
fn turn_on(cx: &mut Cx<'_>, function: &Function) {
    let bits = PCI_ENABLE_IO_SPACE | PCI_ENABLE_MEMORY_SPACE | PCI_ENABLE_BUS_MASTER;
    cx.with(|k| {
        let old = config::read(k.hal.hardware.as_mut(), function.address, COMMAND, 2);
        let new = bits | u16::from_le_bytes([old[0], old[1]]);
        config::write(k.hal.hardware.as_mut(), function.address, COMMAND, &new.to_le_bytes());
    });
}

/// A copy of `bytes` in paged pool that the calling driver frees; false if there is no memory.
fn give(cx: &mut Cx<'_>, bytes: &[u8], to: DriverPtr<u64>) -> Flow<bool> {
    let block: DriverPtr<()> = pool::allocate_for_caller(cx, pool::Kind::Paged, bytes.len() as u64, TAG)?;
    if block.is_null() {
        return Ok(false);
    }
    cx.write_bytes(block.address, bytes)?;
    cx.write(to, block.address)?;
    Ok(true)
}

/// `IoAssignResources`: the first list of requirements that can be met; without one, what was claimed is given back.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn assign(
    cx: &mut Cx<'_>,
    _path: DriverPtr<UNICODE_STRING>,
    _class: DriverPtr<UNICODE_STRING>,
    driver: DriverPtr<DRIVER_OBJECT>,
    device: DriverPtr<DEVICE_OBJECT>,
    wanted: DriverPtr<IO_RESOURCE_REQUIREMENTS_LIST>,
    list: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let by = Claimer::new(driver, device);
    if wanted.is_null() {
        cx.with(|k| claim::take(k, by, Vec::new()));
        return Ok(NtStatus::SUCCESS);
    }
    let size = cx.read(wanted + IO_RESOURCE_REQUIREMENTS_LIST::ListSize)?;
    let bytes = cx.read_bytes(wanted.address, size.into())?;
    let Ok(requirements) = Requirements::read(&bytes) else { return Ok(NtStatus::INVALID_PARAMETER) };
    let taken = cx.with(|k| claim::taken(k, by, false));
    for one in &requirements.lists {
        let Ok(given) = arbiter::meet(one, &taken, &[]) else { continue };
        let head = [1, requirements.interface, requirements.bus, 0x0001_0001];
        let head = head.into_iter().fold(Fields::default(), Fields::u32).size(given.len());
        let all = given.iter().fold(head, |list, (at, range)| {
            let one = list.bytes(&[range.kind, one[*at].share]).u16(one[*at].flags);
            if range.kind == CmResourceTypeInterrupt {
                let vector = u32::try_from(range.start).unwrap_or(u32::MAX);
                return one.u32(vector).u32(vector).u64(u64::MAX);
            }
            one.u64(range.start).u32(u32::try_from(range.length).unwrap_or(u32::MAX)).u32(0)
        });
        if !give(cx, &all.done(), list)? {
            return Ok(NtStatus::INSUFFICIENT_RESOURCES);
        }
        cx.with(|k| claim::take(k, by, given.into_iter().map(|(_, range)| range).collect()));
        return Ok(NtStatus::SUCCESS);
    }
    Ok(NtStatus::CONFLICTING_ADDRESSES)
}

/// `IoQueryDeviceDescription`: there is no controller and no peripheral that firmware describes.
///
/// # Errors
/// What dirql lacks: a question for buses alone.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn query_description(
    cx: &mut Cx<'_>,
    _bus_type: DriverPtr<u32>,
    _bus: DriverPtr<u32>,
    controller: DriverPtr<u32>,
    _controller_number: DriverPtr<u32>,
    _peripheral: DriverPtr<u32>,
    _peripheral_number: DriverPtr<u32>,
    _routine: DriverPtr<Code>,
    _context: u64,
) -> Flow<NtStatus> {
    if controller.is_null() {
        let what = "IoQueryDeviceDescription without a ControllerType: what firmware says of a bus";
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    cx.read(controller)?;
    Ok(NtStatus::OBJECT_NAME_NOT_FOUND)
}
