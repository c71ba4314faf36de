//! Which virtual page shows which physical page, and what a driver may do there: the machine's page tables.
//!
//! Every mapping of machine memory is made and taken away here, so that `MmGetPhysicalAddress`, `MmIsAddressValid` and
//! MDLs are right. Who owns the memory is decided elsewhere.

use engine::windows::PAGE;
use engine::{BadAddress, Engine, Fill, Protection};

use super::physical::{Limits, file_offset};
use super::space::Zone;
use super::{dense, ready, shadow};
use crate::address_map::AddressMap;
use crate::cx::Kernel;
use crate::ke::budget;

/// One mapped page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// Physical address.
    pub physical: u64,
    /// What may be done with it.
    pub protection: Protection,
    /// May be away at DISPATCH_LEVEL and above: paged pool, user memory, `PAGE…` sections.
    pub pageable: bool,
}

/// The machine's page tables.
#[derive(Default)]
pub struct Map {
    pages: AddressMap<Page>,
}

impl Map {
    /// The mapping that `address` lies in.
    #[must_use]
    pub fn page(&self, address: u64) -> Option<Page> {
        self.pages.get(address & !(PAGE - 1)).copied()
    }

    /// The addresses of all pages that are mapped, ascending.
    pub fn addresses(&self) -> Vec<u64> {
        self.pages.keys()
    }

    /// The physical address that a virtual one means now.
    #[must_use]
    pub fn physical(&self, address: u64) -> Option<u64> {
        Some(self.page(address)?.physical + address % PAGE)
    }

    /// Where the physical page at `physical` is shown, by address.
    pub fn showing(&self, physical: u64) -> Vec<(u64, Page)> {
        let mut places: Vec<(u64, Page)> = self
            .pages
            .unordered()
            .filter(|(_, page)| page.physical == physical)
            .map(|(at, page)| (at, *page))
            .collect();
        places.sort_unstable_by_key(|(at, _)| *at);
        places
    }

    /// Maps `pages` to consecutive addresses from `address` on.
    pub fn map(&mut self, engine: Engine, address: u64, pages: &[u64], page: Page) {
        for (at, run) in runs(address, pages) {
            engine.map(at, run.start, run.end - run.start, page.protection);
            if page.pageable {
                engine.mark(at, run.end - run.start, shadow::of_pageable(at));
            }
        }
        for (at, &physical) in (address..).step_by(PAGE_BYTES).zip(pages) {
            self.pages.insert(at, Page { physical, ..page });
        }
    }

    /// As [`Map::map`], of pages that `fill` writes to before they allow no more than `page` says.
    pub fn map_filled(
        &mut self,
        engine: Engine,
        address: u64,
        pages: &[u64],
        page: Page,
        fill: impl FnOnce(Engine) -> Result<(), BadAddress>,
    ) {
        let count = pages.len() as u64;
        self.map(engine, address, pages, Page { protection: Protection::READ_WRITE, ..page });
        engine.provide(address, count * PAGE);
        fill(engine).expect("the pages were just mapped for writing");
        self.protect(engine, address, count, page.protection);
    }

    /// `pages` are shown from `address` on, in memory that the host has mapped already.
    pub(super) fn show(&mut self, engine: Engine, address: u64, pages: &[u64], page: Page) {
        for (at, &physical) in (address..).step_by(PAGE_BYTES).zip(pages) {
            self.pages.insert(at, Page { physical, ..page });
        }
        let mark = if page.pageable { shadow::of_pageable(address) } else { 0 };
        engine.mark(address, pages.len() as u64 * PAGE, mark);
    }

    /// For drivers nothing is shown any more in `count` pages from `address` on, whatever the host has there. Their physical addresses.
    pub(super) fn hide(&mut self, engine: Engine, address: u64, count: u64) -> Vec<u64> {
        engine.mark(address, count * PAGE, shadow::ABSENT);
        engine.fresh(address, count * PAGE);
        let addresses = (address..address + count * PAGE).step_by(PAGE_BYTES);
        addresses.filter_map(|at| self.pages.remove(at)).map(|page| page.physical).collect()
    }

    /// Takes `count` pages away from `address` on; their physical addresses, of those that were mapped.
    pub fn unmap(&mut self, engine: Engine, address: u64, count: u64) -> Vec<u64> {
        engine.unmap(address, count * PAGE);
        let addresses = (address..address + count * PAGE).step_by(PAGE_BYTES);
        addresses.filter_map(|at| self.pages.remove(at)).map(|page| page.physical).collect()
    }

    /// Changes what may be done with `count` pages from `address` on; they are mapped.
    pub fn protect(&mut self, engine: Engine, address: u64, count: u64, protection: Protection) {
        engine.protect(address, count * PAGE, protection);
        for at in (address..address + count * PAGE).step_by(PAGE_BYTES) {
            self.pages.change(at, |page| page.protection = protection);
        }
    }

