//! Interlocked lists and sums, each under a spin lock of the caller's.
//!
//! Pages: *ExInterlockedInsertHeadList function*, *ExInterlockedInsertTailList function*,
//! *ExInterlockedRemoveHeadList function*, *ExInterlockedPushEntryList function*, *ExInterlockedAddUlong function*. At any
//! level: the kernel is not interrupted meanwhile, so the lock is looked at and not taken.

use abi::{DriverPtr, KERNEL_SECURITY_CHECK_FAILURE, LIST_ENTRY, SINGLE_LIST_ENTRY};
use engine::{Flow, Leave};

use crate::cx::Cx;
use crate::ke::spinlock;
use crate::verdict::Verdict;

type Entry = DriverPtr<LIST_ENTRY>;
type Single = DriverPtr<SINGLE_LIST_ENTRY>;

/// Waits until no other processor holds the caller's lock.
pub(super) fn through(cx: &mut Cx<'_>, name: &str, lock: DriverPtr<u64>) -> Flow<()> {
    if spinlock::is_held_here(cx, lock) {
        let message =
            format!("{name} was called with the spin lock {:#x}, which its caller holds", lock.address);
        let verdict = Verdict::error("spin-lock-already-owned", message);
        return Err(cx.stop(verdict.bug_check(abi::SPIN_LOCK_ALREADY_OWNED, [lock.address, 0, 0, 0])));
    }
    spinlock::acquire_at_dispatch(cx, lock)?;
    spinlock::release_from_dispatch(cx, lock)
}

fn broken(cx: &mut Cx<'_>, name: &str, head: Entry, entry: Entry) -> Leave {
    let message = format!(
        "{name} found the list at {:#x} damaged: the neighbours of {:#x} do not point back at it",
        head.address, entry.address
    );
    let verdict = Verdict::error("list-corrupt", message);
    cx.stop(verdict.bug_check(KERNEL_SECURITY_CHECK_FAILURE, [3, 0, 0, 0]))
}

/// `ExInterlockedInsertHeadList`: the entry that was first, or null.
///
/// # Errors
/// A verdict on a damaged list or a lock of the caller's, here and below.
pub(crate) fn insert_head(cx: &mut Cx<'_>, head: Entry, entry: Entry, lock: DriverPtr<u64>) -> Flow<Entry> {
    let name = "ExInterlockedInsertHeadList";
    through(cx, name, lock)?;
    let first = cx.read(head + LIST_ENTRY::Flink)?;
    if cx.read(first + LIST_ENTRY::Blink)? != head {
        return Err(broken(cx, name, head, head));
    }
    link(cx, head, entry, first)?;
    Ok(unless_head(first, head))
}

/// `ExInterlockedInsertTailList`: the entry that was last, or null.
///
/// # Errors
/// As [`insert_head`].
pub(crate) fn insert_tail(cx: &mut Cx<'_>, head: Entry, entry: Entry, lock: DriverPtr<u64>) -> Flow<Entry> {
    let name = "ExInterlockedInsertTailList";
    through(cx, name, lock)?;
    let last = append(cx, name, head, entry)?;
    Ok(unless_head(last, head))
}

/// `InsertTailList`, wherever the list lies: the entry, or the head, that was last.
///
/// # Errors
/// A verdict on a damaged list.
pub(crate) fn append(cx: &mut Cx<'_>, name: &str, head: Entry, entry: Entry) -> Flow<Entry> {
    let last = cx.read(head + LIST_ENTRY::Blink)?;
    if cx.read(last + LIST_ENTRY::Flink)? != head {
        return Err(broken(cx, name, head, head));
    }
    link(cx, last, entry, head)?;
    Ok(last)
}

/// `RemoveEntryList`, wherever the list of this head lies.
///
/// # Errors
/// As [`append`].
pub(crate) fn take_out(cx: &mut Cx<'_>, name: &str, head: Entry, entry: Entry) -> Flow<()> {
    let (next, previous) = (cx.read(entry + LIST_ENTRY::Flink)?, cx.read(entry + LIST_ENTRY::Blink)?);
    if cx.read(next + LIST_ENTRY::Blink)? != entry || cx.read(previous + LIST_ENTRY::Flink)? != entry {
        return Err(broken(cx, name, head, entry));
    }
    cx.write(previous + LIST_ENTRY::Flink, next)?;
    cx.write(next + LIST_ENTRY::Blink, previous)
}

