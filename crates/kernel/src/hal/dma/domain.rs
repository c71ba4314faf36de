//! Logical addresses: what a bus master puts on the bus for memory that was mapped for it.
//!
//! Pages: *DMA_ADAPTER structure*, *Kernel DMA Protection*, *Bug Check 0xE6: DRIVER_VERIFIER_DMA_VIOLATION* (26h). As behind an IOMMU, a logical
//! address is no physical one, leads only to what was mapped, only as long as it is mapped, and only the way that it was mapped for. Between
//! any two mappings lies a page that leads nowhere, and addresses that were unmapped are not given out again soon. Devices are not kept apart:
//! what is mapped for one, another reaches too.

use std::collections::{BTreeMap, VecDeque};

use engine::windows::PAGE;

use super::By;
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
    /// Where it lies.
    pub(crate) physical: u64,
    pub(crate) bytes: u64,
    pub(crate) direction: Direction,
    /// It stands for other memory, from and to which data is copied.
    pub(crate) is_copy: bool,
    /// Pages behind it that lead nowhere.
    pub(super) gap: u64,
    /// The routine that mapped it, and who called that.
    pub(crate) routine: &'static str,
    pub(crate) by: By,
}

impl Mapping {
    /// Pages of logical addresses, what lies behind it included.
    const fn span(&self) -> u64 {
        (self.physical % PAGE + self.bytes).div_ceil(PAGE) + self.gap
    }
}

/// One that is gone.
#[derive(Clone, Debug)]
struct Past {
    logical: u64,
    mapping: Mapping,
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

/// All mappings, by their first logical address.
#[derive(Default)]
pub(crate) struct Domain {
    live: BTreeMap<u64, Mapping>,
    past: VecDeque<Past>,
    /// The next address of those that are wide.
    next: u64,
}

impl Domain {
    /// Gives it a logical address within limits, the highest of which is the highest that the device can put out; none if there is none.
    pub(super) fn map(&mut self, physical: &mut Physical, limits: Limits, mapping: Mapping) -> Option<u64> {
        let page = self.take_anew(physical, limits, mapping.span())?;
        let logical = page + mapping.physical % PAGE;
        self.live.insert(logical, mapping);
        Some(logical)
    }

    /// As [`Domain::map`], of several one behind the other. But for the first one's beginning and the last one's end, they are whole pages.
    pub(super) fn map_all(
        &mut self,
        physical: &mut Physical,
        limits: Limits,
        mappings: Vec<Mapping>,
    ) -> Option<u64> {
        let span = mappings.iter().map(Mapping::span).sum();
        let page = self.take_anew(physical, limits, span)?;
        let first = page + mappings.first()?.physical % PAGE;
        let mut logical = first;
        for mapping in mappings {
            let bytes = mapping.bytes;
            self.live.insert(logical, mapping);
            logical += bytes;
        }
        Some(first)
    }

    /// So many pages, if need be of those that are kept back only for the sake of verdicts.
    fn take_anew(&mut self, physical: &mut Physical, limits: Limits, span: u64) -> Option<u64> {
        self.take(physical, limits, span).or_else(|| {
            while let Some(past) = self.past.pop_front() {
                give(physical, past.logical, past.mapping.span());
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

    /// Takes away all mappings that begin in a range.
    pub(super) fn unmap_all(
        &mut self,
        physical: &mut Physical,
        (logical, bytes): (u64, u64),
        routine: &'static str,
        by: By,
    ) {
        let found: Vec<u64> = self.live.range(logical..logical + bytes.max(1)).map(|(at, _)| *at).collect();
        found.into_iter().for_each(|at| self.unmap(physical, at, routine, by));
    }

    /// Takes a mapping away.
    pub(super) fn unmap(&mut self, physical: &mut Physical, logical: u64, routine: &'static str, by: By) {
        let Some(mapping) = self.live.remove(&logical) else { return };
        self.past.push_back(Past { logical, mapping, routine, by });
        if self.past.len() > REMEMBERED
            && let Some(past) = self.past.pop_front()
        {
            give(physical, past.logical, past.mapping.span());
        }
    }

    /// Where a logical address leads; none if it never led anywhere.
    pub(crate) fn find(&self, address: u64, to_memory: bool) -> Option<Result<Way, Wrong>> {
        if let Some((&logical, mapping)) = self.live.range(..=address).next_back() {
            let offset = address - logical;
            if offset < mapping.bytes {
                let other = if to_memory { Direction::ToDevice } else { Direction::ToMemory };
                let wrong = (mapping.direction == other).then(|| Wrong::Direction(Box::new(mapping.clone())));
                return Some(Ok(Way {
                    physical: mapping.physical.wrapping_add(offset),
                    bytes: mapping.bytes - offset,
                    wrong,
                }));
            }
            if address < (logical & !(PAGE - 1)) + mapping.span() * PAGE {
                return Some(Err(Wrong::Behind(Box::new(mapping.clone()), offset - mapping.bytes)));
            }
        }
        let gone = |past: &&Past| address.wrapping_sub(past.logical) < past.mapping.bytes;
        let past = self.past.iter().rev().find(gone)?;
        Some(Err(Wrong::Unmapped(Box::new((past.mapping.clone(), past.routine, past.by)))))
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

    fn mapping(physical: u64, bytes: u64) -> Mapping {
        let (direction, by) = (Direction::ToDevice, By::default());
        Mapping { physical, bytes, direction, is_copy: false, gap: GAP, routine: "MapTransfer", by }
    }

    fn up_to(highest: u64) -> Limits {
        Limits { highest, ..Limits::NONE }
    }

    #[test]
    fn pages_that_lie_apart_are_one_stretch_of_addresses_and_go_together() {
        let (mut domain, mut physical) = (Domain::default(), Physical::default());
        let whole = |physical, gap| Mapping { gap, ..mapping(physical, PAGE) };
        let pages = vec![whole(0x7000, 0), whole(0x3000, 0), whole(0x9000, GAP)];
        let at = domain.map_all(&mut physical, up_to(0xFF_FFFF), pages).unwrap();
        for (offset, place) in [(0, 0x7000), (PAGE - 1, 0x7FFF), (PAGE, 0x3000), (2 * PAGE + 5, 0x9005)] {
            assert_eq!(domain.find(at + offset, false).unwrap().unwrap().physical, place);
        }
        assert!(matches!(domain.find(at + 3 * PAGE, false), Some(Err(Wrong::Behind(_, 0)))));
        domain.unmap_all(&mut physical, (at, 3 * PAGE), "FreeCommonBuffer", By::default());
        for page in 0..3 {
            assert!(matches!(domain.find(at + page * PAGE, false), Some(Err(Wrong::Unmapped(_)))));
        }
    }

    #[test]
    fn addresses_lie_apart_within_the_bits_of_the_card_and_are_not_given_out_again_soon() {
        for bits in [24, 28, 32, 64] {
            let (mut domain, mut physical) = (Domain::default(), Physical::default());
            let mask = u64::MAX >> (64 - bits);
            let mut seen = Vec::new();
            for _ in 0..REMEMBERED {
                let at = domain.map(&mut physical, up_to(mask), mapping(0x1_2345_6780, 0x900)).unwrap();
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
        let at = domain.map(&mut physical, up_to(u64::MAX), mapping(0x5010, 0x20)).unwrap();
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
