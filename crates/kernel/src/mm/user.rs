//! Memory of applications: what a bench passes to a driver as an application's buffer.
//!
//! Page: *Virtual Address Spaces*. What drivers have mapped for an application (`mdl_map`) lies there too, of devices in a window of
//! its own, where each of its instructions is an access to the card. All applications share one window, each range with its process; whose memory is current is
//! the scheduler's to say. It is pageable, and no page ever is out.
//!
//! Buffers of requests are used again, because the host is asked for memory seldom then: each only after [`resting`] others, and meanwhile,
//! for drivers, it is not there (`paging`, and `shadow` in a checked machine), as if the application had freed it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::windows::{PAGE, USER, USER_DEVICE};
use engine::{Access, BadAddress, Fill, Flow, Guest, Protection};

use super::map::{self, Page};
use super::space::Zone;
use super::{mdl_map, paging, ready, shadow, virtual_memory};
use crate::cx::{Cx, Kernel};
use crate::hal::access;
use crate::ps;
use crate::verdict::Verdict;

/// A range of an application's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owned {
    pages: u64,
    process: u32,
    /// It rests between two requests.
    rests: bool,
    /// It is a view of a section or a region (`spaces`), which goes as such.
    view: bool,
}

/// Ranges by address.
#[derive(Default)]
pub struct State {
    ranges: BTreeMap<u64, Owned>,
    /// Those that a process has for its next requests, by process and pages, the one that was given back last at the end: the address,
    /// and how many bytes of it were used.
    kept: BTreeMap<(u32, u64), VecDeque<(u64, u64)>>,
    /// Physical pages that applications have read-only.
    read_only: BTreeSet<u64>,
}

/// Pages of the largest range that is used again.
const LARGEST_KEPT: u64 = 16;

/// How many ranges of so many pages rest before the oldest of them is used again.
const fn resting(pages: u64) -> usize {
    if pages <= 1 {
        32
    } else if pages <= 4 {
        8
    } else {
        2
    }
}

/// Zeroed memory of `bytes` for process `process`, at the start of a page; none if there is no memory.
pub fn allocate(cx: &mut Cx<'_>, process: u32, bytes: u64) -> Option<u64> {
    let place = if bytes <= ready::SMALL_BUFFER { map::allocate } else { map::allocate_anew };
    allocate_by(cx, process, bytes, place)
}

fn allocate_by(
    cx: &mut Cx<'_>,
    process: u32,
    bytes: u64,
    place: fn(&mut Kernel, Zone, u64, Page, Fill) -> Option<u64>,
) -> Option<u64> {
    let count = bytes.div_ceil(PAGE).max(1);
    let page = Page { physical: 0, protection: Protection::READ_WRITE, pageable: true };
    cx.with(|k| {
        let address = place(k, Zone::User, count, page, Fill::of(0))?;
        k.mm.user.ranges.insert(address, Owned { pages: count, process, rests: false, view: false });
        Some(address)
    })
}

/// As [`allocate`], the buffer ending right before an unmapped page, as a hostile application would pass it.
pub fn allocate_at_end(cx: &mut Cx<'_>, process: u32, bytes: u64) -> Option<u64> {
    let address = allocate_by(cx, process, bytes, map::allocate_anew)?;
    Some(address + (PAGE - bytes % PAGE) % PAGE)
}

/// A view of a section at `address`, or a region that is shown there, is this process's.
pub(crate) fn own_view(k: &mut Kernel, address: u64, pages: u64, process: u64) {
    let process = u32::try_from(process).unwrap_or(u32::MAX);
    k.mm.user.ranges.insert(address, Owned { pages, process, rests: false, view: true });
}

/// It is no more.
pub(crate) fn disown_view(k: &mut Kernel, address: u64) {
    k.mm.user.ranges.remove(&address);
}

/// Takes the range that holds `address` away; false if there is none, or it is a view.
pub fn free(cx: &mut Cx<'_>, address: u64) -> bool {
    cx.with(|k| {
        let Some((start, owned)) = containing(k, address).filter(|(_, owned)| !owned.view) else {
            return false;
        };
        if is_secured(k, start, owned, true) {
            return false;
        }
        k.mm.user.ranges.remove(&start);
        if owned.rests {
            k.mm.user.kept.values_mut().for_each(|kept| kept.retain(|(range, _)| *range != start));
        }
        note_protection(k, start, owned, true);
        map::release(k, Zone::User, start, owned.pages);
        true
    })
}

