//! Resources that drivers of legacy devices claim for themselves, and which of them are taken.
//!
//! Pages: *IoReportResourceForDetection function*, *IoReportResourceUsage* and *Claiming Hardware Resources* of the Windows 2000 DDK, *CM_RESOURCE_LIST structure*. A new
//! claim of the same driver or device takes the place of its last, and an empty one gives it back. For what is detected, whatever the firmware gave a card on the bus is
//! taken; else only what a device was started with. What is claimed is not written to the registry, and using what was not claimed is no verdict.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    CM_PARTIAL_RESOURCE_DESCRIPTOR, CM_RESOURCE_INTERRUPT_LATCHED, CM_RESOURCE_INTERRUPT_MESSAGE,
    CmResourceShareDeviceExclusive, CmResourceShareShared, CmResourceTypeBusNumber, CmResourceTypeDma,
    CmResourceTypeInterrupt, CmResourceTypeMemory, CmResourceTypeMemoryLarge, CmResourceTypePort,
    DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, NtStatus, UNICODE_STRING,
};
use engine::Flow;

use super::arbiter::{Held, Range};
use super::node::State;
use super::resource;
use super::wanted::{Wanted, dword, large_shift};
use crate::cx::{Cx, Kernel};

/// Who claims: a driver for all its devices, or one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claimer {
    driver: u64,
    device: u64,
}

impl Claimer {
    /// Of a call: its device, if it names one.
    pub(super) const fn new(driver: DriverPtr<DRIVER_OBJECT>, device: DriverPtr<DEVICE_OBJECT>) -> Self {
        Self { driver: driver.address, device: device.address }
    }
}

/// All claims.
#[derive(Default)]
pub(crate) struct Claims(Vec<(Claimer, Vec<Range>)>);

/// All claims, with the services of those who claim.
pub(super) fn all(k: &Kernel) -> Vec<Held> {
    held(k, |_| true)
}

fn held(k: &Kernel, counts: impl Fn(&Claimer) -> bool) -> Vec<Held> {
    let claims = k.pnp.claims.0.iter().filter(|(claimer, _)| counts(claimer));
    let ranges = claims.flat_map(|(claimer, ranges)| {
        let service =
            k.io.drivers.get(&claimer.driver).map(|driver| driver.service.clone()).unwrap_or_default();
        ranges.iter().map(move |range| Held { range: *range, by: service.clone() })
    });
    ranges.collect()
}

/// What others have claimed or were started with; of what is looked for, also what the firmware gave to cards.
pub(super) fn taken(k: &Kernel, by: Claimer, detects: bool) -> Vec<Held> {
    let mut taken = held(k, |claimer| *claimer != by);
    for node in k.pnp.nodes.values().filter(|node| node.state != State::Deleted) {
        let given = node.resources.iter().filter_map(resource::range);
        let windows = node.card().filter(|_| detects).map_or(&[][..], |card| &card.function.windows);
        let could = windows.iter().filter(|own| own.base != 0).map(resource::of_window);
        taken.extend(given.chain(could).map(|range| Held { range, by: node.name.clone() }));
    }
    taken
}

/// Whether some of these are taken by someone else.
pub(super) fn are_taken(k: &Kernel, by: Claimer, ranges: &[Range], detects: bool) -> bool {
    let taken = taken(k, by, detects);
    ranges.iter().any(|range| taken.iter().any(|held| held.range.conflicts(range)))
}

/// A claimer has these from now on, and nothing else.
pub(super) fn take(k: &mut Kernel, by: Claimer, ranges: Vec<Range>) {
    k.pnp.claims.0.retain(|(claimer, _)| *claimer != by);
    if !ranges.is_empty() {
        k.pnp.claims.0.push((by, ranges));
    }
}

/// A driver has detected a device by the resources of a list: they are the device's, unless another has them. What the driver has claimed
/// in order to look for it is no conflict.
///
/// # Errors
/// A verdict if the list is bad.
pub(super) fn for_detected(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    device: DriverPtr<DEVICE_OBJECT>,
    list: u64,
    size: usize,
) -> Flow<NtStatus> {
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let Some(ranges) = read(cx, list, size)? else { return Ok(NtStatus::UNSUCCESSFUL) };
    let (by, looking) = (Claimer::new(driver, device), Claimer::new(driver, DriverPtr::NULL));
    Ok(cx.with(|k| {
        let claims = &mut k.pnp.claims.0;
        let looked = claims.iter().position(|(claimer, _)| *claimer == looking).map(|at| claims.remove(at));
        let is_taken = are_taken(k, by, &ranges, false);
        k.pnp.claims.0.extend(looked);
        if is_taken {
            return NtStatus::CONFLICTING_ADDRESSES;
        }
        take(k, by, ranges);
        NtStatus::SUCCESS
    }))
}

/// What a driver that is gone has claimed is free again.
pub(crate) fn forget_driver(k: &mut Kernel, driver: u64) {
    k.pnp.claims.0.retain(|(claimer, _)| claimer.driver != driver);
}

/// The ranges of a `CM_RESOURCE_LIST` of at most `size` bytes; none if it does not fit.
fn read(cx: &mut Cx<'_>, list: u64, size: u32) -> Flow<Option<Vec<Range>>> {
    const DESCRIPTOR: u64 = size_of::<CM_PARTIAL_RESOURCE_DESCRIPTOR>() as u64;
    let (mut ranges, mut at, end) = (Vec::new(), 4, u64::from(size));
    if list == 0 || end < at {
        return Ok(None);
    }
    for _ in 0..cx.read(DriverPtr::<u32>::new(list))? {
        if at + 16 > end {
            return Ok(None);
        }
        let count = cx.read(DriverPtr::<u32>::new(list + at + 12))?;
        at += 16;
        for _ in 0..count {
            if at + DESCRIPTOR > end {
                return Ok(None);
            }
            let bytes = cx.read_bytes(list + at, DESCRIPTOR)?;
            ranges.extend(range_of(&bytes));
            at += DESCRIPTOR;
        }
    }
    Ok(Some(ranges))
}

