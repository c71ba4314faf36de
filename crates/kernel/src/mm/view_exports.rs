//! Views of sections as drivers ask for them, and what is refused.
//!
//! Pages: *ZwMapViewOfSection function*, *ZwUnmapViewOfSection function*, *MmMapViewInSystemSpace function*,
//! *MmUnmapViewInSystemSpace function*, *Device\PhysicalMemory Object*, *Bug Check 0xD7: DRIVER_UNMAPPING_INVALID_VIEW*. An offset is
//! rounded down to 64 KiB, and the view is so much longer: what was asked for is in it. RAM is cached; a view of it that is not conflicts,
//! but for contiguous memory, of which the machine does not know how its owner has it. Not here: views that copy what is written,
//! MEM_RESERVE, large pages.

use abi::{
    DriverPtr, MEM_LARGE_PAGES, MEM_RESERVE, MEM_TOP_DOWN, NtStatus, PAGE_EXECUTE, PAGE_EXECUTE_READ,
    PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY, PAGE_NOACCESS, PAGE_NOCACHE, PAGE_READONLY,
    PAGE_READWRITE, PAGE_WRITECOMBINE, PAGE_WRITECOPY, ViewShare, ViewUnmap,
};
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::section::{Backing, Section};
use super::space::{GRANULARITY, Zone};
use super::view::{self, Wanted};
use super::{code_integrity, physical, virtual_memory};
use crate::cx::{Cx, Kernel};
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::ke::budget;
use crate::ob::handle::{self, Handle, Mode};
use crate::ob::{self, Kind};
use crate::ps;
use crate::verdict::Verdict;

/// Pages of the largest view: there are not more addresses for one.
const MOST_PAGES: u64 = Zone::Views.window().size / PAGE;

/// Of the first Windows NTs, as harmless as it was.
const MEM_DOS_LIM: u32 = 0x4000_0000;

/// What a page protection lets be done.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Allowed {
    read: bool,
    write: bool,
    /// A write makes a copy.
    copy: bool,
    execute: bool,
}

impl Allowed {
    /// Of `PAGE_…` without its modifiers; none if that is no protection of a view.
    const fn of(protection: u32) -> Option<Self> {
        let none = Self { read: false, write: false, copy: false, execute: false };
        Some(match protection {
            PAGE_NOACCESS => none,
            PAGE_READONLY => Self { read: true, ..none },
            PAGE_READWRITE => Self { read: true, write: true, ..none },
            PAGE_WRITECOPY => Self { read: true, copy: true, ..none },
            PAGE_EXECUTE | PAGE_EXECUTE_READ => Self { read: true, execute: true, ..none },
            PAGE_EXECUTE_READWRITE => Self { read: true, write: true, execute: true, ..none },
            PAGE_EXECUTE_WRITECOPY => Self { read: true, copy: true, execute: true, ..none },
            _ => return None,
        })
    }

    /// Whether a section with this protection can be seen so.
    const fn fits(self, section: Self) -> bool {
        (!self.write || section.write) && (!self.execute || section.execute)
    }
}

/// What `ZwMapViewOfSection` is given by value.
#[derive(Clone, Copy)]
struct Call {
    at: u64,
    offset: i64,
    size: u64,
    commit: u64,
    protection: u32,
}

