//! Lookaside lists: blocks of one size, kept for the next one that asks.
//!
//! Pages: *Using Lookaside Lists*, *ExInitializeNPagedLookasideList function*, *ExInitializeLookasideListEx function*,
//! *ExDeleteNPagedLookasideList function*. Before Windows 11 22H2 allocation is inlined into drivers, which read and count
//! in the structure; what is here does the same. A list keeps four blocks and does not adapt.

use abi::{
    Code, DriverPtr, EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE, EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL,
    GENERAL_LOOKASIDE, NonPagedPool, NonPagedPoolCacheAligned, NtStatus, POOL_COLD_ALLOCATION,
    POOL_NX_ALLOCATION, POOL_QUOTA_FAIL_INSTEAD_OF_RAISE, POOL_RAISE_IF_ALLOCATION_FAILURE,
    POOL_ZERO_ALLOCATION, PagedPool, PagedPoolCacheAligned, SLIST_HEADER,
};
use engine::Flow;

use super::slist;
use crate::cx::Cx;
use crate::event::Role;
use crate::ke::callout::call_routine;
use crate::ldr;
use crate::mm::{code_integrity, pool, pool_exports, shadow, special_pool};
use crate::verdict::Verdict;

/// The members that both forms of list begin with.
type List = DriverPtr<GENERAL_LOOKASIDE>;

/// Blocks a list keeps.
const DEPTH: u16 = 4;

/// What a list is made for.
struct Wish {
    name: &'static str,
    allocate: DriverPtr<Code>,
    free: DriverPtr<Code>,
    pool_type: u32,
    bytes: u64,
    tag: u32,
}

fn default_allocate() -> DriverPtr<Code> {
    ldr::export_address("ExAllocatePoolWithTag").unwrap_or_default()
}

fn default_free() -> DriverPtr<Code> {
    ldr::export_address("ExFreePool").unwrap_or_default()
}

/// `ExInitializeNPagedLookasideList`.
///
/// # Errors
/// A verdict if the list is initialized already, pageable or not aligned, here and below.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn initialize_nonpaged(
    cx: &mut Cx<'_>,
    list: List,
    allocate: DriverPtr<Code>,
    free: DriverPtr<Code>,
    flags: u32,
    bytes: u64,
    tag: u32,
    _depth: u16,
) -> Flow<()> {
    let pool_type = flags | abi::NonPagedPool;
    initialize(
        cx,
        list,
        &Wish { name: "ExInitializeNPagedLookasideList", allocate, free, pool_type, bytes, tag },
    )
}

/// `ExInitializePagedLookasideList`.
///
/// # Errors
/// As [`initialize_nonpaged`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn initialize_paged(
    cx: &mut Cx<'_>,
    list: List,
    allocate: DriverPtr<Code>,
    free: DriverPtr<Code>,
    flags: u32,
    bytes: u64,
    tag: u32,
    _depth: u16,
) -> Flow<()> {
    let pool_type = flags | PagedPool;
    initialize(
        cx,
        list,
        &Wish { name: "ExInitializePagedLookasideList", allocate, free, pool_type, bytes, tag },
    )
}

/// `ExInitializeLookasideListEx`.
///
/// # Errors
/// As [`initialize_nonpaged`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn initialize_ex(
    cx: &mut Cx<'_>,
    list: List,
    allocate: DriverPtr<Code>,
    free: DriverPtr<Code>,
    pool_type: u32,
    flags: u32,
    bytes: u64,
    tag: u32,
    _depth: u16,
) -> Flow<NtStatus> {
    let added = match flags {
        0 => 0,
        EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL => POOL_RAISE_IF_ALLOCATION_FAILURE,
        EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE => POOL_QUOTA_FAIL_INSTEAD_OF_RAISE,
        _ => return Ok(NtStatus::INVALID_PARAMETER_5),
    };
    if !is_pool(pool_type) {
        return Ok(NtStatus::INVALID_PARAMETER_4);
    }
    let pool_type = pool_type | added;
    initialize(
        cx,
        list,
        &Wish { name: "ExInitializeLookasideListEx", allocate, free, pool_type, bytes, tag },
    )?;
    Ok(NtStatus::SUCCESS)
}

