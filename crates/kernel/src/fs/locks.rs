//! Ranges of bytes of a file that are locked.
//!
//! Pages: *ZwLockFile function*, *ZwUnlockFile function*, *IRP_MJ_LOCK_CONTROL (file systems)*, *LockFileEx function*. A lock is an open file's, by a key. What
//! one has exclusively is neither read nor written by another; what is shared is not written by anybody. With its last handle a file gives its locks
//! back. Not here: waiting for a range that another has, which stops by name.

use std::ops::Range;

use abi::{
    IO_STACK_LOCATION, IRP_MN_LOCK, IRP_MN_UNLOCK_ALL, IRP_MN_UNLOCK_ALL_BY_KEY, IRP_MN_UNLOCK_SINGLE,
    NtStatus, SL_EXCLUSIVE_LOCK, SL_FAIL_IMMEDIATELY,
};
use engine::Flow;

use super::dispatch::Asked;
use super::tree::NodeId;
use crate::cx::{Cx, Kernel};
use crate::io::send::Answer;
use crate::verdict::Verdict;

/// A range that is locked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lock {
    node: NodeId,
    owner: Owner,
    range: Range<u64>,
    exclusive: bool,
}

/// Whose a lock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    /// The file object.
    pub(super) file: u64,
    pub(super) key: u32,
}

impl Lock {
    /// Whether it is of the file, and has something of the range.
    fn meets(&self, node: NodeId, range: &Range<u64>) -> bool {
        self.node == node && self.range.start < range.end && range.start < self.range.end
    }
}

/// Whether who is no or another owner may not read, or write, this range.
pub(super) fn conflicts(k: &Kernel, node: NodeId, owner: Owner, range: &Range<u64>, write: bool) -> bool {
    let stops = |lock: &Lock| if lock.exclusive { lock.owner != owner } else { write };
    k.fs.locks.iter().any(|lock| lock.meets(node, range) && stops(lock))
}

/// An open file's locks are given back.
pub(super) fn release(locks: &mut Vec<Lock>, file: u64) {
    locks.retain(|lock| lock.owner.file != file);
}

/// `IRP_MJ_LOCK_CONTROL`.
pub(super) fn control(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Answer> {
    let node = match asked.node(cx, "locking")? {
        Ok(node) if cx.with(|k| !k.fs.tree().node(node).is_directory()) => node,
        Ok(_) => return Ok(Answer::failed(NtStatus::INVALID_PARAMETER)),
        Err(status) => return Ok(Answer::failed(status)),
    };
    let minor = cx.read(asked.location + IO_STACK_LOCATION::MinorFunction)?;
    let key = cx.read(asked.location + IO_STACK_LOCATION::Parameters_LockControl_Key)?;
    let owner = Owner { file: asked.file.address, key };
    let status = match minor {
        IRP_MN_LOCK => {
            let flags = cx.read(asked.location + IO_STACK_LOCATION::Flags)?;
            match range(cx, asked)? {
                Some(range) => {
                    lock(cx, Lock { node, owner, range, exclusive: flags & SL_EXCLUSIVE_LOCK != 0 }, flags)?
                }
                None => NtStatus::INVALID_LOCK_RANGE,
            }
        }
        IRP_MN_UNLOCK_SINGLE => {
            let range = range(cx, asked)?;
            cx.with(|k| {
                let same = |lock: &Lock| {
                    lock.node == node && lock.owner == owner && Some(&lock.range) == range.as_ref()
                };
                match k.fs.locks.iter().position(same) {
                    Some(place) => {
                        k.fs.locks.remove(place);
                        NtStatus::SUCCESS
                    }
                    None => NtStatus::RANGE_NOT_LOCKED,
                }
            })
        }
        IRP_MN_UNLOCK_ALL => cx.with(|k| {
            release(&mut k.fs.locks, owner.file);
            NtStatus::SUCCESS
        }),
        IRP_MN_UNLOCK_ALL_BY_KEY => cx.with(|k| {
            k.fs.locks.retain(|lock| lock.owner != owner);
            NtStatus::SUCCESS
        }),
        _ => NtStatus::INVALID_DEVICE_REQUEST,
    };
    Ok(Answer::failed(status))
}

/// The range that is asked for; none if it goes beyond what can be numbered.
fn range(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Option<Range<u64>>> {
    let start = cx.read(asked.location + IO_STACK_LOCATION::Parameters_LockControl_ByteOffset)?;
    let length = cx.read(asked.location + IO_STACK_LOCATION::Parameters_LockControl_Length)?;
    let (start, length) = (start.cast_unsigned(), cx.read(length)?.cast_unsigned());
    Ok(start.checked_add(length).map(|end| start..end))
}

/// What is exclusive overlaps nothing; what is shared may overlap what is shared, and its own owner's.
fn lock(cx: &mut Cx<'_>, wanted: Lock, flags: u8) -> Flow<NtStatus> {
    let refused = cx.with(|k| {
        let stops = |lock: &Lock| wanted.exclusive || lock.exclusive && lock.owner != wanted.owner;
        k.fs.locks.iter().any(|lock| lock.meets(wanted.node, &wanted.range) && stops(lock))
    });
    if !refused {
        cx.with(|k| k.fs.locks.push(wanted));
        return Ok(NtStatus::SUCCESS);
    }
    if flags & SL_FAIL_IMMEDIATELY == 0 {
        let what = "ZwLockFile that waits for a range that another has locked";
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    Ok(NtStatus::LOCK_NOT_GRANTED)
}
