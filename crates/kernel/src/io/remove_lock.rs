//! Remove locks: how a driver knows that no routine of it is inside when its device goes.
//!
//! Pages: *IoInitializeRemoveLock macro*, *IoAcquireRemoveLock macro*, *IoReleaseRemoveLock macro*,
//! *IoReleaseRemoveLockAndWait macro*, *Using Remove Locks*. The lock is all in driver memory; the tags it was acquired
//! with are remembered here for any lock, as Driver Verifier does. The fields a checked build adds are not kept.

use std::collections::BTreeMap;

use abi::{DriverPtr, IO_REMOVE_LOCK_COMMON_BLOCK, NtStatus};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind};
use crate::ke;
use crate::ldr::symbols;
use crate::verdict::Verdict;
use crate::witness;

type Lock = DriverPtr<IO_REMOVE_LOCK_COMMON_BLOCK>;

/// What events call it.
const KIND: &str = "remove lock";

/// How a lock is held, by tag.
pub(crate) type Tags = BTreeMap<u64, Hold>;

/// How a lock is held with a tag.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Hold {
    /// How often.
    count: u32,
    /// The driver's code that acquired it so last,
    place: u64,
    /// and the moment when it did.
    acquired: u64,
}

/// When a lock was acquired that is held, with each of its tags.
pub(crate) fn acquired(k: &Kernel, lock: u64) -> Vec<u64> {
    k.io.remove_locks.get(&lock).into_iter().flatten().map(|(_, hold)| hold.acquired).collect()
}

/// The lock that signals this event when it is held no more.
pub(crate) fn with_event(k: &Kernel, event: u64) -> Option<u64> {
    let lock = event.checked_sub(IO_REMOVE_LOCK_COMMON_BLOCK::RemoveEvent.offset())?;
    k.io.remove_locks.contains_key(&lock).then_some(lock)
}

/// Who holds it, in words.
pub(crate) fn held(k: &Kernel, lock: u64) -> String {
    // A driver that never releases it holds it with a tag for each request.
    let mut places: BTreeMap<u64, Vec<(u64, u32)>> = BTreeMap::new();
    for (tag, Hold { count, place, .. }) in k.io.remove_locks.get(&lock).into_iter().flatten() {
        places.entry(*place).or_default().push((*tag, *count));
    }
    let held = |(place, tags): (u64, Vec<(u64, u32)>)| {
        let count: u32 = tags.iter().map(|(_, count)| count).sum();
        let often = if count == 1 { "once".to_owned() } else { format!("{count} times, last") };
        let tag = match tags.as_slice() {
            [(tag, _)] => format!("the tag {tag:#x}"),
            _ => "several tags".to_owned(),
        };
        format!("with {tag} (acquired {often} in {})", symbols::code(k, place))
    };
    let all: Vec<String> = places.into_iter().map(held).collect();
    if all.is_empty() {
        "which is not held".to_owned()
    } else {
        format!("which is held {}", all.join(" and "))
    }
}

/// `IoInitializeRemoveLockEx`.
///
/// # Errors
/// A verdict if it is held, or the pointer is bad.
pub(crate) fn initialize(
    cx: &mut Cx<'_>,
    lock: Lock,
    _allocate_tag: u32,
    _most_minutes: u32,
    _high_watermark: u32,
    _size: u32,
) -> Flow<()> {
    let known = cx.with(|k| k.io.remove_locks.insert(lock.address, Tags::new()));
    // Memory that was freed and allocated anew does not look held.
    let looks_held = cx.read(lock + IO_REMOVE_LOCK_COMMON_BLOCK::IoCount)? > 1;
    if known.is_some_and(|tags| !tags.is_empty()) && looks_held {
        let message = format!("the remove lock {:#x} is initialised again while it is held", lock.address);
        let verdict = Verdict::error("remove-lock-initialized-again", message);
        return Err(cx.stop(verdict.bug_check(0xC4, [0xD7, lock.address, 0, 0])));
    }
    cx.write(lock + IO_REMOVE_LOCK_COMMON_BLOCK::Removed, 0)?;
    cx.write(lock + IO_REMOVE_LOCK_COMMON_BLOCK::IoCount, 1)?;
    ke::event::initialize(cx, lock + IO_REMOVE_LOCK_COMMON_BLOCK::RemoveEvent, 1, false)
}

/// `IoAcquireRemoveLockEx`: `DELETE_PENDING` once the device is being removed.
///
/// # Errors
/// A verdict if the lock was not initialised.
pub(crate) fn acquire(
    cx: &mut Cx<'_>,
    lock: Lock,
    tag: u64,
    _file: u64,
    _line: u32,
    _size: u32,
) -> Flow<NtStatus> {
    check(cx, lock, "IoAcquireRemoveLock")?;
    add(cx, lock, 1)?;
    if cx.read(lock + IO_REMOVE_LOCK_COMMON_BLOCK::Removed)? == 0 {
        let place = cx.engine().caller_rip();
        let acquired = witness::moment(cx);
        cx.with(|k| {
            let held = k.io.remove_locks.entry(lock.address).or_default().entry(tag).or_default();
            *held = Hold { count: held.count + 1, place, acquired };
        });
        let protection = lock.address;
        cx.detail(Kind::ProtectionAcquired, || Event::ProtectionAcquired {
            protection,
            kind: KIND,
            tag: Some(tag),
            count: 1,
        });
        return Ok(NtStatus::SUCCESS);
    }
    drop_one(cx, lock)?;
    Ok(NtStatus::DELETE_PENDING)
}

