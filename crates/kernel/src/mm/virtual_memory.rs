//! Memory of processes as drivers ask for it.
//!
//! Pages: *ZwAllocateVirtualMemory function*, *ZwFreeVirtualMemory function*, *VirtualAlloc function*, *VirtualFree function*,
//! *MmSecureVirtualMemory function*, *MmUnsecureVirtualMemory function*. Where regions are and what they show is `spaces`. Not here: large
//! pages, AWE, guard pages, write watch, part of a region released.

use std::collections::BTreeMap;
use std::ops::Range;

use abi::{
    DriverPtr, MEM_COMMIT, MEM_DECOMMIT, MEM_RELEASE, MEM_RESERVE, MEM_RESET, MEM_TOP_DOWN, NtStatus,
    PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE, PAGE_GUARD, PAGE_NOACCESS, PAGE_NOCACHE,
    PAGE_READONLY, PAGE_READWRITE, PAGE_WRITECOMBINE,
};
use engine::windows::PAGE;
use engine::{Flow, Protection};

use super::space::GRANULARITY;
use super::view_exports::process_of;
use super::{code_integrity, spaces, user, view};
use crate::cx::{Cx, Kernel};
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::verdict::Verdict;

/// A range that its process may not free or protect further.
struct Secured {
    process: u64,
    range: Range<u64>,
    write: bool,
}

/// Secured ranges.
#[derive(Default)]
pub struct State {
    secured: BTreeMap<u64, Secured>,
    last: u64,
}

/// What a `PAGE_…` of allocated memory lets be done; none if it has no such.
pub(super) const fn allowed(protection: u32) -> Option<Protection> {
    let none = Protection { read: false, write: false, execute: false };
    match protection & !(PAGE_NOCACHE | PAGE_WRITECOMBINE) {
        PAGE_NOACCESS => Some(none),
        PAGE_READONLY | PAGE_EXECUTE | PAGE_EXECUTE_READ => Some(Protection { read: true, ..none }),
        PAGE_READWRITE | PAGE_EXECUTE_READWRITE => Some(Protection { read: true, write: true, ..none }),
        _ => None,
    }
}

