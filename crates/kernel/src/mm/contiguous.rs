//! Physically contiguous memory, and noncached memory.
//!
//! Pages: *MmAllocateContiguousMemorySpecifyCache function*, *MmFreeContiguousMemory function*,
//! *MmAllocateNonCachedMemory function*. Caching has no effect: RAM is always coherent here. No page promises zeros, so a driver finds
//! what it finds in fresh pool.

use std::collections::BTreeMap;

use abi::{DriverPtr, NtStatus};
use engine::windows::PAGE;
use engine::{Fill, Flow, Protection};

use super::map::{self, Page};
use super::physical::Limits;
use super::space::Zone;
use super::{code_integrity, memory, pool};
use crate::cx::Cx;
use crate::ldr;
use crate::verdict::Verdict;

/// One run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// Where it is mapped.
    pub address: u64,
    /// Its first physical address.
    pub physical: u64,
    /// As asked for.
    pub bytes: u64,
    /// Noncached memory: freed by its own routine.
    noncached: bool,
    owner: Option<u64>,
    caller: u64,
}

/// Runs by address.
#[derive(Default)]
pub struct State {
    runs: BTreeMap<u64, Run>,
}

const PAGE_KIND: Page = Page { physical: 0, protection: Protection::READ_WRITE, pageable: false };

/// A run for the kernel itself (a common buffer, say), filled so; none if there is none within the limits.
pub(crate) fn allocate(cx: &mut Cx<'_>, bytes: u64, limits: Limits, fill: Fill) -> Option<Run> {
    take(cx, bytes, limits, false, (None, 0), fill)
}

fn take(
    cx: &mut Cx<'_>,
    bytes: u64,
    limits: Limits,
    noncached: bool,
    who: (Option<u64>, u64),
    fill: Fill,
) -> Option<Run> {
    let (owner, caller) = who;
    cx.with(|k| {
        let count = bytes.div_ceil(PAGE);
        let (address, physical) = map::allocate_run(k, Zone::Mappings, count, PAGE_KIND, limits, fill)?;
        let run = Run { address, physical, bytes, noncached, owner, caller };
        k.mm.contiguous.runs.insert(address, run);
        Some(run)
    })
}

fn take_for_caller(cx: &mut Cx<'_>, name: &str, bytes: u64, limits: Limits, noncached: bool) -> Flow<u64> {
    if bytes == 0 {
        cx.report(Verdict::warning("zero-bytes", format!("{name} was asked for 0 bytes, and gives none")));
        return Ok(0);
    }
    if limits.boundary != 0 && !limits.boundary.is_power_of_two() {
        let message = format!(
            "{name} was given the boundary {:#x}, which is no power of two: it gives no memory",
            limits.boundary
        );
        cx.report(Verdict::warning("contiguous-boundary", message));
        return Ok(0);
    }
    if cx.choose("fault.contiguous", 2) == 1 {
        return Ok(0);
    }
    let who = pool::caller(cx);
    let run = take(cx, bytes, limits, noncached, who, Fill::FRESH);
    if run.is_none() {
        memory::tell(cx);
    }
    Ok(run.map_or(0, |run| run.address))
}

/// `MmAllocateContiguousMemory`; null if there is no run below `highest`.
///
/// # Errors
/// A verdict on a request that cannot be meant.
pub(crate) fn allocate_contiguous(cx: &mut Cx<'_>, bytes: u64, highest: u64) -> Flow<u64> {
    take_for_caller(cx, "MmAllocateContiguousMemory", bytes, Limits { highest, ..Limits::NONE }, false)
}

/// `MmAllocateContiguousMemorySpecifyCache`.
///
/// # Errors
/// As [`allocate_contiguous`].
pub(crate) fn allocate_specify_cache(
    cx: &mut Cx<'_>,
    bytes: u64,
    lowest: u64,
    highest: u64,
    boundary: u64,
    _cache: u32,
) -> Flow<u64> {
    let limits = Limits { lowest, highest, boundary };
    take_for_caller(cx, "MmAllocateContiguousMemorySpecifyCache", bytes, limits, false)
}

/// `MmAllocateContiguousMemorySpecifyCacheNode`: there is one node.
///
/// # Errors
/// As [`allocate_contiguous`].
pub(crate) fn allocate_specify_cache_node(
    cx: &mut Cx<'_>,
    bytes: u64,
    lowest: u64,
    highest: u64,
    boundary: u64,
    cache: u32,
    _node: u32,
) -> Flow<u64> {
    allocate_specify_cache(cx, bytes, lowest, highest, boundary, cache)
}

