//! What PC firmware does before a system starts: slots, bases and interrupt lines, by fixed rules.
//!
//! Slots from 1 up in the order given; windows in slot and register order, each at the lowest free place that its size
//! aligns; a slot's pin goes to line `16 + (slot + pin - 1) mod 4`, as boards swizzle INTA#–INTD#. What a user asked
//! for (see [`Placement`]) goes first. It does not place expansion ROMs.

use std::fmt;

use kernel::hal::hardware::PciAddress;

use super::header::{Bar, Header, Location};
use super::model::{Model, Placement};

/// Memory windows lie here, each on its own 4 KiB page or more.
const MEMORY: (u64, u64) = (0xE000_0000, 0xFEC0_0000);
/// Memory windows that must lie below 1 MB: where option ROMs would be.
const LOW_MEMORY: (u64, u64) = (0xD_0000, 0xF_0000);
/// 64-bit memory windows that do not fit under 4 GB: from 512 GB.
const HIGH_MEMORY: (u64, u64) = (0x80_0000_0000, 0x100_0000_0000);
/// I/O windows.
const PORTS: (u64, u64) = (0xC000, 0x1_0000);
/// The least distance of two memory windows.
const PAGE: u64 = 0x1000;
/// The lines that exist for PCI.
const LINES: std::ops::RangeInclusive<u32> = 16..=23;

/// Why the cards cannot all be placed, for the user who chose them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacementError {
    /// The card, e.g. `pci#1`.
    pub card: String,
    /// What is wrong and what to do.
    pub why: String,
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.card, self.why)
    }
}

impl std::error::Error for PlacementError {}

/// Where one function goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Assignment {
    /// Its name, e.g. `pci9052#0`.
    pub name: String,
    /// Its slot, on bus 0.
    pub address: PciAddress,
    /// Its bases by register.
    pub bases: [Option<u64>; 6],
    /// Its pin's line.
    pub line: Option<u32>,
}

/// The interrupt line register's byte for `line`: the legacy interrupt request number that PC firmware writes there.
/// It is no vector and no line; 255 says "not connected".
#[must_use]
pub fn legacy_irq(line: Option<u32>) -> u8 {
    match line {
        Some(16) => 11,
        Some(17) => 10,
        Some(18) => 9,
        Some(19) => 5,
        Some(20) => 7,
        Some(21) => 3,
        Some(22) => 4,
        Some(23) => 15,
        _ => 255,
    }
}

/// Finds a place for every card, in the order given.
pub(crate) fn assign(models: &[Box<dyn Model>]) -> Result<Vec<Assignment>, PlacementError> {
    let names = names(models);
    let slots = slots(models, &names)?;
    let mut space = Space::default();
    let mut bases = fixed_bases(models, &names, &mut space)?;
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by_key(|&card| slots[card]);
    for card in order {
        place_windows(models[card].header(), &mut bases[card], &mut space, &names[card])?;
    }
    let cards = models.iter().zip(names).zip(slots).zip(bases);
    cards
        .map(|(((model, name), slot), bases)| {
            let line = line(&name, model.header(), model.placement(), slot)?;
            Ok(Assignment { name, address: PciAddress { bus: 0, device: slot, function: 0 }, bases, line })
        })
        .collect()
}

/// Finds places for the windows of one card that have none yet.
fn place_windows(
    header: &Header,
    bases: &mut [Option<u64>; 6],
    space: &mut Space,
    name: &str,
) -> Result<(), PlacementError> {
    for (bar, (base, kind)) in bases.iter_mut().zip(header.bars).enumerate() {
        let Some(kind) = kind.filter(|_| base.is_none()) else { continue };
        let found = space.find(kind, header.is_wide(bar)).ok_or_else(|| no_room(name, bar, kind))?;
        *base = Some(found);
    }
    Ok(())
}

/// `kind#n`, counted for each kind.
fn names(models: &[Box<dyn Model>]) -> Vec<String> {
    let kind_before = |i: usize| models[..i].iter().filter(|m| m.kind() == models[i].kind()).count();
    (0..models.len()).map(|i| format!("{}#{}", models[i].kind(), kind_before(i))).collect()
}

fn slots(models: &[Box<dyn Model>], names: &[String]) -> Result<Vec<u8>, PlacementError> {
    let mut taken = [false; 32];
    taken[0] = true; // the host bridge's
    for (model, name) in models.iter().zip(names) {
        let Some(slot) = model.placement().slot else { continue };
        match taken.get_mut(usize::from(slot)) {
            Some(free) if !*free => *free = true,
            _ => {
                return Err(error(
                    name,
                    format!("slot {slot} is taken or does not exist; slots are 1 to 31"),
                ));
            }
        }
    }
    let mut free = (0_u8..32).filter(|slot| !taken[usize::from(*slot)]);
    let mut places = Vec::new();
    for (model, name) in models.iter().zip(names) {
        let slot = model.placement().slot.or_else(|| free.next());
        places.push(slot.ok_or_else(|| error(name, "no slot is left; a bus has 31".to_owned()))?);
    }
    Ok(places)
}

