//! Address spaces of processes: regions that processes have allocated, which may lie at the same addresses in two of them.
//!
//! Page: *Virtual Address Spaces*. The system gives each address that it chooses to one process only, so a switch to another process's
//! thread changes no mapping. Where a process has asked for addresses at which another has a region, both regions are *apart*: the
//! machine maps that of the running process, and remaps when another process's thread runs ([`enter`]). Views of sections and buffers of
//! requests are never apart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use engine::Protection;
use engine::windows::PAGE;

use super::map::Page;
use super::space::{GRANULARITY, Zone};
use super::{user, zeroed};
use crate::cx::{Cx, Kernel};
use crate::ps;

/// A committed page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Committed {
    frame: u64,
    /// What its process may do there.
    protection: Protection,
}

/// What a process has reserved in one piece.
pub(crate) struct Region {
    pub(crate) pages: u64,
    /// `PAGE_…`, as it was allocated.
    pub(crate) protect: u32,
    /// By the number of the page in the region.
    committed: BTreeMap<u64, Committed>,
    areas: usize,
    /// Another process has a region at the same addresses.
    apart: bool,
}

/// A region's process, and its address.
pub(crate) type Key = (u64, u64);

/// Regions of all processes.
#[derive(Default)]
pub struct State {
    regions: BTreeMap<Key, Region>,
    /// Those that stand apart.
    apart: BTreeSet<Key>,
    /// The process whose regions of those are shown.
    shown: u64,
    /// What of the zone the system has given out by itself.
    fresh: u64,
}

impl State {
    /// The region of a process that an address lies in, by where it begins.
    pub(crate) fn containing(&self, process: u64, address: u64) -> Option<(u64, &Region)> {
        let (&(_, base), region) = self.regions.range((process, 0)..=(process, address)).next_back()?;
        (address - base < region.pages * PAGE).then_some((base, region))
    }

    /// Where the first region of the process behind an address begins.
    pub(crate) fn next_behind(&self, process: u64, address: u64) -> Option<u64> {
        self.regions.range((process, address)..=(process, u64::MAX)).next().map(|((_, base), _)| *base)
    }

    /// All regions that overlap this range, but for those of `process`.
    fn others(&self, process: u64, range: &Range<u64>) -> Vec<Key> {
        let overlaps =
            |base: u64, region: &Region| base < range.end && range.start < base + region.pages * PAGE;
        let all = self
            .regions
            .iter()
            .filter(|((whose, base), region)| *whose != process && overlaps(*base, region));
        all.map(|(key, _)| *key).collect()
    }

    /// Whether a region of the process overlaps this range.
    fn is_taken(&self, process: u64, range: &Range<u64>) -> bool {
        let own = self.regions.range((process, 0)..(process, range.end)).next_back();
        own.is_some_and(|((_, base), region)| range.start < base + region.pages * PAGE)
    }
}

impl Region {
    /// Whether all these pages are committed.
    pub(crate) fn has_all(&self, mut pages: Range<u64>) -> bool {
        pages.all(|page| self.committed.contains_key(&page))
    }

    /// What can be done with a page, if it is committed.
    pub(crate) fn protection(&self, page: u64) -> Option<Protection> {
        self.committed.get(&page).map(|page| page.protection)
    }
}

/// Whether what is mapped depends on the process that runs.
#[inline]
pub(crate) fn is_any_apart(k: &Kernel) -> bool {
    !k.mm.spaces.apart.is_empty()
}

/// A thread runs now that may be of another process than the one before.
#[inline]
pub(crate) fn enter(k: &mut Kernel) {
    if is_any_apart(k) {
        show_current(k);
    }
}

#[cold]
fn show_current(k: &mut Kernel) {
    let current = current(k);
    show_process(k, current);
}

/// From now on the regions of this process are shown, of those that stand apart.
fn show_process(k: &mut Kernel, process: u64) {
    let before = std::mem::replace(&mut k.mm.spaces.shown, process);
    if before != process {
        of(k, before).into_iter().for_each(|key| hide(k, key));
        of(k, process).into_iter().for_each(|key| show(k, key));
    }
}

/// The process of the thread that runs, as it is attached.
pub(crate) fn current(k: &Kernel) -> u64 {
    k.ke.thread().map_or(ps::process::SYSTEM, |thread| thread.process)
}

/// The regions of a process that stand apart.
fn of(k: &Kernel, process: u64) -> Vec<Key> {
    k.mm.spaces.apart.range((process, 0)..=(process, u64::MAX)).copied().collect()
}

