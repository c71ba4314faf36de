//! Showing a locked buffer's pages at another address: to the kernel, or to an application.
//!
//! Pages: *MmMapLockedPagesSpecifyCache function*, *MmUnmapLockedPages function*, *Bug Check 0xDA: SYSTEM_PTE_MISUSE*.
//! RAM is always coherent here, however it is cached; pages of a device may be write-combined (`hal::combine`). They (`MDL_IO_SPACE`, which an
//! MDL of a window that `MmMapIoSpace` made has) are shown at addresses for devices, so a user address that the caller asks for is honoured for RAM only.

use abi::{
    DriverPtr, MDL, MDL_IO_SPACE, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_PARTIAL,
    MDL_PARTIAL_HAS_BEEN_MAPPED, MDL_SOURCE_IS_NONPAGED_POOL, MdlMappingNoWrite, NtStatus,
};
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::map::{self, Page};
use super::space::Zone;
use super::{code_integrity, io_space, mdl, physical, pool, reserved, shadow, user};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ex;
use crate::ps;
use crate::verdict::Verdict;

/// One place where an MDL's pages are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    /// First page.
    pub(crate) address: u64,
    pub(crate) pages: u64,
    pub(crate) user: bool,
    /// Of a device, so in its windows.
    pub(crate) device: bool,
    /// At addresses of `MmAllocateMappingAddress`, which stay its.
    pub(crate) reserved: bool,
}

/// Where else MDLs show the byte at `address`.
pub(crate) fn shown_at(k: &Kernel, address: u64) -> Vec<u64> {
    let offset = address % PAGE;
    let Some(page) = k.mm.map.physical(address - offset) else { return Vec::new() };
    let mappings = k.mm.mdl.held.values().flat_map(|held| &held.mappings);
    let pages = mappings.flat_map(|mapping| (0..mapping.pages).map(|index| mapping.address + index * PAGE));
    pages.filter(|at| k.mm.map.physical(*at) == Some(page)).map(|at| at + offset).collect()
}

