//! Device memory at addresses drivers and applications can use.
//!
//! Pages: *MmMapIoSpace function*, *MmMapIoSpaceEx function*, *MmUnmapIoSpace function*, *Bug Check 0xDA*, *Bug Check 0xBE*.
//! The host has nothing mapped there: every access is a call-out, which asks here what bus address is meant. The same range may be
//! mapped several times, as in Windows; what an MDL shows to applications (`mdl_map`) has a window of its own, below the kernel's
//! addresses. RAM that a driver asks for is ordinary memory, shown once more. Of caching, that of device memory which combines writes is modelled
//! (`hal::combine`); cached device memory is uncached, as on a PC.

use std::collections::BTreeMap;

use abi::{
    PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE, PAGE_NOCACHE, PAGE_READONLY, PAGE_READWRITE,
    PAGE_WRITECOMBINE,
};
use engine::windows::{DEVICE, PAGE, USER_DEVICE, Window};
use engine::{Flow, Leave, Protection};

use super::map::{self, Page};
use super::space::{GRANULARITY, Zone};
use super::{code_integrity, physical, pool};
use crate::cx::{Cx, Kernel};
use crate::ldr;
use crate::pnp;
use crate::verdict::Verdict;

/// One mapping of device memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mapping {
    /// The address the driver was given.
    pub address: u64,
    /// The bus address there.
    pub bus: u64,
    /// Bytes, as asked for.
    pub bytes: u64,
    /// It may only be read.
    pub read_only: bool,
    /// Base of the image that mapped it, if one did.
    pub owner: Option<u64>,
    /// Return address of its call.
    pub caller: u64,
    /// The process whose view it is, if it is one.
    pub process: Option<u32>,
    /// RAM lies in it.
    pub has_ram: bool,
    /// Processors combine stores to it.
    pub combined: bool,
}

/// Mappings of device memory.
#[derive(Default)]
pub struct State {
    /// By the page they begin in.
    mappings: BTreeMap<u64, Mapping>,
    /// What of the kernel's window was given out, and of the applications'.
    fresh: [u64; 2],
    /// RAM that is shown once more, by the page where it is.
    ram: BTreeMap<u64, Mapping>,
    /// The mapping that was used last; it has no bytes if there is none.
    last: Mapping,
    /// The mappings that were unmapped last, the newest last, each with the page it began in.
    unmapped: Vec<(u64, Mapping)>,
}

/// So many mappings that were unmapped are known.
const UNMAPPED: usize = 64;

/// What an address in the device window means: the bus address, and the mapping that says so. The rest of a mapping's
/// last page belongs to it, as the hardware would have it.
pub(crate) fn resolve(k: &Kernel, address: u64) -> Option<(u64, Mapping)> {
    let (&page, mapping) = k.mm.io_space.mappings.range(..=address).next_back()?;
    (address < page + pages(mapping) * PAGE)
        .then(|| ((mapping.bus & !(PAGE - 1)) + (address - page), *mapping))
}

/// The bus address of an access that lies inside the mapping that was used last.
#[inline]
pub(crate) fn resolve_again(k: &Kernel, address: u64, bytes: u8) -> Option<u64> {
    let last = &k.mm.io_space.last;
    let offset = address.wrapping_sub(last.address);
    (offset < last.bytes && last.bytes - offset >= bytes.into()).then(|| last.bus + offset)
}

/// The mapping that was at an address until it was unmapped.
pub(crate) fn unmapped_at(k: &Kernel, address: u64) -> Option<Mapping> {
    let mut newest_first = k.mm.io_space.unmapped.iter().rev();
    let was_there =
        |(page, mapping): &&(u64, Mapping)| (*page..page + pages(mapping) * PAGE).contains(&address);
    newest_first.find(was_there).map(|(_, mapping)| *mapping)
}

/// The next access is looked at in full.
pub(crate) fn forget_last(k: &mut Kernel) {
    k.mm.io_space.last = Mapping::default();
}

