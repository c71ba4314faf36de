//! Memory side by side, once there are many ranges: one of the host's areas holds hundreds of them.
//!
//! Page: *Virtual Address Spaces*. Usually each range has pages here and there, and lies before a page that is not mapped, so the host needs
//! two areas for it or more; of these it has 65,530. From [`CROWDED`] areas on, ranges of few pages are cut from stretches that the
//! host maps whole, contiguous. For drivers it is the same: what of a stretch belongs to no range is not there (`Map` has no page, and in a
//! checked machine it is marked so). Only a fast machine does not see an access to it. Pages that are neighbours are contiguous here;
//! drivers cannot find that out. Ranges that are given back wait for others of their size.
//!
//! Special pool has stretches of its own from the beginning, of single pages: there the host denies access to what belongs to no range,
//! which is half the work of mapping each page where it is used.

use std::collections::{BTreeMap, VecDeque};

use engine::Protection;
use engine::windows::PAGE;

use super::map::Page;
use super::physical::{DENSE, file_offset};
use super::shadow;
use super::space::Zone;
use crate::cx::Kernel;
use crate::ke::budget;

/// The host's areas from which on it is done.
pub(super) const CROWDED: usize = 16_000;
/// Pages of the longest range that is cut from a stretch.
const LONGEST: u64 = 16;
/// Pages of a stretch.
const STRETCH: u64 = 256;
/// Ranges of one size that wait before the oldest of them is used again.
const WAIT: usize = 64;
/// The same of special pool: an access through a stale pointer is caught for long.
const LONG_WAIT: usize = 1024;
/// The host's areas for a page that it allows access to, in the middle of others.
const AREAS_OF_SHOWN: usize = 2;

/// A stretch that ranges are cut from.
#[derive(Clone, Copy)]
struct Open {
    address: u64,
    /// Pages that are cut.
    used: u64,
}

/// Stretches and their ranges.
#[derive(Default)]
pub struct State {
    /// Where each begins, and what it is.
    stretches: BTreeMap<u64, Stretch>,
    open: BTreeMap<Sort, Open>,
    /// What is given back, by sort and pages, oldest first.
    free: BTreeMap<(Sort, u64), VecDeque<u64>>,
}

/// What a stretch is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sort {
    zone: Zone,
    /// Code may run there.
    execute: bool,
    /// The host denies access to what belongs to no range.
    closed: bool,
}

#[derive(Clone, Copy)]
struct Stretch {
    physical: u64,
    sort: Sort,
}

impl State {
    /// The physical address of `address`, if that lies in a stretch, and the stretch's sort.
    fn find(&self, address: u64) -> Option<(u64, Sort)> {
        let (&start, stretch) = self.stretches.range(..=address).next_back()?;
        (address - start < STRETCH * PAGE).then(|| (stretch.physical + (address - start), stretch.sort))
    }
}

/// A range of `count` pages, if there are many areas and it is one that can be had so. What it holds is anything.
pub(super) fn allocate(k: &mut Kernel, zone: Zone, count: u64, page: Page) -> Option<u64> {
    let plain = page.protection.read && page.protection.write && (1..=LONGEST).contains(&count);
    if !plain || !k.mm.physical.memory.is_crowded() || !k.mm.physical.memory.take(count * PAGE) {
        return None;
    }
    let sort = Sort { zone, execute: page.protection.execute, closed: false };
    let address = find_room(k, sort, count);
    match address {
        Some(address) => show(k, address, count, page),
        None => k.mm.physical.memory.give(count * PAGE),
    }
    address
}

/// A page for special pool, between two that are never there. What it holds is anything.
pub(super) fn allocate_apart(k: &mut Kernel, zone: Zone, page: Page) -> Option<u64> {
    let memory = &mut k.mm.physical.memory;
    if !memory.take(PAGE) {
        return None;
    }
    if !memory.take_areas(AREAS_OF_SHOWN) {
        memory.give(PAGE);
        return None;
    }
    let sort = Sort { zone, execute: page.protection.execute, closed: true };
    let address = find_room(k, sort, 1);
    match address {
        Some(address) => {
            k.engine.protect(address, PAGE, page.protection);
            show(k, address, 1, page);
            budget::mapped(k, AREAS_OF_SHOWN, 1);
        }
        None => {
            k.mm.physical.memory.give(PAGE);
            k.mm.physical.memory.give_areas(AREAS_OF_SHOWN);
        }
    }
    address
}

fn find_room(k: &mut Kernel, sort: Sort, count: u64) -> Option<u64> {
    waiting(k, sort, count).or_else(|| cut(k, sort, count))
}

/// A range of a stretch is in use from now on.
fn show(k: &mut Kernel, address: u64, count: u64, page: Page) {
    let (physical, _) = k.mm.dense.find(address).expect("it was cut from a stretch");
    let pages: Vec<u64> = (0..count).map(|index| physical + index * PAGE).collect();
    k.mm.map.show(k.engine, address, &pages, page);
}

/// The range that has waited longest, if many do.
fn waiting(k: &mut Kernel, sort: Sort, count: u64) -> Option<u64> {
    let free = k.mm.dense.free.get_mut(&(sort, count))?;
    let wait = if sort.closed { LONG_WAIT } else { WAIT };
    if free.len() > wait { free.pop_front() } else { None }
}

/// The next range of the stretch of this sort, or of a new one; behind it is a page that is none's.
fn cut(k: &mut Kernel, sort: Sort, count: u64) -> Option<u64> {
    let open = match k.mm.dense.open.get(&sort) {
        Some(open) if open.used + count < STRETCH => *open,
        _ => begin(k, sort)?,
    };
    k.mm.dense.open.insert(sort, Open { used: open.used + count + 1, ..open });
    Some(open.address + open.used * PAGE)
}

/// A new stretch, of which nothing is there yet: its first page stays so, for what grows downwards.
fn begin(k: &mut Kernel, sort: Sort) -> Option<Open> {
    let physical = DENSE.base + k.mm.dense.stretches.len() as u64 * STRETCH * PAGE;
    if !DENSE.contains(physical + STRETCH * PAGE - 1) || !k.mm.physical.memory.take_areas(2) {
        return None;
    }
    let Some(address) = k.mm.space.take(sort.zone, STRETCH) else {
        k.mm.physical.memory.give_areas(2);
        return None;
    };
    k.engine.map(address, file_offset(physical), STRETCH * PAGE, unused(sort));
    k.engine.mark(address, STRETCH * PAGE, shadow::ABSENT);
    k.mm.dense.stretches.insert(address, Stretch { physical, sort });
    Some(Open { address, used: 1 })
}

/// The host's protection of what belongs to no range.
const fn unused(sort: Sort) -> Protection {
    if sort.closed {
        Protection::NONE
    } else {
        Protection { execute: sort.execute, ..Protection::READ_WRITE }
    }
}

/// Gives a range back, if it is one of these; false if not.
pub(super) fn release(k: &mut Kernel, address: u64, count: u64) -> bool {
    let Some((_, sort)) = k.mm.dense.find(address) else { return false };
    k.engine.protect(address, count * PAGE, unused(sort));
    k.mm.map.hide(k.engine, address, count);
    k.mm.physical.memory.give(count * PAGE);
    if sort.closed {
        k.mm.physical.memory.give_areas(AREAS_OF_SHOWN);
        budget::mapped(k, AREAS_OF_SHOWN, count);
    }
    k.mm.dense.free.entry((sort, count)).or_default().push_back(address);
    true
}