/// `ZwAllocateVirtualMemory`.
///
/// # Errors
/// A verdict if a pointer is bad, or on what dirql lacks.
pub(crate) fn zw_allocate(
    cx: &mut Cx<'_>,
    process: u64,
    base: DriverPtr<u64>,
    zero_bits: u64,
    size: DriverPtr<u64>,
    allocation: u32,
    protect: u32,
) -> Flow<NtStatus> {
    let (at, bytes) = (cx.read(base)?, cx.read(size)?);
    let protection = match judge(cx, (at, bytes), zero_bits, allocation, protect)? {
        Ok(protection) => protection,
        Err(status) => return Ok(status),
    };
    code_integrity::protection(cx, "ZwAllocateVirtualMemory", protect)?;
    let key = match process_of(cx, process)? {
        Ok(key) => key,
        Err(status) => return Ok(status),
    };
    if cx.choose("fault.map", 2) == 1 {
        return Ok(NtStatus::NO_MEMORY);
    }
    let range = match allocation & MEM_RESET {
        0 => allocate(cx, key, (at, bytes), allocation, (protect, protection)),
        _ => reset(cx, key, pages(at, bytes)),
    };
    match range {
        Ok(range) => {
            cx.write(base, range.start)?;
            cx.write(size, range.end - range.start)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

fn judge(
    cx: &mut Cx<'_>,
    (at, bytes): (u64, u64),
    zero_bits: u64,
    allocation: u32,
    protect: u32,
) -> Flow<Result<Protection, NtStatus>> {
    if at >= USER_PROBE_ADDRESS {
        return Ok(Err(NtStatus::INVALID_PARAMETER_2));
    }
    if zero_bits > 20 {
        return Ok(Err(NtStatus::INVALID_PARAMETER_3));
    }
    if bytes == 0 || at.checked_add(bytes).is_none_or(|end| end > USER_PROBE_ADDRESS) {
        return Ok(Err(NtStatus::INVALID_PARAMETER_4));
    }
    /// `MEM_LARGE_PAGES`, `MEM_PHYSICAL` and `MEM_WRITE_WATCH`.
    const LACKING: u32 = 0x2000_0000 | 0x40_0000 | 0x20_0000;
    let kinds = allocation & (MEM_COMMIT | MEM_RESERVE | MEM_RESET);
    let known = MEM_COMMIT | MEM_RESERVE | MEM_RESET | MEM_TOP_DOWN | LACKING;
    if kinds == 0 || allocation & !known != 0 || kinds & MEM_RESET != 0 && allocation != MEM_RESET {
        return Ok(Err(NtStatus::INVALID_PARAMETER_5));
    }
    if allocation & LACKING != 0 || protect & PAGE_GUARD != 0 {
        let what = "memory of large pages, AWE, write watch or guard pages (ZwAllocateVirtualMemory)";
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    if zero_bits != 0 && at == 0 {
        return Ok(Err(NtStatus::NO_MEMORY));
    }
    Ok(allowed(protect).ok_or(NtStatus::INVALID_PAGE_PROTECTION))
}

/// Whole pages.
fn pages(at: u64, bytes: u64) -> Range<u64> {
    at & !(PAGE - 1)..at.saturating_add(bytes).next_multiple_of(PAGE)
}

/// Reserves, commits, or both; the range.
fn allocate(
    cx: &mut Cx<'_>,
    process: u64,
    (at, bytes): (u64, u64),
    allocation: u32,
    (protect, protection): (u32, Protection),
) -> Result<Range<u64>, NtStatus> {
    if at != 0 && allocation & MEM_RESERVE == 0 {
        return commit(cx, process, pages(at, bytes), protection);
    }
    let wanted = (at != 0).then_some(at & !(GRANULARITY - 1));
    let first = wanted.unwrap_or(0);
    let count = (pages(at, bytes).end - first) / PAGE;
    let base = cx.with(|k| spaces::reserve(k, process, wanted, count, protect));
    let status = if at == 0 { NtStatus::NO_MEMORY } else { NtStatus::CONFLICTING_ADDRESSES };
    let base = base.ok_or(status)?;
    if allocation & MEM_COMMIT != 0 && !spaces::commit(cx, (process, base), 0..count, protection) {
        cx.with(|k| spaces::release(k, (process, base)));
        return Err(NtStatus::COMMITMENT_LIMIT);
    }
    Ok(base..base + count * PAGE)
}

/// `MEM_RESET`: what committed pages hold is not needed, and stays.
fn reset(cx: &mut Cx<'_>, process: u64, range: Range<u64>) -> Result<Range<u64>, NtStatus> {
    let is_there = cx.with(|k| {
        let (start, region) = k.mm.spaces.containing(process, range.start)?;
        Some(region.has_all((range.start - start) / PAGE..(range.end - start) / PAGE))
    });
    if is_there == Some(true) { Ok(range) } else { Err(NtStatus::CONFLICTING_ADDRESSES) }
}

/// Commits what is reserved: in a region, or in a view of a section that has its pages reserved.
fn commit(
    cx: &mut Cx<'_>,
    process: u64,
    range: Range<u64>,
    protection: Protection,
) -> Result<Range<u64>, NtStatus> {
    let view =
        cx.with(|k| k.mm.view.containing(range.start)).filter(|(_, view)| view.process == Some(process));
    let (start, count, view) = match view {
        Some((start, view)) => (start, view.pages, Some(view)),
        None => {
            let region = cx.with(|k| {
                k.mm.spaces.containing(process, range.start).map(|(base, region)| (base, region.pages))
            });
            let (start, count) = region.ok_or(NtStatus::CONFLICTING_ADDRESSES)?;
            (start, count, None)
        }
    };
    if range.end > start + count * PAGE {
        return Err(NtStatus::CONFLICTING_ADDRESSES);
    }
    let part = (range.start - start) / PAGE..(range.end - start) / PAGE;
    let committed = match view {
        Some(view) if !cx.with(|k| view.is_reserved(k)) => return Err(NtStatus::ALREADY_COMMITTED),
        Some(_) => view::commit(cx, start, part.start, part.end - part.start),
        None if cx.with(|k| is_secured(k, process, &range, !protection.read, !protection.write)) => {
            return Err(NtStatus::INVALID_PAGE_PROTECTION);
        }
        None => spaces::commit(cx, (process, start), part, protection),
    };
    if committed { Ok(range) } else { Err(NtStatus::COMMITMENT_LIMIT) }
}

/// `ZwFreeVirtualMemory`.
///
/// # Errors
/// A verdict if a pointer is bad, or on what dirql lacks.
pub(crate) fn zw_free(
    cx: &mut Cx<'_>,
    process: u64,
    base: DriverPtr<u64>,
    size: DriverPtr<u64>,
    kind: u32,
) -> Flow<NtStatus> {
    if kind != MEM_DECOMMIT && kind != MEM_RELEASE {
        return Ok(NtStatus::INVALID_PARAMETER_4);
    }
    let (at, bytes) = (cx.read(base)?, cx.read(size)?);
    if at >= USER_PROBE_ADDRESS {
        return Ok(NtStatus::INVALID_PARAMETER_2);
    }
    if at.checked_add(bytes).is_none_or(|end| end > USER_PROBE_ADDRESS) {
        return Ok(NtStatus::INVALID_PARAMETER_3);
    }
    let key = match process_of(cx, process)? {
        Ok(key) => key,
        Err(status) => return Ok(status),
    };
    let range = match to_free(cx, key, (at, bytes), kind)? {
        Ok(range) => range,
        Err(status) => return Ok(status),
    };
    if cx.with(|k| is_secured(k, key, &range, true, true)) {
        return Ok(NtStatus::INVALID_PAGE_PROTECTION);
    }
    cx.with(|k| match k.mm.spaces.containing(key, range.start).map(|(start, _)| start) {
        Some(start) if kind == MEM_RELEASE => spaces::release(k, (key, start)),
        Some(start) => {
            spaces::decommit(k, (key, start), (range.start - start) / PAGE..(range.end - start) / PAGE);
        }
        None => {}
    });
    cx.write(base, range.start)?;
    cx.write(size, range.end - range.start)?;
    Ok(NtStatus::SUCCESS)
}

/// What is to be freed.
fn to_free(
    cx: &mut Cx<'_>,
    process: u64,
    (at, bytes): (u64, u64),
    kind: u32,
) -> Flow<Result<Range<u64>, NtStatus>> {
    let found = cx.with(|k| k.mm.spaces.containing(process, at).map(|(start, region)| (start, region.pages)));
    let Some((start, count)) = found else {
        let view = cx.with(|k| k.mm.view.containing(at)).filter(|(_, view)| view.process == Some(process));
        let of_application = cx.with(|k| user::process_of(k, at)).map(u64::from) == Some(process);
        if view.is_none() && of_application {
            let what = "ZwFreeVirtualMemory of memory that an application has allocated itself";
            return Err(cx.stop(Verdict::not_implemented(what)));
        }
        return Ok(Err(match view {
            Some(_) => NtStatus::UNABLE_TO_DELETE_SECTION,
            None => NtStatus::MEMORY_NOT_ALLOCATED,
        }));
    };
    let whole = start..start + count * PAGE;
    if bytes == 0 {
        let at_base = at & !(PAGE - 1) == start;
        return Ok(if at_base { Ok(whole) } else { Err(NtStatus::FREE_VM_NOT_AT_BASE) });
    }
    let range = pages(at, bytes);
    if range.end > whole.end {
        return Ok(Err(NtStatus::UNABLE_TO_FREE_VM));
    }
    if kind == MEM_RELEASE && range != whole {
        return Err(
            cx.stop(Verdict::not_implemented("ZwFreeVirtualMemory of a part of a region with MEM_RELEASE"))
        );
    }
    Ok(Ok(range))
}

/// Whether a range that is secured would be taken away, or its loads or stores forbidden.
pub(crate) fn is_secured(k: &Kernel, process: u64, range: &Range<u64>, reads: bool, writes: bool) -> bool {
    k.mm.virtual_memory.secured.values().any(|secured| {
        secured.process == process
            && secured.range.start < range.end
            && range.start < secured.range.end
            && (reads || writes && secured.write)
    })
}

/// A process has ended: nothing of it is secured any more.
pub(crate) fn forget_process(k: &mut Kernel, process: u64) {
    k.mm.virtual_memory.secured.retain(|_, secured| secured.process != process);
}

/// `MmSecureVirtualMemory`: a value for [`unsecure`], 0 if the range cannot be read, or written, throughout.
///
/// # Errors
/// None.
pub(crate) fn secure(cx: &mut Cx<'_>, address: u64, size: u64, probe_mode: u32) -> Flow<u64> {
    let write = match probe_mode {
        PAGE_READONLY => false,
        PAGE_READWRITE => true,
        _ => return Ok(0),
    };
    let end = address.checked_add(size).filter(|end| size > 0 && *end <= USER_PROBE_ADDRESS);
    let Some(end) = end else { return Ok(0) };
    Ok(cx.with(|k| {
        let range = address & !(PAGE - 1)..end.next_multiple_of(PAGE);
        let mut all = range.clone().step_by(0x1000);
        let there = |page: u64| {
            super::paging::page(k, page)
                .is_some_and(|page| page.protection.read && (page.protection.write || !write))
        };
        if !all.all(there) {
            return 0;
        }
        let process = spaces::current(k);
        let state = &mut k.mm.virtual_memory;
        state.last += 0x10;
        state.secured.insert(state.last, Secured { process, range, write });
        state.last
    }))
}

/// `MmUnsecureVirtualMemory`.
///
/// # Errors
/// A verdict if that is none of [`secure`]'s values, or of another process.
pub(crate) fn unsecure(cx: &mut Cx<'_>, secured: u64) -> Flow<()> {
    let (known, here) = cx.with(|k| {
        let known = k.mm.virtual_memory.secured.remove(&secured);
        (known.map(|known| known.process), spaces::current(k))
    });
    let what = match known {
        Some(process) if process == here => return Ok(()),
        Some(process) => format!("which process {process} has secured, in the context of process {here}"),
        None => "where nothing is secured".to_owned(),
    };
    let message = format!("MmUnsecureVirtualMemory was given {secured:#x}, {what}");
    Err(cx.stop(Verdict::error("not-secured", message)))
}
