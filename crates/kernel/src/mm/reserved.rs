//! Addresses that are reserved for mappings to come, so that one can be made when nothing is left to be had.
//!
//! Pages: *MmAllocateMappingAddress function*, *MmFreeMappingAddress function*, *MmMapLockedPagesWithReservedMapping function*,
//! *MmUnmapReservedMapping function*, *Bug Check 0xDA: SYSTEM_PTE_MISUSE*. Nothing is there while nothing is mapped. A mapping always begins
//! at the range's first page, as its page wants it. Pages of a device are not mapped so: the routine gives NULL.

use std::collections::BTreeMap;

use abi::{DriverPtr, MDL};
use engine::windows::PAGE;
use engine::{Flow, Leave};

use super::space::Zone;
use super::{mdl, mdl_map, memory, pool};
use crate::cx::{Cx, Kernel};
use crate::ldr;
use crate::verdict::{Verdict, at};

/// A range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    /// Its first page.
    pub address: u64,
    /// Its length.
    pub pages: u64,
    /// The tag that its users must pass.
    tag: u32,
    /// The MDL whose pages it shows, and how many.
    mapped: Option<(u64, u64)>,
    owner: Option<u64>,
    caller: u64,
}

/// Ranges by their first page.
#[derive(Default)]
pub struct State {
    ranges: BTreeMap<u64, Range>,
}

/// `MmAllocateMappingAddress`; null if there are no addresses.
///
/// # Errors
/// A verdict on a range of no bytes.
pub(crate) fn allocate(cx: &mut Cx<'_>, bytes: u64, tag: u32) -> Flow<u64> {
    if bytes == 0 {
        let message = "MmAllocateMappingAddress was asked for 0 bytes".to_owned();
        return Err(misuse(cx, message, [0x100, 0, 0, tag.into()]));
    }
    if cx.choose("fault.mapping-address", 2) == 1 {
        return Ok(0);
    }
    let (owner, caller) = pool::caller(cx);
    let pages = bytes.div_ceil(PAGE);
    let taken = cx.with(|k| {
        let address = k.mm.space.take(Zone::Mappings, pages)?;
        k.mm.reserved.ranges.insert(address, Range { address, pages, tag, mapped: None, owner, caller });
        Some(address)
    });
    if taken.is_none() {
        memory::tell(cx);
    }
    Ok(taken.unwrap_or(0))
}

/// `MmFreeMappingAddress`.
///
/// # Errors
/// A verdict if that is no range, another's by its tag, or still mapped.
pub(crate) fn free(cx: &mut Cx<'_>, address: u64, tag: u32) -> Flow<()> {
    let range = find(cx, "MmFreeMappingAddress", address, tag, [0x102, 0x101])?;
    if let Some((mdl, pages)) = range.mapped {
        let message = format!(
            "MmFreeMappingAddress was given {address:#x}, where {pages} page(s) of the MDL {mdl:#x} are mapped: MmUnmapReservedMapping comes first"
        );
        return Err(misuse(cx, message, [0x103, address, tag.into(), pages]));
    }
    cx.with(|k| {
        k.mm.reserved.ranges.remove(&address);
        k.mm.space.give(Zone::Mappings, address, range.pages);
    });
    Ok(())
}

