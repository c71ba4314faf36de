//! Push locks. Follows *ExInitializePushLock function*, *ExAcquirePushLockExclusive macro*, *ExAcquirePushLockShared macro* and
//! their neighbours; the macros call the routines with `Ex` at the end of their names.
//!
//! Any number of threads share a lock, or one has it alone. Threads get it in the order of arrival; one that wants to
//! share it waits behind one that wants it alone. Its holders are known here, and the lock's word says whether there are any;
//! what else Windows has there is its own business. Flags ask for no boost of the owner's priority; none is boosted here.

use std::collections::VecDeque;

use abi::DriverPtr;
use engine::{Flow, Leave, StrandId};

use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind, LockKind};
use crate::ke::irql::APC_LEVEL;
use crate::ke::lock_order::{self, Hold};
use crate::ke::{irql, region, thread, wait, who_waits};
use crate::verdict::Verdict;
use crate::witness;

/// An `EX_PUSH_LOCK`.
type Lock = DriverPtr<u64>;

/// In the lock's word: a thread has it; a thread waits. Above are those that share it.
const LOCKED: u64 = 1;
const WAITING: u64 = 2;
const SHARE_SHIFT: u32 = 4;

/// `KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE`.
const INVALID_RELEASE: u32 = 0x162;

/// A push lock that is held.
#[derive(Default)]
pub(crate) struct State {
    alone: Option<Holder>,
    /// A thread may share it more than once.
    shared: Vec<Holder>,
    /// In the order of arrival, and whether they want it alone.
    waiters: VecDeque<(StrandId, bool)>,
}

/// A thread that has it.
#[derive(Clone, Copy)]
struct Holder {
    strand: StrandId,
    /// The moment when it acquired it; none as long as it has not run since.
    acquired: Option<u64>,
}

impl Holder {
    const fn new(strand: StrandId) -> Self {
        Self { strand, acquired: None }
    }
}

