//! Pages without a virtual address, handed out as an MDL.
//!
//! Pages: *MmAllocatePagesForMdlEx function*, *MmFreePagesFromMdl function*. Fewer pages than asked for may come, as
//! documented, whether there are more or not; they are never contiguous unless that is asked for. Nodes are ignored. SkipBytes
//! counts in whole pages: its page says nothing of parts.

use abi::{
    DriverPtr, MDL, MDL_PAGES_LOCKED, MM_ALLOCATE_FULLY_REQUIRED, MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS,
    MM_DONT_ZERO_ALLOCATION,
};
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::map::{self, Page};
use super::physical::Limits;
use super::space::Zone;
use super::{mdl, mdl_map, memory, pool};
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::verdict::Verdict;

/// `MmAllocatePagesForMdl`: zeroed pages below `high`.
///
/// # Errors
/// As [`allocate_ex`].
pub(crate) fn allocate(cx: &mut Cx<'_>, low: u64, high: u64, skip: u64, bytes: u64) -> Flow<DriverPtr<MDL>> {
    allocate_ex(cx, low, high, skip, bytes, abi::MmCached, 0)
}

/// `MmAllocatePagesForMdlEx`; null if there is not one page. The driver frees the pages, then the MDL (`ExFreePool`).
///
/// # Errors
/// None today but a machine that stops.
pub(crate) fn allocate_ex(
    cx: &mut Cx<'_>,
    low: u64,
    high: u64,
    skip: u64,
    bytes: u64,
    _cache: u32,
    flags: u32,
) -> Flow<DriverPtr<MDL>> {
    let count = bytes.div_ceil(PAGE);
    let Ok(length) = u32::try_from(count * PAGE) else { return Ok(DriverPtr::NULL) };
    let (owner, caller) = pool::caller(cx);
    let mut pages = take(cx, count, Limits { lowest: low, highest: high, boundary: 0 }, skip, flags);
    if flags & MM_ALLOCATE_FULLY_REQUIRED == 0 && pages.len() > 1 && cx.choose("mm.fewer-pages", 2) == 1 {
        let rest = pages.split_off(pages.len() / 2);
        cx.with(|k| rest.into_iter().for_each(|page| k.mm.physical.give_page(page)));
    }
    if (pages.len() as u64) < count {
        memory::tell(cx);
    }
    if pages.is_empty() || flags & MM_ALLOCATE_FULLY_REQUIRED != 0 && (pages.len() as u64) < count {
        cx.with(|k| pages.into_iter().for_each(|page| k.mm.physical.give_page(page)));
        return Ok(DriverPtr::NULL);
    }
    let length = length.min(u32::try_from(pages.len() as u64 * PAGE).unwrap_or(length));
    let mdl = mdl::io_allocate(cx, 0, length, false, false, DriverPtr::NULL)?;
    if mdl.is_null() {
        cx.with(|k| pages.into_iter().for_each(|page| k.mm.physical.give_page(page)));
        return Ok(mdl);
    }
    if flags & MM_DONT_ZERO_ALLOCATION == 0 {
        zero(cx, &pages);
    }
    for (index, &page) in (0..).zip(&pages) {
        mdl::write_page(cx, mdl, index, page)?;
    }
    mdl::set_flags(cx, mdl, MDL_PAGES_LOCKED)?;
    let count = pages.len() as u64;
    cx.with(|k| {
        pages.iter().for_each(|&page| k.mm.physical.lock(page));
        let held = mdl::Held { owner, caller, locked: pages, owns_pages: true, ..mdl::Held::default() };
        k.mm.mdl.held.insert(mdl.address, held);
    });
    cx.detail(Kind::MdlLocked, || Event::MdlLocked { mdl: mdl.address, pages: count, allocated: true });
    Ok(mdl)
}

/// `MmAllocateNodePagesForMdlEx`: all memory is near every node.
///
/// # Errors
/// As [`allocate_ex`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn allocate_node_ex(
    cx: &mut Cx<'_>,
    low: u64,
    high: u64,
    skip: u64,
    bytes: u64,
    cache: u32,
    _node: u32,
    flags: u32,
) -> Flow<DriverPtr<MDL>> {
    allocate_ex(cx, low, high, skip, bytes, cache, flags)
}

