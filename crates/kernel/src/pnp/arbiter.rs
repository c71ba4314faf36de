//! Arbitration: which ports, memory, interrupt lines, DMA channels and bus numbers are in use, by whom, and where there is room for what a
//! device that is no card asks for.
//!
//! Pages: *Hardware Resources*, *IO_RESOURCE_DESCRIPTOR structure*, *IRP_MN_QUERY_RESOURCES*, *IRP_MN_FILTER_RESOURCE_REQUIREMENTS*. In use are what devices
//! were started with, the boot configurations of those that are not started, the windows of all cards, what drivers have claimed, RAM, and what every PC has on
//! its main board. What a device had at boot is tried first, then what is preferred, then the lowest free place. *They do not* move other devices,
//! try each place of one resource for the sake of another's (the least flexible chooses first instead), or ask bus drivers for arbiters and translators of
//! their own (`GUID_ARBITER_INTERFACE_STANDARD` is reserved): a child has its resources beside its parent, not inside of its parent's.
#![allow(non_upper_case_globals, reason = "Microsoft's names in patterns")]

use abi::{
    CM_RESOURCE_INTERRUPT_LATCHED, CmResourceShareShared, CmResourceTypeBusNumber, CmResourceTypeDma,
    CmResourceTypeInterrupt, CmResourceTypeMemory, CmResourceTypeMemoryLarge, CmResourceTypePort,
};

use super::claim;
use super::node::{Node, NodeId, State};
use super::requirements::Unusable;
use super::resource::{self, Interrupt, Plain, Resource};
use super::routed;
use super::wanted::{Requirements, Span, Wanted};
use crate::cx::Kernel;
use crate::mm::physical::RAM;

/// The interrupt lines of a PC's I/O APIC.
const LINES: u64 = 24;
/// DMA channels.
const CHANNELS: u64 = 8;
/// Bus numbers.
const BUSES: u64 = 256;
/// So many alternatives are tried for one list.
const MOST_TRIES: u32 = 10_000;

/// What every PC has on its main board: `CmResourceType*`, the first and how many. Interrupt controllers, timer, keyboard, clock, DMA controllers, configuration space.
const BOARD: [(u8, u64, u64); 15] = [
    (CmResourceTypePort, 0x00, 0x20),
    (CmResourceTypePort, 0x20, 2),
    (CmResourceTypePort, 0x40, 4),
    (CmResourceTypePort, 0x60, 1),
    (CmResourceTypePort, 0x61, 1),
    (CmResourceTypePort, 0x64, 1),
    (CmResourceTypePort, 0x70, 2),
    (CmResourceTypePort, 0x80, 0x10),
    (CmResourceTypePort, 0xA0, 2),
    (CmResourceTypePort, 0xC0, 0x20),
    (CmResourceTypePort, 0xCF8, 8),
    (CmResourceTypeInterrupt, 0, 1),
    (CmResourceTypeInterrupt, 2, 1),
    (CmResourceTypeInterrupt, 8, 1),
    (CmResourceTypeDma, 4, 1),
];

/// A stretch of a space: of ports, memory, lines, channels or bus numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    /// `CmResourceType*`; of large memory, too, `CmResourceTypeMemory`.
    pub(super) kind: u8,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) shared: bool,
    /// Of an interrupt line.
    pub(super) latched: bool,
}

impl Range {
    /// For one device alone.
    pub(super) const fn exclusive(kind: u8, start: u64, length: u64) -> Self {
        Self { kind, start, length, shared: false, latched: false }
    }

    pub(super) const fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.kind == other.kind && self.start < other.end() && other.start < self.end()
    }

    /// Whether one stands in the other's way.
    pub(super) const fn conflicts(&self, other: &Self) -> bool {
        self.overlaps(other) && !(self.shared && other.shared && self.latched == other.latched)
    }

    /// In words: `ports 3F8h–3FFh`.
    pub(super) fn words(&self) -> String {
        let last = self.end().saturating_sub(1);
        match self.kind {
            CmResourceTypePort => format!("ports {:X}h–{last:X}h", self.start),
            CmResourceTypeMemory => format!("memory {:X}h–{last:X}h", self.start),
            CmResourceTypeInterrupt => format!("interrupt line {}", self.start),
            CmResourceTypeDma => format!("DMA channel {}", self.start),
            _ if self.length == 1 => format!("bus number {}", self.start),
            _ => format!("bus numbers {}–{last}", self.start),
        }
    }
}

/// A stretch that is in use, and by whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub(super) range: Range,
    /// In words.
    pub(super) by: String,
}

