//! Logical addresses: what a bus master puts on the bus for memory that was mapped for it.
//!
//! Pages: *DMA_ADAPTER structure*, *Kernel DMA Protection*, *Bug Check 0xE6: DRIVER_VERIFIER_DMA_VIOLATION* (26h). As behind an IOMMU, a logical
//! address is no physical one, leads only to what was mapped, only as long as it is mapped, and only the way that it was mapped for. Between
//! any two mappings lies a page that leads nowhere, and addresses that were unmapped are not given out again soon. Devices are not kept apart:
//! what is mapped for one, another reaches too.

use std::collections::{BTreeMap, VecDeque};

use engine::windows::PAGE;

use super::By;
use crate::few::Few;
use crate::mm::physical::{Limits, Physical};

/// Addresses that devices with so wide addresses get: neither memory nor device windows lie there.
const WIDE: (u64, u64) = (0x20_0000_0000, 0x80_0000_0000);
/// Behind each mapping, but those of a system DMA channel, which moves as many bytes as it is programmed for.
pub(super) const GAP: u64 = 1;
/// Mappings that are remembered when they are gone.
const REMEMBERED: usize = 64;

/// Which way data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// From memory to the device.
    ToDevice,
    /// From the device to memory.
    ToMemory,
    /// A common buffer.
    Both,
}

/// Physically contiguous memory that a device was given.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) bytes: u64,
    pub(crate) direction: Direction,
    /// It stands for other memory, from and to which data is copied.
    pub(crate) is_copy: bool,
    /// The routine that mapped it, and who called that.
    pub(crate) routine: &'static str,
    pub(crate) by: By,
}

/// A part of what is mapped at once.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Stretch {
    pub(super) physical: u64,
    pub(super) bytes: u64,
    pub(super) is_copy: bool,
    /// Pages behind it that lead nowhere.
    pub(super) gap: u64,
    /// From the first logical address on; the domain's to say.
    at: u64,
}

impl Stretch {
    pub(super) const fn new(physical: u64, bytes: u64, is_copy: bool, gap: u64) -> Self {
        Self { physical, bytes, is_copy, gap, at: 0 }
    }

    /// Pages of logical addresses, what lies behind it included.
    const fn span(&self) -> u64 {
        (self.physical % PAGE + self.bytes).div_ceil(PAGE) + self.gap
    }
}

/// How what is mapped is: which way data goes, the routine that mapped it, and who called that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) direction: Direction,
    pub(super) routine: &'static str,
    pub(super) by: By,
}

/// What was mapped at once, and goes at once.
#[derive(Clone, Debug)]
struct Group {
    stretches: Few<Stretch, 1>,
    terms: Terms,
    /// Pages of all.
    span: u64,
}

