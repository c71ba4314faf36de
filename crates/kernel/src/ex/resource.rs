//! Reader/writer locks: `ERESOURCE`.
//!
//! Pages: *Introduction to ERESOURCE Routines*, *ExAcquireResourceExclusiveLite function*,
//! *ExAcquireResourceSharedLite function*, *ExReleaseResourceLite function*, *ExConvertExclusiveToSharedLite function*. Who owns
//! and who waits is kept here; the members that drivers read are kept true. Priorities of waiters are not boosted.

use std::collections::{BTreeMap, VecDeque};

use abi::{DriverPtr, ERESOURCE, KEVENT, OWNER_ENTRY, RESOURCE_NOT_OWNED, ResourceOwnedExclusive};
use engine::{Flow, Leave};

use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind, LockKind};
use crate::ke::lock_order;
use crate::ke::{event, irql, pageable_object, region, thread, wait, who_waits};
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::witness;

type Resource = DriverPtr<ERESOURCE>;

/// Who owns a resource, and who wants it.
#[derive(Default)]
pub(crate) struct State {
    /// The thread that owns it alone, and how.
    exclusive: Option<(u64, Hold)>,
    /// Threads that share it, and how each does.
    shared: BTreeMap<u64, Hold>,
    waiters: VecDeque<Waiter>,
    contention: u32,
    /// Base of the image that initialized it.
    owner: Option<u64>,
}

/// How a thread owns a resource.
#[derive(Clone, Copy, Default)]
struct Hold {
    /// How often it has acquired it.
    count: u32,
    /// The moment when it did first; none as long as it has not run since.
    acquired: Option<u64>,
}

impl Hold {
    const ONCE: Self = Self { count: 1, acquired: None };
}

#[derive(Clone, Copy)]
struct Waiter {
    thread: u64,
    exclusive: bool,
    event: DriverPtr<KEVENT>,
}

/// How a shared owner goes past waiting exclusive ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Waits behind them, unless it owns the resource already.
    Fair,
    /// Goes past them.
    Starve,
    /// Waits behind them even if it shares it already.
    Wait,
}

impl State {
    fn owns_alone(&self, thread: u64) -> bool {
        self.exclusive.is_some_and(|(owner, _)| owner == thread)
    }

    fn take_exclusive(&mut self, thread: u64) -> bool {
        let free = self.exclusive.is_none() && self.shared.is_empty();
        match &mut self.exclusive {
            Some((owner, hold)) if *owner == thread => hold.count += 1,
            None if free => self.exclusive = Some((thread, Hold::ONCE)),
            _ => return false,
        }
        true
    }

    fn take_shared(&mut self, thread: u64, sharing: Sharing) -> bool {
        if self.owns_alone(thread) {
            return self.take_exclusive(thread);
        }
        let behind = self.waiters.iter().any(|waiter| waiter.exclusive);
        let passes = match sharing {
            Sharing::Fair => !behind || self.shared.contains_key(&thread),
            Sharing::Starve => true,
            Sharing::Wait => !behind,
        };
        let free = self.exclusive.is_none() && passes;
        if free {
            self.shared.entry(thread).or_default().count += 1;
        }
        free
    }

    /// Gives up one of the thread's acquires; false if it has none.
    fn give(&mut self, thread: u64) -> bool {
        if let Some((owner, hold)) = &mut self.exclusive {
            if *owner != thread {
                return false;
            }
            hold.count -= 1;
            if hold.count == 0 {
                self.exclusive = None;
            }
            return true;
        }
        match self.shared.get_mut(&thread) {
            Some(Hold { count: 1, .. }) => self.shared.remove(&thread).is_some(),
            Some(hold) => {
                hold.count -= 1;
                true
            }
            None => false,
        }
    }

    /// Hands the resource to those that wait first: one exclusive, or all shared up to the next exclusive.
    fn hand_on(&mut self) -> Vec<Waiter> {
        let mut woken = Vec::new();
        while let Some(&next) = self.waiters.front() {
            let free = self.exclusive.is_none() && (!next.exclusive || self.shared.is_empty());
            if !free {
                break;
            }
            self.waiters.pop_front();
            if next.exclusive {
                self.exclusive = Some((next.thread, Hold::ONCE));
            } else {
                self.shared.entry(next.thread).or_default().count += 1;
            }
            woken.push(next);
        }
        woken
    }