/// `MmMapLockedPagesSpecifyCache`; null if it cannot be mapped (an application's mapping raises then).
///
/// # Errors
/// A verdict on an MDL in the wrong state or a wrong IRQL; the exception of a user mapping.
pub(crate) fn map_locked_pages_specify_cache(
    cx: &mut Cx<'_>,
    mdl: DriverPtr<MDL>,
    mode: u8,
    cache: u32,
    requested: u64,
    bug_check_on_failure: u32,
    priority: u32,
) -> Flow<u64> {
    let name = "MmMapLockedPagesSpecifyCache";
    judge(cx, name, mdl, mode)?;
    if mode == 0 {
        code_integrity::mapping(cx, mdl.address, priority)?;
    }
    let refused = cx.choose("fault.map", 2) == 1;
    let protection =
        if priority & MdlMappingNoWrite != 0 { Protection::READ } else { Protection::READ_WRITE };
    let requested = if mode != 0 { requested } else { 0 };
    let place = Place { user: mode != 0, requested, reserved: false, combined: io_space::is_combined(cache) };
    let mapped = if refused { None } else { show(cx, mdl, place, protection)? };
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
pub(crate) fn map_locked_pages(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, mode: u8) -> Flow<u64> {
    map_locked_pages_specify_cache(cx, mdl, mode, abi::MmCached, 0, 1, abi::HighPagePriority)
}

fn no_more_ptes(cx: &mut Cx<'_>, name: &str) -> engine::Leave {
    let message = format!("{name} found no room for a mapping, and the caller asked for a bug check then");
    cx.stop(Verdict::error("no-more-system-ptes", message).bug_check(0x3F, [0; 4]))
}

pub(super) fn judge(cx: &mut Cx<'_>, name: &str, mdl: DriverPtr<MDL>, mode: u8) -> Flow<()> {
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

/// Where pages are to be shown.
#[derive(Clone, Copy)]
struct Place {
    user: bool,
    /// The address that the caller asks for, or 0.
    requested: u64,
    /// That address is reserved.
    reserved: bool,
    /// Processors combine stores to a device's pages.
    combined: bool,
}

/// Shows an MDL's pages to the kernel at reserved addresses; none of a device.
pub(super) fn show_reserved(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, address: u64) -> Flow<Option<u64>> {
    let place = Place { user: false, requested: address, reserved: true, combined: false };
    show(cx, mdl, place, Protection::READ_WRITE)
}

/// Shows the pages; none if there are no addresses, or those asked for are taken.
fn show(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, place: Place, protection: Protection) -> Flow<Option<u64>> {
    let (address, length) = mdl::buffer(cx, mdl)?;
    let pages: Vec<u64> =
        (0..mdl::span(address, length)).map(|index| mdl::page(cx, mdl, index)).collect::<Flow<_>>()?;
    let of_device = pages.iter().filter(|page| !physical::is_ram(**page)).count();
    let at = if of_device == 0 {
        show_ram(cx, place, &pages, protection)
    } else {
        judge_device_pages(cx, mdl, &pages, of_device)?;
        show_device(cx, place, &pages, protection)
    };
    let Some(at) = at else { return Ok(None) };
    let mapping = Mapping {
        address: at,
        pages: pages.len() as u64,
        user: place.user,
        device: of_device > 0,
        reserved: place.reserved,
    };
    if mapping.user {
        let process = ps::current_process(cx);
        cx.with(|k| {
            user::own_view(k, at, mapping.pages, process);
            if !mapping.device {
                k.engine.mark(at, mapping.pages * PAGE, shadow::RESIDENT);
            }
        });
    }
    let (owner, caller) = pool::caller(cx);
    cx.with(|k| {
        let held = k.mm.mdl.held.entry(mdl.address).or_default();
        if held.locked.is_empty() && held.mappings.is_empty() {
            (held.owner, held.caller) = (owner, caller);
        }
        held.mappings.push(mapping);
    });
    let start = at + address % PAGE;
    if !place.user {
        cx.write(mdl + MDL::MappedSystemVa, DriverPtr::new(start))?;
        let flags = mdl::flags(cx, mdl)?;
        let partial = if flags & MDL_PARTIAL != 0 { MDL_PARTIAL_HAS_BEEN_MAPPED } else { 0 };
        mdl::set_flags(cx, mdl, flags | MDL_MAPPED_TO_SYSTEM_VA | partial)?;
    }
    cx.detail(Kind::MdlMapped, || Event::MdlMapped { mdl: mdl.address, address: start });
    Ok(Some(start))
}

/// The kernel's view of pages that an application has read-only takes stores, on Windows, and must not get any: here it takes none.
fn show_ram(cx: &mut Cx<'_>, place: Place, pages: &[u64], protection: Protection) -> Option<u64> {
    let is_constant = |k: &Kernel| pages.iter().any(|page| user::has_read_only(k, *page));
    let protection = if cx.with(|k| is_constant(k)) { Protection::READ } else { protection };
    let zone = if place.user { Zone::User } else { Zone::Mappings };
    let page = Page { physical: 0, protection, pageable: false };
    let wanted = place.requested & !(PAGE - 1);
    cx.with(|k| match wanted {
        0 => map::place(k, zone, pages, page),
        wanted if place.reserved => map::place_reserved(k, wanted, pages, page).then_some(wanted),
        wanted => map::place_at(k, zone, wanted, pages, page),
    })
}

/// One window for all of them.
fn show_device(cx: &mut Cx<'_>, place: Place, pages: &[u64], protection: Protection) -> Option<u64> {
    if place.requested != 0 {
        return None;
    }
    let (bytes, read_only) = (pages.len() as u64 * PAGE, !protection.write);
    let process = u32::try_from(ps::current_process(cx)).unwrap_or(u32::MAX);
    let (process, combined) = (place.user.then_some(process), place.combined);
    cx.with(|k| {
        let bus = k.hal.platform.to_bus(pages[0]);
        let mapping =
            io_space::Mapping { bus, bytes, read_only, process, combined, ..io_space::Mapping::default() };
        io_space::add_for_mdl(k, mapping)
    })
}

/// Looks at an MDL with so many pages of devices.
fn judge_device_pages(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, pages: &[u64], of_device: usize) -> Flow<()> {
    let other = pages.iter().position(|page| !physical::is_ram(*page)).unwrap_or(0);
    let page = pages[other];
    if of_device < pages.len() || pages.windows(2).any(|pair| pair[1] != pair[0] + PAGE) {
        let what =
            format!("an MDL of pages that are not together, of which page {other}, {page:#x}, is no RAM");
        return Err(cx.stop(Verdict::not_implemented(&what)));
    }
    if mdl::flags(cx, mdl)? & MDL_IO_SPACE == 0 {
        let message = format!(
            "page {other} of the MDL {:#x} is {page:#x}, where there is no RAM, and the MDL is not flagged MDL_IO_SPACE",
            mdl.address
        );
        let parameters = [0x89, mdl.address, page / PAGE, of_device as u64];
        cx.verify(Verdict::verifier("mdl-not-ram", message).bug_check(0xC4, parameters))?;
    }
    Ok(())
}

/// `MmUnmapLockedPages`.
///
/// # Errors
/// A verdict if that is not where the MDL's pages are mapped.
pub(crate) fn unmap_locked_pages(cx: &mut Cx<'_>, base: u64, mdl: DriverPtr<MDL>) -> Flow<()> {
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
    if mapping.user {
        expect_own(cx, base, mapping)?;
    }
    if mapping.reserved {
        let message = format!("{name} was given {base:#x}, a mapping that MmUnmapReservedMapping takes away");
        cx.report(Verdict::warning("reserved-mapping", message));
    }
    take_away(cx, mdl, mapping)?;
    forget_if_empty(cx, mdl);
    Ok(())
}

/// A mapping to the user half is taken away in its own process.
fn expect_own(cx: &mut Cx<'_>, base: u64, mapping: Mapping) -> Flow<()> {
    let owner = cx.with(|k| user::process_of(k, mapping.address)).map(u64::from);
    let current = ps::current_process(cx);
    if owner.is_none_or(|owner| owner == current) {
        return Ok(());
    }
    let name = |process: u64| match process {
        ps::process::SYSTEM => "a system thread".to_owned(),
        process => format!("process {process}"),
    };
    let (owner, here) = (name(owner.unwrap_or_default()), name(current));
    let message = format!(
        "MmUnmapLockedPages was called for {base:#x}, which was mapped for {owner}, in the context of {here}: there it stays, and what is unmapped here is another's"
    );
    Err(cx.stop(Verdict::error("user-mapping-unmapped-elsewhere", message)))
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

/// As [`unmap_system`], where that is all the MDL had.
pub(super) fn take_away_system(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>) -> Flow<()> {
    unmap_system(cx, mdl)?;
    forget_if_empty(cx, mdl);
    Ok(())
}

fn take_away(cx: &mut Cx<'_>, mdl: DriverPtr<MDL>, mapping: Mapping) -> Flow<()> {
    let zone = if mapping.user { Zone::User } else { Zone::Mappings };
    let address = mapping.address;
    cx.detail(Kind::MdlUnmapped, || Event::MdlUnmapped { mdl: mdl.address, address });
    cx.with(|k| {
        if mapping.user {
            user::disown_view(k, mapping.address);
        }
        if mapping.device {
            io_space::remove(k, mapping.address);
        } else if mapping.reserved {
            map::remove_reserved(k, mapping.address, mapping.pages);
            reserved::set_mapped(k, mapping.address, None);
        } else if mapping.pages > 0 {
            // An MDL whose length the driver has overwritten with 0 maps nothing.
            map::remove(k, zone, mapping.address, mapping.pages);
        }
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