/// This mapping is used now.
pub(crate) fn remember(k: &mut Kernel, mapping: Mapping) {
    k.mm.io_space.last = mapping;
}

const fn pages(mapping: &Mapping) -> u64 {
    (mapping.bus % PAGE + mapping.bytes).div_ceil(PAGE)
}

/// `MmMapIoSpace`; null if there are no addresses left.
///
/// # Errors
/// A verdict on a range that is none.
pub(crate) fn map(cx: &mut Cx<'_>, address: u64, bytes: u64, cache: u32) -> Flow<u64> {
    let kind = Mapping { bytes, combined: is_combined(cache), ..Mapping::default() };
    map_for(cx, "MmMapIoSpace", address, kind)
}

/// Whether processors combine stores to device memory that is mapped with this `MEMORY_CACHING_TYPE`.
pub(super) const fn is_combined(cache: u32) -> bool {
    cache == abi::MmWriteCombined || cache == abi::MmUSWCCached
}

/// `MmMapIoSpaceEx`, with page protections in place of caching; null, and reported, if `protect` is not exactly one of them.
///
/// # Errors
/// As [`map()`].
pub(crate) fn map_ex(cx: &mut Cx<'_>, address: u64, bytes: u64, protect: u32) -> Flow<u64> {
    let caching = PAGE_NOCACHE | PAGE_WRITECOMBINE;
    let read_only = match protect & !caching {
        PAGE_READONLY | PAGE_EXECUTE | PAGE_EXECUTE_READ => Some(true),
        PAGE_READWRITE | PAGE_EXECUTE_READWRITE => Some(false),
        _ => None,
    };
    let Some(read_only) = read_only.filter(|_| protect & caching != caching) else {
        let message = format!(
            "MmMapIoSpaceEx was given the protection {protect:#x}; it takes exactly one of PAGE_READONLY, PAGE_READWRITE, \
             PAGE_EXECUTE, PAGE_EXECUTE_READ and PAGE_EXECUTE_READWRITE (MmNonCached and its like are MmMapIoSpace's), and fails"
        );
        cx.report(Verdict::warning("io-space-protection", message));
        return Ok(0);
    };
    code_integrity::protection(cx, "MmMapIoSpaceEx", protect)?;
    let combined = protect & PAGE_WRITECOMBINE != 0;
    map_for(cx, "MmMapIoSpaceEx", address, Mapping { bytes, read_only, combined, ..Mapping::default() })
}

/// Maps what is at a system address as `kind` says.
fn map_for(cx: &mut Cx<'_>, name: &str, address: u64, kind: Mapping) -> Flow<u64> {
    let is_ram = judge(cx, name, address, kind.bytes)?;
    if cx.choose("fault.map", 2) == 1 {
        return Ok(0);
    }
    let (owner, caller) = pool::caller(cx);
    Ok(cx
        .with(|k| {
            if is_ram {
                return show_ram(k, Mapping { bus: address, owner, caller, ..kind });
            }
            let bus = k.hal.platform.to_bus(address);
            add(k, DEVICE, Mapping { bus, owner, caller, ..kind })
        })
        .unwrap_or(0))
}

/// Shows device memory once more, for an MDL: to an application if `mapping` has its process, at an address of the system's choice.
pub(crate) fn add_for_mdl(k: &mut Kernel, mapping: Mapping) -> Option<u64> {
    add(k, if mapping.process.is_some() { USER_DEVICE } else { DEVICE }, mapping)
}

/// Shows what is not all RAM as a view of physical memory: in `window`, from a multiple of the granularity on. `mapping` is whole pages.
pub(crate) fn add_view(k: &mut Kernel, window: Window, mapping: Mapping) -> Option<u64> {
    add_at(k, window, mapping, GRANULARITY)
}