/// Zeroed memory for a request of process `process`: a range that has rested since an earlier one, else as [`allocate`]. So an
/// application that asks again and again uses few buffers in turn, and the host is asked for memory a few times.
pub fn take(cx: &mut Cx<'_>, process: u32, bytes: u64) -> Option<u64> {
    let pages = bytes.div_ceil(PAGE).max(1);
    let Some((address, used)) = cx.with(|k| wake(k, process, pages)) else {
        return allocate(cx, process, bytes);
    };
    let mut zeroed = 0;
    while zeroed < used.max(bytes) {
        let piece = (used.max(bytes) - zeroed).min(ZEROS.len() as u64);
        let zeros = ZEROS.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or(&ZEROS);
        // A range that the application has protected meanwhile cannot be used.
        if write(cx, address + zeroed, zeros).is_err() {
            return allocate(cx, process, bytes);
        }
        zeroed += piece;
    }
    Some(address)
}

/// The range that has rested longest, if enough do, and how many bytes of it were used.
fn wake(k: &mut Kernel, process: u32, pages: u64) -> Option<(u64, u64)> {
    let kept = k.mm.user.kept.get_mut(&(process, pages))?;
    if kept.len() < resting(pages) {
        return None;
    }
    let (address, used) = kept.pop_front()?;
    if let Some(owned) = k.mm.user.ranges.get_mut(&address) {
        owned.rests = false;
    }
    if k.engine.is_checked() {
        k.engine.mark(address, used, shadow::APPLICATION);
    }
    Some((address, used))
}

static ZEROS: [u8; 4096] = [0; 4096];

/// A range of [`take`], of which `bytes` were used, is not needed now: it rests until its process uses it for another request, or it is
/// given back.
pub fn give(cx: &mut Cx<'_>, address: u64, bytes: u64) {
    let rests = cx.with(|k| {
        let Some((start, owned)) = containing(k, address) else { return true };
        let rests = owned.pages <= LARGEST_KEPT && !is_locked(k, start, owned.pages);
        if rests {
            k.mm.user.kept.entry((owned.process, owned.pages)).or_default().push_back((start, bytes));
            k.mm.user.ranges.insert(start, Owned { rests, ..owned });
            if k.engine.is_checked() {
                k.engine.mark(start, bytes, shadow::ABSENT);
            }
        }
        rests
    });
    if !rests {
        free(cx, address);
    }
}

/// Whether a driver has locked any of these pages: it may go on writing to them, so no other request gets them.
fn is_locked(k: &Kernel, start: u64, pages: u64) -> bool {
    let mut addresses = (0..pages).map(|page| start + page * PAGE);
    addresses.any(|at| k.mm.map.physical(at).is_some_and(|physical| k.mm.physical.is_locked(physical)))
}

/// Whether `address` lies in a range that rests: for drivers, nothing is there.
pub(crate) fn rests(k: &Kernel, address: u64) -> bool {
    containing(k, address).is_some_and(|(_, owned)| owned.rests)
}

/// Takes all memory of a process away, when it ends.
pub fn free_process(cx: &mut Cx<'_>, process: u32) {
    let own: Vec<u64> = cx.with(|k| {
        let all = k.mm.user.ranges.iter();
        all.filter(|(_, owned)| owned.process == process).map(|(&start, _)| start).collect()
    });
    cx.engine().unmap_together(|| own.into_iter().for_each(|start| _ = free(cx, start)));
}

/// Allows or forbids an application's writes to its own range, as `VirtualProtect` would.
pub fn protect(cx: &mut Cx<'_>, address: u64, writable: bool) -> bool {
    let protection = if writable { Protection::READ_WRITE } else { Protection::READ };
    cx.with(|k| {
        let Some((start, owned)) = containing(k, address).filter(|(_, owned)| !owned.view) else {
            return false;
        };
        if !writable && is_secured(k, start, owned, false) {
            return false;
        }
        k.mm.map.protect(k.engine, start, owned.pages, protection);
        note_protection(k, start, owned, writable);
        true
    })
}