/// What a device was started with, as stretches; of one that was not, its boot configuration.
pub(super) fn of_node(node: &Node) -> Vec<Range> {
    if node.resources.is_empty() && !node.detected {
        return claim::of_list(&node.answers.boot_resources);
    }
    node.resources.iter().filter_map(resource::range).collect()
}

/// All that is in use by others than `except`.
pub(super) fn in_use(k: &Kernel, except: Option<NodeId>) -> Vec<Held> {
    let board =
        BOARD.iter().map(|&(kind, start, length)| (Range::exclusive(kind, start, length), "the main board"));
    let ram = RAM.iter().map(|ram| (Range::exclusive(CmResourceTypeMemory, ram.base, ram.length), "RAM"));
    let mut held: Vec<Held> = board.chain(ram).map(|(range, by)| Held { range, by: by.to_owned() }).collect();
    held.extend(claim::all(k));
    for (id, node) in &k.pnp.nodes {
        if Some(*id) == except || node.state == State::Deleted {
            continue;
        }
        let own = of_node(node);
        let windows = node.card().map_or(&[][..], |card| &card.function.windows);
        let windows = windows.iter().filter(|window| window.base != 0).map(resource::of_window);
        let windows: Vec<Range> = windows.filter(|window| !own.contains(window)).collect();
        let bus = node
            .card()
            .map(|card| Range::exclusive(CmResourceTypeBusNumber, card.function.address.bus.into(), 1));
        let bus =
            bus.map(|range| Held { range, by: "the PCI bus".to_owned() }).filter(|bus| !held.contains(bus));
        held.extend(bus);
        held.extend(own.into_iter().chain(windows).map(|range| Held { range, by: node.name.clone() }));
    }
    held
}

/// The descriptor that was chosen for each resource of a list, by its place there, and where it lies.
pub(super) type Met = Vec<(usize, Range)>;

/// Finds a place for each resource of a list: where the device has been at boot (`liked`), by what is preferred, by an alternative.
///
/// # Errors
/// The place in the list of the resource for which there is none.
pub(super) fn meet(list: &[Wanted], held: &[Held], liked: &[Range]) -> Result<Met, usize> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, wanted) in list.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if wanted.is_alternative() => group.push(at),
            _ => groups.push(vec![at]),
        }
    }
    groups.retain(|group| !list[group[0]].asks_nothing());
    for group in &mut groups {
        group.sort_by_key(|at| !list[*at].is_preferred());
    }
    // What can lie in few places chooses before what can lie anywhere.
    groups.sort_by_key(|group| group.iter().map(|at| freedom(&list[*at])).fold(0, u64::saturating_add));
    let mut taken: Vec<Range> = held.iter().map(|held| held.range).collect();
    taken.sort_unstable_by_key(|range| (range.kind, range.start));
    let mut search = Search { list, liked, taken, met: Vec::new(), tries: MOST_TRIES, failed: 0, deepest: 0 };
    if !search.go(&groups, 0) {
        return Err(search.failed);
    }
    search.met.sort_unstable_by_key(|(at, _)| *at);
    Ok(search.met)
}

/// In how many places a resource may lie.
fn freedom(wanted: &Wanted) -> u64 {
    let Some(Span { length, alignment, lowest, highest }) = wanted.span() else { return 0 };
    highest.saturating_sub(lowest).saturating_add(1).saturating_sub(length) / alignment
}

struct Search<'a> {
    list: &'a [Wanted],
    liked: &'a [Range],
    /// In use, by space and start.
    taken: Vec<Range>,
    met: Met,
    tries: u32,
    /// The resource that had no place when the most others had one.
    failed: usize,
    deepest: usize,
}