/// Takes the mapping that begins in the page at `page` away.
pub(crate) fn remove(k: &mut Kernel, page: u64) {
    k.mm.io_space.mappings.remove(&page);
    forget_last(k);
}

/// Shows RAM once more, as ordinary memory.
fn show_ram(k: &mut Kernel, mapping: Mapping) -> Option<u64> {
    let first = mapping.bus & !(PAGE - 1);
    let frames: Vec<u64> = (0..pages(&mapping)).map(|index| first + index * PAGE).collect();
    let protection = if mapping.read_only { Protection::READ } else { Protection::READ_WRITE };
    let page = map::place(k, Zone::Mappings, &frames, Page { physical: 0, protection, pageable: false })?;
    let address = page + mapping.bus % PAGE;
    k.mm.io_space.ram.insert(page, Mapping { address, ..mapping });
    Some(address)
}

/// Gives a mapping addresses, each followed by a page that belongs to none.
fn add(k: &mut Kernel, window: Window, mapping: Mapping) -> Option<u64> {
    add_at(k, window, mapping, PAGE)
}

fn add_at(k: &mut Kernel, window: Window, mapping: Mapping, unit: u64) -> Option<u64> {
    let count = pages(&mapping);
    let state = &mut k.mm.io_space;
    let need = count.checked_add(1)?.checked_mul(PAGE)?;
    let fresh = &mut state.fresh[usize::from(window == USER_DEVICE)];
    let start = fresh.next_multiple_of(unit);
    let page = if start.checked_add(need)? <= window.size {
        *fresh = start + need;
        window.base + start
    } else {
        gap(state, window, need, unit)?
    };
    let address = page + mapping.bus % PAGE;
    let has_ram = physical::has_ram(k.hal.platform.to_system(mapping.bus), mapping.bytes);
    if mapping.combined {
        k.engine.watch_fences();
    }
    k.mm.io_space.mappings.insert(page, Mapping { address, has_ram, ..mapping });
    Some(address)
}

/// The first addresses that are free again, once none are fresh.
fn gap(state: &State, window: Window, need: u64, unit: u64) -> Option<u64> {
    let mut at = window.base;
    for (&page, mapping) in state.mappings.range(window.base..window.end()) {
        if page.saturating_sub(at) >= need {
            return Some(at);
        }
        at = (page + (pages(mapping) + 1) * PAGE).next_multiple_of(unit);
    }
    (window.end().saturating_sub(at) >= need).then_some(at)
}

/// Looks at a range of system addresses before it is mapped; whether it is RAM.
fn judge(cx: &mut Cx<'_>, name: &str, address: u64, bytes: u64) -> Flow<bool> {
    let Some(last) = address.checked_add(bytes.wrapping_sub(1)).filter(|_| bytes != 0) else {
        let message = format!("{name} was asked for {bytes:#x} bytes at {address:#x}");
        return Err(
            cx.stop(Verdict::error("io-space-range", message).bug_check(0xDA, [0x100, address, bytes, 0]))
        );
    };
    if physical::is_ram(address) && physical::is_ram(last) {
        let first = address & !(PAGE - 1);
        let mut frames = (0..(last - first) / PAGE + 1).map(|index| first + index * PAGE);
        // Contiguous memory is locked as it is made; any other RAM may have another owner by now.
        if !cx.with(|k| frames.all(|frame| k.mm.physical.is_locked(frame) || k.mm.physical.is_in_run(frame)))
        {
            let message = format!(
                "{name} was asked for {bytes:#x} bytes at {address:#x}, which is RAM that is neither locked by an MDL nor contiguous memory of a driver's"
            );
            let verdict = Verdict::verifier("io-space-ram", message);
            cx.verify(verdict.bug_check(0xC4, [0x83, address, bytes, 0]))?;
        }
        return Ok(true);
    }
    let (known, raw) = cx.with(|k| {
        let platform = k.hal.platform;
        let bus = platform.to_bus(address);
        (is_decoded(k, bus, bytes), platform.shifted_bus && is_decoded(k, address, bytes))
    });
    let asked = format!("{name} was asked for {bytes:#x} bytes at {address:#x}");
    if raw {
        // Provably wrong: nothing but the raw resources says this number.
        let system = cx.with(|k| k.hal.platform.to_system(address));
        let message = format!(
            "{asked}, a bus address: it is {system:#x} for the processors, as AllocatedResourcesTranslated and TranslateBusAddress say"
        );
        cx.report(Verdict::error("io-space-raw-address", message));
    } else if !known && address > LEGACY {
        let message = format!("{asked}, which no device of the machine decodes");
        cx.report(Verdict::warning("io-space-outside", message));
    }
    Ok(false)
}

