//! Run-down protection: an object that others use is not taken away before they are done. Follows *Run-Down Protection*,
//! *ExAcquireRundownProtection function*, *ExWaitForRundownProtectionRelease function* and their neighbours.
//!
//! An `EX_RUNDOWN_REF` holds twice the number of references, and 1 once run-down has begun. The cache-aware form is a
//! structure of the kernel's own with one such word: what Windows spreads over processors to be faster counts the same.
//! Who holds a reference is not known, as on Windows; who waits is.

use abi::DriverPtr;
use engine::{Flow, StrandId};

use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ke::{irql, wait};
use crate::mm::{pool, pool_exports};
use crate::verdict::Verdict;

/// An `EX_RUNDOWN_REF`.
type Reference = DriverPtr<u64>;
/// An `EX_RUNDOWN_REF_CACHE_AWARE`: the word, then [`MARK`].
type CacheAware = DriverPtr<u64>;

/// `EX_RUNDOWN_ACTIVE`.
const ACTIVE: u64 = 1;
/// `EX_RUNDOWN_COUNT_SHIFT`.
const SHIFT: u32 = 1;
/// What a cache-aware structure has behind its word.
const MARK: u64 = u64::from_le_bytes(*b"RundownC");
/// What it takes for each processor, and for itself.
const LINE: u64 = 64;

/// What events call it.
const KIND: &str = "run-down protection";

/// `ExInitializeRundownProtection`.
///
/// # Errors
/// A verdict if the pointer is bad, here and below, or a thread waits for it.
pub(crate) fn initialize(cx: &mut Cx<'_>, reference: Reference) -> Flow<()> {
    let at = reference.address;
    if cx.with(|k| k.ex.rundowns.contains_key(&at)) {
        let message =
            format!("run-down protection {at:#x} was initialised while a thread waits for its release");
        return Err(cx.stop(Verdict::error("object-initialized-while-waited-for", message)));
    }
    cx.write(reference, 0)
}

/// `ExAcquireRundownProtection`: whether the object may be used.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn acquire(cx: &mut Cx<'_>, reference: Reference) -> Flow<bool> {
    acquire_many(cx, reference, 1)
}

/// `ExAcquireRundownProtectionEx`: `count` references at once.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn acquire_many(cx: &mut Cx<'_>, reference: Reference, count: u32) -> Flow<bool> {
    let word = cx.read(reference)?;
    if word & ACTIVE != 0 {
        return Ok(false);
    }
    cx.write(reference, word.wrapping_add(u64::from(count) << SHIFT))?;
    let protection = reference.address;
    cx.detail(Kind::ProtectionAcquired, || Event::ProtectionAcquired {
        protection,
        kind: KIND,
        tag: None,
        count,
    });
    Ok(true)
}

/// `ExReleaseRundownProtection`.
///
/// # Errors
/// As [`release_many`].
pub(crate) fn release(cx: &mut Cx<'_>, reference: Reference) -> Flow<()> {
    give(cx, reference, 1, "ExReleaseRundownProtection")
}

/// `ExReleaseRundownProtectionEx`.
///
/// # Errors
/// A verdict if there are not so many references.
pub(crate) fn release_many(cx: &mut Cx<'_>, reference: Reference, count: u32) -> Flow<()> {
    give(cx, reference, count, "ExReleaseRundownProtectionEx")
}

fn give(cx: &mut Cx<'_>, reference: Reference, count: u32, name: &str) -> Flow<()> {
    let word = cx.read(reference)?;
    let (held, given) = (word >> SHIFT, u64::from(count));
    if held < given {
        let message = format!(
            "{name} was called to release {given} reference(s) of run-down protection {:#x}, which has {held}",
            reference.address
        );
        return Err(cx.stop(Verdict::error("rundown-not-held", message)));
    }
    cx.write(reference, word - (given << SHIFT))?;
    let protection = reference.address;
    cx.detail(Kind::ProtectionReleased, || Event::ProtectionReleased {
        protection,
        kind: KIND,
        tag: None,
        count,
    });
    if word & ACTIVE != 0 && held == given {
        cx.with(|k| {
            for strand in k.ex.rundowns.remove(&reference.address).unwrap_or_default() {
                wait::grant(k, strand);
            }
        });
    }
    irql::settle(cx)
}