    /// Says of `count` pages from `address` on whether they may be away at DISPATCH_LEVEL.
    pub fn set_pageable(&mut self, engine: Engine, address: u64, count: u64, pageable: bool) {
        engine.mark(address, count * PAGE, if pageable { shadow::of_pageable(address) } else { 0 });
        for at in (address..address + count * PAGE).step_by(PAGE_BYTES) {
            self.pages.change(at, |page| page.pageable = pageable);
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits on x86-64")]
pub(crate) const PAGE_BYTES: usize = PAGE as usize;

/// `pages` at `address` in runs that lie side by side in the file of the machine's memory: where each is shown, and its place there.
fn runs(address: u64, pages: &[u64]) -> Vec<(u64, std::ops::Range<u64>)> {
    let mut runs: Vec<(u64, std::ops::Range<u64>)> = Vec::new();
    for (at, &physical) in (address..).step_by(PAGE_BYTES).zip(pages) {
        let place = file_offset(physical);
        match runs.last_mut() {
            Some((_, run)) if run.end == place => run.end += PAGE,
            _ => runs.push((at, place..place + PAGE)),
        }
    }
    runs
}

/// Takes fresh addresses in `zone` and scattered pages for them, filled with `fill`; the first address. None if either
/// has run out.
pub(crate) fn allocate(k: &mut Kernel, zone: Zone, count: u64, page: Page, fill: Fill) -> Option<u64> {
    ready::take(k, zone, count, page, fill).or_else(|| allocate_anew(k, zone, count, page, fill))
}

/// As [`allocate`], though a range may wait.
pub(super) fn allocate_anew(k: &mut Kernel, zone: Zone, count: u64, page: Page, fill: Fill) -> Option<u64> {
    if let Some(address) = dense::allocate(k, zone, count, page) {
        clear(k.engine, address, count, fill);
        return Some(address);
    }
    // Long ranges are one area then.
    if k.mm.physical.memory.is_crowded()
        && let Some((address, _)) = allocate_run(k, zone, count, page, Limits::NONE, fill)
    {
        return Some(address);
    }
    let pages = k.mm.physical.take_pages(count)?;
    let is_clear = fill == Fill::of(0) && hold_zeros(k.engine, &pages);
    let address = place(k, zone, &pages, page);
    match address {
        Some(_) if is_clear => {}
        Some(address) => clear(k.engine, address, count, fill),
        None => pages.into_iter().for_each(|page| k.mm.physical.give_page(page)),
    }
    address
}

/// As [`allocate`], one contiguous run of pages; its virtual and physical address.
pub(crate) fn allocate_run(
    k: &mut Kernel,
    zone: Zone,
    count: u64,
    page: Page,
    limits: Limits,
    fill: Fill,
) -> Option<(u64, u64)> {
    let physical = k.mm.physical.take_run(count, limits)?;
    let pages: Vec<u64> = (physical..physical + count * PAGE).step_by(PAGE_BYTES).collect();
    let Some(address) = place(k, zone, &pages, page) else {
        k.mm.physical.give_run(physical, count);
        return None;
    };
    clear(k.engine, address, count, fill);
    Some((address, physical))
}

/// Shows `pages` at fresh addresses of `zone`.
pub(crate) fn place(k: &mut Kernel, zone: Zone, pages: &[u64], page: Page) -> Option<u64> {
    let areas = areas(pages);
    if !k.mm.physical.memory.take_areas(areas) {
        return None;
    }
    let address = match pages {
        [physical] if zone == Zone::Mappings => k.mm.space.take_by_page(file_offset(*physical) / PAGE),
        _ => None,
    };
    let Some(address) = address.or_else(|| k.mm.space.take(zone, pages.len() as u64)) else {
        k.mm.physical.memory.give_areas(areas);
        return None;
    };
    budget::mapped(k, areas, pages.len() as u64);
    k.mm.map.map(k.engine, address, pages, page);
    Some(address)
}

/// Shows `pages` at `address`, a page's; none if any of it is used, or not of `zone`.
pub(crate) fn place_at(k: &mut Kernel, zone: Zone, address: u64, pages: &[u64], page: Page) -> Option<u64> {
    let count = pages.len() as u64;
    let end = address.checked_add(count.checked_mul(PAGE)?)?;
    let used = (address..end).step_by(PAGE_BYTES).any(|at| k.mm.map.page(at).is_some());
    let areas = areas(pages);
    if used || !k.mm.physical.memory.take_areas(areas) {
        return None;
    }
    if !k.mm.space.take_at(zone, address, count) {
        k.mm.physical.memory.give_areas(areas);
        return None;
    }
    k.mm.map.map(k.engine, address, pages, page);
    Some(address)
}

/// As [`place`], of pages of which some are not there: what they would show is nothing. At `wanted`, if that is given. The address, and
/// the host's areas.
pub(crate) fn place_sparse(
    k: &mut Kernel,
    zone: Zone,
    wanted: Option<u64>,
    pages: &[Option<u64>],
    page: Page,
) -> Option<(u64, usize)> {
    let parts = parts(pages);
    let areas = 1 + parts.iter().map(|(_, frames)| areas(frames)).sum::<usize>();
    let count = pages.len() as u64;
    if !k.mm.physical.memory.take_areas(areas) {
        return None;
    }
    let address = match wanted {
        None => k.mm.space.take(zone, count),
        Some(wanted) => k.mm.space.take_at(zone, wanted, count).then_some(wanted),
    };
    let Some(address) = address else {
        k.mm.physical.memory.give_areas(areas);
        return None;
    };
    budget::mapped(k, areas, count);
    for (first, frames) in parts {
        k.mm.map.map(k.engine, address + first * PAGE, &frames, page);
    }
    Some((address, areas))
}

/// Takes away what [`place_sparse`] gave; the pages keep their owners.
pub(crate) fn remove_sparse(k: &mut Kernel, zone: Zone, address: u64, count: u64, areas: usize) {
    k.mm.map.unmap(k.engine, address, count);
    budget::mapped(k, areas, count);
    k.mm.physical.memory.give_areas(areas);
    k.mm.space.give(zone, address, count);
}

/// The pages that are there, in parts without a gap, each with the number of its first.
fn parts(pages: &[Option<u64>]) -> Vec<(u64, Vec<u64>)> {
    let mut parts: Vec<(u64, Vec<u64>)> = Vec::new();
    for (index, frame) in (0..).zip(pages).filter_map(|(index, frame)| Some((index, (*frame)?))) {
        match parts.last_mut() {
            Some((first, frames)) if *first + frames.len() as u64 == index => frames.push(frame),
            _ => parts.push((index, vec![frame])),
        }
    }
    parts
}

/// The host's areas that pages take: one for each run, and one for what lies behind and is not mapped.
fn areas(pages: &[u64]) -> usize {
    1 + runs(0, pages).len()
}

/// Shows `pages` at addresses that are taken already, and nothing is there; false if the host has no areas left.
pub(crate) fn place_reserved(k: &mut Kernel, address: u64, pages: &[u64], page: Page) -> bool {
    let areas = areas(pages);
    let enough = k.mm.physical.memory.take_areas(areas);
    if enough {
        budget::mapped(k, areas, pages.len() as u64);
        k.mm.map.map(k.engine, address, pages, page);
    }
    enough
}

/// Takes a range of `zone` away; its pages are still taken.
pub(crate) fn remove(k: &mut Kernel, zone: Zone, address: u64, count: u64) -> Vec<u64> {
    let pages = remove_reserved(k, address, count);
    k.mm.space.give(zone, address, count);
    pages
}

/// As [`remove`], of addresses that stay taken.
pub(crate) fn remove_reserved(k: &mut Kernel, address: u64, count: u64) -> Vec<u64> {
    let pages = k.mm.map.unmap(k.engine, address, count);
    let areas = areas(&pages);
    budget::mapped(k, areas, count);
    k.mm.physical.memory.give_areas(areas);
    pages
}

/// Of a range of `count` pages nothing is shown in the first `gone` any more.
pub(crate) fn remove_front(k: &mut Kernel, address: u64, count: u64, gone: u64) {
    if gone == 0 {
        return;
    }
    let shown = |k: &Kernel, from: u64| -> Vec<u64> {
        let addresses = (from..address + count * PAGE).step_by(PAGE_BYTES);
        addresses.filter_map(|at| k.mm.map.physical(at)).collect()
    };
    // What is left is taken away as any range, and gives its own areas back then.
    let areas = areas(&shown(k, address)) - areas(&shown(k, address + gone * PAGE));
    k.mm.map.unmap(k.engine, address, gone);
    budget::mapped(k, areas, gone);
    k.mm.physical.memory.give_areas(areas);
}

/// Takes a range away and gives its pages back.
pub(crate) fn release(k: &mut Kernel, zone: Zone, address: u64, count: u64) {
    if dense::release(k, address, count) || ready::keep(k, zone, address, count) {
        return;
    }
    for page in remove(k, zone, address, count) {
        k.mm.physical.give_page(page);
    }
}

/// Whether these pages, which are not mapped, are known to hold zeros. Not where accesses are observed: what the kernel clears counts as
/// stored, and as touched.
fn hold_zeros(engine: Engine, pages: &[u64]) -> bool {
    engine.is_plain() && pages.iter().all(|page| engine.is_untouched(file_offset(*page)))
}

/// Fills pages that were just mapped for writing.
pub(super) fn clear(engine: Engine, address: u64, count: u64, fill: Fill) {
    if count > 1 {
        engine.provide(address, count * PAGE);
    }
    engine.fill(address, count * PAGE, fill).expect("pages just mapped for writing can be written");
}