/// Whether a region is mapped now.
fn is_shown(k: &Kernel, key: Key) -> bool {
    !k.mm.spaces.apart.contains(&key) || k.mm.spaces.shown == key.0
}

fn show(k: &mut Kernel, key: Key) {
    let Some(region) = k.mm.spaces.regions.get(&key) else { return };
    let (pages, parts) = (region.pages, parts(region, 0..region.pages));
    user::own_view(k, key.1, pages, key.0);
    for (first, frames, protection) in parts.into_iter().filter(|(.., protection)| protection.read) {
        let page = Page { physical: 0, protection, pageable: true };
        k.mm.map.map(k.engine, key.1 + first * PAGE, &frames, page);
    }
}

fn hide(k: &mut Kernel, key: Key) {
    let Some(region) = k.mm.spaces.regions.get(&key) else { return };
    let parts = parts(region, 0..region.pages);
    user::disown_view(k, key.1);
    for (first, frames, _) in parts.into_iter().filter(|(.., protection)| protection.read) {
        k.mm.map.unmap(k.engine, key.1 + first * PAGE, frames.len() as u64);
    }
}

/// What of these pages is committed: pieces of one protection, by their first page.
fn parts(region: &Region, pages: Range<u64>) -> Vec<(u64, Vec<u64>, Protection)> {
    let mut parts: Vec<(u64, Vec<u64>, Protection)> = Vec::new();
    for (&page, &Committed { frame, protection }) in region.committed.range(pages) {
        match parts.last_mut() {
            Some((first, frames, last)) if *last == protection && *first + frames.len() as u64 == page => {
                frames.push(frame);
            }
            _ => parts.push((page, vec![frame], protection)),
        }
    }
    parts
}

/// Reserves `pages` pages for a process, at `wanted` or wherever there is room; the address, none if it cannot be had.
pub(crate) fn reserve(
    k: &mut Kernel,
    process: u64,
    wanted: Option<u64>,
    pages: u64,
    protect: u32,
) -> Option<u64> {
    let window = Zone::Regions.window();
    let bytes = pages.checked_mul(PAGE).filter(|bytes| *bytes <= window.size)?;
    let base = match wanted {
        Some(wanted) => wanted,
        None => room(k, process, bytes)?,
    };
    let range = base..base.checked_add(bytes)?;
    if !window.contains(base) || range.end > window.end() || k.mm.spaces.is_taken(process, &range) {
        return None;
    }
    let others = k.mm.spaces.others(process, &range);
    others.iter().for_each(|other| set_apart(k, *other));
    let apart = !others.is_empty();
    let key = (process, base);
    k.mm.spaces.regions.insert(key, Region { pages, protect, committed: BTreeMap::new(), areas: 0, apart });
    if apart {
        k.mm.spaces.apart.insert(key);
    }
    if is_shown(k, key) {
        user::own_view(k, base, pages, process);
    }
    Some(base)
}

/// Addresses at which no process has a region; once all have been given out, at which this process has none.
fn room(k: &mut Kernel, process: u64, bytes: u64) -> Option<u64> {
    let window = Zone::Regions.window();
    let mut at = window.base + k.mm.spaces.fresh;
    let ends = |state: &State, range: Range<u64>| {
        let overlap = state.regions.iter().filter(|((_, base), _)| *base < range.end);
        overlap.map(|((_, base), region)| base + region.pages * PAGE).filter(|end| *end > range.start).max()
    };
    while let Some(end) = at.checked_add(bytes).filter(|end| *end <= window.end()) {
        match ends(&k.mm.spaces, at..end) {
            Some(behind) => at = behind.next_multiple_of(GRANULARITY),
            None => {
                // A page behind it stays free for a while.
                k.mm.spaces.fresh = (end + PAGE).next_multiple_of(GRANULARITY) - window.base;
                return Some(at);
            }
        }
    }
    let mut at = window.base;
    for ((_, base), region) in k.mm.spaces.regions.range((process, 0)..=(process, u64::MAX)) {
        if base.saturating_sub(at) > bytes {
            break;
        }
        at = (base + region.pages * PAGE + 1).next_multiple_of(GRANULARITY);
    }
    (at + bytes <= window.end()).then_some(at)
}

/// Another process has a region at the same addresses from now on.
fn set_apart(k: &mut Kernel, key: Key) {
    let Some(region) = k.mm.spaces.regions.get_mut(&key).filter(|region| !region.apart) else { return };
    region.apart = true;
    if k.mm.spaces.apart.is_empty() {
        k.mm.spaces.shown = current(k);
    }
    if k.mm.spaces.shown != key.0 {
        hide(k, key);
    }
    k.mm.spaces.apart.insert(key);
}