    /// All that wait to share the resource share it now, also those behind one that waits to have it alone.
    fn let_in_sharers(&mut self) -> Vec<Waiter> {
        let (stay, woken): (VecDeque<_>, VecDeque<_>) =
            self.waiters.drain(..).partition(|waiter| waiter.exclusive);
        self.waiters = stay;
        for waiter in &woken {
            self.shared.entry(waiter.thread).or_default().count += 1;
        }
        woken.into()
    }

    fn waiting(&self, exclusive: bool) -> u32 {
        u32::try_from(self.waiters.iter().filter(|waiter| waiter.exclusive == exclusive).count()).unwrap_or(0)
    }
}

/// `ExInitializeResourceLite`.
///
/// # Errors
/// A verdict if it is initialized already, or is not aligned.
pub(crate) fn initialize(cx: &mut Cx<'_>, resource: Resource) -> Flow<abi::NtStatus> {
    if !resource.address.is_multiple_of(8) {
        let message =
            format!("ExInitializeResourceLite was given {:#x}, which is not aligned", resource.address);
        let verdict = Verdict::verifier("resource-unaligned", message);
        cx.verify(verdict.bug_check(0xC4, [0x3D, 0, 0, resource.address]))?;
    }
    if cx.with(|k| k.ex.resources.contains_key(&resource.address)) {
        let message =
            format!("ExInitializeResourceLite was given {:#x}, which is initialized", resource.address);
        return Err(cx.stop(Verdict::error("resource-initialized-twice", message)));
    }
    pageable_object::initialized(cx, resource.address, "ERESOURCE", pageable_object::SYNCHRONIZES)?;
    cx.write_bytes(resource.address, &[0; size_of::<ERESOURCE>()])?;
    let (owner, _) = pool::caller(cx);
    cx.with(|k| {
        k.ke.lock_order.forget(resource.address, size_of::<ERESOURCE>() as u64);
        k.ex.resources.insert(resource.address, State { owner, ..State::default() })
    });
    Ok(abi::NtStatus::SUCCESS)
}

/// `ExReinitializeResourceLite`: as it was when it was new.
///
/// # Errors
/// A verdict if it is none, or owned.
pub(crate) fn reinitialize(cx: &mut Cx<'_>, resource: Resource) -> Flow<abi::NtStatus> {
    let _success = delete(cx, resource)?;
    initialize(cx, resource)
}

/// `ExDeleteResourceLite`.
///
/// # Errors
/// A verdict if it is none, owned or waited for.
pub(crate) fn delete(cx: &mut Cx<'_>, resource: Resource) -> Flow<abi::NtStatus> {
    let busy = with(cx, resource, "ExDeleteResourceLite", |state| {
        state.exclusive.is_some() || !state.shared.is_empty() || !state.waiters.is_empty()
    })?;
    if busy {
        let message = format!("ExDeleteResourceLite was given {:#x}, which is owned", resource.address);
        let acquired = cx.with(|k| acquired(k, resource.address));
        return Err(cx.stop(Verdict::error("resource-deleted-while-owned", message).acquired(acquired)));
    }
    cx.with(|k| k.ex.resources.remove(&resource.address));
    Ok(abi::NtStatus::SUCCESS)
}

/// `ExAcquireResourceExclusiveLite`.
///
/// # Errors
/// A verdict if it is none, the caller would wait for itself, or APCs are enabled, here and below.
pub(crate) fn acquire_exclusive(cx: &mut Cx<'_>, resource: Resource, may_wait: bool) -> Flow<bool> {
    let name = "ExAcquireResourceExclusiveLite";
    let take = |state: &mut State, thread| state.take_exclusive(thread);
    acquire(cx, resource, name, may_wait, true, take)
}

