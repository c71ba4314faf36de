//! Pages without a virtual address, handed out as an MDL.
//!
//! Pages: *MmAllocatePagesForMdlEx function*, *MmFreePagesFromMdl function*. Fewer pages than asked for may come, as
//! documented; they are never contiguous unless that is asked for. Skip and node are ignored.

use abi::{DriverPtr, MDL, MDL_PAGES_LOCKED, MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS, MM_DONT_ZERO_ALLOCATION};
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::map::{self, Page};
use super::physical::Limits;
use super::space::Zone;
use super::{mdl, pool};
use crate::cx::Cx;

/// `MmAllocatePagesForMdl`: zeroed pages below `high`.
///
/// # Errors
/// As [`allocate_ex`].
pub fn allocate(cx: &mut Cx<'_>, low: u64, high: u64, skip: u64, bytes: u64) -> Flow<DriverPtr<MDL>> {
    allocate_ex(cx, low, high, skip, bytes, abi::MmCached, 0)
}

/// `MmAllocatePagesForMdlEx`; null if there is not one page. The driver frees the pages, then the MDL (`ExFreePool`).
///
/// # Errors
/// None today but a machine that stops.
pub fn allocate_ex(
    cx: &mut Cx<'_>,
    low: u64,
    high: u64,
    _skip: u64,
    bytes: u64,
    _cache: u32,
    flags: u32,
) -> Flow<DriverPtr<MDL>> {
    let count = bytes.div_ceil(PAGE);
    let Ok(length) = u32::try_from(count * PAGE) else { return Ok(DriverPtr::NULL) };
    let (owner, caller) = pool::caller(cx);
    let pages = take(cx, count, low, high, flags);
    if pages.is_empty() {
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
    cx.with(|k| {
        pages.iter().for_each(|&page| k.mm.physical.lock(page));
        let held = mdl::Held { owner, caller, locked: pages, owns_pages: true, ..mdl::Held::default() };
        k.mm.mdl.held.insert(mdl.address, held);
    });
    Ok(mdl)
}

fn take(cx: &mut Cx<'_>, count: u64, low: u64, high: u64, flags: u32) -> Vec<u64> {
    let limits = Limits { lowest: low, highest: high, boundary: 0 };
    cx.with(|k| {
        if flags & MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS != 0 {
            let run = k.mm.physical.take_run(count, limits);
            return run.map_or(Vec::new(), |base| (0..count).map(|index| base + index * PAGE).collect());
        }
        if low == 0 && high >= super::physical::RAM[2].base + super::physical::RAM[2].length - 1 {
            return k.mm.physical.take_pages(count).unwrap_or_default();
        }
        // Every second page of a run within the limits: in range, and not contiguous.
        let Some(base) = k.mm.physical.take_run(2 * count, limits) else { return Vec::new() };
        (0..count).for_each(|index| k.mm.physical.give_page(base + (2 * index + 1) * PAGE));
        (0..count).map(|index| base + 2 * index * PAGE).collect()
    })
}

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
/// A verdict if the pages are not the MDL's own, or are mapped.
pub fn free(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) -> Flow<()> {
    let name = "MmFreePagesFromMdl";
    let own = cx.with(|k| k.mm.mdl.held.get(&mdl.address).filter(|held| held.owns_pages).cloned());
    let Some(held) = own else {
        return Err(mdl::wrong_state(cx, name, mdl, 0x7E, "was not made by MmAllocatePagesForMdl"));
    };
    if !held.mappings.is_empty() {
        return Err(mdl::wrong_state(cx, name, mdl, 0xB8, "is still mapped"));
    }
    cx.with(|k| {
        k.mm.mdl.held.remove(&mdl.address);
        for page in held.locked {
            k.mm.physical.unlock(page);
            k.mm.physical.give_page(page);
        }
    });
    let flags = mdl::flags(cx, mdl)? & !MDL_PAGES_LOCKED;
    mdl::set_flags(cx, mdl, flags)
}
