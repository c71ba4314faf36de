//! Sequenced lists: singly linked, without a lock.
//!
//! Pages: *Using Lookaside Lists*, *ExInterlockedPushEntrySList macro*, *ExQueryDepthSList function*,
//! *InitializeSListHead*. On x64 the header holds depth (16 bits) and sequence (48) in its first word and the first
//! entry's address in the upper 60 bits of its second; header and entries are 16-byte aligned.

use abi::{DriverPtr, NtStatus, SLIST_ENTRY, SLIST_HEADER};
use engine::Flow;

use super::{exception, lookaside};
use crate::cx::Cx;
use crate::event::AccessKind;
use crate::mm::accesses;

type Head = DriverPtr<SLIST_HEADER>;
type Entry = DriverPtr<SLIST_ENTRY>;

const ENTRY: u64 = !0xF;
/// Bytes of an entry's `Next`.
const NEXT: u64 = 8;

fn aligned(cx: &mut Cx<'_>, address: u64, name: &str) -> Flow<()> {
    if address.is_multiple_of(16) {
        return Ok(());
    }
    Err(exception::raise(cx, NtStatus::DATATYPE_MISALIGNMENT, name))
}

/// Depth and first entry.
fn read(cx: &mut Cx<'_>, head: Head, name: &str) -> Flow<(u64, Entry)> {
    aligned(cx, head.address, name)?;
    let (word, region) = (cx.read(head + SLIST_HEADER::Alignment)?, cx.read(head + SLIST_HEADER::Region)?);
    Ok((word, DriverPtr::new(region & ENTRY)))
}

/// Stores a new first entry, with the depth changed by `by` and the next sequence number.
fn write(cx: &mut Cx<'_>, head: Head, word: u64, first: Entry, by: i16) -> Flow<()> {
    let depth = depth_of(word).wrapping_add_signed(by);
    let sequence = (word >> 16).wrapping_add(1) << 16;
    let region = cx.read(head + SLIST_HEADER::Region)? & !ENTRY;
    cx.write(head + SLIST_HEADER::Alignment, sequence | u64::from(depth))?;
    cx.write(head + SLIST_HEADER::Region, first.address | region)?;
    accesses::interlocked(cx, head.address, size_of::<SLIST_HEADER>() as u64);
    Ok(())
}

fn depth_of(word: u64) -> u16 {
    let [low, high, ..] = word.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// `InitializeSListHead`.
///
/// # Errors
/// STATUS_DATATYPE_MISALIGNMENT, here and below.
pub(crate) fn initialize(cx: &mut Cx<'_>, head: Head) -> Flow<()> {
    aligned(cx, head.address, "InitializeSListHead")?;
    cx.write(head + SLIST_HEADER::Alignment, 0)?;
    cx.write(head + SLIST_HEADER::Region, 0)
}

/// `ExpInterlockedPushEntrySList`: the entry that was first, or null.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn push(cx: &mut Cx<'_>, head: Head, entry: Entry) -> Flow<Entry> {
    let (word, first) = read(cx, head, "ExInterlockedPushEntrySList")?;
    aligned(cx, entry.address, "ExInterlockedPushEntrySList")?;
    cx.write(entry + SLIST_ENTRY::Next, first)?;
    accesses::by_routine(cx, entry.address, NEXT, AccessKind::Store);
    write(cx, head, word, entry, 1)?;
    lookaside::keeps(cx, head.address, entry.address);
    Ok(first)
}

/// `ExpInterlockedPopEntrySList`: the entry that was first, or null.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn pop(cx: &mut Cx<'_>, head: Head) -> Flow<Entry> {
    let (word, first) = read(cx, head, "ExInterlockedPopEntrySList")?;
    if !first.is_null() {
        lookaside::gives(cx, head.address, first.address);
        let next = cx.read(first + SLIST_ENTRY::Next)?;
        write(cx, head, word, next, -1)?;
        // As of one that has taken the entry, which is no other's from there on.
        accesses::by_routine(cx, first.address, NEXT, AccessKind::Load);
    }
    Ok(first)
}

/// `ExpInterlockedFlushSList`: all entries, linked, the first of them; the list is empty.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn flush(cx: &mut Cx<'_>, head: Head) -> Flow<Entry> {
    let (word, first) = read(cx, head, "ExInterlockedFlushSList")?;
    write(cx, head, word & !0xFFFF, DriverPtr::NULL, 0)?;
    let mut entry = first;
    while cx.engine().is_checked() && !entry.is_null() {
        lookaside::gives(cx, head.address, entry.address);
        entry = cx.read(entry + SLIST_ENTRY::Next)?;
    }
    Ok(first)
}

/// `ExQueryDepthSList`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn depth(cx: &mut Cx<'_>, head: Head) -> Flow<u16> {
    Ok(depth_of(read(cx, head, "ExQueryDepthSList")?.0))
}
