//! Push locks. Follows *ExInitializePushLock function*, *ExAcquirePushLockExclusive macro*, *ExAcquirePushLockShared macro* and
//! their neighbours; the macros call the routines with `Ex` at the end of their names.
//!
//! Any number of threads share a lock, or one has it alone. Who waits gets it in the order of arrival; a thread that wants to
//! share it waits behind one that wants it alone. Who holds it is known here, and the lock's word says whether anybody does;
//! what else Windows has there is its own business. Flags ask for no boost of the owner's priority; none is boosted here.

use std::collections::VecDeque;

use abi::DriverPtr;
use engine::{Flow, Leave, StrandId};

use crate::cx::{Cx, Kernel};
use crate::ke::processor::APC_LEVEL;
use crate::ke::{irql, region, thread, wait};
use crate::verdict::Verdict;

/// An `EX_PUSH_LOCK`.
type Lock = DriverPtr<u64>;

/// In the lock's word: somebody has it; somebody waits. Above are those that share it.
const LOCKED: u64 = 1;
const WAITING: u64 = 2;
const SHARE_SHIFT: u32 = 4;

/// `KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE`.
const INVALID_RELEASE: u32 = 0x162;

/// A push lock that somebody holds.
#[derive(Default)]
pub(crate) struct State {
    alone: Option<StrandId>,
    /// A thread may share it more than once.
    shared: Vec<StrandId>,
    /// In the order of arrival, and whether they want it alone.
    waiters: VecDeque<(StrandId, bool)>,
}

impl State {
    fn is_free(&self) -> bool {
        self.alone.is_none() && self.shared.is_empty()
    }

    fn owns(&self, strand: StrandId) -> bool {
        self.alone == Some(strand) || self.shared.contains(&strand)
    }

    /// Takes it if that is possible at once.
    fn take(&mut self, strand: StrandId, alone: bool) -> bool {
        if alone && self.is_free() {
            self.alone = Some(strand);
            return true;
        }
        let wanted = self.waiters.iter().any(|(_, alone)| *alone);
        if !alone && self.alone.is_none() && !wanted {
            self.shared.push(strand);
            return true;
        }
        false
    }

    /// Gives it up; false if the thread does not hold it so.
    fn give(&mut self, strand: StrandId, alone: Option<bool>) -> bool {
        if alone != Some(false) && self.alone == Some(strand) {
            self.alone = None;
            return true;
        }
        let at = self.shared.iter().position(|owner| *owner == strand).filter(|_| alone != Some(true));
        at.map(|at| self.shared.swap_remove(at)).is_some()
    }

    /// Hands it to who waits first: one that wants it alone, or all that share it up to the next such one.
    fn hand_on(&mut self) -> Vec<StrandId> {
        let mut woken = Vec::new();
        while let Some(&(strand, alone)) = self.waiters.front() {
            let possible = if alone { self.is_free() } else { self.alone.is_none() };
            if !possible {
                break;
            }
            self.waiters.pop_front();
            if alone {
                self.alone = Some(strand);
            } else {
                self.shared.push(strand);
            }
            woken.push(strand);
        }
        woken
    }

    fn image(&self) -> u64 {
        let held = if self.is_free() { 0 } else { LOCKED };
        let waiting = if self.waiters.is_empty() { 0 } else { WAITING };
        held | waiting | (self.shared.len() as u64) << SHARE_SHIFT
    }
}

/// `ExInitializePushLock`.
///
/// # Errors
/// A verdict if the pointer is bad or a thread holds it.
pub fn initialize(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    if cx.with(|k| k.ex.push_locks.contains_key(&lock.address)) {
        let message =
            format!("ExInitializePushLock was called for {:#x}, which a thread holds", lock.address);
        return Err(cx.stop(Verdict::error("push-lock-initialized-while-held", message)));
    }
    cx.write(lock, 0)
}

/// `ExAcquirePushLockExclusiveEx`.
///
/// # Errors
/// A verdict if the pointer is bad, the lock's word is damaged, or the caller waits for itself, here and below;
/// [`Leave`] if the machine ends meanwhile.
pub fn acquire_exclusive(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    acquire(cx, lock, true, "ExAcquirePushLockExclusiveEx")
}

/// `ExAcquirePushLockSharedEx`.
///
/// # Errors
/// As [`acquire_exclusive`].
pub fn acquire_shared(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    acquire(cx, lock, false, "ExAcquirePushLockSharedEx")
}