/// Whether a lookaside list can have entries of this `POOL_TYPE`: paged or nonpaged, aligned or not, executable or not; and
/// whatever flags `ExAllocatePoolWithTag` takes with it.
const fn is_pool(pool_type: u32) -> bool {
    const FLAGS: u32 = POOL_NX_ALLOCATION
        | POOL_ZERO_ALLOCATION
        | POOL_RAISE_IF_ALLOCATION_FAILURE
        | POOL_QUOTA_FAIL_INSTEAD_OF_RAISE
        | POOL_COLD_ALLOCATION;
    let kind = pool_type & !FLAGS;
    kind == NonPagedPool
        || kind == PagedPool
        || kind == NonPagedPoolCacheAligned
        || kind == PagedPoolCacheAligned
}

fn initialize(cx: &mut Cx<'_>, list: List, wish: &Wish) -> Flow<()> {
    type L = GENERAL_LOOKASIDE;
    if cx.with(|k| k.ex.lookasides.contains_key(&list.address)) {
        let message =
            format!("{} was given the list {:#x}, which is initialized already", wish.name, list.address);
        // Windows has all lists in lists of its own: one that comes there twice breaks these, and what it kept is lost.
        let verdict = Verdict::error("lookaside-initialized-twice", message);
        return Err(cx.stop(verdict.bug_check(0xC4, [0xCA, list.address, 0, 0])));
    }
    if wish.bytes == 0 || wish.bytes > u32::MAX.into() {
        let message = format!("{} was asked for blocks of {} bytes", wish.name, wish.bytes);
        let verdict =
            Verdict::error("lookaside-size", message).bug_check(0xC4, [0xCD, list.address, wish.bytes, 0]);
        // Windows makes room for what it keeps in a block, and goes on; more than 32 bits say are lost.
        if wish.bytes != 0 {
            return Err(cx.stop(verdict));
        }
        cx.verify(verdict.as_verifier())?;
    }
    if cx.with(|k| k.mm.map.page(list.address)).is_some_and(|page| page.pageable) {
        let message = format!("{} was given a list in pageable memory at {:#x}", wish.name, list.address);
        // Windows links it with all other lists under a spin lock, and does so again whenever a neighbour comes or goes: where it is
        // paged out then, that is a page fault at raised IRQL.
        return Err(cx.stop(Verdict::error("lookaside-pageable", message)));
    }
    slist::initialize(cx, list.cast::<SLIST_HEADER>())?;
    if pool_exports::kind(wish.pool_type) == pool::Kind::NonPagedExecute {
        code_integrity::executable_pool(cx, wish.name, wish.pool_type, wish.tag)?;
    }
    // A block must be able to hold the link while it is kept.
    let size = u32::try_from(wish.bytes.max(16)).unwrap_or(u32::MAX);
    let owner = pool::caller(cx).0;
    // Where freed blocks are to be gone, none is kept.
    let depth = if cx.with(|k| special_pool::takes(k, owner, wish.tag)) { 0 } else { DEPTH };
    cx.write(list + L::Depth, depth)?;
    cx.write(list + L::MaximumDepth, abi::EX_MAXIMUM_LOOKASIDE_DEPTH_BASE)?;
    let zeroed = [
        L::TotalAllocates,
        L::AllocateMisses,
        L::TotalFrees,
        L::FreeMisses,
        L::LastTotalAllocates,
        L::LastAllocateMisses,
    ];
    for counter in zeroed {
        cx.write(list + counter, 0)?;
    }
    cx.write(list + L::Type, wish.pool_type)?;
    cx.write(list + L::Tag, wish.tag)?;
    cx.write(list + L::Size, size)?;
    let allocate = if wish.allocate.is_null() { default_allocate() } else { wish.allocate };
    let free = if wish.free.is_null() { default_free() } else { wish.free };
    cx.write(list + L::Allocate, allocate)?;
    cx.write(list + L::Free, free)?;
    cx.with(|k| k.ex.lookasides.insert(list.address, owner));
    Ok(())
}

/// `ExAllocateFromNPagedLookasideList`, `ExAllocateFromPagedLookasideList`, `ExAllocateFromLookasideListEx`: null if there
/// is no memory.
///
/// # Errors
/// A verdict if it is no list; whatever the list's own routine comes to.
pub(crate) fn allocate(cx: &mut Cx<'_>, list: List) -> Flow<u64> {
    type L = GENERAL_LOOKASIDE;
    known(cx, list, "ExAllocateFromLookasideListEx")?;
    count(cx, list, L::TotalAllocates)?;
    let entry = slist::pop(cx, list.cast())?;
    if !entry.is_null() {
        return Ok(entry.address);
    }
    count(cx, list, L::AllocateMisses)?;
    let (kind, size, tag) = (cx.read(list + L::Type)?, cx.read(list + L::Size)?, cx.read(list + L::Tag)?);
    let routine = cx.read(list + L::Allocate)?;
    if routine == default_allocate() {
        return Ok(pool_exports::allocate_with_tag(cx, kind, size.into(), tag)?.address);
    }
    let arguments = [kind.into(), size.into(), tag.into(), list.address];
    call_routine(cx, Role::LookasideAllocate, routine, list.address, &arguments)
}

