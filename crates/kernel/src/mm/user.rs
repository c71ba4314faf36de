//! Memory of applications: what a bench passes to a driver as an application's buffer.
//!
//! Page: *Virtual Address Spaces*. What drivers have mapped for an application (`mdl_map`) lies there too, of devices in a window of
//! its own, where each of its instructions is an access to the card. All applications share one window, each range with its process; whose memory is current is
//! the scheduler's to say. It is pageable, and no page ever is out.

use std::collections::BTreeMap;

use engine::windows::{PAGE, USER_DEVICE};
use engine::{Access, BadAddress, Flow, Protection};

use super::map::{self, Page};
use super::paging;
use super::space::Zone;
use crate::cx::{Cx, Kernel};
use crate::hal::access;

/// Ranges by address: pages and process.
#[derive(Default)]
pub struct State {
    ranges: BTreeMap<u64, (u64, u32)>,
    /// Those that a process has for its next request, by process and pages, the one that was used last at the end.
    kept: BTreeMap<(u32, u64), Vec<u64>>,
}

/// Ranges of one size that a process keeps, and pages of the largest that it does.
const MOST_KEPT: usize = 8;
const LARGEST_KEPT: u64 = 16;

/// Zeroed memory of `bytes` for process `process`, at the start of a page; none if there is no memory.
pub fn allocate(cx: &mut Cx<'_>, process: u32, bytes: u64) -> Option<u64> {
    let count = bytes.div_ceil(PAGE).max(1);
    let page = Page { physical: 0, protection: Protection::READ_WRITE, pageable: true };
    cx.with(|k| {
        let address = map::allocate(k, Zone::User, count, page, 0)?;
        k.mm.user.ranges.insert(address, (count, process));
        Some(address)
    })
}

/// As [`allocate`], the buffer ending right before an unmapped page, as a hostile application would pass it.
pub fn allocate_at_end(cx: &mut Cx<'_>, process: u32, bytes: u64) -> Option<u64> {
    let address = allocate(cx, process, bytes)?;
    Some(address + (PAGE - bytes % PAGE) % PAGE)
}

/// Takes the range that holds `address` away; false if there is none.
pub fn free(cx: &mut Cx<'_>, address: u64) -> bool {
    cx.with(|k| {
        let Some((start, (count, _))) = containing(k, address) else { return false };
        k.mm.user.ranges.remove(&start);
        k.mm.user.kept.values_mut().for_each(|kept| kept.retain(|range| *range != start));
        map::release(k, Zone::User, start, count);
        true
    })
}

/// Zeroed memory for a request of process `process`: a range that it has kept from an earlier one, else as [`allocate`]. So an
/// application that asks again and again uses the same buffers, and the host is asked for memory once.
pub fn take(cx: &mut Cx<'_>, process: u32, bytes: u64) -> Option<u64> {
    let count = bytes.div_ceil(PAGE).max(1);
    let kept = cx.with(|k| k.mm.user.kept.get_mut(&(process, count)).and_then(Vec::pop));
    let Some(address) = kept else { return allocate(cx, process, bytes) };
    let mut zeroed = 0;
    while zeroed < bytes {
        let piece = (bytes - zeroed).min(ZEROS.len() as u64);
        let zeros = ZEROS.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or(&ZEROS);
        // A range that the application has protected meanwhile is none for this.
        if write(cx, address + zeroed, zeros).is_err() {
            return allocate(cx, process, bytes);
        }
        zeroed += piece;
    }
    Some(address)
}

static ZEROS: [u8; 256] = [0; 256];

/// A range of [`take`] is not needed now: its process keeps it for its next request, or gives it back.
pub fn give(cx: &mut Cx<'_>, address: u64) {
    let is_kept = cx.with(|k| {
        let Some((start, (count, process))) = containing(k, address) else { return true };
        let kept = k.mm.user.kept.entry((process, count)).or_default();
        let is_kept = count <= LARGEST_KEPT && kept.len() < MOST_KEPT;
        if is_kept {
            kept.push(start);
        }
        is_kept
    });
    if !is_kept {
        free(cx, address);
    }
}

