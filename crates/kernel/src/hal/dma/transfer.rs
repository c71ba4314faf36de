//! Map registers and what is mapped by them: a buffer of a driver's, or a copy of it where the device does not reach it.
//!
//! Pages: *Map Registers*, *PMAP_TRANSFER callback function*, *PFLUSH_ADAPTER_BUFFERS callback function*, *PFREE_MAP_REGISTERS callback
//! function*. What a device has written to a copy is copied to the buffer when the buffers are flushed, and not otherwise. Whether a buffer that
//! the device reaches is copied all the same, as Driver Verifier does, is a choice.

use std::collections::BTreeSet;

use abi::{DMA_ADAPTER, DriverPtr, MDL};
use engine::windows::PAGE;
use engine::{Flow, Leave, Protection};

use super::channel::{Request, Work};
use super::domain::{Direction, GAP, Stretch, Terms};
use super::pieces::{Piece, Run};
use super::{By, DMA_VIOLATION, NOT_YET_TRANSFERRED, find, pieces, programmed, system};
use crate::cx::{Cx, Kernel};
use crate::few::Few;
use crate::mm::map::{self, Page};
use crate::mm::physical::Limits;
use crate::mm::space::Zone;
use crate::mm::{physical_access, pool};
use crate::verdict::Verdict;

const PAGE_KIND: Page = Page { physical: 0, protection: Protection::READ_WRITE, pageable: false };

/// Map registers that a device has.
pub(crate) struct Registers {
    adapter: u64,
    count: u32,
    pub(super) maps: Vec<Map>,
    /// They are a scatter/gather list's.
    is_listed: bool,
    /// The DMA transfer context that they were asked for with, if there is one (version 3).
    pub(super) context: u64,
    by: By,
}

impl Registers {
    /// What a device has asked for.
    pub(super) fn of(request: &Request) -> Self {
        let Request { adapter, count, by, .. } = *request;
        let is_listed = matches!(request.work, Work::List { .. });
        Self { adapter, count, maps: Vec::new(), is_listed, context: request.transfer, by }
    }

    /// Whether they are a scatter/gather list's.
    pub(super) fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// How many map nothing.
    pub(super) fn unused(&self) -> u64 {
        u64::from(self.count).saturating_sub(self.maps.iter().map(Map::span).sum())
    }

    /// Who has asked for them, if they are this adapter's.
    pub(super) fn taken_by(&self, adapter: u64) -> Option<By> {
        (self.adapter == adapter).then_some(self.by)
    }

    /// Who has asked for them, if they are this adapter's, and no list's.
    pub(super) fn left_of(&self, adapter: u64) -> Option<By> {
        (self.adapter == adapter && !self.is_listed).then_some(self.by)
    }
}

/// A part of a buffer that is mapped.
#[derive(Clone)]
pub(super) struct Map {
    /// Its address as the MDL has it.
    va: u64,
    pub(super) logical: u64,
    /// The first address of what was mapped at once.
    group: u64,
    pub(super) bytes: u64,
    pub(super) to_device: bool,
    pub(super) pieces: Few<Piece, 1>,
    /// Where the copy is shown, and its physical address.
    pub(super) copy: Option<(u64, u64)>,
    /// Bytes of it that were flushed.
    flushed: u64,
}

impl Map {
    /// Pages, and so map registers, that it takes.
    pub(super) fn span(&self) -> u64 {
        (self.logical % PAGE + self.bytes).div_ceil(PAGE)
    }

    /// How much of it lies in a range, and from where on.
    fn part(&self, va: u64, length: u64) -> Option<(u64, u64)> {
        let (start, end) =
            (self.va.max(va), self.va.saturating_add(self.bytes).min(va.saturating_add(length)));
        (start < end).then(|| (start - self.va, end - start))
    }
}

/// How many pages of a buffer these map: parts of one page take one map register together.
fn pages<'m>(maps: impl Iterator<Item = &'m Map>) -> usize {
    let of = |map: &Map| map.va / PAGE..=map.va.saturating_add(map.bytes - 1) / PAGE;
    maps.flat_map(of).collect::<BTreeSet<u64>>().len()
}

/// The map registers at `base` are this adapter's, for transfers by `MapTransfer`: how many there are.
pub(super) fn check(cx: &mut Cx<'_>, name: &str, at: u64, base: u64) -> Flow<u32> {
    let found = cx
        .with(|k| k.hal.dma.registers.get(&base).map(|known| (known.adapter, known.count, known.is_listed)));
    match found {
        Some((adapter, count, false)) if adapter == at => Ok(count),
        found => {
            let why = match found {
                None => "which are not allocated, or freed already",
                Some((_, _, true)) => "which are a scatter/gather list's",
                Some(_) => "which are another adapter's",
            };
            let message = format!("{name} was called with the map registers at {base:#x}, {why}");
            let verdict = Verdict::error("dma-map-registers-not-allocated", message);
            Err(cx.stop(verdict.bug_check(DMA_VIOLATION, [0x5, at, base, 0])))
        }
    }
}