impl Search<'_> {
    /// Places the resources from the `at`-th on.
    fn go(&mut self, groups: &[Vec<usize>], at: usize) -> bool {
        let Some(group) = groups.get(at) else { return true };
        if at >= self.deepest {
            (self.deepest, self.failed) = (at, group.iter().copied().min().unwrap_or_default());
        }
        for &option in group {
            if self.tries == 0 {
                return false;
            }
            self.tries -= 1;
            let wanted = &self.list[option];
            let own = self.liked.iter().find_map(|liked| self.at_its_place(wanted, liked));
            let Some(range) = own.or_else(|| self.first_free(wanted)) else { continue };
            let key = |range: &Range| (range.kind, range.start);
            let place = self.taken.partition_point(|other| key(other) <= key(&range));
            self.taken.insert(place, range);
            self.met.push((option, range));
            if self.go(groups, at + 1) {
                return true;
            }
            self.taken.remove(place);
            self.met.pop();
        }
        false
    }

    /// The place where the device was at boot, if it fits and is free.
    fn at_its_place(&self, wanted: &Wanted, liked: &Range) -> Option<Range> {
        let (span, range) = (wanted.span()?, range_at(wanted, liked.start)?);
        let fits = range.kind == liked.kind
            && range.end() <= liked.end()
            && range.start >= span.lowest
            && range.end().checked_sub(1)? <= span.highest.min(last_of(range.kind))
            && range.start.is_multiple_of(span.alignment);
        (fits && self.taken.iter().all(|other| !other.conflicts(&range))).then_some(range)
    }

    /// The lowest free place.
    fn first_free(&self, wanted: &Wanted) -> Option<Range> {
        let span = wanted.span()?;
        let mut range = range_at(wanted, span.lowest.checked_next_multiple_of(span.alignment)?)?;
        let last = span.highest.min(last_of(range.kind));
        let from = self.taken.partition_point(|other| other.kind < range.kind);
        for other in &self.taken[from..] {
            if other.kind != range.kind || other.start >= range.end() {
                break;
            }
            if other.conflicts(&range) {
                range.start = other.end().checked_next_multiple_of(span.alignment)?;
            }
        }
        let end = range.start.checked_add(range.length)?.checked_sub(1)?;
        (end <= last).then_some(range)
    }
}

/// The last unit of a space.
const fn last_of(kind: u8) -> u64 {
    match kind {
        CmResourceTypePort => 0xFFFF,
        CmResourceTypeInterrupt => LINES - 1,
        CmResourceTypeDma => CHANNELS - 1,
        CmResourceTypeBusNumber => BUSES - 1,
        _ => u64::MAX,
    }
}

/// What is wanted, at this place; none for messages, and for what lies nowhere.
fn range_at(wanted: &Wanted, start: u64) -> Option<Range> {
    let length = wanted.span()?.length;
    if wanted.messages().is_some() || length == 0 {
        return None;
    }
    let kind = if wanted.kind == CmResourceTypeMemoryLarge { CmResourceTypeMemory } else { wanted.kind };
    let shared = wanted.share == CmResourceShareShared;
    let latched = kind == CmResourceTypeInterrupt && wanted.flags & CM_RESOURCE_INTERRUPT_LATCHED != 0;
    Some(Range { kind, start, length, shared, latched })
}

/// What a device that is no card is started with, by its (filtered) requirements.
///
/// # Errors
/// The list is damaged, or none of its alternatives can be met.
pub(super) fn assign(k: &Kernel, id: NodeId, list: &[u8]) -> Result<Vec<Resource>, Unusable> {
    let requirements = Requirements::read(list).map_err(Unusable::Malformed)?;
    let held = in_use(k, Some(id));
    assign_among(k, &requirements, &held, &claim::of_list(&k.pnp.node(id).answers.boot_resources))
}

/// As [`assign`], where these are in use and the device was there at boot.
pub(super) fn assign_among(
    k: &Kernel,
    requirements: &Requirements,
    held: &[Held],
    boot: &[Range],
) -> Result<Vec<Resource>, Unusable> {
    let mut conflict = None;
    for list in &requirements.lists {
        match meet(list, held, boot) {
            Ok(met) => return Ok(resources(k, list, &met)),
            Err(at) => {
                conflict.get_or_insert_with(|| describe(list, at, held));
            }
        }
    }
    Err(conflict.map_or_else(|| Unusable::Malformed("AlternativeLists is 0".to_owned()), Unusable::Conflict))
}

/// What was met, in the order of the list, with the entries that are private to drivers where they stand.
fn resources(k: &Kernel, list: &[Wanted], met: &Met) -> Vec<Resource> {
    let given = |(at, wanted): (usize, &Wanted)| {
        if let Some(words) = wanted.private() {
            return Some(Resource::Private(words));
        }
        let (_, range) = met.iter().find(|(chosen, _)| *chosen == at)?;
        if range.kind != CmResourceTypeInterrupt {
            let Wanted { kind, share, flags, .. } = *wanted;
            return Some(Resource::Plain(Plain {
                kind,
                share,
                flags,
                start: range.start,
                length: range.length,
            }));
        }
        let line = routed(k, u32::try_from(range.start).unwrap_or(u32::MAX));
        let affinity = wanted.policy().map_or(line.affinity, |policy| policy.choose(line.affinity, 0));
        let (shared, latched) = (range.shared, range.latched);
        Some(Resource::Interrupt(Interrupt { affinity, shared, latched, ..line }))
    };
    list.iter().enumerate().filter_map(given).collect()
}

