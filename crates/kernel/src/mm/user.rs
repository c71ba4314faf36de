//! Memory of applications: what a bench passes to a driver as an application's buffer.
//!
//! Page: *Virtual Address Spaces*. All applications share one window, each range with its process; whose memory is current is
//! the scheduler's to say. It is pageable, and no page ever is out.

use std::collections::BTreeMap;

use engine::windows::PAGE;
use engine::{BadAddress, Protection};

use super::map::{self, Page};
use super::space::Zone;
use crate::cx::{Cx, Kernel};

/// Ranges by address: pages and process.
#[derive(Default)]
pub struct State {
    ranges: BTreeMap<u64, (u64, u32)>,
}

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
        map::release(k, Zone::User, start, count);
        true
    })
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
