//! Device queues: requests that wait for a device, in order of arrival or by key.
//!
//! Pages: *KeInsertDeviceQueue function*, *KeInsertByKeyDeviceQueue function*, *KeRemoveDeviceQueue function*,
//! *KeRemoveByKeyDeviceQueue function*, *KeRemoveEntryDeviceQueue function*. Named `Ke*`, used by the `IoStartPacket`
//! family. The queue is all in driver memory; its own lock is never held across anything, so it is not taken.

use abi::{DriverPtr, KDEVICE_QUEUE, KDEVICE_QUEUE_ENTRY, LIST_ENTRY};
use engine::Flow;

use crate::cx::Cx;
use crate::ke::links::{self, Broken};
use crate::verdict::Verdict;

/// `Type` of a device queue (`DeviceQueueObject` of `KOBJECTS`).
const TYPE: i16 = 20;

/// `KeInitializeDeviceQueue`.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn initialize(cx: &mut Cx<'_>, queue: DriverPtr<KDEVICE_QUEUE>) -> Flow<()> {
    cx.write(queue + KDEVICE_QUEUE::Type, TYPE)?;
    cx.write(queue + KDEVICE_QUEUE::Size, 0x28)?;
    let head = queue + KDEVICE_QUEUE::DeviceListHead;
    links::initialize(cx.engine(), head).map_err(|bad| cx.bad_pointer(bad))?;
    cx.write(queue + KDEVICE_QUEUE::Lock, 0)?;
    cx.write(queue + KDEVICE_QUEUE::Busy, 0)
}

/// `KeInsertDeviceQueue`: at the end, if the device is busy; else the device becomes busy. Whether it was inserted.
///
/// # Errors
/// A verdict if the queue or entry is bad, or the entry is in a queue.
pub(crate) fn insert(
    cx: &mut Cx<'_>,
    queue: DriverPtr<KDEVICE_QUEUE>,
    entry: DriverPtr<KDEVICE_QUEUE_ENTRY>,
) -> Flow<bool> {
    if !begin_insert(cx, queue, entry)? {
        return Ok(false);
    }
    insert_before(cx, queue + KDEVICE_QUEUE::DeviceListHead, entry)?;
    Ok(true)
}

/// `KeInsertByKeyDeviceQueue`: behind the last entry whose key is not greater.
///
/// # Errors
/// As [`insert`].
pub(crate) fn insert_by_key(
    cx: &mut Cx<'_>,
    queue: DriverPtr<KDEVICE_QUEUE>,
    entry: DriverPtr<KDEVICE_QUEUE_ENTRY>,
    key: u32,
) -> Flow<bool> {
    cx.write(entry + KDEVICE_QUEUE_ENTRY::SortKey, key)?;
    if !begin_insert(cx, queue, entry)? {
        return Ok(false);
    }
    let waiting = entries(cx, queue)?;
    let mut before = queue + KDEVICE_QUEUE::DeviceListHead;
    for other in waiting {
        if cx.read(other + KDEVICE_QUEUE_ENTRY::SortKey)? > key {
            before = other + KDEVICE_QUEUE_ENTRY::DeviceListEntry;
            break;
        }
    }
    insert_before(cx, before, entry)?;
    Ok(true)
}

fn begin_insert(
    cx: &mut Cx<'_>,
    queue: DriverPtr<KDEVICE_QUEUE>,
    entry: DriverPtr<KDEVICE_QUEUE_ENTRY>,
) -> Flow<bool> {
    if !is_empty(cx, queue) && entries(cx, queue)?.contains(&entry) {
        let message = format!(
            "the entry {:#x} is to be inserted into the device queue {:#x}, where it is already",
            entry.address, queue.address
        );
        return Err(cx.stop(Verdict::error("device-queue-entry-twice", message)));
    }
    let busy = cx.read(queue + KDEVICE_QUEUE::Busy)? != 0;
    cx.write(queue + KDEVICE_QUEUE::Busy, 1)?;
    cx.write(entry + KDEVICE_QUEUE_ENTRY::Inserted, u8::from(busy))?;
    Ok(busy)
}

/// The routines as drivers call them: a queue that is not busy is reported.
pub(crate) mod ddi {
    use abi::{DriverPtr, KDEVICE_QUEUE, KDEVICE_QUEUE_ENTRY};
    use engine::Flow;

    use crate::cx::Cx;
    use crate::verdict::Verdict;

    /// `KeRemoveDeviceQueue`.
    ///
    /// # Errors
    /// As [`super::remove`].
    pub(crate) fn remove(
        cx: &mut Cx<'_>,
        queue: DriverPtr<KDEVICE_QUEUE>,
    ) -> Flow<DriverPtr<KDEVICE_QUEUE_ENTRY>> {
        expect_busy(cx, queue, "KeRemoveDeviceQueue")?;
        super::remove(cx, queue)
    }

    /// `KeRemoveByKeyDeviceQueue`.
    ///
    /// # Errors
    /// As [`super::remove_by_key`].
    pub(crate) fn remove_by_key(
        cx: &mut Cx<'_>,
        queue: DriverPtr<KDEVICE_QUEUE>,
        key: u32,
    ) -> Flow<DriverPtr<KDEVICE_QUEUE_ENTRY>> {
        expect_busy(cx, queue, "KeRemoveByKeyDeviceQueue")?;
        super::remove_by_key(cx, queue, key)
    }

    fn expect_busy(cx: &mut Cx<'_>, queue: DriverPtr<KDEVICE_QUEUE>, what: &str) -> Flow<()> {
        if cx.read(queue + KDEVICE_QUEUE::Busy)? == 0 {
            let message = format!(
                "{what} was called for the device queue {:#x}, which is not busy: nothing was inserted since it became free",
                queue.address
            );
            cx.report(Verdict::warning("device-queue-not-busy", message));
        }
        Ok(())
    }
}