/// `ExAcquireResourceSharedLite`.
///
/// # Errors
/// As [`acquire_exclusive`].
pub(crate) fn acquire_shared(cx: &mut Cx<'_>, resource: Resource, may_wait: bool) -> Flow<bool> {
    share(cx, resource, "ExAcquireResourceSharedLite", may_wait, Sharing::Fair)
}

/// `ExAcquireSharedStarveExclusive`.
///
/// # Errors
/// As [`acquire_exclusive`].
pub(crate) fn acquire_shared_starve(cx: &mut Cx<'_>, resource: Resource, may_wait: bool) -> Flow<bool> {
    share(cx, resource, "ExAcquireSharedStarveExclusive", may_wait, Sharing::Starve)
}

/// `ExAcquireSharedWaitForExclusive`.
///
/// # Errors
/// As [`acquire_exclusive`].
pub(crate) fn acquire_shared_wait(cx: &mut Cx<'_>, resource: Resource, may_wait: bool) -> Flow<bool> {
    share(cx, resource, "ExAcquireSharedWaitForExclusive", may_wait, Sharing::Wait)
}

fn share(cx: &mut Cx<'_>, resource: Resource, name: &str, may_wait: bool, sharing: Sharing) -> Flow<bool> {
    let take = move |state: &mut State, thread| state.take_shared(thread, sharing);
    acquire(cx, resource, name, may_wait, false, take)
}

fn acquire(
    cx: &mut Cx<'_>,
    resource: Resource,
    name: &str,
    may_wait: bool,
    exclusive: bool,
    take: impl FnOnce(&mut State, u64) -> bool,
) -> Flow<bool> {
    apcs_disabled(cx, resource, name, 0x37)?;
    let thread = thread::current_object(cx).address;
    let (taken, own) = with(cx, resource, name, |state| {
        let own = exclusive && state.shared.contains_key(&thread);
        (take(state, thread), own)
    })?;
    if taken {
        let acquired = note_acquired(cx, resource, thread);
        tell_acquired(cx, resource, exclusive);
        lock_order::acquired(cx, order(resource, exclusive, acquired), may_wait)?;
    }
    if taken || !may_wait {
        show(cx, resource)?;
        return Ok(taken);
    }
    if own {
        let message = format!(
            "{name} was called for {:#x}, which its caller shares: it waits for itself",
            resource.address
        );
        let acquired = cx.with(|k| acquired(k, resource.address));
        return Err(cx.stop(Verdict::error("resource-self-deadlock", message).acquired(acquired)));
    }
    wait_for(cx, resource, name, Waiter { thread, exclusive, event: DriverPtr::NULL })?;
    Ok(true)
}

/// Waits until the resource is handed on to this thread.
fn wait_for(cx: &mut Cx<'_>, resource: Resource, name: &str, waiter: Waiter) -> Flow<()> {
    let event: DriverPtr<KEVENT> =
        pool::allocate(cx, pool::Kind::NonPaged, size_of::<KEVENT>() as u64, pool::tag(b"ReWt"))?;
    if event.is_null() {
        return Err(cx.stop(Verdict::not_implemented("waiting for a resource without memory")));
    }
    event::initialize(cx, event, 1, false)?;
    with(cx, resource, name, |state| {
        state.contention += 1;
        state.waiters.push_back(Waiter { event, ..waiter });
    })?;
    show(cx, resource)?;
    let _woken = wait::for_object(cx, event)?;
    let acquired = note_acquired(cx, resource, waiter.thread);
    tell_acquired(cx, resource, waiter.exclusive);
    lock_order::acquired(cx, order(resource, waiter.exclusive, acquired), true)?;
    pool::free(cx, event)
}

const fn kind(exclusive: bool) -> LockKind {
    if exclusive { LockKind::Resource } else { LockKind::SharedResource }
}

/// As the order of locks knows it.
const fn order(resource: Resource, exclusive: bool, acquired: u64) -> lock_order::Hold {
    lock_order::Hold { lock: resource.address, kind: kind(exclusive), acquired }
}

fn tell_acquired(cx: &Cx<'_>, resource: Resource, exclusive: bool) {
    let kind = kind(exclusive);
    cx.detail(Kind::LockAcquired, || Event::LockAcquired { lock: resource.address, kind });
}