/// What cannot be had, and who has it.
fn describe(list: &[Wanted], at: usize, held: &[Held]) -> String {
    let options = 1 + list[at + 1..].iter().take_while(|wanted| wanted.is_alternative()).count();
    let mut words = Vec::new();
    let mut holders: Vec<String> = Vec::new();
    for wanted in &list[at..at + options] {
        words.push(super::requirements::wish(wanted));
        let Some(span) = wanted.span() else { continue };
        let Some(range) = range_at(wanted, span.lowest) else { continue };
        let whole = Range { length: span.highest.saturating_sub(span.lowest).saturating_add(1), ..range };
        for held in held.iter().filter(|held| held.range.conflicts(&whole)) {
            let holder = format!("{} has {}", held.by, held.range.words());
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }
    let more = if holders.len() > 3 { ", …" } else { "" };
    holders.truncate(3);
    let holders = if holders.is_empty() { String::new() } else { format!(": {}{more}", holders.join(", ")) };
    format!("{} cannot be given to the device{holders}", words.join(", or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight ports.
    fn ports(lowest: u64, highest: u64) -> Wanted {
        Wanted::range(CmResourceTypePort, 0, 8, 8, (lowest, highest))
    }

    fn held(start: u64, length: u64) -> Held {
        Held { range: Range::exclusive(CmResourceTypePort, start, length), by: "x".to_owned() }
    }

    fn starts(list: &[Wanted], liked: &[Range]) -> Result<Vec<u64>, usize> {
        let met = meet(list, &[held(0x300, 0x10)], liked)?;
        Ok(met.into_iter().map(|(_, range)| range.start).collect())
    }

    #[test]
    fn a_resource_lies_at_the_lowest_free_place_or_at_an_alternatives() {
        assert_eq!(starts(&[ports(0x300, 0x3FF)], &[]), Ok(vec![0x310]));
        assert_eq!(starts(&[ports(0x300, 0x30F), ports(0x280, 0x287).or()], &[]), Ok(vec![0x280]));
        assert_eq!(starts(&[ports(0x300, 0x30F)], &[]), Err(0));
        assert_eq!(starts(&[ports(0x200, 0x207), ports(0x300, 0x30F)], &[]), Err(1));
    }

    #[test]
    fn the_boot_configuration_comes_first_then_what_is_preferred() {
        let boot = [Range::exclusive(CmResourceTypePort, 0x3E8, 8)];
        assert_eq!(starts(&[ports(0x300, 0x3FF)], &boot), Ok(vec![0x3E8]));
        let preferred = Wanted {
            option: abi::IO_RESOURCE_PREFERRED | abi::IO_RESOURCE_ALTERNATIVE,
            ..ports(0x3F8, 0x3FF)
        };
        assert_eq!(starts(&[ports(0x300, 0x3FF), preferred], &[]), Ok(vec![0x3F8]));
    }

    #[test]
    fn the_least_flexible_chooses_first_and_an_alternative_makes_room() {
        assert_eq!(starts(&[ports(0x310, 0x3FF), ports(0x310, 0x317)], &[]), Ok(vec![0x318, 0x310]));
        let both =
            [ports(0x400, 0x407), ports(0x408, 0x40F).or(), ports(0x400, 0x407), ports(0x300, 0x307).or()];
        assert_eq!(starts(&both, &[]), Ok(vec![0x408, 0x400]));
    }

    #[test]
    fn a_line_is_shared_with_those_that_share_it_in_the_same_mode() {
        let line = |share, flags| Wanted {
            alignment: 17,
            length: 16,
            ..Wanted::number(CmResourceTypeInterrupt, share, flags, 0)
        };
        let level = Range { shared: true, ..Range::exclusive(CmResourceTypeInterrupt, 16, 1) };
        let held = [Held { range: level, by: "x".to_owned() }];
        let at = |wanted| meet(&[wanted], &held, &[]).map(|met| met[0].1.start);
        assert_eq!(at(line(CmResourceShareShared, 0)), Ok(16));
        assert_eq!(at(line(CmResourceShareShared, CM_RESOURCE_INTERRUPT_LATCHED)), Ok(17));
        assert_eq!(at(line(abi::CmResourceShareDeviceExclusive, 0)), Ok(17));
    }

    #[test]
    fn what_lies_outside_of_its_space_or_has_no_length_is_a_conflict() {
        assert_eq!(starts(&[ports(0xFFFC, 0x1_FFFF)], &[]), Err(0));
        assert_eq!(starts(&[Wanted { length: 0, ..ports(0x100, 0x1FF) }], &[]), Err(0));
        assert_eq!(
            starts(
                &[Wanted {
                    length: u32::MAX,
                    ..Wanted::range(CmResourceTypeMemory, 0, 0, 1, (u64::MAX - 5, u64::MAX))
                }],
                &[]
            ),
            Err(0)
        );
    }
}
