//! Ranges of bytes of a file that are locked.
//!
//! Pages: *ZwLockFile function*, *ZwUnlockFile function*, *IRP_MJ_LOCK_CONTROL (file systems)*, *LockFileEx function*. A lock is an open file's, by a key. What
//! one has exclusively is neither read nor written by another; what is shared is not written by anybody. With its last handle a file gives its locks
//! back. Who waits for a range is served in the order of asking, as far as what is locked allows. What becomes of those who wait when their own
//! file loses its last handle is on no page: they are cancelled.

use std::ops::Range;

use abi::{
    DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IRP, IRP_MN_LOCK, IRP_MN_UNLOCK_ALL,
    IRP_MN_UNLOCK_ALL_BY_KEY, IRP_MN_UNLOCK_SINGLE, NtStatus, SL_EXCLUSIVE_LOCK, SL_FAIL_IMMEDIATELY,
};
use engine::Flow;

use super::State;
use super::dispatch::Asked;
use super::tree::NodeId;
use crate::cx::{Cx, Kernel};
use crate::io::system_request::Answer;
use crate::{io::cancel, pnp};

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

/// A request that waits for a range that another has.
pub(super) struct Waiting {
    irp: DriverPtr<IRP>,
    wanted: Lock,
}

/// An open file loses its last handle: its locks are given back, and it waits for none.
pub(super) fn release(cx: &mut Cx<'_>, file: u64) -> Flow<()> {
    cx.with(|k| k.fs.locks.retain(|lock| lock.owner.file != file));
    end(cx, NtStatus::CANCELLED, |fs| {
        fs.waiting.iter().position(|waiting| waiting.wanted.owner.file == file)
    })?;
    grant(cx)
}