/// The current thread has acquired it, first or once more: the moment of that.
fn note_acquired(cx: &mut Cx<'_>, resource: Resource, thread: u64) -> u64 {
    let moment = witness::moment(cx);
    cx.with(|k| {
        let Some(State { exclusive, shared, .. }) = k.ex.resources.get_mut(&resource.address) else { return };
        let alone = exclusive.as_mut().filter(|(owner, _)| *owner == thread).map(|(_, hold)| hold);
        if let Some(hold) = alone.or_else(|| shared.get_mut(&thread)) {
            hold.acquired.get_or_insert(moment);
        }
    });
    moment
}

/// When each of those that own it acquired it.
pub(crate) fn acquired(k: &Kernel, resource: u64) -> Vec<u64> {
    let Some(State { exclusive, shared, .. }) = k.ex.resources.get(&resource) else { return Vec::new() };
    let holds = exclusive.iter().map(|(_, hold)| hold).chain(shared.values());
    holds.filter_map(|hold| hold.acquired).collect()
}

/// The resource that a thread waits for with this event of the kernel's.
pub(crate) fn with_event(k: &Kernel, event: u64) -> Option<u64> {
    let is_its = |state: &State| state.waiters.iter().any(|waiter| waiter.event.address == event);
    k.ex.resources.iter().find(|(_, state)| is_its(state)).map(|(at, _)| *at)
}

/// A resource and who owns it, for people.
pub(crate) fn describe(k: &Kernel, resource: u64) -> String {
    let name = |owner: u64| match k.ke.thread_of(owner) {
        Some(thread) => format!("the {}", thread.name),
        None => format!("the owner {owner:#x}"),
    };
    let place = who_waits::whereabouts(k, resource);
    let Some(state) = k.ex.resources.get(&resource) else { return format!("the resource {place}") };
    if let Some((owner, _)) = state.exclusive {
        return format!("the resource {place}, which {} owns alone", name(owner));
    }
    let owners: Vec<String> = state.shared.keys().map(|owner| name(*owner)).collect();
    match owners.len() {
        0 => format!("the resource {place}, which no thread owns"),
        1 => format!("the resource {place}, which {} shares", owners[0]),
        _ => format!("the resource {place}, which {} share", owners.join(" and ")),
    }
}

/// `ExReleaseResourceLite`.
///
/// # Errors
/// A verdict if the caller does not own it.
pub(crate) fn release(cx: &mut Cx<'_>, resource: Resource) -> Flow<()> {
    let thread = thread::current_object(cx).address;
    apcs_disabled(cx, resource, "ExReleaseResourceLite", 0x38)?;
    release_as(cx, resource, "ExReleaseResourceLite", thread)
}

/// `ExReleaseResourceForThreadLite`: `thread` is what `ExGetCurrentResourceThread` said, or an owner pointer.
///
/// # Errors
/// As [`release`].
pub(crate) fn release_for_thread(cx: &mut Cx<'_>, resource: Resource, thread: u64) -> Flow<()> {
    release_as(cx, resource, "ExReleaseResourceForThreadLite", thread)
}

fn release_as(cx: &mut Cx<'_>, resource: Resource, name: &str, thread: u64) -> Flow<()> {
    let given = with(cx, resource, name, |state| state.give(thread).then(|| state.hand_on()))?;
    let Some(woken) = given else {
        let message = format!("{name} was called for {:#x}, which its caller does not own", resource.address);
        return Err(not_owned(cx, resource, thread, message));
    };
    show(cx, resource)?;
    lock_order::released_of(cx, resource.address, thread);
    tell_released(cx, resource);
    wake(cx, woken)
}

fn tell_released(cx: &Cx<'_>, resource: Resource) {
    let lock = resource.address;
    cx.detail(Kind::LockReleased, || Event::LockReleased { lock, kind: LockKind::Resource });
}

