//! Device memory at addresses drivers can use.
//!
//! Pages: *MmMapIoSpace function*, *MmMapIoSpaceEx function*, *MmUnmapIoSpace function*, *Bug Check 0xDA*. Nothing is
//! there for the host: every access is a call-out, which asks here what bus address is meant. Caching is remembered for
//! people only. The same range may be mapped several times, as in Windows.

use std::collections::BTreeMap;

use engine::windows::{DEVICE, PAGE};
use engine::{Flow, Leave};

use super::{physical, pool};
use crate::cx::{Cx, Kernel};
use crate::ldr;
use crate::verdict::Verdict;

/// One mapping of device memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mapping {
    /// The address the driver was given.
    pub address: u64,
    /// The bus address there.
    pub bus: u64,
    /// Bytes, as asked for.
    pub bytes: u64,
    /// Base of the image that mapped it, if one did.
    pub owner: Option<u64>,
    /// Return address of its call.
    pub caller: u64,
}

/// Mappings of device memory.
#[derive(Default)]
pub struct State {
    /// By the page they begin in.
    mappings: BTreeMap<u64, Mapping>,
    /// What of the window was given out.
    fresh: u64,
    /// The mapping that was used last; it has no bytes if there is none.
    last: Mapping,
}

/// What an address in the device window means: the bus address, and the mapping that says so. The rest of a mapping's
/// last page belongs to it, as the hardware would have it.
pub fn resolve(k: &Kernel, address: u64) -> Option<(u64, Mapping)> {
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
/// A verdict on a range that is none, or RAM.
pub fn map(cx: &mut Cx<'_>, address: u64, bytes: u64, _cache: u32) -> Flow<u64> {
    map_for(cx, "MmMapIoSpace", address, bytes)
}

/// `MmMapIoSpaceEx`, with page protections in place of caching.
///
/// # Errors
/// As [`map`].
pub fn map_ex(cx: &mut Cx<'_>, address: u64, bytes: u64, _protect: u32) -> Flow<u64> {
    map_for(cx, "MmMapIoSpaceEx", address, bytes)
}

fn map_for(cx: &mut Cx<'_>, name: &str, address: u64, bytes: u64) -> Flow<u64> {
    judge(cx, name, address, bytes)?;
    let bus = cx.with(|k| k.hal.platform.to_bus(address));
    if cx.choose("fault.map", 2) == 1 {
        return Ok(0);
    }
    let (owner, caller) = pool::caller(cx);
    Ok(cx.with(|k| add(k, Mapping { address: 0, bus, bytes, owner, caller })).unwrap_or(0))
}

/// Gives a mapping addresses, each followed by a page that belongs to none.
fn add(k: &mut Kernel, mapping: Mapping) -> Option<u64> {
    let count = pages(&mapping);
    let state = &mut k.mm.io_space;
    let need = count.checked_add(1)?.checked_mul(PAGE)?;
    let page = if need <= DEVICE.size - state.fresh {
        let page = DEVICE.base + state.fresh;
        state.fresh += need;
        page
    } else {
        gap(state, need)?
    };
    let address = page + mapping.bus % PAGE;
    state.mappings.insert(page, Mapping { address, ..mapping });
    Some(address)
}

/// The first addresses that are free again, once none are fresh.
fn gap(state: &State, need: u64) -> Option<u64> {
    let mut at = DEVICE.base;
    for (&page, mapping) in &state.mappings {
        if page - at >= need {
            return Some(at);
        }
        at = page + (pages(mapping) + 1) * PAGE;
    }
    (DEVICE.end() - at >= need).then_some(at)
}

/// Looks at a range of system addresses before it is mapped.
fn judge(cx: &mut Cx<'_>, name: &str, address: u64, bytes: u64) -> Flow<()> {
    let Some(last) = address.checked_add(bytes.wrapping_sub(1)).filter(|_| bytes != 0) else {
        let message = format!("{name} was asked for {bytes:#x} bytes at {address:#x}");
        return Err(
            cx.stop(Verdict::error("io-space-range", message).bug_check(0xDA, [0x100, address, bytes, 0]))
        );
    };
    if physical::RAM.iter().any(|range| address < range.base + range.length && last >= range.base) {
        let message =
            format!("{name} was asked for {bytes:#x} bytes at {address:#x}, which is RAM, not a device");
        return Err(
            cx.stop(Verdict::error("io-space-ram", message).bug_check(0xC4, [0x83, address, bytes, 0]))
        );
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
    Ok(())
}

/// Whether a function decodes all of a range of bus addresses, but for the rest of its last page.
fn is_decoded(k: &Kernel, bus: u64, bytes: u64) -> bool {
    let functions = k.hal.hardware.functions();
    let mut windows = functions.iter().flat_map(|function| &function.windows).filter(|window| !window.port);
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
pub fn unmap(cx: &mut Cx<'_>, address: u64, bytes: u64) -> Flow<()> {
    let page = address & !(PAGE - 1);
    let Some(mapping) = cx.with(|k| k.mm.io_space.mappings.get(&page).copied()) else {
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
    cx.with(|k| {
        k.mm.io_space.mappings.remove(&page);
        k.mm.io_space.last = Mapping::default();
    });
    Ok(())
}

fn wrong(cx: &mut Cx<'_>, message: String, parameters: [u64; 4]) -> Leave {
    cx.stop(Verdict::error("io-space-unmap", message).bug_check(0xDA, parameters))
}

/// Mappings that the image at `driver` made and did not take away, with who made them.
pub fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<(Mapping, String)> {
    let own: Vec<Mapping> = cx.with(|k| {
        let all = k.mm.io_space.mappings.values();
        all.filter(|mapping| mapping.owner == Some(driver)).copied().collect()
    });
    own.into_iter().map(|mapping| (mapping, ldr::symbols::describe(cx, mapping.caller))).collect()
}
