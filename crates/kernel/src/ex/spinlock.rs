//! Reader/writer spin locks. Follows *Reader/Writer Spin Locks*, *ExAcquireSpinLockShared function* and their neighbours.
//!
//! Any number of processors share a lock, or one has it alone. While one that wants it alone waits, no other comes to share
//! it. Its holders are known in `ke::spinlock`, as of plain locks; the lock's own 32 bits say how many. A processor that
//! must wait gives its turn away. The meaning of the bits is Windows' own business, and here it is not Windows'.

use abi::DriverPtr;
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ke::irql::DISPATCH_LEVEL;
use crate::ke::locks::{Held, Mode};
use crate::ke::processor::WaitsFor;
use crate::ke::{irql, scheduler, spinlock};
use crate::verdict::Verdict;

/// An `EX_SPIN_LOCK`.
type Lock = DriverPtr<u32>;

/// In the lock's memory: one has it alone; one waits to have it alone. The other bits count those that share it.
const ALONE: u32 = 0x8000_0000;
const WANTED: u32 = 0x4000_0000;

/// `ExAcquireSpinLockShared`: returns the old level.
///
/// # Errors
/// A verdict if the pointer is bad, the lock's memory is damaged, or the caller waits for itself, here and below;
/// [`engine::Leave`] if the machine ends meanwhile.
pub(crate) fn acquire_shared(cx: &mut Cx<'_>, lock: Lock) -> Flow<u8> {
    let old = irql::raise(cx, DISPATCH_LEVEL)?;
    share(cx, lock, "ExAcquireSpinLockShared")?;
    Ok(old)
}

/// `ExAcquireSpinLockSharedAtDpcLevel`.
///
/// # Errors
/// As [`acquire_shared`].
pub(crate) fn acquire_shared_at_dispatch(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    share(cx, lock, "ExAcquireSpinLockSharedAtDpcLevel")
}

/// `ExAcquireSpinLockExclusive`: returns the old level.
///
/// # Errors
/// As [`acquire_shared`].
pub(crate) fn acquire_exclusive(cx: &mut Cx<'_>, lock: Lock) -> Flow<u8> {
    let old = irql::raise(cx, DISPATCH_LEVEL)?;
    have_alone(cx, lock, "ExAcquireSpinLockExclusive")?;
    Ok(old)
}

/// `ExAcquireSpinLockExclusiveAtDpcLevel`.
///
/// # Errors
/// As [`acquire_shared`].
pub(crate) fn acquire_exclusive_at_dispatch(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    have_alone(cx, lock, "ExAcquireSpinLockExclusiveAtDpcLevel")
}

/// `ExTryAcquireSpinLockSharedAtDpcLevel`: whether it could be shared, and is now.
///
/// # Errors
/// A verdict if the pointer is bad or the lock's memory is damaged, here and below.
pub(crate) fn try_acquire_shared(cx: &mut Cx<'_>, lock: Lock) -> Flow<bool> {
    expect_sound(cx, lock)?;
    let free = cx.with(|k| k.ke.levels.locks().can_be_shared(lock.address));
    if free {
        take(cx, lock, Mode::Shared, false)?;
    }
    Ok(free)
}

/// `ExTryAcquireSpinLockExclusiveAtDpcLevel`: whether it was free, and is the caller's now.
///
/// # Errors
/// As [`try_acquire_shared`].
pub(crate) fn try_acquire_exclusive(cx: &mut Cx<'_>, lock: Lock) -> Flow<bool> {
    expect_sound(cx, lock)?;
    let free = cx.with(|k| !k.ke.levels.locks().is_held(lock.address));
    if free {
        take(cx, lock, Mode::Alone, false)?;
    }
    Ok(free)
}