/// `ExWaitForRundownProtectionRelease`: from now on no reference can be acquired; returns once there is none.
///
/// # Errors
/// A verdict if the pointer is bad or the caller may not wait; [`engine::Leave`] if the machine ends meanwhile.
pub(crate) fn wait_for_release(cx: &mut Cx<'_>, reference: Reference) -> Flow<()> {
    run_down(cx, reference, "ExWaitForRundownProtectionRelease")
}

fn run_down(cx: &mut Cx<'_>, reference: Reference, name: &str) -> Flow<()> {
    let word = cx.read(reference)?;
    cx.write(reference, word | ACTIVE)?;
    let at = reference.address;
    if word >> SHIFT != 0 {
        cx.with(|k| {
            let strand = k.ke.processor().thread;
            k.ex.rundowns.entry(at).or_default().push(strand);
        });
        wait::for_grant(cx, at, name)?;
    }
    cx.detail(Kind::ProtectionEnded, || Event::ProtectionEnded { protection: at, kind: KIND });
    Ok(())
}

/// `ExRundownCompleted`: run-down is over; no reference can be acquired until it is initialised again.
///
/// # Errors
/// A verdict if there are references.
pub(crate) fn completed(cx: &mut Cx<'_>, reference: Reference) -> Flow<()> {
    expect_run_down(cx, reference, "ExRundownCompleted")?;
    cx.write(reference, ACTIVE)
}

/// `ExReInitializeRundownProtection`: for a new object, after the old one was run down.
///
/// # Errors
/// As [`completed`].
pub(crate) fn reinitialize(cx: &mut Cx<'_>, reference: Reference) -> Flow<()> {
    expect_run_down(cx, reference, "ExReInitializeRundownProtection")?;
    cx.write(reference, 0)
}

/// References that are left are an error; a run-down that was never waited for is documented as wrong.
fn expect_run_down(cx: &mut Cx<'_>, reference: Reference, name: &str) -> Flow<()> {
    let (word, at) = (cx.read(reference)?, reference.address);
    let verdict = |what: String| {
        Verdict::error("rundown-not-complete", format!("{name} was called for {at:#x}, {what}"))
    };
    if word >> SHIFT != 0 {
        return Err(cx.stop(verdict(format!("which has {} reference(s)", word >> SHIFT))));
    }
    if word & ACTIVE == 0 {
        cx.report(verdict("which has not been run down".to_owned()).as_warning());
    }
    Ok(())
}

/// What a thread waits for in [`wait_for_release`], for people.
pub(crate) fn describe(k: &Kernel, at: u64) -> Option<String> {
    k.ex.rundowns.get(&at)?;
    let word = k.engine.read(Reference::new(at)).unwrap_or(0);
    Some(format!("the release of run-down protection {at:#x}, which has {} reference(s)", word >> SHIFT))
}

/// The threads that wait for a release, by the address of the word.
pub(crate) type Waiters = std::collections::BTreeMap<u64, Vec<StrandId>>;

// ---- cache-aware ----

/// `ExSizeOfRundownProtectionCacheAware`.
///
/// # Errors
/// None of its own.
pub(crate) fn size_of_cache_aware(cx: &mut Cx<'_>) -> Flow<u64> {
    Ok(cx.with(|k| LINE * (1 + u64::from(k.ke.processor_count()))))
}

/// `ExAllocateCacheAwareRundownProtection`: null if there is no memory.
///
/// # Errors
/// A verdict on a pool type that is none.
pub(crate) fn allocate_cache_aware(cx: &mut Cx<'_>, pool_type: u32, tag: u32) -> Flow<CacheAware> {
    let bytes = size_of_cache_aware(cx)?;
    let block: CacheAware = pool_exports::allocate_with_tag(cx, pool_type, bytes, tag)?.cast();
    if !block.is_null() {
        initialize_cache_aware(cx, block, bytes)?;
    }
    Ok(block)
}

/// `ExFreeCacheAwareRundownProtection`.
///
/// # Errors
/// A verdict if it is none.
pub(crate) fn free_cache_aware(cx: &mut Cx<'_>, block: CacheAware) -> Flow<()> {
    expect_cache_aware(cx, block, "ExFreeCacheAwareRundownProtection")?;
    pool::free(cx, block)
}