/// A mapping has bytes.
pub(super) fn expect_bytes(cx: &mut Cx<'_>, name: &str, length: u64) -> Flow<()> {
    if length != 0 {
        return Ok(());
    }
    let verdict = Verdict::verifier("dma-zero-length", format!("{name} was called for 0 bytes"));
    cx.verify(verdict.bug_check(DMA_VIOLATION, [0x21, 0, 0, 0]))
}

/// `MapTransfer`: the logical address; as much as a device with scatter/gather can take at once.
///
/// # Errors
/// A verdict on a buffer, an MDL or map registers that are none.
pub(crate) fn map_transfer(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    mdl: DriverPtr<MDL>,
    base: u64,
    va: u64,
    length: DriverPtr<u32>,
    to_device: bool,
) -> Flow<u64> {
    const NAME: &str = "MapTransfer";
    let at = find(cx, NAME, adapter)?;
    let count = check(cx, NAME, at, base)?;
    let wanted = u64::from(cx.read(length)?);
    if wanted == 0 {
        expect_bytes(cx, NAME, wanted)?;
        return Ok(0);
    }
    let Some(found) = pieces::of(cx, NAME, mdl, (va, wanted), false)? else {
        let message =
            format!("MapTransfer was asked to map {wanted:#x} bytes at {va:#x}, beyond the end of its MDL");
        let verdict = Verdict::error("dma-outside-mdl", message);
        return Err(cx.stop(verdict.bug_check(DMA_VIOLATION, [0x1F, 3, va, wanted])));
    };
    let (mask, takes_several) = cx.with(|k| {
        let adapter = &k.hal.dma.adapters[&at];
        (adapter.mask, adapter.scatter_gather)
    });
    system::refuse_odd(cx, at, (va, wanted))?;
    let Some(run) = pieces::runs(found, mask, takes_several).into_iter().next() else { return Ok(0) };
    let run = cx.with(|k| system::as_long(k, at, run));
    let by = By::now(cx);
    let map = place(cx, at, run, va, to_device, (NAME, by))?;
    let needed = cx.with(|k| pages(k.hal.dma.registers[&base].maps.iter().chain([&map])));
    if needed > count as usize {
        let message = format!(
            "MapTransfer was asked to map {:#x} bytes at {va:#x}: with what is mapped already that takes {needed} map registers, and {count} were allocated",
            map.bytes
        );
        let verdict = Verdict::verifier("dma-too-few-map-registers", message);
        cx.verify(verdict.bug_check(DMA_VIOLATION, [0xC, count.into(), needed as u64, 0]))?;
    }
    let (logical, bytes) = (map.logical, map.bytes);
    cx.with(|k| system::program(k, at, &map));
    cx.with(|k| {
        k.hal.dma.programmed.mapped(base, std::iter::once((logical, bytes)), wanted);
        k.hal.dma.registers.get_mut(&base).map(|known| known.maps.push(map))
    });
    cx.write(length, u32::try_from(bytes).unwrap_or(u32::MAX))?;
    Ok(logical)
}