/// `ExInterlockedRemoveHeadList`: the entry that was first, or null.
///
/// # Errors
/// As [`insert_head`].
pub(crate) fn remove_head(cx: &mut Cx<'_>, head: Entry, lock: DriverPtr<u64>) -> Flow<Entry> {
    let name = "ExInterlockedRemoveHeadList";
    through(cx, name, lock)?;
    let first = cx.read(head + LIST_ENTRY::Flink)?;
    if first == head {
        return Ok(DriverPtr::NULL);
    }
    let next = cx.read(first + LIST_ENTRY::Flink)?;
    if cx.read(first + LIST_ENTRY::Blink)? != head || cx.read(next + LIST_ENTRY::Blink)? != first {
        return Err(broken(cx, name, head, first));
    }
    cx.write(head + LIST_ENTRY::Flink, next)?;
    cx.write(next + LIST_ENTRY::Blink, head)?;
    Ok(first)
}

fn link(cx: &mut Cx<'_>, before: Entry, entry: Entry, after: Entry) -> Flow<()> {
    cx.write(entry + LIST_ENTRY::Flink, after)?;
    cx.write(entry + LIST_ENTRY::Blink, before)?;
    cx.write(before + LIST_ENTRY::Flink, entry)?;
    cx.write(after + LIST_ENTRY::Blink, entry)
}

fn unless_head(entry: Entry, head: Entry) -> Entry {
    if entry == head { DriverPtr::NULL } else { entry }
}

/// `ExInterlockedPushEntryList`: the entry that was first, or null.
///
/// # Errors
/// As [`insert_head`].
pub(crate) fn push(cx: &mut Cx<'_>, head: Single, entry: Single, lock: DriverPtr<u64>) -> Flow<Single> {
    through(cx, "ExInterlockedPushEntryList", lock)?;
    let first = cx.read(head + SINGLE_LIST_ENTRY::Next)?;
    cx.write(entry + SINGLE_LIST_ENTRY::Next, first)?;
    cx.write(head + SINGLE_LIST_ENTRY::Next, entry)?;
    Ok(first)
}

/// `ExInterlockedPopEntryList`: the entry that was first, or null.
///
/// # Errors
/// As [`insert_head`].
pub(crate) fn pop(cx: &mut Cx<'_>, head: Single, lock: DriverPtr<u64>) -> Flow<Single> {
    through(cx, "ExInterlockedPopEntryList", lock)?;
    let first = cx.read(head + SINGLE_LIST_ENTRY::Next)?;
    if !first.is_null() {
        let next = cx.read(first + SINGLE_LIST_ENTRY::Next)?;
        cx.write(head + SINGLE_LIST_ENTRY::Next, next)?;
    }
    Ok(first)
}

/// `ExInterlockedAddUlong`: the value before.
///
/// # Errors
/// As [`insert_head`].
pub(crate) fn add_ulong(
    cx: &mut Cx<'_>,
    to: DriverPtr<u32>,
    increment: u32,
    lock: DriverPtr<u64>,
) -> Flow<u32> {
    through(cx, "ExInterlockedAddUlong", lock)?;
    let value = cx.read(to)?;
    cx.write(to, value.wrapping_add(increment))?;
    Ok(value)
}

/// `ExInterlockedAddLargeInteger`: the value before.
///
/// # Errors
/// As [`insert_head`].
pub(crate) fn add_large_integer(
    cx: &mut Cx<'_>,
    to: DriverPtr<i64>,
    increment: i64,
    lock: DriverPtr<u64>,
) -> Flow<i64> {
    through(cx, "ExInterlockedAddLargeInteger", lock)?;
    let value = cx.read(to)?;
    cx.write(to, value.wrapping_add(increment))?;
    Ok(value)
}