/// `ExFreeToNPagedLookasideList`, `ExFreeToPagedLookasideList`, `ExFreeToLookasideListEx`.
///
/// # Errors
/// As [`allocate`].
pub(crate) fn free(cx: &mut Cx<'_>, list: List, entry: u64) -> Flow<()> {
    type L = GENERAL_LOOKASIDE;
    known(cx, list, "ExFreeToLookasideListEx")?;
    count(cx, list, L::TotalFrees)?;
    if slist::depth(cx, list.cast())? < cx.read(list + L::Depth)? {
        return slist::push(cx, list.cast(), DriverPtr::new(entry)).map(|_| ());
    }
    count(cx, list, L::FreeMisses)?;
    free_one(cx, list, entry)
}

fn free_one(cx: &mut Cx<'_>, list: List, entry: u64) -> Flow<()> {
    let routine = cx.read(list + GENERAL_LOOKASIDE::Free)?;
    if routine == default_free() {
        return pool::free(cx, DriverPtr::<()>::new(entry));
    }
    call_routine(cx, Role::LookasideFree, routine, list.address, &[entry, list.address]).map(|_| ())
}

/// `ExFlushLookasideListEx`.
///
/// # Errors
/// As [`allocate`].
pub(crate) fn flush(cx: &mut Cx<'_>, list: List) -> Flow<()> {
    known(cx, list, "ExFlushLookasideListEx")?;
    empty(cx, list)
}

/// `ExDeleteNPagedLookasideList`, `ExDeletePagedLookasideList`, `ExDeleteLookasideListEx`: frees what it kept.
///
/// # Errors
/// As [`allocate`].
pub(crate) fn delete(cx: &mut Cx<'_>, list: List) -> Flow<()> {
    known(cx, list, "ExDeleteLookasideListEx")?;
    empty(cx, list)?;
    cx.with(|k| k.ex.lookasides.remove(&list.address));
    Ok(())
}

fn empty(cx: &mut Cx<'_>, list: List) -> Flow<()> {
    loop {
        let entry = slist::pop(cx, list.cast())?;
        if entry.is_null() {
            return Ok(());
        }
        free_one(cx, list, entry.address)?;
    }
}

/// In a checked machine: `entry` lies in the list at `head` now, and if that is a lookaside list's, it may not be touched.
pub(crate) fn keeps(cx: &mut Cx<'_>, head: u64, entry: u64) {
    if cx.engine().is_checked() {
        cx.with(|k| {
            if k.ex.lookasides.contains_key(&head) {
                shadow::keep(k, entry);
            }
        });
    }
}

/// The entry is taken out again: its contents are nothing.
pub(crate) fn gives(cx: &mut Cx<'_>, head: u64, entry: u64) {
    if cx.engine().is_checked() {
        cx.with(|k| {
            if k.ex.lookasides.contains_key(&head) {
                shadow::give(k, entry);
            }
        });
    }
}

fn count(cx: &mut Cx<'_>, list: List, counter: abi::Field<GENERAL_LOOKASIDE, u32>) -> Flow<()> {
    let value = cx.read(list + counter)?;
    cx.write(list + counter, value.wrapping_add(1))
}

fn known(cx: &mut Cx<'_>, list: List, name: &str) -> Flow<()> {
    if cx.with(|k| k.ex.lookasides.contains_key(&list.address)) {
        Ok(())
    } else {
        Err(unknown(cx, list, name))
    }
}

fn unknown(cx: &mut Cx<'_>, list: List, name: &str) -> engine::Leave {
    let message = format!("{name} was given {:#x}, which is no initialized lookaside list", list.address);
    let verdict = Verdict::error("lookaside-uninitialized", message);
    cx.stop(verdict.bug_check(0xC4, [0xCB, list.address, 0, 0]))
}

/// Lists that the image at `driver` initialized and did not delete.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<u64> {
    cx.with(|k| {
        let own = k.ex.lookasides.iter().filter(|(_, owner)| **owner == Some(driver));
        own.map(|(&list, _)| list).collect()
    })
}