/// `ExInitializeRundownProtectionCacheAware`: memory of the driver's, of the size that was asked for.
///
/// # Errors
/// A verdict if it is smaller, or the pointer bad.
pub(crate) fn initialize_cache_aware(cx: &mut Cx<'_>, block: CacheAware, bytes: u64) -> Flow<()> {
    let needed = size_of_cache_aware(cx)?;
    if bytes < needed {
        let message = format!(
            "ExInitializeRundownProtectionCacheAware was given {bytes} bytes at {:#x}; ExSizeOfRundownProtectionCacheAware says {needed}",
            block.address
        );
        return Err(cx.stop(Verdict::error("rundown-too-small", message)));
    }
    initialize(cx, block)?;
    cx.write(block.index(1), MARK)
}

fn expect_cache_aware(cx: &mut Cx<'_>, block: CacheAware, name: &str) -> Flow<()> {
    if cx.read(block.index(1))? == MARK {
        return Ok(());
    }
    let message = format!(
        "{name} was called for {:#x}, which is no cache-aware run-down protection that was initialised",
        block.address
    );
    Err(cx.stop(Verdict::error("rundown-not-initialized", message)))
}

/// `ExAcquireRundownProtectionCacheAware`.
///
/// # Errors
/// A verdict if it is none, here and below.
pub(crate) fn acquire_cache_aware(cx: &mut Cx<'_>, block: CacheAware) -> Flow<bool> {
    expect_cache_aware(cx, block, "ExAcquireRundownProtectionCacheAware")?;
    acquire_many(cx, block, 1)
}

/// `ExAcquireRundownProtectionCacheAwareEx`.
///
/// # Errors
/// As [`acquire_cache_aware`].
pub(crate) fn acquire_many_cache_aware(cx: &mut Cx<'_>, block: CacheAware, count: u32) -> Flow<bool> {
    expect_cache_aware(cx, block, "ExAcquireRundownProtectionCacheAwareEx")?;
    acquire_many(cx, block, count)
}

/// `ExReleaseRundownProtectionCacheAware`.
///
/// # Errors
/// As [`acquire_cache_aware`] and [`release_many`].
pub(crate) fn release_cache_aware(cx: &mut Cx<'_>, block: CacheAware) -> Flow<()> {
    const NAME: &str = "ExReleaseRundownProtectionCacheAware";
    expect_cache_aware(cx, block, NAME)?;
    give(cx, block, 1, NAME)
}

/// `ExReleaseRundownProtectionCacheAwareEx`.
///
/// # Errors
/// As [`release_cache_aware`].
pub(crate) fn release_many_cache_aware(cx: &mut Cx<'_>, block: CacheAware, count: u32) -> Flow<()> {
    const NAME: &str = "ExReleaseRundownProtectionCacheAwareEx";
    expect_cache_aware(cx, block, NAME)?;
    give(cx, block, count, NAME)
}

/// `ExWaitForRundownProtectionReleaseCacheAware`.
///
/// # Errors
/// As [`acquire_cache_aware`] and [`wait_for_release`].
pub(crate) fn wait_for_release_cache_aware(cx: &mut Cx<'_>, block: CacheAware) -> Flow<()> {
    const NAME: &str = "ExWaitForRundownProtectionReleaseCacheAware";
    expect_cache_aware(cx, block, NAME)?;
    run_down(cx, block, NAME)
}

/// `ExRundownCompletedCacheAware`.
///
/// # Errors
/// As [`acquire_cache_aware`] and [`completed`].
pub(crate) fn completed_cache_aware(cx: &mut Cx<'_>, block: CacheAware) -> Flow<()> {
    const NAME: &str = "ExRundownCompletedCacheAware";
    expect_cache_aware(cx, block, NAME)?;
    expect_run_down(cx, block, NAME)?;
    cx.write(block, ACTIVE)
}

/// `ExReInitializeRundownProtectionCacheAware`.
///
/// # Errors
/// As [`completed_cache_aware`].
pub(crate) fn reinitialize_cache_aware(cx: &mut Cx<'_>, block: CacheAware) -> Flow<()> {
    const NAME: &str = "ExReInitializeRundownProtectionCacheAware";
    expect_cache_aware(cx, block, NAME)?;
    expect_run_down(cx, block, NAME)?;
    cx.write(block, 0)
}
