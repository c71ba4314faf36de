//! Ranges of virtual addresses: each kind of memory has its own zone of the machine's windows, so that an address tells
//! what it was.
//!
//! A range is followed by at least one page that is never mapped. Addresses that were given back are used again late, when many
//! of their length wait or the zone has no fresh ones: a stale pointer hits nothing for long. They are used again at all because
//! every page of addresses costs the host memory: its entry in the page table, and its marks in a checked machine. It maps nothing.

use std::collections::{BTreeMap, VecDeque};

use engine::windows::{PAGE, SYSTEM, USER, Window};

const GIB: u64 = 1 << 30;

/// The allocation granularity: views begin at a multiple of it.
pub(crate) const GRANULARITY: u64 = 0x1_0000;

/// Pages that are kept back among the ranges of one length, before the oldest of them is used again; of long ones,
/// [`FEWEST`] ranges.
const KEPT: u64 = 1024;
const FEWEST: u64 = 16;

/// Kinds of memory with addresses of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Zone {
    /// Nonpaged pool.
    NonPagedPool,
    /// Paged pool.
    PagedPool,
    /// Kernel stacks.
    Stacks,
    /// System mappings of MDLs, contiguous and noncached memory.
    Mappings,
    /// Memory of applications.
    User,
    /// What processes have allocated by address, each for itself (`spaces`): nothing here is taken for one alone.
    Regions,
    /// Views of sections that processes have.
    Views,
    /// Views of sections in system space.
    SystemViews,
}

impl Zone {
    const ALL: [Self; 8] = [
        Self::NonPagedPool,
        Self::PagedPool,
        Self::Stacks,
        Self::Mappings,
        Self::User,
        Self::Regions,
        Self::Views,
        Self::SystemViews,
    ];

    /// Its addresses.
    #[must_use]
    pub const fn window(self) -> Window {
        match self {
            Self::NonPagedPool => Window { base: SYSTEM.base, size: 16 * GIB },
            Self::PagedPool => Window { base: SYSTEM.base + 16 * GIB, size: 16 * GIB },
            Self::Stacks => Window { base: SYSTEM.base + 32 * GIB, size: 8 * GIB },
            Self::Mappings => Window { base: SYSTEM.base + 40 * GIB, size: 16 * GIB },
            Self::User => Window { base: USER.base, size: 32 * GIB },
            Self::Regions => Window { base: USER.base + 32 * GIB, size: 16 * GIB },
            Self::Views => Window { base: USER.base + 48 * GIB, size: 16 * GIB },
            Self::SystemViews => Window { base: SYSTEM.base + 56 * GIB, size: 8 * GIB },
        }
    }

    /// What each range begins at a multiple of.
    const fn granularity(self) -> u64 {
        match self {
            Self::Views | Self::SystemViews => GRANULARITY,
            _ => PAGE,
        }
    }

    /// The zone an address belongs to, mapped or not.
    #[must_use]
    pub fn of(address: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|zone| zone.window().contains(address))
    }
}

/// What is used of one zone.
#[derive(Default)]
struct Used {
    /// Bytes from the zone's start that were given out at least once.
    fresh: u64,
    /// Ranges given back, by pages, oldest first.
    free: BTreeMap<u64, VecDeque<u64>>,
    /// Ranges among the fresh ones that were asked for by their address, with their ends.
    apart: BTreeMap<u64, u64>,
}

/// What is used of every zone.
#[derive(Default)]
pub struct Space {
    zones: BTreeMap<Zone, Used>,
    /// How many addresses were taken by their page.
    turn: u64,
}

/// Addresses that one page is shown at by turns, and how many of such addresses there are in all.
const TURNS: u64 = 8;
const BY_PAGE: u64 = 1 << 19;

impl Space {
    /// `pages` pages of addresses; none if the zone is full.
    pub fn take(&mut self, zone: Zone, pages: u64) -> Option<u64> {
        let used = self.zones.entry(zone).or_default();
        let window = zone.window();
        let unit = zone.granularity();
        let need = pages.checked_add(1)?.checked_mul(PAGE)?.checked_next_multiple_of(unit)?;
        let waiting = used.free.get_mut(&pages);
        if let Some(waiting) =
            waiting.filter(|ranges| ranges.len() as u64 > (KEPT / pages.max(1)).max(FEWEST))
        {
            return waiting.pop_front();
        }
        while need <= window.size - used.fresh {
            let at = window.base + used.fresh;
            match used.apart.range(..at + need).next_back() {
                Some((_, &end)) if end > at => {
                    used.fresh = (end + PAGE - window.base).next_multiple_of(unit);
                }
                _ => {
                    used.fresh += need;
                    return Some(at);
                }
            }
        }
        used.free.get_mut(&pages)?.pop_front()
    }