/// The verdict, with when those that do own it acquired it.
fn not_owned(cx: &mut Cx<'_>, resource: Resource, thread: u64, message: String) -> Leave {
    let acquired = cx.with(|k| acquired(k, resource.address));
    let verdict = Verdict::error("resource-not-owned", message).acquired(acquired);
    cx.stop(verdict.bug_check(RESOURCE_NOT_OWNED, [resource.address, thread, 0, 0]))
}

fn wake(cx: &mut Cx<'_>, woken: Vec<Waiter>) -> Flow<()> {
    woken.into_iter().try_for_each(|waiter| event::set(cx, waiter.event, 0, false).map(|_| ()))
}

/// `ExConvertExclusiveToSharedLite`: all who wait to share it do so from now on.
///
/// # Errors
/// As [`release`].
pub(crate) fn convert(cx: &mut Cx<'_>, resource: Resource) -> Flow<()> {
    let name = "ExConvertExclusiveToSharedLite";
    let thread = thread::current_object(cx).address;
    let converted = with(cx, resource, name, |state| {
        let (owner, hold) = state.exclusive.filter(|(owner, _)| *owner == thread)?;
        state.exclusive = None;
        state.shared.insert(owner, hold);
        Some((state.let_in_sharers(), hold))
    })?;
    let Some((woken, Hold { count, acquired })) = converted else {
        let message =
            format!("{name} was called for {:#x}, which its caller does not own alone", resource.address);
        return Err(not_owned(cx, resource, thread, message));
    };
    show(cx, resource)?;
    for _ in 0..count {
        lock_order::released_of(cx, resource.address, thread);
        let acquired = acquired.unwrap_or_default();
        lock_order::acquired(cx, order(resource, false, acquired), false)?;
    }
    (0..count).for_each(|_| tell_released(cx, resource));
    (0..count).for_each(|_| tell_acquired(cx, resource, false));
    wake(cx, woken)
}

/// `ExSetResourceOwnerPointer`, `ExSetResourceOwnerPointerEx`: the caller's acquire belongs to `pointer` from now on.
///
/// # Errors
/// As [`release`].
pub(crate) fn set_owner_pointer(cx: &mut Cx<'_>, resource: Resource, pointer: u64) -> Flow<()> {
    let name = "ExSetResourceOwnerPointer";
    let thread = thread::current_object(cx).address;
    let owned = with(cx, resource, name, |state| {
        if let Some((owner, _)) = state.exclusive.as_mut().filter(|(owner, _)| *owner == thread) {
            *owner = pointer;
            return true;
        }
        let Some(hold) = state.shared.remove(&thread) else { return false };
        let own = state.shared.entry(pointer).or_default();
        *own = Hold { count: own.count + hold.count, acquired: own.acquired.or(hold.acquired) };
        true
    })?;
    if owned {
        lock_order::released_of(cx, resource.address, thread);
        return show(cx, resource);
    }
    release_as(cx, resource, name, thread)
}

/// `ExIsResourceAcquiredExclusiveLite`.
///
/// # Errors
/// A verdict if it is none, here and below.
pub(crate) fn is_acquired_exclusive(cx: &mut Cx<'_>, resource: Resource) -> Flow<bool> {
    let thread = thread::current_object(cx).address;
    with(cx, resource, "ExIsResourceAcquiredExclusiveLite", |state| state.owns_alone(thread))
}

/// `ExIsResourceAcquiredSharedLite`: how often the caller has acquired it, shared or exclusive.
///
/// # Errors
/// As [`is_acquired_exclusive`].
pub(crate) fn acquired_count(cx: &mut Cx<'_>, resource: Resource) -> Flow<u32> {
    let thread = thread::current_object(cx).address;
    with(cx, resource, "ExIsResourceAcquiredSharedLite", |state| match state.exclusive {
        Some((owner, hold)) if owner == thread => hold.count,
        _ => state.shared.get(&thread).map_or(0, |hold| hold.count),
    })
}

/// `ExGetExclusiveWaiterCount`.
///
/// # Errors
/// As [`is_acquired_exclusive`].
pub(crate) fn exclusive_waiters(cx: &mut Cx<'_>, resource: Resource) -> Flow<u32> {
    with(cx, resource, "ExGetExclusiveWaiterCount", |state| state.waiting(true))
}

