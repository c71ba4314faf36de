//! The pool routines as drivers call them: flags and types decoded, requests judged, failures made.
//!
//! Pages: *ExAllocatePool2 function*, *POOL_FLAGS*, *POOL_TYPE enumeration*, *ExAllocatePoolWithTag function*,
//! *ExAllocatePoolWithQuotaTag function*, *ExFreePoolWithTag function*. What is charged to whom is `ps::quota`'s; session pool is not there.
#![allow(non_upper_case_globals, reason = "the constants are Microsoft's, under Microsoft's names")]

use abi::{
    BAD_POOL_CALLER, DriverPtr, HighPoolPriority, LowPoolPriority, LowPoolPrioritySpecialPoolOverrun,
    LowPoolPrioritySpecialPoolUnderrun, NonPagedPoolCacheAligned, NonPagedPoolExecute,
    NonPagedPoolMustSucceed, NormalPoolPriority, NtStatus, POOL_EXTENDED_PARAMETER, POOL_FLAG_CACHE_ALIGNED,
    POOL_FLAG_NON_PAGED, POOL_FLAG_NON_PAGED_EXECUTE, POOL_FLAG_PAGED, POOL_FLAG_RAISE_ON_FAILURE,
    POOL_FLAG_SPECIAL_POOL, POOL_FLAG_UNINITIALIZED, POOL_FLAG_USE_QUOTA, POOL_NX_ALLOCATION,
    POOL_QUOTA_FAIL_INSTEAD_OF_RAISE, POOL_RAISE_IF_ALLOCATION_FAILURE, POOL_ZERO_ALLOCATION, PagedPool,
    PoolExtendedParameterNumaNode, PoolExtendedParameterPriority,
};
use engine::windows::PAGE;
use engine::{Flow, Leave};

use super::code_integrity;
use super::pool::{self, Allocator, Kind, Request, tag_text};
use super::special_pool::{Side, Special};
use crate::cx::Cx;
use crate::ex;
use crate::ps::quota;
use crate::verdict::Verdict;

/// The flags that say which pool.
const KINDS: u64 = POOL_FLAG_NON_PAGED | POOL_FLAG_NON_PAGED_EXECUTE | POOL_FLAG_PAGED;
/// Flags that are understood; session pool is not.
const KNOWN: u64 = KINDS
    | POOL_FLAG_USE_QUOTA
    | POOL_FLAG_UNINITIALIZED
    | POOL_FLAG_CACHE_ALIGNED
    | POOL_FLAG_RAISE_ON_FAILURE;
/// The flags that must be satisfied; those of the upper half may be ignored.
const REQUIRED: u64 = 0xFFFF_FFFF;

/// The bit of a priority that names a side of special pool; the lowest says which.
const SIDE: u32 = LowPoolPrioritySpecialPoolOverrun;
/// Of a node's number: another will do.
const MM_ANY_NODE_OK: u32 = 0x8000_0000;

/// What the routines without a tag use.
const NO_TAG: u32 = pool::tag(b"None");

/// A request of a driver's, before it is judged.
struct Wish {
    name: &'static str,
    kind: Kind,
    bytes: u64,
    tag: u32,
    zeroed: bool,
    cache_aligned: bool,
    raise: bool,
    /// It is charged to the current process.
    quota: bool,
    /// `EX_POOL_PRIORITY`.
    priority: u32,
    /// Special pool, whatever the machine is set to.
    special: bool,
}

/// `ExAllocatePool2`.
///
/// # Errors
/// A verdict on a request that no driver may make, or the exception the flags ask for.
pub(crate) fn allocate_pool2(cx: &mut Cx<'_>, flags: u64, bytes: u64, tag: u32) -> Flow<DriverPtr<()>> {
    by_flags(cx, "ExAllocatePool2", (flags, bytes, tag), NormalPoolPriority)
}