/// Whether a function decodes all of a range of bus addresses, but for the rest of its last page; or did so when a driver was given it: a card that has been
/// pulled since, unseen, decodes nothing.
fn is_decoded(k: &Kernel, bus: u64, bytes: u64) -> bool {
    let functions = k.hal.hardware.functions();
    let decoded = functions.iter().flat_map(|function| &function.windows);
    let mut windows = decoded.chain(pnp::resource::given_windows(k)).filter(|window| !window.port);
    let page_end = |end: u64| end.next_multiple_of(PAGE);
    windows.any(|window| {
        bus >= window.base && bus.saturating_add(bytes) <= page_end(window.base + window.length)
    })
}

/// Below 1 MiB lie video memory and firmware, which drivers map without resources.
const LEGACY: u64 = 0xF_FFFF;

/// `MmUnmapIoSpace`.
///
/// # Errors
/// A verdict if that is no mapping, or not all of one.
pub(crate) fn unmap(cx: &mut Cx<'_>, address: u64, bytes: u64) -> Flow<()> {
    let page = address & !(PAGE - 1);
    let found = cx.with(|k| {
        let device = k.mm.io_space.mappings.get(&page).filter(|_| DEVICE.contains(page)).copied();
        device.or_else(|| k.mm.io_space.ram.get(&page).copied())
    });
    let Some(mapping) = found else {
        let message = format!("MmUnmapIoSpace was given {address:#x}, where nothing is mapped");
        return Err(wrong(cx, message, [0x400, address, bytes, 0]));
    };
    if address != mapping.address {
        let message =
            format!("MmUnmapIoSpace was given {address:#x}; the mapping begins at {:#x}", mapping.address);
        return Err(wrong(cx, message, [3, address, bytes, mapping.address]));
    }
    if bytes != mapping.bytes {
        let message = format!("MmUnmapIoSpace was given {bytes:#x} bytes; {:#x} were mapped", mapping.bytes);
        return Err(wrong(cx, message, [2, address, bytes, mapping.bytes]));
    }
    cx.with(|k| match k.mm.io_space.ram.remove(&page) {
        // The frames stay their owner's.
        Some(_) => drop(map::remove(k, Zone::Mappings, page, pages(&mapping))),
        None => {
            let unmapped = &mut k.mm.io_space.unmapped;
            if unmapped.len() == UNMAPPED {
                unmapped.remove(0);
            }
            unmapped.push((page, mapping));
            remove(k, page);
        }
    });
    Ok(())
}

fn wrong(cx: &mut Cx<'_>, message: String, parameters: [u64; 4]) -> Leave {
    cx.stop(Verdict::error("io-space-unmap", message).bug_check(0xDA, parameters))
}

/// Mappings that the image at `driver` made and did not take away, with who made them.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<(Mapping, String)> {
    let own: Vec<Mapping> = cx.with(|k| {
        let all = k.mm.io_space.mappings.values().chain(k.mm.io_space.ram.values());
        all.filter(|mapping| mapping.owner == Some(driver)).copied().collect()
    });
    own.into_iter().map(|mapping| (mapping, ldr::symbols::describe(cx, mapping.caller))).collect()
}