/// `MmAllocateContiguousMemoryEx`: `bytes` says how many, and the address goes to `to`. As `MmAllocateContiguousNodeMemory`; tags are for debuggers, and
/// partitions are not to be had.
///
/// # Errors
/// As [`allocate_contiguous`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn allocate_ex(
    cx: &mut Cx<'_>,
    bytes: DriverPtr<u64>,
    lowest: u64,
    highest: u64,
    boundary: u64,
    node: u32,
    protection: u32,
    partition: u64,
    _tag: u32,
    flags: u32,
    to: DriverPtr<u64>,
) -> Flow<NtStatus> {
    if partition != 0 || flags != 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let bytes = cx.read(bytes)?;
    let address = allocate_node(cx, bytes, lowest, highest, boundary, protection, node)?;
    cx.write(to, address)?;
    Ok(if address == 0 { NtStatus::INSUFFICIENT_RESOURCES } else { NtStatus::SUCCESS })
}

/// `MmAllocateContiguousNodeMemory`: PAGE_READWRITE or PAGE_EXECUTE_READWRITE, with or without PAGE_NOCACHE or PAGE_WRITECOMBINE. There is one
/// node.
///
/// # Errors
/// As [`allocate_contiguous`].
pub(crate) fn allocate_node(
    cx: &mut Cx<'_>,
    bytes: u64,
    lowest: u64,
    highest: u64,
    boundary: u64,
    protection: u32,
    _node: u32,
) -> Flow<u64> {
    let name = "MmAllocateContiguousNodeMemory";
    let cache = protection & (abi::PAGE_NOCACHE | abi::PAGE_WRITECOMBINE);
    let access = protection & !cache;
    if !matches!(access, abi::PAGE_READWRITE | abi::PAGE_EXECUTE_READWRITE) || cache.count_ones() > 1 {
        let message = format!(
            "{name} was given the protection {protection:#x}; it takes PAGE_READWRITE or PAGE_EXECUTE_READWRITE, and one of PAGE_NOCACHE and PAGE_WRITECOMBINE at most: it gives no memory"
        );
        cx.report(Verdict::warning("contiguous-protection", message));
        return Ok(0);
    }
    code_integrity::protection(cx, name, protection)?;
    let address = take_for_caller(cx, name, bytes, Limits { lowest, highest, boundary }, false)?;
    if access == abi::PAGE_EXECUTE_READWRITE && address != 0 {
        let protection = Protection { read: true, write: true, execute: true };
        cx.with(|k| k.mm.map.protect(k.engine, address, bytes.div_ceil(PAGE), protection));
    }
    Ok(address)
}

/// `MmAllocateNonCachedMemory`.
///
/// # Errors
/// As [`allocate_contiguous`].
pub(crate) fn allocate_noncached(cx: &mut Cx<'_>, bytes: u64) -> Flow<u64> {
    take_for_caller(cx, "MmAllocateNonCachedMemory", bytes, Limits::NONE, true)
}

/// `MmFreeContiguousMemory`.
///
/// # Errors
/// A verdict if it is no contiguous memory.
pub(crate) fn free(cx: &mut Cx<'_>, address: u64) -> Flow<()> {
    give(cx, "MmFreeContiguousMemory", address, None, false)
}

/// `MmFreeContiguousMemorySpecifyCache`.
///
/// # Errors
/// As [`free`], or if it has another length.
pub(crate) fn free_specify_cache(cx: &mut Cx<'_>, address: u64, bytes: u64, _cache: u32) -> Flow<()> {
    give(cx, "MmFreeContiguousMemorySpecifyCache", address, Some(bytes), false)
}

/// `MmFreeNonCachedMemory`.
///
/// # Errors
/// As [`free_specify_cache`].
pub(crate) fn free_noncached(cx: &mut Cx<'_>, address: u64, bytes: u64) -> Flow<()> {
    give(cx, "MmFreeNonCachedMemory", address, Some(bytes), true)
}

fn give(cx: &mut Cx<'_>, name: &str, address: u64, bytes: Option<u64>, noncached: bool) -> Flow<()> {
    let found = cx.with(|k| k.mm.contiguous.runs.get(&address).copied());
    let wrong = match found {
        Some(run) if run.noncached != noncached => "which another routine allocated".to_owned(),
        Some(run) if bytes.is_some_and(|bytes| bytes != run.bytes) => {
            format!("with {:#x} bytes; {:#x} were allocated", bytes.unwrap_or(0), run.bytes)
        }
        Some(run) => {
            cx.with(|k| {
                k.mm.contiguous.runs.remove(&address);
                map::release(k, Zone::Mappings, address, run.bytes.div_ceil(PAGE));
            });
            return Ok(());
        }
        None => "which is not allocated".to_owned(),
    };
    let message = format!("{name} was given {address:#x}, {wrong}");
    let verdict = Verdict::error("bad-contiguous-free", message);
    Err(cx.stop(verdict.bug_check(abi::BAD_POOL_CALLER, [0x60, address, 0, 0])))
}

/// Runs that the image at `driver` has not freed, with who allocated them.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<(Run, String)> {
    let own: Vec<Run> = cx.with(|k| {
        let all = k.mm.contiguous.runs.values();
        all.filter(|run| run.owner == Some(driver)).copied().collect()
    });
    own.into_iter().map(|run| (run, ldr::symbols::describe(cx, run.caller))).collect()
}