impl State {
    /// Who holds it, alone or not.
    fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.alone.iter().chain(&self.shared)
    }

    fn is_free(&self) -> bool {
        self.alone.is_none() && self.shared.is_empty()
    }

    /// Whether this one has it and no other has or wants it.
    pub(super) fn is_alone(&self, strand: StrandId) -> bool {
        let is_own = self.holders().all(|holder| holder.strand == strand);
        is_own && self.waiters.is_empty()
    }

    fn owns(&self, strand: StrandId) -> bool {
        self.holders().any(|holder| holder.strand == strand)
    }

    /// Takes it if that is possible at once.
    fn take(&mut self, strand: StrandId, alone: bool) -> bool {
        if alone && self.is_free() {
            self.alone = Some(Holder::new(strand));
            return true;
        }
        let wanted = self.waiters.iter().any(|(_, alone)| *alone);
        if !alone && self.alone.is_none() && !wanted {
            self.shared.push(Holder::new(strand));
            return true;
        }
        false
    }

    /// Gives it up; how the thread held it. None if it does not hold it so.
    fn give(&mut self, strand: StrandId, alone: Option<bool>) -> Option<LockKind> {
        if alone != Some(false) && self.alone.is_some_and(|holder| holder.strand == strand) {
            self.alone = None;
            return Some(LockKind::PushLock);
        }
        let at =
            self.shared.iter().position(|holder| holder.strand == strand).filter(|_| alone != Some(true));
        at.map(|at| self.shared.swap_remove(at)).map(|_| LockKind::SharedPushLock)
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
                self.alone = Some(Holder::new(strand));
            } else {
                self.shared.push(Holder::new(strand));
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
pub(crate) fn initialize(cx: &mut Cx<'_>, lock: Lock) -> Flow<()> {
    if cx.with(|k| k.ex.push_locks.contains_key(&lock.address)) {
        let message =
            format!("ExInitializePushLock was called for {:#x}, which a thread holds", lock.address);
        let verdict = Verdict::error("push-lock-initialized-while-held", message);
        return Err(stop_held(cx, lock, verdict));
    }
    cx.with(|k| k.ke.lock_order.forget(lock.address, 8));
    cx.write(lock, 0)
}

/// `ExAcquirePushLockExclusiveEx`.
///
/// # Errors
/// A verdict if the pointer is bad, the lock's word is damaged, or the caller waits for itself, here and below;
/// [`Leave`] if the machine ends meanwhile.
pub(crate) fn acquire_exclusive(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    acquire(cx, lock, true, "ExAcquirePushLockExclusiveEx")
}

/// `ExAcquirePushLockSharedEx`.
///
/// # Errors
/// As [`acquire_exclusive`].
pub(crate) fn acquire_shared(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    acquire(cx, lock, false, "ExAcquirePushLockSharedEx")
}

/// `ExTryAcquirePushLockExclusiveEx`: whether it was free, and is the caller's now.
///
/// # Errors
/// A verdict if the pointer is bad or the lock's word is damaged.
pub(crate) fn try_acquire_exclusive(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<bool> {
    expect_usable(cx, lock, "ExTryAcquirePushLockExclusiveEx")?;
    attempt(cx, lock, true, false)
}

/// `ExTryAcquirePushLockSharedEx`: whether it could be shared, and is now.
///
/// # Errors
/// As [`try_acquire_exclusive`].
pub(crate) fn try_acquire_shared(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<bool> {
    expect_usable(cx, lock, "ExTryAcquirePushLockSharedEx")?;
    attempt(cx, lock, false, false)
}

/// `ExReleasePushLockExclusiveEx`.
///
/// # Errors
/// A verdict if the caller does not hold it so.
pub(crate) fn release_exclusive(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    release_as(cx, lock, Some(true), "ExReleasePushLockExclusiveEx")
}

/// `ExReleasePushLockSharedEx`.
///
/// # Errors
/// As [`release_exclusive`].
pub(crate) fn release_shared(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    release_as(cx, lock, Some(false), "ExReleasePushLockSharedEx")
}

/// `ExReleasePushLockEx`: however the caller holds it.
///
/// # Errors
/// As [`release_exclusive`].
pub(crate) fn release(cx: &mut Cx<'_>, lock: Lock, _flags: u32) -> Flow<()> {
    release_as(cx, lock, None, "ExReleasePushLockEx")
}

fn acquire(cx: &mut Cx<'_>, lock: Lock, alone: bool, name: &str) -> Flow<()> {
    expect_usable(cx, lock, name)?;
    if attempt(cx, lock, alone, true)? {
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
    wait::for_grant(cx, lock.address, name)?;
    note_acquired(cx, lock, alone, true)
}

/// `waits`: if it cannot be had, the caller waits for it.
fn attempt(cx: &mut Cx<'_>, lock: Lock, alone: bool, waits: bool) -> Flow<bool> {
    let taken = cx.with(|k| {
        let strand = k.ke.processor().thread;
        k.ex.push_locks.entry(lock.address).or_default().take(strand, alone)
    });
    if taken {
        note_acquired(cx, lock, alone, waits)?;
    }
    show(cx, lock)?;
    Ok(taken)
}

/// The current thread has acquired it, or shares it once more.
fn note_acquired(cx: &mut Cx<'_>, lock: Lock, alone: bool, waits: bool) -> Flow<()> {
    let moment = witness::moment(cx);
    cx.with(|k| {
        let strand = k.ke.processor().thread;
        let State { alone, shared, .. } = k.ex.push_locks.entry(lock.address).or_default();
        let own = alone.iter_mut().chain(shared).filter(|holder| holder.strand == strand);
        own.filter(|holder| holder.acquired.is_none()).for_each(|holder| holder.acquired = Some(moment));
    });
    let (lock, kind) = (lock.address, if alone { LockKind::PushLock } else { LockKind::SharedPushLock });
    cx.detail(Kind::LockAcquired, || Event::LockAcquired { lock, kind });
    lock_order::acquired(cx, Hold { lock, kind, acquired: moment }, waits)
}

/// When those that hold it acquired it.
pub(crate) fn acquired(k: &Kernel, at: u64) -> Vec<u64> {
    let holders = k.ex.push_locks.get(&at).into_iter().flat_map(State::holders);
    holders.filter_map(|holder| holder.acquired).collect()
}

fn release_as(cx: &mut Cx<'_>, lock: Lock, alone: Option<bool>, name: &str) -> Flow<()> {
    expect_usable(cx, lock, name)?;
    let given = cx.with(|k| {
        let strand = k.ke.processor().thread;
        let state = k.ex.push_locks.get_mut(&lock.address)?;
        let kind = state.give(strand, alone)?;
        let woken = state.hand_on();
        if state.is_free() {
            k.ex.push_locks.remove(&lock.address);
        }
        for strand in woken {
            wait::grant(k, strand);
        }
        Some(kind)
    });
    let Some(kind) = given else {
        let what = match alone {
            Some(true) => "which its caller does not hold alone",
            Some(false) => "which its caller does not share",
            None => "which its caller does not hold",
        };
        let thread = thread::current_object(cx).address;
        let check = Some((INVALID_RELEASE, [thread, lock.address, 0, 0]));
        return Err(stop(cx, "push-lock-not-held", name, lock, what, check));
    };
    lock_order::released(cx, lock.address);
    cx.detail(Kind::LockReleased, || Event::LockReleased { lock: lock.address, kind });
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
    let verdict = match check {
        Some((code, parameters)) => verdict.bug_check(code, parameters),
        None => verdict,
    };
    stop_held(cx, lock, verdict)
}

/// The verdict with the moments when those that hold the lock acquired it.
fn stop_held(cx: &mut Cx<'_>, lock: Lock, verdict: Verdict) -> Leave {
    let acquired = cx.with(|k| acquired(k, lock.address));
    cx.stop(verdict.acquired(acquired))
}

/// What a thread waits for that wants a push lock, for people.
pub(crate) fn describe(k: &Kernel, at: u64) -> Option<String> {
    let state = k.ex.push_locks.get(&at)?;
    let owner = |holder: &Holder| format!("the {}", thread::name(k, holder.strand));
    let owners: Vec<String> = state.holders().map(owner).collect();
    let how = match (&state.alone, owners.len()) {
        (Some(_), _) => "holds",
        (None, 1) => "shares",
        (None, _) => "share",
    };
    Some(format!("the push lock {}, which {} {how}", who_waits::whereabouts(k, at), owners.join(" and ")))
}