/// `ExTryConvertSharedSpinLockExclusive`: the caller has it alone if no other shares it or waits to have it alone; else it
/// shares it still.
///
/// # Errors
/// As [`try_acquire_shared`]; a verdict if the caller does not share it.
pub(crate) fn try_convert(cx: &mut Cx<'_>, lock: Lock) -> Flow<bool> {
    const NAME: &str = "ExTryConvertSharedSpinLockExclusive";
    expect_held(cx, lock, Mode::Shared, NAME)?;
    let at = lock.address;
    let only =
        cx.with(|k| k.ke.levels.locks().holders(at).count() == 1 && !k.ke.levels.locks().is_wanted(at));
    if only {
        cx.with(|k| {
            let here = k.ke.processor().number;
            k.ke.levels.locks_mut().remove(at, here, Mode::Shared);
        });
        tell_released(cx, lock, Mode::Shared);
        take(cx, lock, Mode::Alone, false)?;
    }
    Ok(only)
}

/// `ExReleaseSpinLockShared`: and lowers to `level`.
///
/// # Errors
/// A verdict if the caller does not hold it so; whatever the lower level lets in.
pub(crate) fn release_shared(cx: &mut Cx<'_>, lock: Lock, level: u8) -> Flow<()> {
    give_back(cx, lock, Mode::Shared, "ExReleaseSpinLockShared")?;
    irql::lower(cx, level)
}

/// `ExReleaseSpinLockSharedFromDpcLevel`.
///
/// # Errors
/// A verdict if the caller does not hold it so.
pub(crate) fn release_shared_from_dispatch(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    give_back(cx, lock, Mode::Shared, "ExReleaseSpinLockSharedFromDpcLevel")
}

/// `ExReleaseSpinLockExclusive`: and lowers to `level`.
///
/// # Errors
/// As [`release_shared`].
pub(crate) fn release_exclusive(cx: &mut Cx<'_>, lock: Lock, level: u8) -> Flow<()> {
    give_back(cx, lock, Mode::Alone, "ExReleaseSpinLockExclusive")?;
    irql::lower(cx, level)
}

/// `ExReleaseSpinLockExclusiveFromDpcLevel`.
///
/// # Errors
/// As [`release_shared_from_dispatch`].
pub(crate) fn release_exclusive_from_dispatch(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    give_back(cx, lock, Mode::Alone, "ExReleaseSpinLockExclusiveFromDpcLevel")
}

fn share(cx: &mut Cx<'_>, lock: Lock, name: &str) -> Flow<()> {
    let at = lock.address;
    loop {
        expect_sound(cx, lock)?;
        let (own, free) = cx.with(|k| {
            let here = k.ke.processor().number;
            (k.ke.levels.locks().of_processor(at, here), k.ke.levels.locks().can_be_shared(at))
        });
        if free {
            if let Some(held) = own {
                cx.report(shared_twice(at, held, name));
            }
            return take(cx, lock, Mode::Shared, true);
        }
        if let Some(held) = own {
            return Err(recursion(cx, at, held, name));
        }
        scheduler::wait_for(cx, WaitsFor::LockShared(at))?;
    }
}

fn have_alone(cx: &mut Cx<'_>, lock: Lock, name: &str) -> Flow<()> {
    let at = lock.address;
    expect_sound(cx, lock)?;
    let (own, held, here) = cx.with(|k| {
        let here = k.ke.processor().number;
        (k.ke.levels.locks().of_processor(at, here), k.ke.levels.locks().is_held(at), here)
    });
    if let Some(own) = own {
        return Err(recursion(cx, at, own, name));
    }
    if held {
        cx.with(|k| k.ke.levels.locks_mut().want(at, here));
        show(cx, lock)?;
        while cx.with(|k| k.ke.levels.locks().is_held(at)) {
            scheduler::wait_for(cx, WaitsFor::LockAlone(at))?;
            expect_sound(cx, lock)?;
        }
        cx.with(|k| k.ke.levels.locks_mut().want_no_more(at, here));
    }
    take(cx, lock, Mode::Alone, true)
}

fn take(cx: &mut Cx<'_>, lock: Lock, mode: Mode, waits: bool) -> Flow<()> {
    spinlock::note_taken(cx, lock.address, (mode, 0), waits)?;
    show(cx, lock)
}