/// Takes all memory of a process away, when it ends.
pub fn free_process(cx: &mut Cx<'_>, process: u32) {
    let own: Vec<u64> = cx.with(|k| {
        let all = k.mm.user.ranges.iter();
        all.filter(|(_, (_, owner))| *owner == process).map(|(&start, _)| start).collect()
    });
    for start in own {
        free(cx, start);
    }
}

/// Allows or forbids an application's writes to its own range, as `VirtualProtect` would.
pub fn protect(cx: &mut Cx<'_>, address: u64, writable: bool) -> bool {
    let protection = if writable { Protection::READ_WRITE } else { Protection::READ };
    cx.with(|k| {
        let Some((start, (count, _))) = containing(k, address) else { return false };
        k.mm.map.protect(k.engine, start, count, protection);
        true
    })
}

/// The process whose memory `address` is.
#[must_use]
pub fn process_of(k: &Kernel, address: u64) -> Option<u32> {
    containing(k, address).map(|(_, (_, process))| process)
}

fn containing(k: &Kernel, address: u64) -> Option<(u64, (u64, u32))> {
    let (&start, &range) = k.mm.user.ranges.range(..=address).next_back()?;
    (address - start < range.0 * PAGE).then_some((start, range))
}

/// An application reads its memory.
///
/// # Errors
/// The address, if it has none there.
pub fn read(cx: &mut Cx<'_>, address: u64, length: usize) -> Result<Vec<u8>, BadAddress> {
    let mut bytes = vec![0; length];
    cx.engine().read_bytes(address, &mut bytes)?;
    Ok(bytes)
}

/// An application writes its memory.
///
/// # Errors
/// As [`read`].
pub fn write(cx: &mut Cx<'_>, address: u64, bytes: &[u8]) -> Result<(), BadAddress> {
    cx.engine().write_bytes(address, bytes)
}

/// An application loads, by instructions of 1, 2, 4 or 8 bytes, from its memory or a device's.
///
/// # Errors
/// Inside, the address, if it has nothing there; a verdict of the device's.
pub fn load(cx: &mut Cx<'_>, address: u64, length: u32) -> Flow<Result<Vec<u8>, BadAddress>> {
    if !USER_DEVICE.contains(address) {
        return Ok(read(cx, address, usize::try_from(length).unwrap_or(usize::MAX)));
    }
    let mut bytes = Vec::new();
    for (at, width) in pieces(address, length.into()) {
        if cx.with(|k| paging::page(k, at)).is_none() {
            return Ok(Err(BadAddress { address: at, write: false }));
        }
        let value = access::device_load(cx, Access { address: at, bytes: width })?;
        access::accessed(cx)?;
        bytes.extend_from_slice(&value.to_le_bytes()[..width.into()]);
    }
    Ok(Ok(bytes))
}

/// As [`load`], the other way.
///
/// # Errors
/// As there.
pub fn store(cx: &mut Cx<'_>, address: u64, bytes: &[u8]) -> Flow<Result<(), BadAddress>> {
    if !USER_DEVICE.contains(address) {
        return Ok(write(cx, address, bytes));
    }
    let mut rest = bytes;
    for (at, width) in pieces(address, bytes.len() as u64) {
        if cx.with(|k| paging::page(k, at)).is_none_or(|page| !page.protection.write) {
            return Ok(Err(BadAddress { address: at, write: true }));
        }
        let (piece, after) = rest.split_at(width.into());
        let mut value = [0; 8];
        value[..piece.len()].copy_from_slice(piece);
        access::device_store(cx, Access { address: at, bytes: width }, u64::from_le_bytes(value))?;
        access::accessed(cx)?;
        rest = after;
    }
    Ok(Ok(()))
}

/// The widest aligned accesses that cover so many bytes.
fn pieces(address: u64, bytes: u64) -> Vec<(u64, u8)> {
    let (mut at, end) = (address, address.saturating_add(bytes));
    let mut pieces = Vec::new();
    while at < end {
        let fits = |width: &u8| at.is_multiple_of((*width).into()) && end - at >= (*width).into();
        let width = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        pieces.push((at, width));
        at += u64::from(width);
    }
    pieces
}
