//! Showing a locked buffer's pages at another address: to the kernel, or to an application.
//!
//! Pages: *MmMapLockedPagesSpecifyCache function*, *MmUnmapLockedPages function*, *Bug Check 0xDA: SYSTEM_PTE_MISUSE*.
//! Caching is remembered by nobody: RAM is always coherent here.

use abi::{
    DriverPtr, MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_PARTIAL, MDL_PARTIAL_HAS_BEEN_MAPPED,
    MDL_SOURCE_IS_NONPAGED_POOL, MdlMappingNoWrite, NtStatus,
};
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::map::{self, Page};
use super::space::Zone;
use super::{mdl, physical};
use crate::cx::Cx;
use crate::ex;
use crate::verdict::Verdict;

/// One place where an MDL's pages are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    /// First page.
    pub(crate) address: u64,
    pub(crate) pages: u64,
    pub(crate) user: bool,
}

/// `MmMapLockedPagesSpecifyCache`; null if it cannot be mapped (an application's mapping raises then).
///
/// # Errors
/// A verdict on an MDL in the wrong state or a wrong IRQL; the exception of a user mapping.
pub fn map_locked_pages_specify_cache(
    cx: &mut Cx<'_>,
    mdl: DriverPtr<MDL>,
    mode: u8,
    _cache: u32,
    requested: u64,
    bug_check_on_failure: u32,
    priority: u32,
) -> Flow<u64> {
    let name = "MmMapLockedPagesSpecifyCache";
    judge(cx, name, mdl, mode)?;
    let refused = cx.choose("fault.map", 2) == 1 || (mode != 0 && requested != 0);
    let protection =
        if priority & MdlMappingNoWrite != 0 { Protection::READ } else { Protection::READ_WRITE };
    let mapped = if refused { None } else { show(cx, mdl, mode != 0, protection)? };
    match mapped {
        Some(address) => Ok(address),
        None if mode != 0 => Err(ex::exception::raise(cx, NtStatus::ACCESS_VIOLATION, name)),
        None if bug_check_on_failure != 0 => Err(no_more_ptes(cx, name)),
        None => Ok(0),
    }
}

/// `MmMapLockedPages`: obsolete, cannot fail softly.
///
/// # Errors
/// As [`map_locked_pages_specify_cache`]; a bug check if it cannot be mapped.
pub fn map_locked_pages(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, mode: u8) -> Flow<u64> {
    map_locked_pages_specify_cache(cx, mdl, mode, abi::MmCached, 0, 1, abi::HighPagePriority)
}

fn no_more_ptes(cx: &mut Cx<'_>, name: &str) -> engine::Leave {
    let message = format!("{name} found no room for a mapping, and the caller asked for a bug check then");
    cx.stop(Verdict::error("no-more-system-ptes", message).bug_check(0x3F, [0; 4]))
}

fn judge(cx: &mut Cx<'_>, name: &str, mdl: DriverPtr<MDL>, mode: u8) -> Flow<()> {
    let irql = crate::ke::irql::current(cx);
    if mode != 0 && irql > 1 {
        let message = format!("{name} was called for user mode at IRQL {irql}; at most 1 is allowed");
        let verdict = Verdict::error("irql-too-high", message);
        return Err(cx.stop(verdict.bug_check(0xC4, [0x77, irql.into(), mdl.address, 0])));
    }
    let flags = mdl::flags(cx, mdl)?;
    if flags & (MDL_PAGES_LOCKED | MDL_PARTIAL | MDL_SOURCE_IS_NONPAGED_POOL) == 0 {
        return Err(mdl::wrong_state(cx, name, mdl, 0xB3, "is not locked"));
    }
    let mapped = MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL | MDL_PARTIAL_HAS_BEEN_MAPPED;
    if mode == 0 && flags & mapped != 0 {
        return Err(mdl::wrong_state(cx, name, mdl, 0xB2, "is mapped into system space already"));
    }
    Ok(())
}