/// `ZwMapViewOfSection`.
///
/// # Errors
/// A verdict if a pointer is bad, or on what dirql lacks.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn zw_map(
    cx: &mut Cx<'_>,
    section: u64,
    process: u64,
    base: DriverPtr<u64>,
    zero_bits: u64,
    commit: u64,
    offset: DriverPtr<i64>,
    view_size: DriverPtr<u64>,
    inherit: u32,
    kind: u32,
    protection: u32,
) -> Flow<NtStatus> {
    if let Err(status) = judge_numbers(cx, zero_bits, inherit, kind)? {
        return Ok(status);
    }
    code_integrity::protection(cx, "ZwMapViewOfSection", protection)?;
    let call = Call {
        at: cx.read(base)?,
        offset: if offset.is_null() { 0 } else { cx.read(offset)? },
        size: cx.read(view_size)?,
        commit,
        protection,
    };
    if call.at >= USER_PROBE_ADDRESS {
        return Ok(NtStatus::INVALID_PARAMETER_3);
    }
    if zero_bits != 0 && call.at == 0 {
        // Every address of an application has more bits than the lower half's.
        return Ok(NtStatus::NO_MEMORY);
    }
    let object = match handle::reference(cx, Handle(section), Some(Kind::Section), 0, Mode::Kernel)? {
        Ok(entry) => DriverPtr::<()>::new(entry.object),
        Err(status) => return Ok(status),
    };
    let mapped = map_into(cx, object.address, process, call);
    ob::object::dereference(cx, object)?;
    let (address, wanted) = match mapped? {
        Ok(mapped) => mapped,
        Err(status) => return Ok(status),
    };
    cx.write(base, address)?;
    cx.write(view_size, wanted.pages * PAGE)?;
    if !offset.is_null() {
        cx.write(offset, wanted.offset.cast_signed())?;
    }
    Ok(NtStatus::SUCCESS)
}

fn judge_numbers(cx: &mut Cx<'_>, zero_bits: u64, inherit: u32, kind: u32) -> Flow<Result<(), NtStatus>> {
    if zero_bits > 20 {
        return Ok(Err(NtStatus::INVALID_PARAMETER_4));
    }
    if inherit != ViewShare && inherit != ViewUnmap {
        return Ok(Err(NtStatus::INVALID_PARAMETER_8));
    }
    if kind & !(MEM_RESERVE | MEM_TOP_DOWN | MEM_LARGE_PAGES | MEM_DOS_LIM) != 0 {
        return Ok(Err(NtStatus::INVALID_PARAMETER_9));
    }
    if kind & (MEM_RESERVE | MEM_LARGE_PAGES) != 0 {
        return Err(cx.stop(Verdict::not_implemented("a view with MEM_RESERVE or MEM_LARGE_PAGES")));
    }
    Ok(Ok(()))
}

/// Maps into the process of this handle.
fn map_into(
    cx: &mut Cx<'_>,
    section: u64,
    process: u64,
    call: Call,
) -> Flow<Result<(u64, Wanted), NtStatus>> {
    let key = match process_of(cx, process)? {
        Ok(key) => key,
        Err(status) => return Ok(Err(status)),
    };
    let wanted = cx.with(|k| match k.mm.section.get(section) {
        Some(known) => judge(known, call).map(|wanted| Wanted { section, process: Some(key), ..wanted }),
        None => Err(NtStatus::INVALID_HANDLE),
    });
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(status) => return Ok(Err(status)),
    };
    let modifiers = Allowed::of(call.protection & !CACHING).filter(|allowed| allowed.copy);
    if modifiers.is_some() {
        return Err(cx.stop(Verdict::not_implemented("a view with PAGE_WRITECOPY")));
    }
    if wanted.pages > MOST_PAGES {
        return Ok(Err(NtStatus::NO_MEMORY));
    }
    if let Err(status) = judge_physical(cx, &wanted, call)? {
        return Ok(Err(status));
    }
    if cx.choose("fault.map", 2) == 1 {
        return Ok(Err(NtStatus::NO_MEMORY));
    }
    let Some(address) = view::map(cx, wanted)? else {
        let status = if wanted.at.is_some() { NtStatus::CONFLICTING_ADDRESSES } else { NtStatus::NO_MEMORY };
        return Ok(Err(status));
    };
    let reserved = cx.with(|k| k.mm.section.get(section).is_some_and(Section::is_reserved));
    if reserved && call.commit > 0 && !view::commit(cx, address, 0, call.commit.div_ceil(PAGE)) {
        view::unmap(cx, address)?;
        return Ok(Err(NtStatus::COMMITMENT_LIMIT));
    }
    Ok(Ok((address, wanted)))
}

