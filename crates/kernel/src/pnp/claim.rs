//! Resources that drivers of legacy devices claim for themselves, and which of them are taken.
//!
//! Pages: *IoReportResourceForDetection function*, *IoReportResourceUsage* and *Claiming Hardware Resources* of the Windows 2000 DDK, *CM_RESOURCE_LIST structure*. A new
//! claim of the same driver or device takes the place of its last, and an empty one gives it back. For what is detected, whatever the firmware gave a card on the bus is
//! taken; else only what a device was started with. What is claimed is not written to the registry, and one that does not claim what it uses is not told.

use abi::{
    CM_PARTIAL_RESOURCE_DESCRIPTOR, CmResourceShareShared, CmResourceTypeDma, CmResourceTypeInterrupt,
    CmResourceTypeMemory, CmResourceTypePort, DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, NtStatus,
    UNICODE_STRING,
};
use engine::Flow;

use super::resource::Resource;
use crate::cx::{Cx, Kernel};

/// A stretch of ports or memory, a line or a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    /// `CmResourceType*`.
    pub(super) kind: u8,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) shared: bool,
}

impl Range {
    fn conflicts(&self, other: &Self) -> bool {
        self.kind == other.kind
            && !(self.shared && other.shared)
            && self.start < other.start.saturating_add(other.length)
            && other.start < self.start.saturating_add(self.length)
    }
}

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

/// Whether a range is taken by someone else.
pub(super) fn is_taken(k: &Kernel, by: Claimer, range: &Range, detects: bool) -> bool {
    let claimed = k.pnp.claims.0.iter().filter(|(claimer, _)| *claimer != by);
    if claimed.flat_map(|(_, ranges)| ranges).any(|other| other.conflicts(range)) {
        return true;
    }
    let window = |port, start, length| Range {
        kind: if port { CmResourceTypePort } else { CmResourceTypeMemory },
        start,
        length,
        shared: false,
    };
    k.pnp.nodes.values().any(|node| {
        let given = node.resources.iter().any(|resource| match resource {
            Resource::Window(own) => window(own.port, own.base, own.length).conflicts(range),
            Resource::Interrupt(own) => {
                let line =
                    Range { kind: CmResourceTypeInterrupt, start: own.line.into(), length: 1, shared: true };
                line.conflicts(range)
            }
            Resource::Messages(_) => false,
        });
        let windows = node.card().map_or(&[][..], |card| &card.function.windows);
        let could = windows.iter().filter(|own| own.base != 0);
        given
            || detects && could.into_iter().any(|own| window(own.port, own.base, own.length).conflicts(range))
    })
}

/// A claimer has these from now on, and nothing else.
pub(super) fn take(k: &mut Kernel, by: Claimer, ranges: Vec<Range>) {
    k.pnp.claims.0.retain(|(claimer, _)| *claimer != by);
    if !ranges.is_empty() {
        k.pnp.claims.0.push((by, ranges));
    }
}

/// A driver has detected a device by the resources of a list: they are the device's, unless somebody else has them. What the driver has claimed
/// in order to look for it does not stand in the way.
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
        let is_taken = ranges.iter().any(|range| is_taken(k, by, range, false));
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
            let word =
                |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            let (kind, shared) = (bytes[0], bytes[1] == CmResourceShareShared);
            let (start, length) = if kind == CmResourceTypePort || kind == CmResourceTypeMemory {
                (u64::from(word(4)) | u64::from(word(8)) << 32, u64::from(word(12)))
            } else {
                // The level of an interrupt, the channel of a DMA controller.
                (word(4).into(), 1)
            };
            if [CmResourceTypePort, CmResourceTypeMemory, CmResourceTypeInterrupt, CmResourceTypeDma]
                .contains(&kind)
            {
                ranges.push(Range { kind, start, length, shared });
            }
            at += DESCRIPTOR;
        }
    }
    Ok(Some(ranges))
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
    let is_taken = cx.with(|k| ranges.iter().any(|range| is_taken(k, by, range, detects)));
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
pub fn report_usage(
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
pub fn report_for_detection(
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