/// `KeRemoveDeviceQueue`: the first entry; null, and the device is not busy any more, if there is none.
///
/// # Errors
/// A verdict if the queue is bad.
pub(crate) fn remove(
    cx: &mut Cx<'_>,
    queue: DriverPtr<KDEVICE_QUEUE>,
) -> Flow<DriverPtr<KDEVICE_QUEUE_ENTRY>> {
    if is_empty(cx, queue) {
        return take(cx, queue, None);
    }
    let first = entries(cx, queue)?.first().copied();
    take(cx, queue, first)
}

/// `KeRemoveByKeyDeviceQueue`: the first entry whose key is not less than `key`, else the first.
///
/// # Errors
/// As [`remove`].
pub(crate) fn remove_by_key(
    cx: &mut Cx<'_>,
    queue: DriverPtr<KDEVICE_QUEUE>,
    key: u32,
) -> Flow<DriverPtr<KDEVICE_QUEUE_ENTRY>> {
    let waiting = entries(cx, queue)?;
    let mut chosen = waiting.first().copied();
    for entry in waiting {
        if cx.read(entry + KDEVICE_QUEUE_ENTRY::SortKey)? >= key {
            chosen = Some(entry);
            break;
        }
    }
    take(cx, queue, chosen)
}

fn take(
    cx: &mut Cx<'_>,
    queue: DriverPtr<KDEVICE_QUEUE>,
    entry: Option<DriverPtr<KDEVICE_QUEUE_ENTRY>>,
) -> Flow<DriverPtr<KDEVICE_QUEUE_ENTRY>> {
    match entry {
        None => {
            cx.write(queue + KDEVICE_QUEUE::Busy, 0)?;
            Ok(DriverPtr::NULL)
        }
        Some(entry) => {
            unlink(cx, entry)?;
            Ok(entry)
        }
    }
}

/// `KeRemoveEntryDeviceQueue`: takes this entry out. Whether it was in.
///
/// # Errors
/// A verdict if queue or entry are bad.
pub(crate) fn remove_entry(
    cx: &mut Cx<'_>,
    _queue: DriverPtr<KDEVICE_QUEUE>,
    entry: DriverPtr<KDEVICE_QUEUE_ENTRY>,
) -> Flow<bool> {
    if cx.read(entry + KDEVICE_QUEUE_ENTRY::Inserted)? == 0 {
        return Ok(false);
    }
    unlink(cx, entry)?;
    Ok(true)
}

fn insert_before(
    cx: &mut Cx<'_>,
    before: DriverPtr<LIST_ENTRY>,
    entry: DriverPtr<KDEVICE_QUEUE_ENTRY>,
) -> Flow<()> {
    let link = entry + KDEVICE_QUEUE_ENTRY::DeviceListEntry;
    links::insert_tail(cx.engine(), before, link).map_err(|broken| damaged(cx, broken))
}

fn unlink(cx: &mut Cx<'_>, entry: DriverPtr<KDEVICE_QUEUE_ENTRY>) -> Flow<()> {
    let link = entry + KDEVICE_QUEUE_ENTRY::DeviceListEntry;
    links::remove(cx.engine(), link).map_err(|broken| damaged(cx, broken))?;
    cx.write(entry + KDEVICE_QUEUE_ENTRY::Inserted, 0)
}

fn damaged(cx: &mut Cx<'_>, broken: Broken) -> engine::Leave {
    match broken {
        Broken::Memory(bad) => cx.bad_pointer(bad),
        Broken::Links(at) => {
            let message =
                format!("the device queue is damaged: the neighbours of {at:#x} do not point at it");
            let verdict = Verdict::error("list-damaged", message).bug_check(0x139, [3, 0, 0, 0]);
            cx.stop(verdict)
        }
    }
}

/// Whether one look shows that it is a queue in which nothing waits: mostly so. Conservative: false may be wrong.
#[inline]
fn is_empty(cx: &mut Cx<'_>, queue: DriverPtr<KDEVICE_QUEUE>) -> bool {
    let head = queue + KDEVICE_QUEUE::DeviceListHead;
    let kind = cx.engine().read_plain(queue + KDEVICE_QUEUE::Type);
    kind == Some(TYPE) && cx.engine().read_plain(head + LIST_ENTRY::Flink) == Some(head)
}

/// The entries that wait, first to last.
pub(super) fn entries(
    cx: &mut Cx<'_>,
    queue: DriverPtr<KDEVICE_QUEUE>,
) -> Flow<Vec<DriverPtr<KDEVICE_QUEUE_ENTRY>>> {
    const MOST: usize = 0x10_0000;
    if cx.read(queue + KDEVICE_QUEUE::Type)? != TYPE {
        let message = format!(
            "{:#x} is used as a device queue and was not initialised with KeInitializeDeviceQueue",
            queue.address
        );
        return Err(cx.stop(Verdict::error("device-queue-not-initialized", message)));
    }
    let head = queue + KDEVICE_QUEUE::DeviceListHead;
    let mut entries = Vec::new();
    let mut next = cx.read(head + LIST_ENTRY::Flink)?;
    while next != head {
        entries.push(next.container(KDEVICE_QUEUE_ENTRY::DeviceListEntry));
        next = cx.read(next + LIST_ENTRY::Flink)?;
        if entries.len() > MOST {
            return Err(damaged(cx, Broken::Links(next.address)));
        }
    }
    Ok(entries)
}