/// `IRP_MJ_LOCK_CONTROL`; none if the request waits.
pub(super) fn control(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Option<Answer>> {
    let node = match asked.node(cx, "locking")? {
        Ok(node) if cx.with(|k| !k.fs.tree().node(node).is_directory()) => node,
        Ok(_) => return Ok(Some(Answer::failed(NtStatus::INVALID_PARAMETER))),
        Err(status) => return Ok(Some(Answer::failed(status))),
    };
    let minor = cx.read(asked.location + IO_STACK_LOCATION::MinorFunction)?;
    let key = cx.read(asked.location + IO_STACK_LOCATION::Parameters_LockControl_Key)?;
    let owner = Owner { file: asked.file.address, key };
    if minor == IRP_MN_LOCK {
        let Some(range) = range(cx, asked)? else {
            return Ok(Some(Answer::failed(NtStatus::INVALID_LOCK_RANGE)));
        };
        let flags = cx.read(asked.location + IO_STACK_LOCATION::Flags)?;
        let wanted = Lock { node, owner, range, exclusive: flags & SL_EXCLUSIVE_LOCK != 0 };
        return lock(cx, asked, wanted, flags & SL_FAIL_IMMEDIATELY != 0);
    }
    let range = if minor == IRP_MN_UNLOCK_SINGLE { range(cx, asked)? } else { None };
    let status = cx.with(|k| unlock(&mut k.fs.locks, minor, node, owner, range.as_ref()));
    grant(cx)?;
    Ok(Some(Answer::failed(status)))
}

/// Gives back one lock, or all of an open file's, or all of one of its keys'.
fn unlock(
    locks: &mut Vec<Lock>,
    minor: u8,
    node: NodeId,
    owner: Owner,
    range: Option<&Range<u64>>,
) -> NtStatus {
    match minor {
        IRP_MN_UNLOCK_SINGLE => {
            let same = |lock: &Lock| lock.node == node && lock.owner == owner && Some(&lock.range) == range;
            let Some(place) = locks.iter().position(same) else { return NtStatus::RANGE_NOT_LOCKED };
            locks.remove(place);
        }
        IRP_MN_UNLOCK_ALL => locks.retain(|lock| lock.owner.file != owner.file),
        IRP_MN_UNLOCK_ALL_BY_KEY => locks.retain(|lock| lock.owner != owner),
        _ => return NtStatus::INVALID_DEVICE_REQUEST,
    }
    NtStatus::SUCCESS
}

/// The range that is asked for; none if it goes beyond what can be numbered.
fn range(cx: &mut Cx<'_>, asked: &Asked) -> Flow<Option<Range<u64>>> {
    let start = cx.read(asked.location + IO_STACK_LOCATION::Parameters_LockControl_ByteOffset)?;
    let length = cx.read(asked.location + IO_STACK_LOCATION::Parameters_LockControl_Length)?;
    let (start, length) = (start.cast_unsigned(), cx.read(length)?.cast_unsigned());
    Ok(start.checked_add(length).map(|end| start..end))
}

/// What is exclusive overlaps nothing; what is shared may overlap what is shared, and its own owner's.
fn is_refused(locks: &[Lock], wanted: &Lock) -> bool {
    let stops = |lock: &Lock| wanted.exclusive || lock.exclusive && lock.owner != wanted.owner;
    locks.iter().any(|lock| lock.meets(wanted.node, &wanted.range) && stops(lock))
}

/// Locks a range; none if the request waits for it.
fn lock(cx: &mut Cx<'_>, asked: &Asked, wanted: Lock, at_once: bool) -> Flow<Option<Answer>> {
    if !cx.with(|k| is_refused(&k.fs.locks, &wanted)) {
        cx.with(|k| k.fs.locks.push(wanted));
        return Ok(Some(Answer::failed(NtStatus::SUCCESS)));
    }
    if at_once {
        return Ok(Some(Answer::failed(NtStatus::LOCK_NOT_GRANTED)));
    }
    let irp = asked.irp;
    pnp::bus::hold(cx, irp, asked.location, "FolderCancelLock", |k| {
        k.fs.waiting.push(Waiting { irp, wanted });
    })?;
    // The range may have been given back meanwhile.
    grant(cx)?;
    Ok(None)
}

/// Requests that wait get the ranges that are not locked any more.
fn grant(cx: &mut Cx<'_>) -> Flow<()> {
    end(cx, NtStatus::SUCCESS, |fs| {
        let place = fs.waiting.iter().position(|waiting| !is_refused(&fs.locks, &waiting.wanted))?;
        fs.locks.push(fs.waiting[place].wanted.clone());
        Some(place)
    })
}

/// The requests that `next` finds among those that wait, one by one, end with this status.
fn end(cx: &mut Cx<'_>, status: NtStatus, next: impl Fn(&mut State) -> Option<usize>) -> Flow<()> {
    while cx.with(|k| !k.fs.waiting.is_empty()) {
        let irql = cancel::acquire(cx)?;
        let ended = cx.with(|k| next(&mut k.fs).map(|place| k.fs.waiting.remove(place).irp));
        if let Some(irp) = ended {
            // A cancel routine takes it from the list with this lock held: it is ours.
            let _ = cancel::take_routine(cx, irp)?;
        }
        cancel::release(cx, irql)?;
        let Some(irp) = ended else { break };
        let _ = pnp::bus::complete(cx, irp, Some(status), None)?;
    }
    Ok(())
}

/// The cancel routine of a request that waits.
///
/// # Errors
/// As completing.
pub(crate) fn cancel(cx: &mut Cx<'_>, _device: DriverPtr<DEVICE_OBJECT>, irp: DriverPtr<IRP>) -> Flow<()> {
    let was_waiting = cx.with(|k| {
        let place = k.fs.waiting.iter().position(|waiting| waiting.irp == irp);
        place.map(|place| k.fs.waiting.remove(place)).is_some()
    });
    let irql = cx.read(irp + IRP::CancelIrql)?;
    cancel::release(cx, irql)?;
    if was_waiting {
        pnp::bus::complete(cx, irp, Some(NtStatus::CANCELLED), None).map(|_| ())
    } else {
        Ok(())
    }
}