/// If no other process has a region there any more, the region is apart no longer.
fn rejoin(k: &mut Kernel, key: Key) {
    let Some(region) = k.mm.spaces.regions.get(&key).filter(|region| region.apart) else { return };
    let range = key.1..key.1 + region.pages * PAGE;
    if !k.mm.spaces.others(key.0, &range).is_empty() {
        return;
    }
    if !is_shown(k, key) {
        show(k, key);
    }
    k.mm.spaces.apart.remove(&key);
    if let Some(region) = k.mm.spaces.regions.get_mut(&key) {
        region.apart = false;
    }
}

/// Commits pages of a region, or gives committed ones another protection; false if there is not so much memory.
pub(crate) fn commit(cx: &mut Cx<'_>, key: Key, pages: Range<u64>, protection: Protection) -> bool {
    let missing: Vec<u64> = cx.with(|k| match k.mm.spaces.regions.get(&key) {
        Some(region) => pages.clone().filter(|page| !region.committed.contains_key(page)).collect(),
        None => Vec::new(),
    });
    let Some(frames) = zeroed::take_scattered(cx, missing.len() as u64) else { return false };
    cx.with(|k| {
        let areas = frames.len() + 1;
        if !k.mm.physical.memory.take_areas(areas) {
            zeroed::give(k, frames);
            return false;
        }
        let shown = is_shown(k, key);
        if let Some(region) = k.mm.spaces.regions.get_mut(&key) {
            region.areas += areas;
            let fresh = missing.into_iter().zip(frames);
            region.committed.extend(fresh.map(|(page, frame)| (page, Committed { frame, protection })));
            region.committed.range_mut(pages.clone()).for_each(|(_, page)| page.protection = protection);
        }
        if shown {
            remap(k, key, pages);
        }
        true
    })
}

/// Maps these pages of a region that is shown as they are committed.
fn remap(k: &mut Kernel, key: Key, pages: Range<u64>) {
    let Some(region) = k.mm.spaces.regions.get(&key) else { return };
    for (first, frames, protection) in parts(region, pages) {
        let at = key.1 + first * PAGE;
        if protection.read {
            let page = Page { physical: 0, protection, pageable: true };
            k.mm.map.map(k.engine, at, &frames, page);
        } else {
            k.mm.map.unmap(k.engine, at, frames.len() as u64);
        }
    }
}

/// Takes committed pages of a region away.
pub(crate) fn decommit(k: &mut Kernel, key: Key, pages: Range<u64>) {
    let shown = is_shown(k, key);
    let Some(region) = k.mm.spaces.regions.get_mut(&key) else { return };
    let gone: Vec<(u64, Committed)> =
        region.committed.range(pages).map(|(page, known)| (*page, *known)).collect();
    gone.iter().for_each(|(page, _)| _ = region.committed.remove(page));
    for (page, _) in gone.iter().filter(|(_, known)| shown && known.protection.read) {
        k.mm.map.unmap(k.engine, key.1 + page * PAGE, 1);
    }
    zeroed::give(k, gone.into_iter().map(|(_, known)| known.frame));
}

/// Takes a region away.
pub(crate) fn release(k: &mut Kernel, key: Key) {
    let Some(pages) = k.mm.spaces.regions.get(&key).map(|region| region.pages) else { return };
    decommit(k, key, 0..pages);
    if is_shown(k, key) {
        user::disown_view(k, key.1);
    }
    k.mm.spaces.apart.remove(&key);
    if let Some(region) = k.mm.spaces.regions.remove(&key) {
        k.mm.physical.memory.give_areas(region.areas);
    }
    let others = k.mm.spaces.others(key.0, &(key.1..key.1 + pages * PAGE));
    others.into_iter().for_each(|other| rejoin(k, other));
}