/// Shows the pages at fresh addresses; none if there are no addresses.
fn show(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, user: bool, protection: Protection) -> Flow<Option<u64>> {
    let (address, length) = mdl::buffer(cx, mdl)?;
    let mut pages = Vec::new();
    for index in 0..mdl::span(address, length) {
        let page = mdl::page(cx, mdl, index)?;
        if !physical::is_ram(page) {
            let message =
                format!("page {index} of the MDL {:#x} is {page:#x}, where there is no RAM", mdl.address);
            let parameters = [0x89, mdl.address, page / PAGE, 0];
            return Err(cx.stop(Verdict::error("mdl-not-ram", message).bug_check(0xC4, parameters)));
        }
        pages.push(page);
    }
    let zone = if user { Zone::User } else { Zone::Mappings };
    let page = Page { physical: 0, protection, pageable: false };
    let Some(at) = cx.with(|k| map::place(k, zone, &pages, page)) else { return Ok(None) };
    let mapping = Mapping { address: at, pages: pages.len() as u64, user };
    cx.with(|k| k.mm.mdl.held.entry(mdl.address).or_default().mappings.push(mapping));
    let start = at + address % PAGE;
    if !user {
        cx.write(mdl + MDL::MappedSystemVa, DriverPtr::new(start))?;
        let flags = mdl::flags(cx, mdl)?;
        let partial = if flags & MDL_PARTIAL != 0 { MDL_PARTIAL_HAS_BEEN_MAPPED } else { 0 };
        mdl::set_flags(cx, mdl, flags | MDL_MAPPED_TO_SYSTEM_VA | partial)?;
    }
    Ok(Some(start))
}

/// `MmUnmapLockedPages`.
///
/// # Errors
/// A verdict if that is not where the MDL's pages are mapped.
pub fn unmap_locked_pages(cx: &mut Cx<'_>, base: u64, mdl: DriverPtr<MDL>) -> Flow<()> {
    let name = "MmUnmapLockedPages";
    let flags = mdl::flags(cx, mdl)?;
    let wanted = base & !(PAGE - 1);
    let found = cx.with(|k| {
        let held = k.mm.mdl.held.get(&mdl.address)?;
        held.mappings.iter().find(|mapping| mapping.address == wanted).copied()
    });
    let Some(mapping) = found else {
        if flags & MDL_MAPPED_TO_SYSTEM_VA == 0 {
            return Err(mdl::wrong_state(cx, name, mdl, 0xB6, "has no mapping"));
        }
        let message = format!("{name} was given {base:#x}, where the MDL {:#x} is not mapped", mdl.address);
        let parameters = [3, base, mdl.address, 0];
        return Err(cx.stop(Verdict::error("mdl-wrong-mapping", message).bug_check(0xDA, parameters)));
    };
    let irql = crate::ke::irql::current(cx);
    if mapping.user && irql > 1 {
        let message = format!("{name} was called for a user mapping at IRQL {irql}; at most 1 is allowed");
        let verdict = Verdict::error("irql-too-high", message);
        return Err(cx.stop(verdict.bug_check(0xC4, [0x7A, irql.into(), base, mdl.address])));
    }
    take_away(cx, mdl, mapping)?;
    forget_if_empty(cx, mdl);
    Ok(())
}

/// Takes the system mapping away that the MDL's flags speak of.
pub(crate) fn unmap_system(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) -> Flow<()> {
    let system = cx.with(|k| {
        let held = k.mm.mdl.held.get(&mdl.address)?;
        held.mappings.iter().find(|mapping| !mapping.user).copied()
    });
    match system {
        Some(mapping) => take_away(cx, mdl, mapping),
        None => Ok(()),
    }
}

fn take_away(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, mapping: Mapping) -> Flow<()> {
    let zone = if mapping.user { Zone::User } else { Zone::Mappings };
    cx.with(|k| {
        map::remove(k, zone, mapping.address, mapping.pages);
        if let Some(held) = k.mm.mdl.held.get_mut(&mdl.address) {
            held.mappings.retain(|other| *other != mapping);
        }
    });
    if !mapping.user {
        let flags = mdl::flags(cx, mdl)? & !(MDL_MAPPED_TO_SYSTEM_VA | MDL_PARTIAL_HAS_BEEN_MAPPED);
        mdl::set_flags(cx, mdl, flags)?;
    }
    Ok(())
}

fn forget_if_empty(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) {
    cx.with(|k| {
        let held = &mut k.mm.mdl.held;
        if held.get(&mdl.address).is_some_and(|held| held.locked.is_empty() && held.mappings.is_empty()) {
            held.remove(&mdl.address);
        }
    });
}