fn by_flags(
    cx: &mut Cx<'_>,
    name: &'static str,
    (flags, bytes, tag): (u64, u64, u32),
    priority: u32,
) -> Flow<DriverPtr<()>> {
    let raise = flags & POOL_FLAG_RAISE_ON_FAILURE != 0;
    let kind = match flags & KINDS {
        POOL_FLAG_NON_PAGED => Some(Kind::NonPaged),
        POOL_FLAG_NON_PAGED_EXECUTE => Some(Kind::NonPagedExecute),
        POOL_FLAG_PAGED => Some(Kind::Paged),
        _ => None,
    };
    let known = flags & REQUIRED & !KNOWN == 0;
    let Some(kind) = kind.filter(|_| known && tag != 0) else {
        return fail(cx, name, raise, NtStatus::INVALID_PARAMETER);
    };
    let wish = Wish {
        name,
        kind,
        bytes,
        tag,
        zeroed: flags & POOL_FLAG_UNINITIALIZED == 0,
        cache_aligned: flags & POOL_FLAG_CACHE_ALIGNED != 0,
        raise,
        quota: flags & POOL_FLAG_USE_QUOTA != 0,
        priority,
        special: flags & POOL_FLAG_SPECIAL_POOL != 0,
    };
    grant(cx, &wish)
}

/// `ExAllocatePool3`. A priority or a node that there is not, and another kind of parameter, make it fail unless they are optional; the
/// machine has one node.
///
/// # Errors
/// As [`allocate_pool2`].
pub(crate) fn allocate_pool3(
    cx: &mut Cx<'_>,
    flags: u64,
    bytes: u64,
    tag: u32,
    parameters: DriverPtr<POOL_EXTENDED_PARAMETER>,
    count: u32,
) -> Flow<DriverPtr<()>> {
    const OPTIONAL: u64 = 1 << 8;
    const NAME: &str = "ExAllocatePool3";
    let mut priority = NormalPoolPriority;
    for index in 0..count {
        let parameter = parameters.index(index.into());
        let bits = cx.read(parameter + POOL_EXTENDED_PARAMETER::Bits)?;
        let value = cx.read(parameter + POOL_EXTENDED_PARAMETER::Priority)?;
        let [kind, ..] = bits.to_le_bytes();
        let heeded = match kind {
            PoolExtendedParameterPriority => is_priority(value),
            PoolExtendedParameterNumaNode => {
                flags & KINDS == POOL_FLAG_NON_PAGED && (value == 0 || value & MM_ANY_NODE_OK != 0)
            }
            _ => false,
        };
        if heeded && kind == PoolExtendedParameterPriority {
            priority = value;
        }
        if !heeded && bits & OPTIONAL == 0 {
            let raise = flags & POOL_FLAG_RAISE_ON_FAILURE != 0;
            return fail(cx, NAME, raise, NtStatus::INVALID_PARAMETER);
        }
    }
    by_flags(cx, NAME, (flags, bytes, tag), priority)
}

/// Whether `priority` is one of `EX_POOL_PRIORITY`.
const fn is_priority(priority: u32) -> bool {
    let (urgency, side) = (priority & !(SIDE | 1), priority & (SIDE | 1));
    matches!(urgency, LowPoolPriority | NormalPoolPriority | HighPoolPriority)
        && (side == 0 || side & SIDE != 0)
}

/// The side of special pool that a priority asks for.
const fn side(priority: u32) -> Option<Side> {
    match priority & (SIDE | 1) {
        LowPoolPrioritySpecialPoolOverrun => Some(Side::End),
        LowPoolPrioritySpecialPoolUnderrun => Some(Side::Start),
        _ => None,
    }
}

/// `ExFreePool2`.
///
/// # Errors
/// As [`free_with_tag`].
pub(crate) fn free_pool2(
    cx: &mut Cx<'_>,
    block: DriverPtr<()>,
    tag: u32,
    _parameters: u64,
    _count: u32,
) -> Flow<()> {
    free_with_tag(cx, block, tag)
}

/// `ExAllocatePoolWithTag`.
///
/// # Errors
/// As [`allocate_pool2`].
pub(crate) fn allocate_with_tag(
    cx: &mut Cx<'_>,
    pool_type: u32,
    bytes: u64,
    tag: u32,
) -> Flow<DriverPtr<()>> {
    by_type(cx, "ExAllocatePoolWithTag", (pool_type, bytes, tag), (false, false), NormalPoolPriority)
}