fn give_back(cx: &mut Cx<'_>, lock: Lock, mode: Mode, name: &str) -> Flow<()> {
    expect_held(cx, lock, mode, name)?;
    cx.with(|k| {
        let here = k.ke.processor().number;
        k.ke.levels.locks_mut().remove(lock.address, here, mode);
        k.ke.invalidate_levels();
    });
    tell_released(cx, lock, mode);
    show(cx, lock)
}

fn tell_released(cx: &Cx<'_>, lock: Lock, mode: Mode) {
    cx.detail(Kind::LockReleased, || Event::LockReleased { lock: lock.address, kind: mode.kind() });
}

/// What the lock's memory must hold.
fn image(k: &Kernel, at: u64) -> u32 {
    let held: u32 =
        k.ke.levels.locks().holders(at).map(|held| if held.mode == Mode::Alone { ALONE } else { 1 }).sum();
    held | if k.ke.levels.locks().is_wanted(at) { WANTED } else { 0 }
}

fn show(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    let image = cx.with(|k| image(k, lock.address));
    cx.write(lock, image)
}

fn expect_sound(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    let value = cx.read(lock)?;
    let (expected, held) = cx.with(|k| (image(k, lock.address), k.ke.levels.locks().holder(lock.address)));
    let at = lock.address;
    let message = match held {
        Some(held) if held.mode == Mode::Plain => {
            format!("reader/writer spin lock {at:#x} is held as a KSPIN_LOCK by processor {}", held.processor)
        }
        _ if value == expected => return Ok(()),
        Some(held) => format!(
            "reader/writer spin lock {at:#x}, which processor {} holds, was overwritten with {value:#x}",
            held.processor
        ),
        None => format!(
            "reader/writer spin lock {at:#x} holds {value:#x}, which no acquire has written: it was not set to 0 before, or overwritten"
        ),
    };
    Err(cx.stop(Verdict::error("spin-lock-damaged", message).of_lock(held)))
}

const fn how(mode: Mode) -> &'static str {
    match mode {
        Mode::Plain => "as a KSPIN_LOCK",
        Mode::Shared => "shared",
        Mode::Alone => "exclusive",
    }
}

fn recursion(cx: &mut Cx<'_>, at: u64, held: Held, name: &str) -> engine::Leave {
    let message = format!(
        "{name} was called for {at:#x} by the processor that holds it already ({}): it would spin for ever",
        how(held.mode)
    );
    let verdict = Verdict::error("spin-lock-recursion", message).bug_check(0xF, [at, 0, 0, 0]);
    cx.stop(verdict.of_lock(Some(held)))
}

/// It works as long as no processor that wants the lock alone comes between.
fn shared_twice(at: u64, held: Held, name: &str) -> Verdict {
    let message = format!(
        "{name} was called for {at:#x} by the processor that shares it already: had another one waited to have it alone, it would spin for ever"
    );
    let verdict = Verdict::warning("spin-lock-shared-twice", message);
    verdict.of_lock(Some(held))
}

fn expect_held(cx: &mut Cx<'_>, lock: Lock, mode: Mode, name: &str) -> Flow<()> {
    let at = lock.address;
    let (own, any, here) = cx.with(|k| {
        let here = k.ke.processor().number;
        (k.ke.levels.locks().of_processor(at, here), k.ke.levels.locks().holder(at), here)
    });
    let message = match (own, any) {
        (Some(own), _) if own.mode == mode => return expect_sound(cx, lock),
        (Some(own), _) => format!("{name} was called for {at:#x}, which its caller holds {}", how(own.mode)),
        (None, Some(other)) => format!(
            "{name} was called on processor {here} for {at:#x}, which processor {} holds {}",
            other.processor,
            how(other.mode)
        ),
        (None, None) => format!("{name} was called for {at:#x}, which is not held"),
    };
    let verdict = Verdict::error("spin-lock-not-held", message).bug_check(0x10, [at, 0, 0, 0]);
    Err(cx.stop(verdict.of_lock(any)))
}