impl Group {
    /// The stretch that begins at or before an offset from the first address.
    fn stretch(&self, offset: u64) -> Stretch {
        let behind = self.stretches.partition_point(|stretch| stretch.at <= offset);
        self.stretches.get(behind.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn mapping(&self, stretch: Stretch) -> Mapping {
        let Stretch { bytes, is_copy, .. } = stretch;
        let Terms { direction, routine, by } = self.terms;
        Mapping { bytes, direction, is_copy, routine, by }
    }
}

/// One that is gone.
#[derive(Clone, Debug)]
struct Past {
    logical: u64,
    group: Group,
    /// The routine that unmapped it, and who called that.
    routine: &'static str,
    by: By,
}

/// Why a logical address leads nowhere, or should not.
#[derive(Clone, Debug)]
pub(crate) enum Wrong {
    /// It did, before the routine was called that unmapped it.
    Unmapped(Box<(Mapping, &'static str, By)>),
    /// It lies so many bytes behind the end of a mapping.
    Behind(Box<Mapping>, u64),
    /// The device goes the other way.
    Direction(Box<Mapping>),
}

/// Where a logical address leads.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) physical: u64,
    /// For so many bytes.
    pub(crate) bytes: u64,
    /// What is wrong with going there all the same.
    pub(crate) wrong: Option<Wrong>,
}

/// All that is mapped, by its first logical address.
#[derive(Default)]
pub(crate) struct Domain {
    live: BTreeMap<u64, Group>,
    past: VecDeque<Past>,
    /// The next address of those that are wide.
    next: u64,
}

impl Domain {
    /// Gives it a logical address within limits, the highest of which is the highest that the device can put out; none if there is none.
    pub(super) fn map(
        &mut self,
        physical: &mut Physical,
        limits: Limits,
        terms: Terms,
        stretch: Stretch,
    ) -> Option<u64> {
        self.map_all(physical, limits, terms, Few::one(stretch), |_| {})
    }

    /// As [`Domain::map`], of several at once; tells where each is. Those without a gap between them are whole pages there.
    pub(super) fn map_all(
        &mut self,
        physical: &mut Physical,
        limits: Limits,
        terms: Terms,
        mut stretches: Few<Stretch, 1>,
        mut tell: impl FnMut(u64),
    ) -> Option<u64> {
        let span = stretches.iter().map(Stretch::span).sum();
        let page = self.take_anew(physical, limits, span)?;
        let first = page + stretches.first()?.physical % PAGE;
        let mut next = page;
        for stretch in stretches.iter_mut() {
            let logical = next + stretch.physical % PAGE;
            stretch.at = logical - first;
            next += stretch.span() * PAGE;
            tell(logical);
        }
        self.live.insert(first, Group { stretches, terms, span });
        Some(first)
    }

    /// So many pages, if need be of those that are kept back only for the sake of verdicts.
    fn take_anew(&mut self, physical: &mut Physical, limits: Limits, span: u64) -> Option<u64> {
        self.take(physical, limits, span).or_else(|| {
            while let Some(past) = self.past.pop_front() {
                give(physical, past.logical, past.group.span);
            }
            self.take(physical, limits, span)
        })
    }

    fn take(&mut self, physical: &mut Physical, limits: Limits, span: u64) -> Option<u64> {
        let Limits { lowest, highest: mask, boundary } = limits;
        if mask >= WIDE.1 - 1 {
            let least = lowest.checked_next_multiple_of(PAGE)?.max(WIDE.0);
            let fits = |page: &u64| *page >= least && *page + span * PAGE <= WIDE.1;
            let page = [self.next, least].into_iter().find(fits)?;
            self.next = page + span * PAGE;
            return Some(page);
        }
        // Addresses of memory that is kept free for them: nothing else answers there. High ones first, so that a device which puts out
        // fewer bits than its driver said is noticed.
        let high = Limits { lowest: lowest.max((mask >> 1).min(512 << 20)), highest: mask, boundary };
        let any = Limits { lowest, highest: mask, boundary };
        physical.reserve_run(span, high).or_else(|| physical.reserve_run(span, any))
    }

    /// Takes away what was mapped at once with this first address.
    pub(super) fn unmap(&mut self, physical: &mut Physical, logical: u64, routine: &'static str, by: By) {
        let Some(group) = self.live.remove(&logical) else { return };
        if self.past.len() >= REMEMBERED
            && let Some(past) = self.past.pop_front()
        {
            give(physical, past.logical, past.group.span);
        }
        self.past.push_back(Past { logical, group, routine, by });
    }

    /// Where a logical address leads; none if it never led anywhere.
    pub(crate) fn find(&self, address: u64, to_memory: bool) -> Option<Result<Way, Wrong>> {
        if let Some((&logical, group)) = self.live.range(..=address).next_back() {
            let stretch = group.stretch(address - logical);
            let offset = address - logical - stretch.at;
            if offset < stretch.bytes {
                let other = if to_memory { Direction::ToDevice } else { Direction::ToMemory };
                let is_other = group.terms.direction == other;
                return Some(Ok(Way {
                    physical: stretch.physical.wrapping_add(offset),
                    bytes: stretch.bytes - offset,
                    wrong: is_other.then(|| Wrong::Direction(Box::new(group.mapping(stretch)))),
                }));
            }
            if address < (logical & !(PAGE - 1)) + group.span * PAGE {
                return Some(Err(Wrong::Behind(Box::new(group.mapping(stretch)), offset - stretch.bytes)));
            }
        }
        let gone = |past: &Past| {
            let offset =
                address.checked_sub(past.logical).filter(|offset| *offset < past.group.span * PAGE)?;
            let stretch = past.group.stretch(offset);
            (offset - stretch.at < stretch.bytes).then(|| past.group.mapping(stretch))
        };
        let (mapping, past) = self.past.iter().rev().find_map(|past| Some((gone(past)?, past)))?;
        Some(Err(Wrong::Unmapped(Box::new((mapping, past.routine, past.by)))))
    }
}

fn give(physical: &mut Physical, logical: u64, span: u64) {
    let page = logical & !(PAGE - 1);
    if page < WIDE.0 {
        physical.free_reserved_run(page, span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms { direction: Direction::ToDevice, routine: "MapTransfer", by: By::default() }
    }

    fn stretch(physical: u64, bytes: u64) -> Stretch {
        Stretch::new(physical, bytes, false, GAP)
    }

    fn up_to(highest: u64) -> Limits {
        Limits { highest, ..Limits::NONE }
    }

    #[test]
    fn pages_that_lie_apart_are_one_stretch_of_addresses_and_go_together() {
        let (mut domain, mut physical) = (Domain::default(), Physical::default());
        let mut pages = Few::default();
        [(0x7000, 0), (0x3000, 0), (0x9000, GAP)]
            .into_iter()
            .for_each(|(at, gap)| pages.push(Stretch::new(at, PAGE, false, gap)));
        let at = domain.map_all(&mut physical, up_to(0xFF_FFFF), terms(), pages, |_| {}).unwrap();
        for (offset, place) in [(0, 0x7000), (PAGE - 1, 0x7FFF), (PAGE, 0x3000), (2 * PAGE + 5, 0x9005)] {
            assert_eq!(domain.find(at + offset, false).unwrap().unwrap().physical, place);
        }
        assert!(matches!(domain.find(at + 3 * PAGE, false), Some(Err(Wrong::Behind(_, 0)))));
        domain.unmap(&mut physical, at, "FreeCommonBuffer", By::default());
        for page in 0..3 {
            assert!(matches!(domain.find(at + page * PAGE, false), Some(Err(Wrong::Unmapped(_)))));
        }
    }

    #[test]
    fn what_is_mapped_at_once_lies_apart_where_it_is_to_and_goes_at_once() {
        let (mut domain, mut physical) = (Domain::default(), Physical::default());
        let mut parts = Few::default();
        [(0x7010, 0x20), (0x3000, 0x1800)].into_iter().for_each(|(at, bytes)| parts.push(stretch(at, bytes)));
        let mut parts_at = Vec::new();
        let at =
            domain.map_all(&mut physical, up_to(u64::MAX), terms(), parts, |at| parts_at.push(at)).unwrap();
        assert_eq!(parts_at, [at, at - 0x10 + 2 * PAGE]);
        assert_eq!(domain.find(parts_at[1] + 0x17FF, false).unwrap().unwrap().physical, 0x47FF);
        for (behind, address) in [(0, at + 0x20), (0xFE0, at + 0x1000), (0, parts_at[1] + 0x1800)] {
            let found = domain.find(address, false);
            assert!(
                matches!(found, Some(Err(Wrong::Behind(_, by))) if by == behind),
                "{address:#x}: {found:?}"
            );
        }
        assert!(domain.find(parts_at[1] + 3 * PAGE, false).is_none());
        domain.unmap(&mut physical, at, "PutScatterGatherList", By::default());
        let gone = domain.find(parts_at[1] + 1, false);
        assert!(matches!(gone, Some(Err(Wrong::Unmapped(gone))) if gone.0.bytes == 0x1800));
        assert!(domain.find(at + 0x20, false).is_none());
    }

    #[test]
    fn addresses_lie_apart_within_the_bits_of_the_card_and_are_not_given_out_again_soon() {
        for bits in [24, 28, 32, 64] {
            let (mut domain, mut physical) = (Domain::default(), Physical::default());
            let mask = u64::MAX >> (64 - bits);
            let mut seen = Vec::new();
            for _ in 0..REMEMBERED {
                let at =
                    domain.map(&mut physical, up_to(mask), terms(), stretch(0x1_2345_6780, 0x900)).unwrap();
                assert_eq!(at % PAGE, 0x780);
                assert!(at + 0x8FF <= mask, "{bits} bits: {at:#x}");
                assert!(seen.iter().all(|other: &u64| at.abs_diff(*other) >= 2 * PAGE));
                seen.push(at);
                domain.unmap(&mut physical, at, "FlushAdapterBuffers", By::default());
            }
            let gone = domain.find(seen[0] + 5, false);
            assert!(matches!(gone, Some(Err(Wrong::Unmapped(_)))), "{bits} bits: {gone:?}");
        }
    }

    #[test]
    fn what_lies_behind_a_mapping_or_goes_the_other_way_is_known_and_the_rest_is_none() {
        let (mut domain, mut physical) = (Domain::default(), Physical::default());
        let at = domain.map(&mut physical, up_to(u64::MAX), terms(), stretch(0x5010, 0x20)).unwrap();
        let way = domain.find(at + 0x1F, false).unwrap().unwrap();
        assert_eq!((way.physical, way.bytes), (0x502F, 1));
        assert!(way.wrong.is_none());
        let back = domain.find(at, true).unwrap().unwrap();
        assert!(matches!(back.wrong, Some(Wrong::Direction(_))));
        assert!(matches!(domain.find(at + 0x20, false), Some(Err(Wrong::Behind(_, 0)))));
        assert!(matches!(domain.find(at + PAGE, false), Some(Err(Wrong::Behind(..)))));
        assert!(domain.find(at + 4 * PAGE, false).is_none());
        assert!(domain.find(at - PAGE, false).is_none());
        assert!(domain.find(0x5010, false).is_none(), "a physical address is none");
    }
}