/// The process that a handle stands for.
pub(super) fn process_of(cx: &mut Cx<'_>, process: u64) -> Flow<Result<u64, NtStatus>> {
    let entry = match handle::reference(cx, Handle(process), Some(Kind::Process), 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(Err(status)),
    };
    let key = cx.with(|k| ps::process::living(k, entry.object));
    ob::object::dereference(cx, DriverPtr::<()>::new(entry.object))?;
    Ok(key.ok_or(NtStatus::PROCESS_IS_TERMINATING))
}

/// How a view's pages may be cached, besides as RAM is.
const CACHING: u32 = PAGE_NOCACHE | PAGE_WRITECOMBINE;

/// What part of the section it is, if that can be.
fn judge(section: &Section, call: Call) -> Result<Wanted, NtStatus> {
    let plain = call.protection & !CACHING;
    let allowed = Allowed::of(plain).ok_or(NtStatus::INVALID_PAGE_PROTECTION)?;
    if call.protection & CACHING == CACHING || plain == PAGE_NOACCESS && call.protection != plain {
        return Err(NtStatus::INVALID_PAGE_PROTECTION);
    }
    if Allowed::of(section.protection).is_none_or(|of_section| !allowed.fits(of_section)) {
        return Err(NtStatus::SECTION_PROTECTION);
    }
    let (offset, pages) = part(section, call.offset, call.size)?;
    if call.commit > pages * PAGE {
        return Err(NtStatus::INVALID_PARAMETER_5);
    }
    let protection = Protection { read: allowed.read, write: allowed.write, execute: false };
    let at = (call.at != 0).then_some(call.at & !(GRANULARITY - 1));
    let combined = call.protection & PAGE_WRITECOMBINE != 0;
    Ok(Wanted { section: 0, process: None, at, offset, pages, protection, combined })
}

/// The part of a section: its offset, rounded down, and pages to the end of what is asked for; of no bytes, to the section's end.
fn part(section: &Section, offset: i64, size: u64) -> Result<(u64, u64), NtStatus> {
    let asked = u64::try_from(offset).map_err(|_| NtStatus::INVALID_VIEW_SIZE)?;
    let first = asked & !(GRANULARITY - 1);
    let end = if size == 0 { Some(section.bytes) } else { asked.checked_add(size) };
    let end = end.and_then(|end| end.checked_next_multiple_of(PAGE));
    let end = end.filter(|end| asked < section.bytes && *end <= section.bytes);
    end.map(|end| (first, (end - first) / PAGE)).ok_or(NtStatus::INVALID_VIEW_SIZE)
}

/// Looks at a view of physical memory: whether RAM in it can be cached so; RAM that no driver has made sure of is reported.
fn judge_physical(cx: &mut Cx<'_>, wanted: &Wanted, call: Call) -> Flow<Result<(), NtStatus>> {
    budget::spend(cx, wanted.pages)?;
    let asked = call.offset.cast_unsigned() & !(PAGE - 1);
    let end = wanted.offset + wanted.pages * PAGE;
    let uncached = call.protection & CACHING != 0;
    let (conflict, foreign) = cx.with(|k| {
        let physical = k.mm.section.get(wanted.section);
        if !physical.is_some_and(|section| matches!(section.backing, Backing::Physical)) {
            return (None, None);
        }
        let ram =
            |from: u64| (from..end.min(END_OF_RAM)).step_by(0x1000).filter(|page| physical::is_ram(*page));
        let conflict = ram(wanted.offset).find(|page| uncached && !k.mm.physical.is_in_run(*page));
        (conflict, ram(asked).find(|page| !is_held(k, *page)))
    });
    if conflict.is_some() {
        return Ok(Err(NtStatus::CONFLICTING_ADDRESSES));
    }
    if let Some(page) = foreign {
        let message = format!(
            "ZwMapViewOfSection was asked for physical memory with the page {page:#x}, which is RAM that is neither locked by an MDL nor contiguous \
             memory of a driver's: its owner may give it to another, or have it cached otherwise"
        );
        cx.report(Verdict::warning("physical-memory-view", message));
    }
    Ok(Ok(()))
}

