//! Zones: blocks of one size, cut from segments that the driver gives; what came before lookaside lists.
//!
//! Pages (of the Windows 2000 DDK; today's only point at lookaside lists): *ExInitializeZone*, *ExExtendZone*,
//! *ExInterlockedExtendZone*. Blocks are taken and put back by macros of `ntddk.h`, or by `ExInterlockedPopEntryList` and
//! `ExInterlockedPushEntryList` with the driver's lock. No page says what an extension does to the header: here the initial segment stays
//! first in SegmentList and TotalSegmentSize stays its own, so that `ExIsObjectInFirstZoneSegment`, which looks at both, stays true.

use abi::{DriverPtr, NtStatus, SINGLE_LIST_ENTRY, ZONE_HEADER, ZONE_SEGMENT_HEADER};
use engine::Flow;

use super::list;
use crate::cx::Cx;
use crate::ke::slice;
use crate::verdict::Verdict;

type Zone = DriverPtr<ZONE_HEADER>;
type Segment = DriverPtr<ZONE_SEGMENT_HEADER>;
type Entry = DriverPtr<SINGLE_LIST_ENTRY>;

/// More segments than any zone has.
const MOST_SEGMENTS: u32 = 1 << 20;

/// `ExInitializeZone`; STATUS_UNSUCCESSFUL for a block or segment that is not aligned, or a block larger than the segment.
///
/// # Errors
/// A verdict on blocks of no bytes, or a bad pointer.
pub(crate) fn initialize(
    cx: &mut Cx<'_>,
    zone: Zone,
    block: u32,
    segment: Segment,
    size: u32,
) -> Flow<NtStatus> {
    expect_block_size(cx, "ExInitializeZone", zone, block, block == 0)?;
    if !block.is_multiple_of(8) || !fits(segment, size, block) {
        return Ok(NtStatus::UNSUCCESSFUL);
    }
    cx.write(segment + ZONE_SEGMENT_HEADER::SegmentList + SINGLE_LIST_ENTRY::Next, DriverPtr::NULL)?;
    cx.write(segment + ZONE_SEGMENT_HEADER::Reserved, DriverPtr::NULL)?;
    let first = chain(cx, segment, size, block, DriverPtr::NULL)?;
    cx.write(zone + ZONE_HEADER::FreeList + SINGLE_LIST_ENTRY::Next, first)?;
    cx.write(zone + ZONE_HEADER::SegmentList + SINGLE_LIST_ENTRY::Next, segment.cast())?;
    cx.write(zone + ZONE_HEADER::BlockSize, block)?;
    cx.write(zone + ZONE_HEADER::TotalSegmentSize, size)?;
    Ok(NtStatus::SUCCESS)
}

/// `ExExtendZone`: the blocks of another segment, in front of those that are free.
///
/// # Errors
/// A verdict on a header that no initialization has left so, or a bad pointer.
pub(crate) fn extend(cx: &mut Cx<'_>, zone: Zone, segment: Segment, size: u32) -> Flow<NtStatus> {
    add(cx, "ExExtendZone", zone, segment, size)
}

/// `ExInterlockedExtendZone`.
///
/// # Errors
/// As [`extend`], or if the caller holds the lock.
pub(crate) fn interlocked_extend(
    cx: &mut Cx<'_>,
    zone: Zone,
    segment: Segment,
    size: u32,
    lock: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let name = "ExInterlockedExtendZone";
    list::through(cx, name, lock)?;
    add(cx, name, zone, segment, size)
}

fn add(cx: &mut Cx<'_>, name: &str, zone: Zone, segment: Segment, size: u32) -> Flow<NtStatus> {
    let block = cx.read(zone + ZONE_HEADER::BlockSize)?;
    expect_block_size(cx, name, zone, block, block == 0 || !block.is_multiple_of(8))?;
    if !fits(segment, size, block) {
        return Ok(NtStatus::UNSUCCESSFUL);
    }
    let last = last_segment(cx, zone)?;
    cx.write(segment + ZONE_SEGMENT_HEADER::SegmentList + SINGLE_LIST_ENTRY::Next, DriverPtr::NULL)?;
    cx.write(segment + ZONE_SEGMENT_HEADER::Reserved, DriverPtr::NULL)?;
    cx.write(last + SINGLE_LIST_ENTRY::Next, segment.cast())?;
    let free = cx.read(zone + ZONE_HEADER::FreeList + SINGLE_LIST_ENTRY::Next)?;
    let first = chain(cx, segment, size, block, free)?;
    cx.write(zone + ZONE_HEADER::FreeList + SINGLE_LIST_ENTRY::Next, first)?;
    Ok(NtStatus::SUCCESS)
}

fn fits(segment: Segment, size: u32, block: u32) -> bool {
    segment.address.is_multiple_of(8) && size >= block && u64::from(size) >= size_of_header()
}

const fn size_of_header() -> u64 {
    size_of::<ZONE_SEGMENT_HEADER>() as u64
}

/// Cuts a segment behind its header into blocks, each linked to the one behind it, the last to `rest`: the first of all.
fn chain(cx: &mut Cx<'_>, segment: Segment, size: u32, block: u32, rest: Entry) -> Flow<Entry> {
    let start = segment.byte_add(size_of_header()).cast::<SINGLE_LIST_ENTRY>();
    let count = (u64::from(size) - size_of_header()) / u64::from(block);
    for index in 0..count {
        let at = start.byte_add(index * u64::from(block));
        let next = if index + 1 == count { rest } else { at.byte_add(block.into()) };
        cx.write(at + SINGLE_LIST_ENTRY::Next, next)?;
        if index % 1024 == 1023 {
            slice::work(cx, 4096)?;
        }
    }
    Ok(if count == 0 { rest } else { start })
}

/// The link of the last segment, or the header's if there is none.
fn last_segment(cx: &mut Cx<'_>, zone: Zone) -> Flow<Entry> {
    let mut link = zone + ZONE_HEADER::SegmentList;
    for _ in 0..MOST_SEGMENTS {
        let next = cx.read(link + SINGLE_LIST_ENTRY::Next)?;
        if next.is_null() {
            return Ok(link);
        }
        link = next;
    }
    Err(cx.stop(Verdict::endless_list("SegmentList.Next", zone.address)))
}

fn expect_block_size(cx: &mut Cx<'_>, name: &str, zone: Zone, block: u32, wrong: bool) -> Flow<()> {
    if !wrong {
        return Ok(());
    }
    let message = format!(
        "{name} was given the zone {:#x} with blocks of {block:#x} bytes; ExInitializeZone leaves a multiple of 8 that is not 0",
        zone.address
    );
    Err(cx.stop(Verdict::error("zone-block-size", message)))
}