/// `IoReleaseRemoveLockEx`.
///
/// # Errors
/// A verdict if it is not held with this tag.
pub(crate) fn release(cx: &mut Cx<'_>, lock: Lock, tag: u64, _size: u32) -> Flow<()> {
    check(cx, lock, "IoReleaseRemoveLock")?;
    forget(cx, lock, tag, "IoReleaseRemoveLock", 0xD5)?;
    drop_one(cx, lock)
}

/// `IoReleaseRemoveLockAndWaitEx`: acquisitions fail from now on; waits until the lock is held no more.
///
/// # Errors
/// A verdict if it is not held with this tag.
pub(crate) fn release_and_wait(cx: &mut Cx<'_>, lock: Lock, tag: u64, _size: u32) -> Flow<()> {
    check(cx, lock, "IoReleaseRemoveLockAndWait")?;
    forget(cx, lock, tag, "IoReleaseRemoveLockAndWait", 0xD6)?;
    cx.write(lock + IO_REMOVE_LOCK_COMMON_BLOCK::Removed, 1)?;
    add(cx, lock, -1)?;
    if add(cx, lock, -1)? > 0 {
        let _ = ke::wait::for_object(cx, lock + IO_REMOVE_LOCK_COMMON_BLOCK::RemoveEvent)?;
    }
    let protection = lock.address;
    cx.detail(Kind::ProtectionEnded, || Event::ProtectionEnded { protection, kind: KIND });
    Ok(())
}

/// A device whose extension has the locks from `from` on is deleted while it is removed.
///
/// # Errors
/// As reading the lock.
pub(super) fn check_deletion(cx: &mut Cx<'_>, name: &str, from: u64, bytes: u64) -> Flow<()> {
    let known = cx.with(|k| {
        let locks = k.io.remove_locks.range(from..from.saturating_add(bytes));
        let locks = locks.map(|(lock, tags)| (*lock, tags.values().next().map(|hold| hold.acquired)));
        locks.collect::<Vec<_>>()
    });
    for (lock, acquired) in known {
        let removed = cx.read(Lock::new(lock) + IO_REMOVE_LOCK_COMMON_BLOCK::Removed)? != 0;
        if removed && acquired.is_none() {
            continue;
        }
        let why = if acquired.is_some() { "is held still" } else { "was not waited for" };
        let message = format!(
            "IoDeleteDevice on {name} in IRP_MN_REMOVE_DEVICE, whose remove lock {lock:#x} {why}: a request that has it uses what is deleted (IoReleaseRemoveLockAndWait)"
        );
        cx.report(Verdict::warning("remove-lock-not-awaited", message).related_if("acquired", acquired));
    }
    Ok(())
}

/// The memory of a device goes, and the locks in its extension with it.
pub(crate) fn forget_range(cx: &mut Cx<'_>, from: u64, bytes: u64) {
    cx.with(|k| k.io.remove_locks.retain(|lock, _| lock.wrapping_sub(from) >= bytes));
}

fn add(cx: &mut Cx<'_>, lock: Lock, change: i32) -> Flow<i32> {
    let count = cx.read(lock + IO_REMOVE_LOCK_COMMON_BLOCK::IoCount)?.wrapping_add(change);
    cx.write(lock + IO_REMOVE_LOCK_COMMON_BLOCK::IoCount, count)?;
    Ok(count)
}

fn drop_one(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    if add(cx, lock, -1)? == 0 {
        ke::event::set(cx, lock + IO_REMOVE_LOCK_COMMON_BLOCK::RemoveEvent, 0, false)?;
    }
    Ok(())
}

fn check(cx: &mut Cx<'_>, lock: Lock, ddi: &str) -> Flow<()> {
    if cx.with(|k| k.io.remove_locks.contains_key(&lock.address)) {
        return Ok(());
    }
    let message =
        format!("{ddi} on {:#x}, which was not initialised with IoInitializeRemoveLock", lock.address);
    Err(cx.stop(Verdict::error("remove-lock-not-initialized", message)))
}

fn forget(cx: &mut Cx<'_>, lock: Lock, tag: u64, ddi: &str, code: u64) -> Flow<()> {
    let held = cx.with(|k| {
        let tags = k.io.remove_locks.entry(lock.address).or_default();
        let Some(hold) = tags.get_mut(&tag) else {
            return false;
        };
        hold.count -= 1;
        if hold.count == 0 {
            tags.remove(&tag);
        }
        true
    });
    if held {
        tell_released(cx, lock, tag);
        return Ok(());
    }
    let message = format!("{ddi} on {:#x} with the tag {tag:#x}, which it is not held with", lock.address);
    let verdict = Verdict::error("remove-lock-tag", message).bug_check(0xC4, [code, lock.address, tag, 0]);
    // Without Verifier the lock is a count, and any tag takes one away.
    let other = cx.with(|k| {
        let tags = k.io.remove_locks.entry(lock.address).or_default();
        let mut other = tags.first_entry()?;
        let tag = *other.key();
        other.get_mut().count -= 1;
        if other.get().count == 0 {
            other.remove();
        }
        Some(tag)
    });
    let Some(other) = other else { return Err(cx.stop(verdict)) };
    cx.verify(verdict.as_verifier())?;
    tell_released(cx, lock, other);
    Ok(())
}

fn tell_released(cx: &Cx<'_>, lock: Lock, tag: u64) {
    let protection = lock.address;
    cx.detail(Kind::ProtectionReleased, || Event::ProtectionReleased {
        protection,
        kind: KIND,
        tag: Some(tag),
        count: 1,
    });
}