/// Where RAM ends.
const END_OF_RAM: u64 = physical::RAM[2].base + physical::RAM[2].length;

/// Whether a page of RAM stays whose it is.
fn is_held(k: &Kernel, page: u64) -> bool {
    k.mm.physical.is_locked(page) || k.mm.physical.is_in_run(page)
}

/// `ZwUnmapViewOfSection`: the view that any of its addresses names.
///
/// # Errors
/// What deleting its section meets.
pub(crate) fn zw_unmap(cx: &mut Cx<'_>, process: u64, view: u64) -> Flow<NtStatus> {
    let key = match process_of(cx, process)? {
        Ok(key) => key,
        Err(status) => return Ok(status),
    };
    let found = cx.with(|k| k.mm.view.containing(view)).filter(|(_, view)| view.process == Some(key));
    let Some((base, view)) = found else {
        return Ok(NtStatus::NOT_MAPPED_VIEW);
    };
    let end = base + view.pages * PAGE;
    if cx.with(|k| virtual_memory::is_secured(k, key, &(base..end), true, true)) {
        return Ok(NtStatus::INVALID_PAGE_PROTECTION);
    }
    view::unmap(cx, base)?;
    Ok(NtStatus::SUCCESS)
}

/// `MmMapViewInSystemSpace`: from the section's first byte on; of no bytes, all of it.
///
/// # Errors
/// A verdict if a pointer is bad, or that is no section.
pub(crate) fn map_in_system_space(
    cx: &mut Cx<'_>,
    section: DriverPtr<()>,
    base: DriverPtr<u64>,
    view_size: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let size = cx.read(view_size)?;
    let wanted = cx.with(|k| {
        let known = k.mm.section.get(section.address)?;
        let allowed = Allowed::of(known.protection)?;
        let protection = Protection { read: true, write: allowed.write, execute: false };
        Some(part(known, 0, size).map(|(offset, pages)| Wanted {
            section: section.address,
            process: None,
            at: None,
            offset,
            pages,
            protection,
            combined: false,
        }))
    });
    let wanted = match wanted {
        Some(Ok(wanted)) => wanted,
        Some(Err(status)) => return Ok(status),
        None => {
            let message = format!(
                "MmMapViewInSystemSpace was given {:#x}, which is no section object",
                section.address
            );
            return Err(cx.stop(Verdict::error("not-a-section", message)));
        }
    };
    if cx.choose("fault.map", 2) == 1 {
        return Ok(NtStatus::NO_MEMORY);
    }
    let Some(address) = view::map(cx, wanted)? else {
        return Ok(NtStatus::NO_MEMORY);
    };
    cx.write(base, address)?;
    cx.write(view_size, wanted.pages * PAGE)?;
    Ok(NtStatus::SUCCESS)
}

/// `MmUnmapViewInSystemSpace`.
///
/// # Errors
/// A verdict if no view in system space begins there.
pub(crate) fn unmap_in_system_space(cx: &mut Cx<'_>, view: u64) -> Flow<NtStatus> {
    let found = cx.with(|k| k.mm.view.containing(view)).filter(|(_, view)| view.process.is_none());
    if let Some((start, _)) = found.filter(|(start, _)| *start == view & !(GRANULARITY - 1)) {
        view::unmap(cx, start)?;
        return Ok(NtStatus::SUCCESS);
    }
    let message =
        format!("MmUnmapViewInSystemSpace was given {view:#x}, where no view in system space begins");
    let parameters = [view, 1, 0, 0];
    Err(cx.stop(Verdict::error("system-view-unmap", message).bug_check(0xD7, parameters)))
}