/// Maps a run for the device; a copy of it, if need be, with what the buffer holds if the device is to read that.
pub(super) fn place(
    cx: &mut Cx<'_>,
    at: u64,
    run: Run,
    va: u64,
    to_device: bool,
    (routine, by): (&'static str, By),
) -> Flow<Map> {
    let system = cx.with(|k| k.hal.dma.adapters[&at].system);
    let is_shared = system.is_some_and(system::System::repeats);
    let is_copied = run.is_copied || !is_shared && cx.choose("dma.copy", 2) == 1;
    let bytes = run.bytes();
    let first = run.pieces.first().map_or(0, |piece| piece.physical);
    let (gap, boundary) = system.map_or((GAP, 0), |system| (0, system.boundary()));
    let made = cx.with(|k| {
        let mask = k.hal.dma.adapters.get(&at)?.mask;
        let copy = if is_copied { Some(copy(k, mask, first, bytes)?) } else { None };
        let physical = copy.map_or(first, |(_, physical)| physical + first % PAGE);
        let terms = Terms { direction: direction(to_device), routine, by };
        let limits = Limits { lowest: 0, highest: mask, boundary };
        let stretch = Stretch::new(physical, bytes, is_copied, gap);
        let logical = k.hal.dma.domain.map(&mut k.mm.physical, limits, terms, stretch)?;
        let map = Map { va, logical, group: logical, bytes, to_device, pieces: run.pieces, copy, flushed: 0 };
        if to_device {
            move_data(k, &map, (0, bytes), true);
        }
        Some(map)
    });
    made.ok_or_else(|| without_room(cx))
}

fn without_room(cx: &mut Cx<'_>) -> Leave {
    cx.stop(Verdict::not_implemented("running out of memory or addresses for map registers"))
}

const fn direction(to_device: bool) -> Direction {
    if to_device { Direction::ToDevice } else { Direction::ToMemory }
}

/// As [`place`], of all runs of a list at once; whether they are copied all the same is one choice.
pub(super) fn place_all(
    cx: &mut Cx<'_>,
    at: u64,
    runs: Vec<Run>,
    va: u64,
    to_device: bool,
    (routine, by): (&'static str, By),
) -> Flow<Vec<Map>> {
    let are_copied = cx.choose("dma.copy", 2) == 1;
    let made = cx.with(|k| {
        let mask = k.hal.dma.adapters.get(&at)?.mask;
        let (mut maps, mut stretches) = (Vec::with_capacity(runs.len()), Few::default());
        let mut next = va;
        for run in runs {
            let (bytes, is_copied) = (run.bytes(), run.is_copied || are_copied);
            let first = run.pieces.first().map_or(0, |piece| piece.physical);
            let copy = if is_copied { Some(copy(k, mask, first, bytes)?) } else { None };
            let physical = copy.map_or(first, |(_, physical)| physical + first % PAGE);
            stretches.push(Stretch::new(physical, bytes, is_copied, GAP));
            let (va, pieces) = (next, run.pieces);
            maps.push(Map { va, logical: 0, group: 0, bytes, to_device, pieces, copy, flushed: 0 });
            next = next.wrapping_add(bytes);
        }
        if maps.is_empty() {
            return Some(maps);
        }
        let terms = Terms { direction: direction(to_device), routine, by };
        let limits = Limits { highest: mask, ..Limits::NONE };
        let mut each = maps.iter_mut();
        let tell = |logical| each.next().into_iter().for_each(|map| map.logical = logical);
        let group = k.hal.dma.domain.map_all(&mut k.mm.physical, limits, terms, stretches, tell)?;
        for map in &mut maps {
            map.group = group;
            if to_device {
                move_data(k, map, (0, map.bytes), true);
            }
        }
        Some(maps)
    });
    made.ok_or_else(|| without_room(cx))
}

/// Room for a copy that begins at the same offset in its page; where it is shown, and its physical address.
fn copy(k: &mut Kernel, mask: u64, first: u64, bytes: u64) -> Option<(u64, u64)> {
    let count = (first % PAGE + bytes).div_ceil(PAGE);
    let limits = Limits { highest: mask, ..Limits::NONE };
    map::allocate_run(k, Zone::Mappings, count, PAGE_KIND, limits, NOT_YET_TRANSFERRED)
}

/// Copies a part of what is mapped between the buffer and its copy, if it has one.
fn move_data(k: &mut Kernel, map: &Map, (offset, length): (u64, u64), to_copy: bool) {
    let Some((_, physical)) = map.copy else { return };
    let mut begin = 0;
    for piece in map.pieces.iter() {
        let (from, to) = (begin.max(offset), (begin + piece.bytes).min(offset + length));
        if from < to {
            let buffer = piece.physical.wrapping_add(from - begin);
            let copy = physical + map.logical % PAGE + from;
            let (source, target) = if to_copy { (buffer, copy) } else { (copy, buffer) };
            physical_access::copy(k, source, target, to - from);
        }
        begin += piece.bytes;
    }
}

/// `FlushAdapterBuffers`: what is flushed is not mapped any more.
///
/// # Errors
/// A verdict on map registers that are none; with Driver Verifier's option, if nothing is mapped there.
pub(crate) fn flush(
    cx: &mut Cx<'_>,
    adapter: DriverPtr<DMA_ADAPTER>,
    _mdl: DriverPtr<MDL>,
    base: u64,
    va: u64,
    length: u32,
    to_device: bool,
) -> Flow<bool> {
    const NAME: &str = "FlushAdapterBuffers";
    let at = find(cx, NAME, adapter)?;
    check(cx, NAME, at, base)?;
    flush_range(cx, NAME, base, (va, length), to_device)?;
    Ok(true)
}

/// Flushes what is mapped in a range, in this direction.
pub(super) fn flush_range(
    cx: &mut Cx<'_>,
    name: &'static str,
    base: u64,
    (va, length): (u64, u32),
    to_device: bool,
) -> Flow<()> {
    programmed::judge(cx, base);
    let by = By::now(cx);
    let any = cx.with(|k| {
        if let Some(at) = k.hal.dma.registers.get(&base).map(|known| known.adapter) {
            system::stop_for(k, at);
        }
        let Some(registers) = k.hal.dma.registers.get_mut(&base) else { return false };
        let maps = std::mem::take(&mut registers.maps);
        let (mut left, mut any) = (Vec::new(), false);
        for mut map in maps {
            let Some((offset, bytes)) = map.part(va, length.into()).filter(|_| map.to_device == to_device)
            else {
                left.push(map);
                continue;
            };
            any = true;
            if !to_device {
                move_data(k, &map, (offset, bytes), false);
            }
            map.flushed += bytes;
            if map.flushed >= map.bytes {
                unmap(k, &map, name, by);
            } else {
                left.push(map);
            }
        }
        if let Some(registers) = k.hal.dma.registers.get_mut(&base) {
            registers.maps = left;
        }
        any
    });
    if !any {
        let message = format!(
            "{name} was called for {length:#x} bytes at {va:#x}, of which none is mapped in this direction"
        );
        let verdict = Verdict::verifier("dma-flush-not-mapped", message);
        cx.verify(verdict.bug_check(DMA_VIOLATION, [0x16, va, length.into(), 0]))?;
    }
    Ok(())
}

fn unmap(k: &mut Kernel, map: &Map, routine: &'static str, by: By) {
    k.hal.dma.domain.unmap(&mut k.mm.physical, map.group, routine, by);
    if let Some((shown, _)) = map.copy {
        map::release(k, Zone::Mappings, shown, map.span());
    }
}

/// All of a scatter/gather list is flushed.
pub(super) fn flush_all(cx: &mut Cx<'_>, base: u64, to_device: bool, routine: &'static str) {
    programmed::judge(cx, base);
    let by = By::now(cx);
    cx.with(|k| {
        // They are all mapped the same way.
        let is_flushed = |map: &Map| map.to_device || !to_device;
        let known = k.hal.dma.registers.get_mut(&base);
        let known = known.filter(|known| known.maps.first().is_some_and(is_flushed));
        let maps = known.map(|known| std::mem::take(&mut known.maps)).unwrap_or_default();
        let mut last = None;
        for map in maps {
            if !map.to_device {
                move_data(k, &map, (0, map.bytes), false);
            }
            if last != Some(map.group) || map.copy.is_some() {
                unmap(k, &map, routine, by);
            }
            last = Some(map.group);
        }
    });
}

/// Map registers are free again; all that they map must have been flushed.
pub(super) fn release(cx: &mut Cx<'_>, at: u64, base: u64, routine: &'static str) -> Flow<()> {
    programmed::judge(cx, base);
    let by = By::now(cx);
    let registers = cx.with(|k| {
        let registers = k.hal.dma.registers.remove(&base)?;
        for map in &registers.maps {
            unmap(k, map, routine, by);
        }
        if let Some(adapter) = k.hal.dma.adapters.get_mut(&at) {
            adapter.free = adapter.free.map(|free| free + registers.count);
        }
        Some(registers)
    });
    match registers {
        Some(registers) => {
            pool::free(cx, DriverPtr::<()>::new(base))?;
            judge(cx, at, &registers, routine)
        }
        None => Ok(()),
    }
}

/// What was mapped, and not flushed: an error if data is lost that way.
fn judge(cx: &mut Cx<'_>, at: u64, registers: &Registers, routine: &str) -> Flow<()> {
    let Some(first) = registers.maps.first() else { return Ok(()) };
    let mapped: u64 = registers.maps.iter().map(|map| map.bytes).sum();
    let flushed: u64 = registers.maps.iter().map(|map| map.flushed).sum();
    let lost = registers.maps.iter().any(|map| map.copy.is_some() && !map.to_device);
    let what = if lost { ": what the device has written does not arrive in the buffer" } else { "" };
    let how = if first.to_device { "to the device" } else { "from the device" };
    let message = format!(
        "{routine} frees map registers of {mapped:#x} bytes that are mapped at {:#x} for a transfer {how}, of which {flushed:#x} were flushed{what}",
        first.va
    );
    let verdict = Verdict::error("dma-not-flushed", message).related("allocated", registers.by.moment);
    let verdict = verdict.bug_check(DMA_VIOLATION, [0xD, mapped - flushed, at, 0]);
    if lost { Err(cx.stop(verdict)) } else { cx.verify(verdict.as_verifier()) }
}