/// As many of `count` pages as there are within the limits, then within those that lie `skip` bytes higher, and so on.
fn take(cx: &mut Cx<'_>, count: u64, mut limits: Limits, skip: u64, flags: u32) -> Vec<u64> {
    let skip = skip.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    let mut pages = take_within(cx, count, limits, flags);
    let together = if flags & MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS != 0 { count } else { 1 };
    let fits = limits.highest.saturating_sub(limits.lowest) >= together * PAGE - 1;
    while fits
        && (pages.len() as u64) < count
        && let Some(next) = skipped(cx, limits, skip)
    {
        limits = next;
        pages.extend(take_within(cx, count - pages.len() as u64, limits, flags));
    }
    pages
}

/// The next limits in which a free page may lie.
fn skipped(cx: &mut Cx<'_>, limits: Limits, skip: u64) -> Option<Limits> {
    let lowest = limits.lowest.checked_add(skip).filter(|_| skip > 0)?;
    let highest = limits.highest.checked_add(skip)?;
    let free = cx.with(|k| {
        let physical = &mut k.mm.physical;
        physical.memory.has(PAGE, 0).then(|| physical.next_free(lowest)).flatten()
    });
    let last = free? + (PAGE - 1);
    let more = last.saturating_sub(highest).div_ceil(skip) * skip;
    Some(Limits { lowest: lowest.checked_add(more)?, highest: highest.checked_add(more)?, ..limits })
}

fn take_within(cx: &mut Cx<'_>, count: u64, limits: Limits, flags: u32) -> Vec<u64> {
    cx.with(|k| {
        let physical = &mut k.mm.physical;
        if flags & MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS != 0 {
            let run = physical.take_run(count, limits);
            return run.map_or(Vec::new(), |base| (0..count).map(|index| base + index * PAGE).collect());
        }
        if limits.lowest == 0 && limits.highest >= END_OF_RAM - 1 {
            return physical.take_pages(count).unwrap_or_default();
        }
        // Every second page of a run within the limits: in range, and not contiguous. Where there is no such run, single pages.
        if let Some(base) = physical.take_run(2 * count, limits) {
            (0..count).for_each(|index| physical.give_page(base + (2 * index + 1) * PAGE));
            return (0..count).map(|index| base + 2 * index * PAGE).collect();
        }
        (0..count).map_while(|_| physical.take_run(1, limits)).collect()
    })
}

/// Where RAM ends.
const END_OF_RAM: u64 = super::physical::RAM[2].base + super::physical::RAM[2].length;

/// Clears pages through a mapping of the kernel's own.
fn zero(cx: &mut Cx<'_>, pages: &[u64]) {
    let page = Page { physical: 0, protection: Protection::READ_WRITE, pageable: false };
    for physical in pages {
        cx.with(|k| {
            let Some(at) = map::place(k, Zone::Mappings, &[*physical], page) else { return };
            k.engine.write_bytes(at, &[0; 0x1000]).expect("the page was just mapped");
            map::remove(k, Zone::Mappings, at, 1);
        });
    }
}

/// `MmFreePagesFromMdl`: the pages go, the MDL stays.
///
/// # Errors
/// A verdict if the pages are not the MDL's own, or an application has them mapped. A mapping of the system's goes with them, which
/// only Driver Verifier minds.
pub(crate) fn free(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) -> Flow<()> {
    let name = "MmFreePagesFromMdl";
    let own = cx.with(|k| k.mm.mdl.held.get(&mdl.address).filter(|held| held.owns_pages).cloned());
    let Some(held) = own else {
        return Err(mdl::wrong_state(cx, name, mdl, 0x7E, "was not made by MmAllocatePagesForMdl"));
    };
    if held.mappings.iter().any(|mapping| mapping.user) {
        return Err(mdl::wrong_state(cx, name, mdl, 0xB8, "an application still has mapped"));
    }
    if !held.mappings.is_empty() {
        let flags = mdl::flags(cx, mdl)?;
        let message =
            format!("{name} was given the MDL {:#x}, which is still mapped (flags {flags:#x})", mdl.address);
        let parameters = [0xB8, mdl.address, flags.into(), 0];
        cx.verify(Verdict::verifier("mdl-pages-freed-mapped", message).bug_check(0xC4, parameters))?;
        mdl_map::unmap_system(cx, mdl)?;
    }
    cx.with(|k| {
        k.mm.mdl.held.remove(&mdl.address);
        for page in held.locked {
            k.mm.physical.unlock(page);
            k.mm.physical.give_page(page);
        }
    });
    cx.detail(Kind::MdlUnlocked, || Event::MdlUnlocked { mdl: mdl.address });
    let flags = mdl::flags(cx, mdl)? & !MDL_PAGES_LOCKED;
    mdl::set_flags(cx, mdl, flags)
}