/// `ExAllocatePoolWithTagPriority`: the priority matters when memory is short, and says how a block lies in special pool.
///
/// # Errors
/// As [`allocate_pool2`].
pub(crate) fn allocate_with_tag_priority(
    cx: &mut Cx<'_>,
    pool_type: u32,
    bytes: u64,
    tag: u32,
    priority: u32,
) -> Flow<DriverPtr<()>> {
    by_type(cx, "ExAllocatePoolWithTagPriority", (pool_type, bytes, tag), (false, false), priority)
}

/// `ExAllocatePool`.
///
/// # Errors
/// As [`allocate_pool2`].
pub(crate) fn allocate_pool(cx: &mut Cx<'_>, pool_type: u32, bytes: u64) -> Flow<DriverPtr<()>> {
    by_type(cx, "ExAllocatePool", (pool_type, bytes, NO_TAG), (false, false), NormalPoolPriority)
}

/// `ExAllocatePoolWithQuotaTag`: raises when it fails, unless the type says otherwise.
///
/// # Errors
/// As [`allocate_pool2`].
pub(crate) fn allocate_with_quota_tag(
    cx: &mut Cx<'_>,
    pool_type: u32,
    bytes: u64,
    tag: u32,
) -> Flow<DriverPtr<()>> {
    let raise = pool_type & POOL_QUOTA_FAIL_INSTEAD_OF_RAISE == 0;
    by_type(cx, "ExAllocatePoolWithQuotaTag", (pool_type, bytes, tag), (raise, true), NormalPoolPriority)
}

/// `ExAllocatePoolWithQuota`.
///
/// # Errors
/// As [`allocate_pool2`].
pub(crate) fn allocate_with_quota(cx: &mut Cx<'_>, pool_type: u32, bytes: u64) -> Flow<DriverPtr<()>> {
    allocate_with_quota_tag(cx, pool_type, bytes, NO_TAG)
}

/// `ExFreePool`.
///
/// # Errors
/// A verdict on what is no live block.
pub(crate) fn free_pool(cx: &mut Cx<'_>, block: DriverPtr<()>) -> Flow<()> {
    pool::free_block(cx, block.address, None)
}

/// `ExFreePoolWithTag`: tag 0 is not compared.
///
/// # Errors
/// As [`free_pool`], and if the tag is another.
pub(crate) fn free_with_tag(cx: &mut Cx<'_>, block: DriverPtr<()>, tag: u32) -> Flow<()> {
    pool::free_block(cx, block.address, Some(tag).filter(|&tag| tag != 0))
}

fn by_type(
    cx: &mut Cx<'_>,
    name: &'static str,
    (bits, bytes, tag): (u32, u64, u32),
    (raise, quota): (bool, bool),
    priority: u32,
) -> Flow<DriverPtr<()>> {
    if bits & NonPagedPoolMustSucceed != 0 {
        let message = format!("{name} was asked for must-succeed pool, which no longer exists");
        let verdict = Verdict::error("pool-must-succeed", message);
        return Err(cx.stop(verdict.bug_check(BAD_POOL_CALLER, [0x9A, bits.into(), bytes, tag.into()])));
    }
    judge_tag(cx, name, bits, bytes, tag)?;
    let wish = Wish {
        name,
        kind: kind(bits),
        bytes,
        tag,
        zeroed: bits & POOL_ZERO_ALLOCATION != 0,
        cache_aligned: bits & NonPagedPoolCacheAligned != 0,
        raise: raise || bits & POOL_RAISE_IF_ALLOCATION_FAILURE != 0,
        quota,
        priority,
        special: false,
    };
    grant(cx, &wish)
}

/// The kind of pool that a `POOL_TYPE` asks for.
pub(crate) const fn kind(pool_type: u32) -> Kind {
    if pool_type & PagedPool != 0 {
        Kind::Paged
    } else if pool_type & POOL_NX_ALLOCATION != 0 {
        Kind::NonPaged
    } else {
        Kind::NonPagedExecute
    }
}