fn line(name: &str, header: &Header, placement: Placement, slot: u8) -> Result<Option<u32>, PlacementError> {
    match (header.pin, placement.line) {
        (0, Some(line)) => {
            Err(error(name, format!("line {line} was asked for a card that has no interrupt pin; add `irq`")))
        }
        (0, None) => Ok(None),
        (_, Some(line)) if LINES.contains(&line) => Ok(Some(line)),
        (_, Some(line)) => Err(error(name, format!("line {line} does not exist; lines are 16 to 23"))),
        (pin, None) => Ok(Some(16 + (u32::from(slot) + u32::from(pin) - 1) % 4)),
    }
}

/// The bases users gave, taken before any other.
fn fixed_bases(
    models: &[Box<dyn Model>],
    names: &[String],
    space: &mut Space,
) -> Result<Vec<[Option<u64>; 6]>, PlacementError> {
    let mut all = Vec::new();
    for (model, name) in models.iter().zip(names) {
        let bases = model.placement().bases;
        for (bar, base) in bases.into_iter().enumerate() {
            if let Some(base) = base {
                take_fixed(model.header(), bar, base, space).map_err(|why| error(name, why))?;
            }
        }
        all.push(bases);
    }
    Ok(all)
}

/// Takes the place that a user gave for one window.
fn take_fixed(header: &Header, bar: usize, base: u64, space: &mut Space) -> Result<(), String> {
    let Some(kind) = header.bars[bar] else {
        return Err(format!("at{bar} was given, but BAR{bar} has no window"));
    };
    let length = kind.length();
    let end = match kind {
        Bar::Port { .. } => PORTS.1,
        Bar::Memory { .. } if header.is_wide(bar) => HIGH_MEMORY.1,
        Bar::Memory { .. } => 1 << 32,
    };
    if base == 0 || !base.is_multiple_of(length) || base.checked_add(length).is_none_or(|last| last > end) {
        return Err(format!(
            "at{bar}={base:X}: the base must be a multiple of the window's {length:X}h bytes, not 0, and the window must end by {end:X}h"
        ));
    }
    if space.overlap(kind.is_port(), base, length).is_some() {
        return Err(format!("at{bar}={base:X} overlaps another card's window"));
    }
    space.take(kind.is_port(), base, length);
    Ok(())
}

fn error(card: &str, why: String) -> PlacementError {
    PlacementError { card: card.to_owned(), why }
}

fn no_room(card: &str, bar: usize, kind: Bar) -> PlacementError {
    let space = match kind {
        Bar::Port { .. } => "I/O ports C000h-FFFFh",
        Bar::Memory { location: Location::Below1M, .. } => "memory below 1 MB (D0000h-EFFFFh)",
        Bar::Memory { .. } => "memory E0000000h-FEBFFFFFh",
    };
    error(card, format!("no room for BAR{bar} ({:X}h bytes) in {space}; ask for less", kind.length()))
}

/// What is taken of the two address spaces: (port, base, length).
#[derive(Default)]
struct Space {
    taken: Vec<(bool, u64, u64)>,
}

impl Space {
    fn take(&mut self, port: bool, base: u64, length: u64) {
        self.taken.push((port, base, length));
    }

    /// The end of something taken that overlaps.
    fn overlap(&self, port: bool, base: u64, length: u64) -> Option<u64> {
        let hit = |&&(p, b, l): &&(bool, u64, u64)| p == port && b < base + length && base < b + l;
        self.taken.iter().find(hit).map(|&(_, b, l)| b + l)
    }

    /// Finds and takes the lowest free place.
    fn find(&mut self, kind: Bar, wide: bool) -> Option<u64> {
        let ranges: &[(u64, u64)] = match kind {
            Bar::Port { .. } => &[PORTS],
            Bar::Memory { location: Location::Below1M, .. } => &[LOW_MEMORY],
            Bar::Memory { .. } if wide => &[MEMORY, HIGH_MEMORY],
            Bar::Memory { .. } => &[MEMORY],
        };
        let step = if kind.is_port() { kind.length() } else { kind.length().max(PAGE) };
        let base = ranges.iter().find_map(|&range| self.lowest(kind, step, range))?;
        self.take(kind.is_port(), base, step);
        Some(base)
    }

    fn lowest(&self, kind: Bar, step: u64, (start, end): (u64, u64)) -> Option<u64> {
        let mut base = start.next_multiple_of(step);
        while base.checked_add(step)? <= end {
            match self.overlap(kind.is_port(), base, step) {
                None => return Some(base),
                Some(free) => base = free.checked_next_multiple_of(step)?,
            }
        }
        None
    }
}