/// `ExTryAcquirePushLockExclusiveEx`: whether it was free, and is the caller's now.
///
/// # Errors
/// A verdict if the pointer is bad or the lock's word is damaged.
pub fn try_acquire_exclusive(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<bool> {
    expect_usable(cx, lock, "ExTryAcquirePushLockExclusiveEx")?;
    attempt(cx, lock, true)
}

/// `ExTryAcquirePushLockSharedEx`: whether it could be shared, and is now.
///
/// # Errors
/// As [`try_acquire_exclusive`].
pub fn try_acquire_shared(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<bool> {
    expect_usable(cx, lock, "ExTryAcquirePushLockSharedEx")?;
    attempt(cx, lock, false)
}

/// `ExReleasePushLockExclusiveEx`.
///
/// # Errors
/// A verdict if the caller does not hold it so.
pub fn release_exclusive(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    release_as(cx, lock, Some(true), "ExReleasePushLockExclusiveEx")
}

/// `ExReleasePushLockSharedEx`.
///
/// # Errors
/// As [`release_exclusive`].
pub fn release_shared(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    release_as(cx, lock, Some(false), "ExReleasePushLockSharedEx")
}

/// `ExReleasePushLockEx`: however the caller holds it.
///
/// # Errors
/// As [`release_exclusive`].
pub fn release(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    release_as(cx, lock, None, "ExReleasePushLockEx")
}

fn acquire(cx: &mut Cx<'_>, lock: Lock, alone: bool, name: &str) -> Flow<()> {
    expect_usable(cx, lock, name)?;
    if attempt(cx, lock, alone)? {
        return Ok(());
    }
    let owns = cx.with(|k| {
        let strand = k.ke.processor().thread;
        k.ex.push_locks.get(&lock.address).is_some_and(|state| state.owns(strand))
    });
    if owns {
        let what = "which its caller holds already: it waits for itself";
        return Err(stop(cx, "push-lock-recursion", name, lock, what, None));
    }
    cx.with(|k| {
        let strand = k.ke.processor().thread;
        k.ex.push_locks.entry(lock.address).or_default().waiters.push_back((strand, alone));
    });
    show(cx, lock)?;
    wait::for_grant(cx, lock.address, name)
}

fn attempt(cx: &mut Cx<'_>, lock: Lock, alone: bool) -> Flow<bool> {
    let taken = cx.with(|k| {
        let strand = k.ke.processor().thread;
        k.ex.push_locks.entry(lock.address).or_default().take(strand, alone)
    });
    show(cx, lock)?;
    Ok(taken)
}

fn release_as(cx: &mut Cx<'_>, lock: Lock, alone: Option<bool>, name: &str) -> Flow<()> {
    expect_usable(cx, lock, name)?;
    let given = cx.with(|k| {
        let strand = k.ke.processor().thread;
        let state = k.ex.push_locks.get_mut(&lock.address)?;
        let woken = state.give(strand, alone).then(|| state.hand_on())?;
        if state.is_free() {
            k.ex.push_locks.remove(&lock.address);
        }
        for strand in woken {
            wait::grant(k, strand);
        }
        Some(())
    });
    if given.is_none() {
        let what = match alone {
            Some(true) => "which its caller does not hold alone",
            Some(false) => "which its caller does not share",
            None => "which its caller does not hold",
        };
        let thread = thread::current_object(cx).address;
        let check = Some((INVALID_RELEASE, [thread, lock.address, 0, 0]));
        return Err(stop(cx, "push-lock-not-held", name, lock, what, check));
    }
    show(cx, lock)?;
    irql::settle(cx)
}

fn image(k: &Kernel, at: u64) -> u64 {
    k.ex.push_locks.get(&at).map_or(0, State::image)
}

fn show(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    let image = cx.with(|k| image(k, lock.address));
    cx.write(lock, image)
}

/// The lock's word is as the last routine left it, and the caller has normal kernel APCs disabled.
fn expect_usable(cx: &mut Cx<'_>, lock: Lock, name: &str) -> Flow<()> {
    let (value, image) = (cx.read(lock)?, cx.with(|k| image(k, lock.address)));
    if value != image {
        let what = if image == 0 {
            format!(
                "whose word is {value:#x}: ExInitializePushLock has not initialised it, or it was overwritten"
            )
        } else {
            format!("which a thread holds and which was overwritten with {value:#x}")
        };
        return Err(stop(cx, "push-lock-damaged", name, lock, &what, None));
    }
    if irql::current(cx) < APC_LEVEL && !region::are_apcs_disabled(cx)? {
        let message = format!(
            "{name} was called for the push lock {:#x} outside a critical region: a normal kernel APC could end the thread's turn and ask for the same lock",
            lock.address
        );
        cx.report(Verdict::warning("push-lock-apcs", message));
    }
    Ok(())
}

fn stop(
    cx: &mut Cx<'_>,
    rule: &'static str,
    name: &str,
    lock: Lock,
    what: &str,
    check: Option<(u32, [u64; 4])>,
) -> Leave {
    let message = format!("{name} was called for the push lock {:#x}, {what}", lock.address);
    let verdict = Verdict::error(rule, message);
    cx.stop(match check {
        Some((code, parameters)) => verdict.bug_check(code, parameters),
        None => verdict,
    })
}

/// What a thread waits for that wants a push lock, for people.
pub(crate) fn describe(k: &Kernel, at: u64) -> Option<String> {
    let state = k.ex.push_locks.get(&at)?;
    let owners: Vec<String> = state
        .alone
        .iter()
        .chain(&state.shared)
        .map(|owner| format!("the {}", thread::name(k, *owner)))
        .collect();
    Some(format!("push lock {at:#x}, which {} holds", owners.join(" and ")))
}
