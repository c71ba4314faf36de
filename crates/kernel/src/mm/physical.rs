//! Physical pages: which exist, which are in use, and in what order they are given out.
//!
//! RAM lies below 2 GiB and from 4 GiB up, as in a PC with a PCI hole (*MmGetPhysicalMemoryRanges function*). Single
//! pages come from the two parts in turn, each in a scattered order, so that no two neighbours of a buffer are
//! contiguous and a driver that takes one physical address for all of it fails here as in the field. Contiguous runs
//! have a zone of their own in each part. It maps nothing and does not clear what it gives out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::windows::PAGE;

use super::memory::{Memory, USUAL};

/// A range of physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    /// First address; a multiple of a page.
    pub base: u64,
    /// Bytes; a multiple of a page.
    pub length: u64,
}

impl Range {
    /// Whether `address` lies inside.
    #[must_use]
    pub(crate) const fn contains(self, address: u64) -> bool {
        address.wrapping_sub(self.base) < self.length
    }

    const fn end(self) -> u64 {
        self.base + self.length
    }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// All RAM of the machine, as firmware reports it: the first MiB has its hole from A0000h.
pub(crate) const RAM: [Range; 3] = [
    Range { base: PAGE, length: 0x9_F000 - PAGE },
    Range { base: MIB, length: 2 * GIB - MIB },
    Range { base: 4 * GIB, length: 4 * GIB },
];

/// Where contiguous runs come from, best first: a caller with no limit gets addresses above 4 GiB.
const RUNS: [Range; 2] =
    [Range { base: 4 * GIB, length: GIB }, Range { base: MIB, length: 511 * MIB + 512 * MIB }];
/// Where they come from in a computer with little memory.
const LOW: Range = Range { base: MIB, length: 255 * MIB };
/// Where single pages come from: powers of two.
const SCATTERED: [Range; 2] = [Range { base: 6 * GIB, length: 2 * GIB }, Range { base: GIB, length: GIB }];

/// Where stretches lie that ranges are cut from (`dense`).
pub(super) const DENSE: Range = Range { base: 5 * GIB, length: GIB };

/// Free pages of a part that are kept back before the oldest of them is used again. They are at all, because the host has memory
/// for every page that was ever used.
const KEPT: usize = 1024;

/// A part's pages are given out in an order that jumps about. The factor is odd, so that every page occurs once.
const JUMP: u64 = 0x2_6F35;
/// What undoes it, modulo any power of two.
const JUMP_BACK: u64 = inverse(JUMP);
/// Where the file of the machine's memory has the scattered pages: as much as both parts are.
const SCATTERED_FILE: u64 = GIB;

/// The inverse of an odd factor modulo 2⁶⁴: each step doubles the bits that are right.
const fn inverse(factor: u64) -> u64 {
    let mut inverse = factor;
    let mut step = 0;
    while step < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(factor.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

/// Where the file of the machine's memory has the page at `physical`. Pages that are given out one after the other lie side by side
/// there, so that the host maps all of a buffer at once; those of contiguous runs lie where they are.
#[must_use]
pub(crate) fn file_offset(physical: u64) -> u64 {
    let Some(part) = SCATTERED.iter().position(|range| range.contains(physical)) else { return physical };
    let [pages, other] = [part, 1 - part].map(|part| SCATTERED[part].length / PAGE);
    let index = (physical - SCATTERED[part].base) / PAGE;
    let turn = index.wrapping_mul(JUMP_BACK).wrapping_sub(1) % pages;
    // They take turns until the smaller part has no more.
    let place = if turn < other { 2 * turn + part as u64 } else { turn + other };
    SCATTERED_FILE + place * PAGE
}

struct Part {
    range: Range,
    fresh: u64,
    free: VecDeque<u64>,
}

impl Part {
    fn take(&mut self) -> Option<u64> {
        let pages = self.range.length / PAGE;
        if self.fresh < pages && self.free.len() <= KEPT {
            let index = (self.fresh + 1).wrapping_mul(JUMP) % pages;
            self.fresh += 1;
            return Some(self.range.base + index * PAGE);
        }
        self.free.pop_front()
    }
}

/// What a contiguous run must satisfy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Lowest address of its first byte.
    pub lowest: u64,
    /// Highest address of its last byte.
    pub highest: u64,
    /// A power of two that it must not cross a multiple of; 0 for none.
    pub boundary: u64,
}

impl Limits {
    /// Anywhere.
    pub const NONE: Self = Self { lowest: 0, highest: u64::MAX, boundary: 0 };
}

/// The machine's pages.
pub struct Physical {
    parts: [Part; 2],
    turn: usize,
    /// Free runs by first address, and their length.
    runs: BTreeMap<u64, u64>,
    /// How often each page is locked (`MmProbeAndLockPages`), by frame number.
    locks: BTreeMap<u64, u32>,
    /// Of these, whose memory was given back meanwhile: they go with the last lock.
    given: BTreeSet<u64>,
    /// How much of all memory is given out.
    pub(crate) memory: Memory,
}

impl Default for Physical {
    fn default() -> Self {
        Self::new(USUAL)
    }
}

impl Physical {
    /// Of a machine with so many bytes.
    #[must_use]
    pub fn new(memory: u64) -> Self {
        Self {
            memory: Memory::new(memory),
            parts: SCATTERED.map(|range| Part { range, fresh: 0, free: VecDeque::new() }),
            turn: 0,
            runs: RUNS.iter().map(|range| (range.base, range.length)).collect(),
            locks: BTreeMap::new(),
            given: BTreeSet::new(),
        }
    }

    /// Runs lie below 256 MiB from now on; none has been given out.
    pub(crate) fn keep_runs_low(&mut self) {
        self.runs = BTreeMap::from([(LOW.base, LOW.length)]);
    }

    /// One page, from the part whose turn it is; its contents are what the last owner left.
    pub fn take_page(&mut self) -> Option<u64> {
        if !self.memory.take(PAGE) {
            return None;
        }
        let turn = self.turn;
        self.turn = 1 - turn;
        let page = self.parts[turn].take().or_else(|| self.parts[1 - turn].take());
        if page.is_none() {
            self.memory.give(PAGE);
        }
        page
    }

    /// `count` pages, no two neighbours contiguous.
    pub fn take_pages(&mut self, count: u64) -> Option<Vec<u64>> {
        // Checked at once, not after all remaining pages have been taken.
        let bytes = count.checked_mul(PAGE).filter(|bytes| self.memory.take(*bytes))?;
        self.memory.give(bytes);
        let mut pages = Vec::new();
        for _ in 0..count {
            if let Some(page) = self.take_page() {
                pages.push(page);
            } else {
                pages.into_iter().for_each(|page| self.give_page(page));
                return None;
            }
        }
        Some(pages)
    }

    /// `count` pages in one run within `limits`, as high as possible; the first address.
    pub fn take_run(&mut self, count: u64, limits: Limits) -> Option<u64> {
        let (free, at, length) = self.find_run(count, limits)?;
        if !self.memory.take(length) {
            return None;
        }
        self.cut_run(free, at, length);
        Some(at)
    }

    /// As [`Physical::take_run`], the addresses alone: there is nothing behind them, and they cost no memory.
    pub fn reserve_run(&mut self, count: u64, limits: Limits) -> Option<u64> {
        let (free, at, length) = self.find_run(count, limits)?;
        self.cut_run(free, at, length);
        Some(at)
    }

    /// Where a run fits: the free one, the first address, bytes.
    fn find_run(&self, count: u64, limits: Limits) -> Option<(Range, u64, u64)> {
        let length = count.checked_mul(PAGE).filter(|&length| length > 0)?;
        let (free, at) = RUNS.iter().find_map(|zone| {
            let mut inside = self.runs.range(zone.base..zone.end());
            inside.find_map(|(&base, &size)| {
                let free = Range { base, length: size };
                place(free, length, limits).map(|at| (free, at))
            })
        })?;
        Some((free, at, length))
    }

    fn cut_run(&mut self, free: Range, at: u64, length: u64) {
        self.runs.remove(&free.base);
        if at > free.base {
            self.runs.insert(free.base, at - free.base);
        }
        if at + length < free.end() {
            self.runs.insert(at + length, free.end() - at - length);
        }
    }

    /// The first page of the runs that is free at or above `address`.
    #[must_use]
    pub fn next_free(&self, address: u64) -> Option<u64> {
        let at = address.checked_next_multiple_of(PAGE)?;
        match self.runs.range(..=at).next_back() {
            Some((&base, &length)) if at < base + length => Some(at),
            _ => self.runs.range(at..).next().map(|(&base, _)| base),
        }
    }

    /// Gives back one page, whichever way it was taken; one that is locked, with its last lock.
    pub fn give_page(&mut self, page: u64) {
        if self.is_locked(page) {
            self.given.insert(page / PAGE);
            return;
        }
        match self.parts.iter_mut().find(|part| part.range.contains(page)) {
            Some(part) => {
                part.free.push_back(page);
                self.memory.give(PAGE);
            }
            None => self.give_run(page, 1),
        }
    }

    /// Gives back a run.
    pub fn give_run(&mut self, base: u64, count: u64) {
        self.memory.give(count * PAGE);
        self.free_reserved_run(base, count);
    }

    /// Gives back what [`Physical::reserve_run`] gave.
    pub fn free_reserved_run(&mut self, base: u64, count: u64) {
        let (mut base, mut length) = (base, count * PAGE);
        if let Some(after) = self.runs.remove(&(base + length)) {
            length += after;
        }
        if let Some((&before, &size)) = self.runs.range(..base).next_back()
            && before + size == base
        {
            self.runs.remove(&before);
            (base, length) = (before, length + size);
        }
        self.runs.insert(base, length);
    }

    /// Whether the page lies in a contiguous run that was taken.
    #[must_use]
    pub fn is_in_run(&self, page: u64) -> bool {
        let free = self.runs.range(..=page).next_back();
        RUNS.iter().any(|zone| zone.contains(page))
            && free.is_none_or(|(&base, &length)| !Range { base, length }.contains(page))
    }

    /// Counts a lock on the page at `physical`.
    pub fn lock(&mut self, physical: u64) {
        *self.locks.entry(physical / PAGE).or_insert(0) += 1;
    }

    /// Takes one lock away; false if there was none.
    pub fn unlock(&mut self, physical: u64) -> bool {
        let frame = physical / PAGE;
        match self.locks.get_mut(&frame) {
            Some(1) => {
                self.locks.remove(&frame);
                if self.given.remove(&frame) {
                    self.give_page(frame * PAGE);
                }
                true
            }
            Some(count) => {
                *count -= 1;
                true
            }
            None => false,
        }
    }

    /// Whether a lock on the page is held.
    #[must_use]
    pub fn is_locked(&self, physical: u64) -> bool {
        self.locks.contains_key(&(physical / PAGE))
    }
}

/// Whether a physical address is RAM.
#[must_use]
pub(crate) fn is_ram(physical: u64) -> bool {
    RAM.iter().any(|range| range.contains(physical))
}

/// Whether any of `bytes` bytes from `physical` on is RAM.
#[must_use]
pub(crate) fn has_ram(physical: u64, bytes: u64) -> bool {
    let end = physical.saturating_add(bytes);
    RAM.iter().any(|range| physical < range.end() && range.base < end)
}

/// The first place in `free` where `length` bytes satisfy `limits`.
fn place(free: Range, length: u64, limits: Limits) -> Option<u64> {
    let mut at = free.base.max(limits.lowest.checked_next_multiple_of(PAGE)?);
    if limits.boundary != 0 {
        if length > limits.boundary {
            return None;
        }
        let last = at.checked_add(length - 1)?;
        if at / limits.boundary != last / limits.boundary {
            at = at.checked_next_multiple_of(limits.boundary)?;
        }
    }
    let last = at.checked_add(length - 1)?;
    (last < free.end() && last <= limits.highest).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::super::map;
    use super::*;

    #[test]
    fn no_two_neighbours_of_a_buffer_are_contiguous_and_both_sides_of_4_gib_occur() {
        let mut physical = Physical::default();
        let pages = physical.take_pages(10_000).unwrap();
        assert!(pages.windows(2).all(|pair| pair[0] + PAGE != pair[1] && pair[1] + PAGE != pair[0]));
        assert!(pages.iter().any(|&page| page < 4 * GIB) && pages.iter().any(|&page| page >= 4 * GIB));
        let different: std::collections::BTreeSet<_> = pages.iter().collect();
        assert_eq!(different.len(), pages.len());
        assert!(pages.iter().all(|&page| is_ram(page) && is_ram(page + PAGE - 1)));
    }

    #[test]
    fn each_page_has_a_place_of_its_own_in_the_file_and_pages_of_a_buffer_lie_side_by_side_there() {
        let mut physical = Physical::default();
        let pages = physical.take_pages(10_000).unwrap();
        assert!(pages.windows(2).all(|pair| file_offset(pair[0]) + PAGE == file_offset(pair[1])));
        let all = (0..8 * GIB).step_by(map::PAGE_BYTES).filter(|page| !(2 * GIB..4 * GIB).contains(page));
        let mut places: Vec<u64> = all.map(file_offset).collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "no two pages are one");
        assert!(places.last().is_some_and(|last| *last < 8 * GIB));
    }

    #[test]
    fn a_run_respects_its_limits() {
        let mut physical = Physical::default();
        assert!(physical.take_run(4, Limits::NONE).unwrap() >= 4 * GIB);
        let isa = Limits { lowest: 0, highest: 16 * MIB - 1, boundary: 0x1_0000 };
        let mut seen = Vec::new();
        for _ in 0..40 {
            let at = physical.take_run(9, isa).unwrap();
            assert!(at + 9 * PAGE <= 16 * MIB);
            assert_eq!(at / 0x1_0000, (at + 9 * PAGE - 1) / 0x1_0000);
            seen.push(at);
        }
        assert_eq!(physical.take_run(17, isa), None, "longer than the boundary");
        for at in seen {
            physical.give_run(at, 9);
        }
        assert_eq!(physical.take_run(3840, Limits { boundary: 0, ..isa }), Some(MIB), "free runs join again");
    }

    #[test]
    fn a_page_that_is_given_back_while_it_is_locked_goes_with_its_last_lock() {
        let mut physical = Physical::default();
        let page = physical.take_page().unwrap();
        physical.lock(page);
        physical.give_page(page);
        assert!(physical.given.contains(&(page / PAGE)), "a driver may still write to it");
        assert!(physical.unlock(page) && physical.given.is_empty() && !physical.is_locked(page));
    }

    #[test]
    fn a_page_is_locked_until_every_lock_is_gone() {
        let mut physical = Physical::default();
        physical.lock(0x5000);
        physical.lock(0x5000);
        assert!(physical.unlock(0x5000) && physical.is_locked(0x5000));
        assert!(physical.unlock(0x5000) && !physical.is_locked(0x5000));
        assert!(!physical.unlock(0x5000));
    }
}