fn judge_tag(cx: &mut Cx<'_>, name: &str, bits: u32, bytes: u64, tag: u32) -> Flow<()> {
    let (sub, what) = match tag {
        0 => (0x9B, "the tag 0".to_owned()),
        _ if !tag.to_le_bytes().iter().any(u8::is_ascii_alphanumeric) => {
            (0x9D, format!("the tag '{}', which has no letter or digit", tag_text(tag)))
        }
        _ => return Ok(()),
    };
    let verdict = Verdict::error("pool-tag", format!("{name} was given {what}"));
    Err(cx.stop(verdict.bug_check(BAD_POOL_CALLER, [sub, bits.into(), bytes, 0])))
}

fn grant(cx: &mut Cx<'_>, wish: &Wish) -> Flow<DriverPtr<()>> {
    judge(cx, wish)?;
    if wish.kind == Kind::NonPagedExecute {
        code_integrity::executable_pool(cx, wish.name, NonPagedPoolExecute, wish.tag)?;
    }
    let allocator = Allocator::calling(cx);
    let refused = cx.choose("fault.pool", 2) == 1;
    let Wish { kind, bytes, tag, zeroed, cache_aligned, .. } = *wish;
    let contiguous = bytes > PAGE && cx.choose("mm.contiguous", 2) == 1;
    let special = if wish.special { Special::Wanted } else { Special::AsSet };
    let side = side(wish.priority);
    let spared = spared(wish.priority);
    let request = Request { kind, bytes, tag, zeroed, cache_aligned, contiguous, special, side, spared };
    let charge = match wish.quota.then(|| quota::charge_current(cx, kind == Kind::Paged, bytes)) {
        Some(None) => return fail(cx, wish.name, wish.raise, NtStatus::QUOTA_EXCEEDED),
        charge => charge.flatten(),
    };
    let block = if refused { None } else { pool::allocate_block(cx, &request, allocator) };
    if let Some(charge) = charge {
        cx.with(|k| quota::settle(k, block, charge));
    }
    match block {
        Some(address) => Ok(DriverPtr::new(address)),
        None => fail(cx, wish.name, wish.raise, NtStatus::INSUFFICIENT_RESOURCES),
    }
}

/// The share of memory that a request leaves to those of higher priorities, as `1 / 2^n`; none: it takes all.
const fn spared(priority: u32) -> Option<u32> {
    match priority & !(SIDE | 1) {
        LowPoolPriority => Some(3),
        NormalPoolPriority => Some(6),
        _ => None,
    }
}

fn judge(cx: &mut Cx<'_>, wish: &Wish) -> Flow<()> {
    let irql = crate::ke::irql::current(cx);
    if wish.kind == Kind::Paged && irql > 1 {
        let message = format!("{} was asked for paged pool at IRQL {irql}; at most 1 is allowed", wish.name);
        return Err(stop(cx, "pool-irql", message, [8, irql.into(), 1, wish.bytes]));
    }
    if wish.bytes == 0 {
        let message = format!(
            "{} was asked for 0 bytes, and gives a block that has none; Driver Verifier stops here, and Windows without it goes on",
            wish.name
        );
        let verdict = Verdict::warning("pool-zero-bytes", message);
        let pool_type = u64::from(wish.kind == Kind::Paged);
        cx.report(verdict.bug_check(0xC4, [0, irql.into(), pool_type, 0]));
    }
    Ok(())
}

fn stop(cx: &mut Cx<'_>, rule: &'static str, message: String, parameters: [u64; 4]) -> Leave {
    cx.stop(Verdict::error(rule, message).bug_check(BAD_POOL_CALLER, parameters))
}

fn fail(cx: &mut Cx<'_>, name: &str, raise: bool, status: NtStatus) -> Flow<DriverPtr<()>> {
    if raise { Err(ex::exception::raise(cx, status, name)) } else { Ok(DriverPtr::NULL) }
}