/// The ranges of the bytes of a `CM_RESOURCE_LIST`, as far as they go.
pub(super) fn of_list(list: &[u8]) -> Vec<Range> {
    const DESCRIPTOR: usize = size_of::<CM_PARTIAL_RESOURCE_DESCRIPTOR>();
    let (mut ranges, mut at) = (Vec::new(), 4);
    for _ in 0..dword(list, 0).unwrap_or(0) {
        let Some(count) = dword(list, at + 12) else { break };
        at += 16;
        for _ in 0..count {
            let Some(descriptor) = list.get(at..at + DESCRIPTOR) else { return ranges };
            ranges.extend(range_of(descriptor));
            at += DESCRIPTOR;
        }
    }
    ranges
}

/// The same as requirements: each resource where it is, and nowhere else.
pub(super) fn wanted(list: &[u8]) -> Vec<Wanted> {
    let one = |range: Range| {
        let Range { kind, start, length, shared, latched } = range;
        let share = if shared { CmResourceShareShared } else { CmResourceShareDeviceExclusive };
        let [low, size] = [start, length].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let flags = if latched { CM_RESOURCE_INTERRUPT_LATCHED } else { 0 };
        match kind {
            CmResourceTypeInterrupt | CmResourceTypeDma => Wanted::number(kind, share, flags, low),
            CmResourceTypeBusNumber => {
                Wanted { share, ..Wanted::range(kind, 0, size, low, (range.end() - 1, 0)) }
            }
            _ => Wanted { share, ..Wanted::range(kind, 0, size, 1, (start, range.end() - 1)) },
        }
    };
    of_list(list).into_iter().filter(|range| range.length != 0).map(one).collect()
}

/// Where the resource of a `CM_PARTIAL_RESOURCE_DESCRIPTOR` lies; none for messages and what lies nowhere.
fn range_of(descriptor: &[u8]) -> Option<Range> {
    let word = |at| dword(descriptor, at).unwrap_or(0);
    let (kind, shared) = (descriptor[0], descriptor[1] == CmResourceShareShared);
    let flags = u16::from_le_bytes([descriptor[2], descriptor[3]]);
    let start = u64::from(word(4)) | u64::from(word(8)) << 32;
    let (kind, start, length, latched) = match kind {
        CmResourceTypePort | CmResourceTypeMemory => (kind, start, word(12).into(), false),
        CmResourceTypeMemoryLarge => {
            (CmResourceTypeMemory, start, u64::from(word(12)) << large_shift(flags), false)
        }
        CmResourceTypeInterrupt if flags & CM_RESOURCE_INTERRUPT_MESSAGE == 0 => {
            (kind, word(4).into(), 1, flags & CM_RESOURCE_INTERRUPT_LATCHED != 0)
        }
        CmResourceTypeDma => (kind, word(4).into(), 1, false),
        CmResourceTypeBusNumber => (kind, word(4).into(), word(8).into(), false),
        _ => return None,
    };
    Some(Range { kind, start, length, shared, latched })
}

/// A list of the driver's, or of the device's, which counts if both are there.
#[derive(Clone, Copy)]
struct Lists {
    driver: (u64, u32),
    device: (u64, u32),
}

fn claim(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    device: DriverPtr<DEVICE_OBJECT>,
    lists: Lists,
    (detects, overrides): (bool, bool),
    conflict: DriverPtr<u8>,
) -> Flow<NtStatus> {
    let of_device = lists.device.0 != 0;
    let (list, size) = if of_device { lists.device } else { lists.driver };
    let by = Claimer::new(driver, if of_device { device } else { DriverPtr::NULL });
    let Some(ranges) = read(cx, list, size)? else { return Ok(NtStatus::UNSUCCESSFUL) };
    let is_taken = cx.with(|k| are_taken(k, by, &ranges, detects));
    cx.write(conflict, u8::from(is_taken))?;
    if is_taken && !overrides {
        return Ok(NtStatus::CONFLICTING_ADDRESSES);
    }
    cx.with(|k| take(k, by, ranges));
    Ok(NtStatus::SUCCESS)
}

/// `IoReportResourceUsage`.
///
/// # Errors
/// A verdict if a pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn report_usage(
    cx: &mut Cx<'_>,
    _class: DriverPtr<UNICODE_STRING>,
    driver: DriverPtr<DRIVER_OBJECT>,
    driver_list: u64,
    driver_size: u32,
    device: DriverPtr<DEVICE_OBJECT>,
    device_list: u64,
    device_size: u32,
    overrides: bool,
    conflict: DriverPtr<u8>,
) -> Flow<NtStatus> {
    let lists = Lists { driver: (driver_list, driver_size), device: (device_list, device_size) };
    claim(cx, driver, device, lists, (false, overrides), conflict)
}

/// `IoReportResourceForDetection`.
///
/// # Errors
/// A verdict if a pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn report_for_detection(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    driver_list: u64,
    driver_size: u32,
    device: DriverPtr<DEVICE_OBJECT>,
    device_list: u64,
    device_size: u32,
    conflict: DriverPtr<u8>,
) -> Flow<NtStatus> {
    let lists = Lists { driver: (driver_list, driver_size), device: (device_list, device_size) };
    claim(cx, driver, device, lists, (true, false), conflict)
}