    /// An address to show a physical page at, by its number; none if that is in use. Of the upper half of the mappings' zone: the same page
    /// is shown at few addresses, by turns, so that a host that is asked for the same again and again still has it there.
    pub fn take_by_page(&mut self, page: u64) -> Option<u64> {
        let window = Zone::Mappings.window();
        self.turn += 1;
        let place = (page * TURNS + self.turn % TURNS) % BY_PAGE;
        let wanted = window.base + window.size / 2 + place * 2 * PAGE;
        self.take_at(Zone::Mappings, wanted, 1).then_some(wanted)
    }

    /// Takes these `pages` pages; false if they are not all the zone's and fresh, the page behind them too.
    pub fn take_at(&mut self, zone: Zone, address: u64, pages: u64) -> bool {
        let used = self.zones.entry(zone).or_default();
        let window = zone.window();
        let Some(end) = pages.checked_mul(PAGE).and_then(|bytes| address.checked_add(bytes)) else {
            return false;
        };
        let fresh = address >= window.base + used.fresh && end < window.end();
        let apart = used.apart.range(..=end).next_back().is_none_or(|(_, &other)| other < address);
        if fresh && apart {
            used.apart.insert(address, end);
        }
        fresh && apart
    }

    /// Gives a range back that `take` gave.
    pub fn give(&mut self, zone: Zone, address: u64, pages: u64) {
        let used = self.zones.entry(zone).or_default();
        if used.apart.remove(&address).is_none() {
            used.free.entry(pages).or_default().push_back(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_given_back_is_not_used_again_while_there_are_fresh_ones() {
        let mut space = Space::default();
        let first = space.take(Zone::Stacks, 6).unwrap();
        space.give(Zone::Stacks, first, 6);
        let second = space.take(Zone::Stacks, 6).unwrap();
        assert!(second >= first + 7 * PAGE, "one page between is never mapped");
        let rest = Zone::Stacks.window().size / PAGE;
        assert_eq!(space.take(Zone::Stacks, rest), None);
        let all = rest - 14 - 7;
        assert!(space.take(Zone::Stacks, all).is_some(), "takes the fresh addresses but seven pages");
        assert!(space.take(Zone::Stacks, 5).is_some());
        assert_eq!(space.take(Zone::Stacks, 6), Some(first), "only now");
    }

    #[test]
    fn what_is_taken_and_given_back_over_and_over_uses_few_addresses() {
        let mut space = Space::default();
        let mut highest = 0;
        for _ in 0..100_000 {
            let at = space.take(Zone::User, 1).unwrap();
            highest = highest.max(at);
            space.give(Zone::User, at, 1);
        }
        assert_eq!((highest - Zone::User.window().base) / (2 * PAGE), KEPT, "the oldest is used again");
    }

    #[test]
    fn a_range_that_was_asked_for_by_its_address_is_given_to_nobody_else() {
        let mut space = Space::default();
        let wanted = Zone::User.window().base + 4 * PAGE;
        assert!(space.take_at(Zone::User, wanted, 2));
        assert!(!space.take_at(Zone::User, wanted + PAGE, 1) && !space.take_at(Zone::User, wanted - PAGE, 1));
        assert!(!space.take_at(Zone::User, Zone::User.window().end() - PAGE, 1), "no page is left behind it");
        assert_eq!(space.take(Zone::User, 2), Some(Zone::User.window().base));
        assert_eq!(space.take(Zone::User, 2), Some(wanted + 3 * PAGE), "behind it");
        space.give(Zone::User, wanted, 2);
        assert!(!space.take_at(Zone::User, wanted, 2), "it is fresh no more");
    }

    #[test]
    fn a_page_is_shown_at_few_addresses_by_turns() {
        let mut space = Space::default();
        let mut take = |page| {
            let at = space.take_by_page(page).unwrap();
            space.give(Zone::Mappings, at, 1);
            at
        };
        let first: Vec<u64> = (0..TURNS).map(|_| take(77)).collect();
        let again: Vec<u64> = (0..TURNS).map(|_| take(77)).collect();
        assert_eq!(first, again);
        assert!(first.iter().enumerate().all(|(index, at)| !first[..index].contains(at)));
        assert!(
            first.iter().all(|at| Zone::of(*at) == Some(Zone::Mappings) && Zone::of(at + PAGE).is_some())
        );
        let mut full = Space::default();
        let held: Vec<_> = (0..TURNS).map(|_| full.take_by_page(77)).collect();
        assert!(held.iter().all(Option::is_some) && full.take_by_page(77).is_none(), "all are in use");
        assert!(full.take_by_page(78).is_some());
    }

    #[test]
    fn an_address_tells_its_zone() {
        for zone in Zone::ALL {
            assert_eq!(Zone::of(zone.window().base), Some(zone));
            assert_eq!(Zone::of(zone.window().end() - 1), Some(zone));
        }
        assert_eq!(Zone::of(0), None);
    }
}