/// `ExGetSharedWaiterCount`.
///
/// # Errors
/// As [`is_acquired_exclusive`].
pub(crate) fn shared_waiters(cx: &mut Cx<'_>, resource: Resource) -> Flow<u32> {
    with(cx, resource, "ExGetSharedWaiterCount", |state| state.waiting(false))
}

/// `ExEnterCriticalRegionAndAcquireResourceExclusive`: the calling thread's object.
///
/// # Errors
/// As [`acquire_exclusive`].
pub(crate) fn enter_exclusive(cx: &mut Cx<'_>, resource: Resource) -> Flow<u64> {
    region::enter_critical(cx)?;
    acquire_exclusive(cx, resource, true)?;
    Ok(thread::current_object(cx).address)
}

/// `ExEnterCriticalRegionAndAcquireResourceShared`: the calling thread's object.
///
/// # Errors
/// As [`acquire_exclusive`].
pub(crate) fn enter_shared(cx: &mut Cx<'_>, resource: Resource) -> Flow<u64> {
    region::enter_critical(cx)?;
    acquire_shared(cx, resource, true)?;
    Ok(thread::current_object(cx).address)
}

/// `ExReleaseResourceAndLeaveCriticalRegion`.
///
/// # Errors
/// As [`release`].
pub(crate) fn release_and_leave(cx: &mut Cx<'_>, resource: Resource) -> Flow<()> {
    release(cx, resource)?;
    region::leave_critical(cx)
}

fn with<R>(cx: &mut Cx<'_>, resource: Resource, name: &str, f: impl FnOnce(&mut State) -> R) -> Flow<R> {
    let result = cx.with(|k| k.ex.resources.get_mut(&resource.address).map(f));
    result.ok_or_else(|| {
        let message = format!("{name} was given {:#x}, which is no initialized resource", resource.address);
        cx.stop(Verdict::error("resource-uninitialized", message))
    })
}

/// Brings the members that drivers read up to date.
fn show(cx: &mut Cx<'_>, resource: Resource) -> Flow<()> {
    let (exclusive, shared, waiting, contention) = with(cx, resource, "ERESOURCE", |state| {
        (state.exclusive, state.shared.clone(), (state.waiting(false), state.waiting(true)), state.contention)
    })?;
    let entries = u32::try_from(shared.len()).unwrap_or(0) + u32::from(exclusive.is_some());
    let owner = exclusive.map(|(owner, _)| owner).or_else(|| shared.keys().next().copied()).unwrap_or(0);
    let flag = if exclusive.is_some() { ResourceOwnedExclusive } else { 0 };
    cx.write(resource + ERESOURCE::ActiveCount, i16::try_from(entries).unwrap_or(i16::MAX))?;
    cx.write(resource + ERESOURCE::Flag, flag)?;
    cx.write((resource + ERESOURCE::OwnerEntry) + OWNER_ENTRY::OwnerThread, owner)?;
    cx.write(resource + ERESOURCE::ActiveEntries, entries)?;
    cx.write(resource + ERESOURCE::ContentionCount, contention)?;
    cx.write(resource + ERESOURCE::NumberOfSharedWaiters, waiting.0)?;
    cx.write(resource + ERESOURCE::NumberOfExclusiveWaiters, waiting.1)
}

fn apcs_disabled(cx: &mut Cx<'_>, resource: Resource, name: &str, sub: u64) -> Flow<()> {
    let level = irql::current(cx);
    if level > 0 || region::are_apcs_disabled(cx)? {
        return Ok(());
    }
    let message = format!("{name} was called for {:#x} outside a critical region", resource.address);
    let verdict = Verdict::verifier("resource-apcs-enabled", message);
    cx.verify(verdict.bug_check(0xC4, [sub, level.into(), 0, resource.address]))
}

/// Resources that the image at `driver` initialized and did not delete.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<u64> {
    cx.with(|k| {
        let own = k.ex.resources.iter().filter(|(_, state)| state.owner == Some(driver));
        own.map(|(&resource, _)| resource).collect()
    })
}