/// Takes all regions of a process away, when it ends.
pub(crate) fn release_process(k: &mut Kernel, process: u64) {
    let own: Vec<Key> =
        k.mm.spaces.regions.range((process, 0)..=(process, u64::MAX)).map(|(key, _)| *key).collect();
    own.into_iter().for_each(|key| release(k, key));
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::mm::rig::machine;

    const BASE: u64 = Zone::Regions.window().base;
    const WRITABLE: Protection = Protection { read: true, write: true, execute: false };

    fn read(cx: &Cx<'_>, address: u64) -> Option<u64> {
        cx.engine().read(abi::DriverPtr::<u64>::new(address)).ok()
    }

    fn write(cx: &Cx<'_>, address: u64, value: u64) {
        cx.engine().write(abi::DriverPtr::<u64>::new(address), value).unwrap();
    }

    #[test]
    fn addresses_that_the_system_chooses_are_of_one_process_only() {
        machine(|cx| {
            let one = cx.with(|k| reserve(k, 8, None, 3, abi::PAGE_READWRITE)).unwrap();
            let two = cx.with(|k| reserve(k, 12, None, 3, abi::PAGE_READWRITE)).unwrap();
            assert!(one.is_multiple_of(GRANULARITY) && two >= one + 3 * PAGE);
            assert!(cx.with(|k| k.mm.spaces.apart.is_empty()));
            assert_eq!(
                cx.with(|k| reserve(k, 8, Some(one + 0x1000), 1, abi::PAGE_READWRITE)),
                None,
                "it is the process's own already"
            );
        });
    }

    /// What each process has where, as it would be if nothing were shared.
    #[derive(Default)]
    struct Expected {
        pages: BTreeMap<(u64, u64), u64>,
        regions: BTreeMap<(u64, u64), u64>,
    }

    /// One thing that a process does, and what it changes.
    fn act(cx: &mut Cx<'_>, expected: &mut Expected, rng: &mut Rng, number: u64) {
        let process = [8, 12, 16][usize::try_from(rng.u64(..3)).unwrap()];
        let base = BASE + rng.u64(..6) * GRANULARITY;
        let pages = 1 + rng.u64(..40);
        let known = expected.regions.get(&(process, base)).copied();
        match (rng.u64(..4), known) {
            (0, _) => {
                let taken = expected.regions.iter().any(|((whose, other), count)| {
                    *whose == process && *other < base + pages * PAGE && base < other + count * PAGE
                });
                assert_eq!(
                    cx.with(|k| reserve(k, process, Some(base), pages, abi::PAGE_READWRITE)).is_none(),
                    taken
                );
                if !taken {
                    expected.regions.insert((process, base), pages);
                }
            }
            (1, Some(count)) => {
                let (first, more) = (rng.u64(..count), 1 + rng.u64(..8));
                let range = first..(first + more).min(count);
                assert!(commit(cx, (process, base), range.clone(), WRITABLE));
                cx.with(|k| show_process(k, process));
                for page in range.map(|page| base + page * PAGE) {
                    assert_eq!(
                        read(cx, page),
                        Some(expected.pages.get(&(process, page)).copied().unwrap_or(0))
                    );
                    write(cx, page, number);
                    expected.pages.insert((process, page), number);
                }
            }
            (2, Some(count)) => {
                let first = rng.u64(..count);
                let range = first..count.min(first + 3);
                cx.with(|k| decommit(k, (process, base), range.clone()));
                range.for_each(|page| _ = expected.pages.remove(&(process, base + page * PAGE)));
            }
            (3, Some(count)) if rng.u64(..3) == 0 => {
                cx.with(|k| release(k, (process, base)));
                expected.regions.remove(&(process, base));
                (0..count).for_each(|page| _ = expected.pages.remove(&(process, base + page * PAGE)));
            }
            _ => {}
        }
    }

    /// Each process finds its own memory, and where it has reserved addresses and not committed them nothing of another's.
    #[test]
    fn each_process_finds_its_own_memory_whatever_others_have_at_its_addresses() {
        machine(|cx| {
            let mut rng = Rng::with_seed(1);
            let mut expected = Expected::default();
            for number in 1..400 {
                act(cx, &mut expected, &mut rng, number);
                for process in [16, 8, 12] {
                    cx.with(|k| show_process(k, process));
                    let own = expected.regions.iter().filter(|((whose, _), _)| *whose == process);
                    for ((_, base), pages) in own {
                        for page in (0..*pages).map(|page| base + page * PAGE) {
                            let value = expected.pages.get(&(process, page)).copied();
                            assert_eq!(read(cx, page), value, "process {process}, {page:#x}, step {number}");
                        }
                    }
                }
            }
            cx.with(|k| [8, 12, 16].into_iter().for_each(|process| release_process(k, process)));
            assert!(cx.with(|k| k.mm.spaces.apart.is_empty() && k.mm.spaces.regions.is_empty()));
            assert!((0..50).all(|page| read(cx, BASE + page * PAGE).is_none()));
        });
    }
}