fn note_protection(k: &mut Kernel, start: u64, owned: Owned, writable: bool) {
    if writable && k.mm.user.read_only.is_empty() {
        return;
    }
    for at in (start..).step_by(map::PAGE_BYTES).take(usize::try_from(owned.pages).unwrap_or(usize::MAX)) {
        let Some(page) = k.mm.map.physical(at) else { continue };
        if writable {
            k.mm.user.read_only.remove(&page)
        } else {
            k.mm.user.read_only.insert(page)
        };
    }
}

/// Whether this physical page is one that an application has read-only.
#[must_use]
pub(super) fn has_read_only(k: &Kernel, page: u64) -> bool {
    !k.mm.user.read_only.is_empty() && k.mm.user.read_only.contains(&page)
}

/// The verdict on a store by `who`, if there is a view of the kernel's of a page that an application has read-only.
pub(crate) fn read_only_written(cx: &mut Cx<'_>, address: u64, who: &str) -> Option<Verdict> {
    let is_constant = cx.with(|k| {
        let physical = k.mm.map.physical(address & !(PAGE - 1));
        !USER.contains(address) && physical.is_some_and(|page| has_read_only(k, page))
    });
    let message = || {
        format!(
            "{who} wrote to {address:#x}, where pages are mapped that an application has read-only: they were locked for reading (IoReadAccess), and Windows lets the store change what is constant for the application"
        )
    };
    is_constant.then(|| Verdict::error("read-only-memory-written", message()))
}

/// Whether a driver has secured any of a range, against its end or against being written no more.
fn is_secured(k: &Kernel, start: u64, owned: Owned, ends: bool) -> bool {
    virtual_memory::is_secured(k, owned.process.into(), &(start..start + owned.pages * PAGE), ends, true)
}

/// The process whose memory `address` is.
#[must_use]
pub fn process_of(k: &Kernel, address: u64) -> Option<u32> {
    containing(k, address).map(|(_, owned)| owned.process)
}

/// Where what the process has at `address` begins, and how many pages it has.
pub(crate) fn own_range(k: &Kernel, process: u64, address: u64) -> Option<(u64, u64)> {
    let (start, owned) = containing(k, address).filter(|(_, owned)| u64::from(owned.process) == process)?;
    Some((start, owned.pages))
}

/// Where the first thing of the process behind an address begins.
pub(crate) fn next_behind(k: &Kernel, process: u64, address: u64) -> Option<u64> {
    let mut behind = k.mm.user.ranges.range(address..);
    behind.find(|(_, owned)| u64::from(owned.process) == process).map(|(start, _)| *start)
}

fn containing(k: &Kernel, address: u64) -> Option<(u64, Owned)> {
    let (&start, &owned) = k.mm.user.ranges.range(..=address).next_back()?;
    (address - start < owned.pages * PAGE).then_some((start, owned))
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
    shadow::given(cx, bytes);
    cx.engine().write_bytes(address, bytes)
}

/// Whether what lies there is another process's: for the one that runs, nothing is there.
pub(super) fn is_elsewhere(cx: &mut Cx<'_>, address: u64) -> bool {
    let current = ps::current_process(cx);
    cx.with(|k| process_of(k, address)).is_some_and(|owner| u64::from(owner) != current)
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
        if is_elsewhere(cx, at) || cx.with(|k| paging::page(k, at)).is_none() {
            return Ok(Err(BadAddress { address: at, write: false }));
        }
        let value = access::device_load(cx, Access { address: at, bytes: width })?;
        access::accessed(cx)?;
        bytes.extend_from_slice(&value.to_le_bytes()[..width.into()]);
    }
    Ok(Ok(bytes))
}

/// As [`load`], the other way. A search learns by it between which instructions of a driver an application may come.
///
/// # Errors
/// As there.
pub fn store(cx: &mut Cx<'_>, address: u64, bytes: &[u8]) -> Flow<Result<(), BadAddress>> {
    if !USER_DEVICE.contains(address) {
        let (nt, engine) = (cx.nt(), cx.engine());
        return Ok(engine.on_behalf_of(
            || nt.runner(),
            || {
                write(cx, address, bytes)?;
                for other in cx.with(|k| mdl_map::shown_at(k, address)) {
                    engine.stored_as(other, bytes.len() as u64);
                }
                Ok(())
            },
        ));
    }
    let mut rest = bytes;
    for (at, width) in pieces(address, bytes.len() as u64) {
        if is_elsewhere(cx, at) || cx.with(|k| paging::page(k, at)).is_none_or(|page| !page.protection.write)
        {
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