/// `MmMapLockedPagesWithReservedMapping`; null if the range is too small, or the pages are a device's.
///
/// # Errors
/// A verdict on an MDL in the wrong state, or as [`free`].
pub(crate) fn map(cx: &mut Cx<'_>, address: u64, tag: u32, mdl: DriverPtr<MDL>, _cache: u32) -> Flow<u64> {
    let name = "MmMapLockedPagesWithReservedMapping";
    let range = find(cx, name, address, tag, [0x105, 0x104])?;
    if let Some((other, pages)) = range.mapped {
        let message = format!(
            "{name} was given {address:#x}, where {pages} page(s) of the MDL {other:#x} are mapped already"
        );
        return Err(misuse(cx, message, [0x107, address, mdl.address, pages]));
    }
    mdl_map::judge(cx, name, mdl, 0)?;
    let (start, length) = mdl::buffer(cx, mdl)?;
    let pages = mdl::span(start, length);
    if pages > range.pages {
        let message = format!(
            "{name} was given the MDL {} of {pages} pages for a range of {}: it maps nothing and returns NULL",
            at(mdl),
            range.pages
        );
        cx.report(Verdict::warning("reserved-mapping", message));
        return Ok(0);
    }
    let Some(shown) = mdl_map::show_reserved(cx, mdl, address)? else { return Ok(0) };
    cx.with(|k| set_mapped(k, address, Some((mdl.address, pages))));
    Ok(shown)
}

/// `MmUnmapReservedMapping`.
///
/// # Errors
/// A verdict as [`free`], or if it is not this MDL's pages that are mapped there.
pub(crate) fn unmap(cx: &mut Cx<'_>, base: u64, tag: u32, mdl: DriverPtr<MDL>) -> Flow<()> {
    let name = "MmUnmapReservedMapping";
    let address = base & !(PAGE - 1);
    let range = find(cx, name, address, tag, [0x109, 0x108])?;
    let Some((mapped, pages)) = range.mapped else {
        let message = format!("{name} was given {base:#x}, where nothing is mapped");
        return Err(misuse(cx, message, [0x109, base, tag.into(), range.pages]));
    };
    let (start, length) = mdl::buffer(cx, mdl)?;
    let asked = mdl::span(start, length);
    let how = match asked {
        _ if asked > range.pages => 0x10A,
        _ if asked < pages => 0x10C,
        _ => 0x10B,
    };
    if mapped != mdl.address || asked != pages {
        let message = format!(
            "{name} was given the MDL {} of {asked} page(s) at {base:#x}, where {pages} page(s) of the MDL {mapped:#x} are mapped",
            at(mdl)
        );
        return Err(misuse(cx, message, [how, base, asked, pages]));
    }
    mdl_map::take_away_system(cx, mdl)
}

/// The mapping at this address is gone: nothing is mapped in its range any more.
pub(super) fn set_mapped(k: &mut Kernel, address: u64, mapped: Option<(u64, u64)>) {
    if let Some(range) = k.mm.reserved.ranges.get_mut(&address) {
        range.mapped = mapped;
    }
}

/// The range at `address`; `checks` are those of the bug check for one that is none, and for another's tag.
fn find(cx: &mut Cx<'_>, name: &str, address: u64, tag: u32, checks: [u64; 2]) -> Flow<Range> {
    let Some(range) = cx.with(|k| k.mm.reserved.ranges.get(&address).copied()) else {
        let message =
            format!("{name} was given {address:#x}, which no call of MmAllocateMappingAddress has returned");
        return Err(misuse(cx, message, [checks[0], address, tag.into(), 0]));
    };
    if range.tag != tag {
        let message = format!(
            "{name} was given {address:#x} with the tag '{}'; it was reserved with '{}'",
            pool::tag_text(tag),
            pool::tag_text(range.tag)
        );
        return Err(misuse(cx, message, [checks[1], address, tag.into(), range.tag.into()]));
    }
    Ok(range)
}

fn misuse(cx: &mut Cx<'_>, message: String, parameters: [u64; 4]) -> Leave {
    cx.stop(Verdict::error("reserved-mapping", message).bug_check(0xDA, parameters))
}

/// Ranges that the image at `driver` has not freed, with who reserved them.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<(Range, String)> {
    let own: Vec<Range> = cx.with(|k| {
        let all = k.mm.reserved.ranges.values();
        all.filter(|range| range.owner == Some(driver)).copied().collect()
    });
    own.into_iter().map(|range| (range, ldr::symbols::describe(cx, range.caller))).collect()
}
