//! What all objects that threads wait for have in common: a header with a state, and the threads that wait. Follows
//! *Introduction to Kernel Dispatcher Objects*.
//!
//! States live in driver memory, where drivers and their macros read them. The threads that wait are known here and mirrored in the
//! wait lists there. Nothing here lets another thread run: callers end with [`crate::ke::levels::irql::settle`].

use abi::{DISPATCHER_HEADER, DriverPtr, KMUTANT, KWAIT_BLOCK, NtStatus};
use engine::{BadAddress, Engine, Flow, StrandId};

use super::links::{self, Broken};
use super::mutex::Owned;
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind as EventKind};
use crate::ke::pageable_object;
use crate::ke::sched::scheduler;
use crate::ke::sched::thread_record::State;
use crate::verdict::Verdict;

/// The kinds of dispatcher objects, as `DISPATCHER_HEADER.Type` has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Stays signaled until it is cleared.
    NotificationEvent = 0,
    /// Lets one thread go, then is not signaled.
    SynchronizationEvent = 1,
    /// A mutex.
    Mutant = 2,
    /// Signaled once the process has ended.
    Process = 3,
    /// As many entries as its state says; waited for by taking one.
    Queue = 4,
    /// Counts down with every thread it lets go.
    Semaphore = 5,
    /// Signaled once the thread has ended.
    Thread = 6,
    /// As a notification event, signaled by time.
    NotificationTimer = 8,
    /// As a synchronization event, signaled by time.
    SynchronizationTimer = 9,
}

impl Kind {
    /// The kind a header's type byte says.
    pub(in crate::ke) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::NotificationEvent,
            1 => Self::SynchronizationEvent,
            2 => Self::Mutant,
            3 => Self::Process,
            4 => Self::Queue,
            5 => Self::Semaphore,
            6 => Self::Thread,
            8 => Self::NotificationTimer,
            9 => Self::SynchronizationTimer,
            _ => return None,
        })
    }

    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NotificationEvent => "notification event",
            Self::SynchronizationEvent => "synchronization event",
            Self::Mutant => "mutex",
            Self::Process => "process",
            Self::Queue => "queue",
            Self::Semaphore => "semaphore",
            Self::Thread => "thread",
            Self::NotificationTimer => "notification timer",
            Self::SynchronizationTimer => "synchronization timer",
        }
    }
}

type Header = DriverPtr<DISPATCHER_HEADER>;

/// Writes a header of an object of `bytes` bytes, for which no thread waits.
///
/// # Errors
/// If it is not memory.
pub(crate) fn initialize(
    engine: Engine,
    header: Header,
    kind: Kind,
    bytes: u64,
    state: i32,
) -> Result<(), BadAddress> {
    engine.write(header, DISPATCHER_HEADER::zeroed())?;
    engine.write(header + DISPATCHER_HEADER::Type, kind as u8)?;
    // In units of 4 bytes; a thread is larger than the field can say, and the field is not read.
    engine.write(header + DISPATCHER_HEADER::Size, u8::try_from(bytes / 4).unwrap_or(u8::MAX))?;
    engine.write(header + DISPATCHER_HEADER::SignalState, state)?;
    links::initialize(engine, header + DISPATCHER_HEADER::WaitListHead)
}

/// As [`initialize`], for a driver's object: it must not be waited for.
///
/// # Errors
/// A verdict if a thread waits for it, or it is not memory.
pub(crate) fn set_up(cx: &mut Cx<'_>, header: Header, kind: Kind, bytes: u64, state: i32) -> Flow<()> {
    let waiter = cx.with(|k| {
        let first = *k.ke.waits.waits.get(&header.address)?.first()?;
        Some(crate::ke::sched::thread_record::name(k, first))
    });
    if let Some(name) = waiter {
        let at = header.address;
        let message = format!("the {} at {at:#x} was initialised while the {name} waits for it", kind.name());
        return Err(cx.stop(Verdict::error("object-initialized-while-waited-for", message)));
    }
    pageable_object::initialized(cx, header.address, kind.name(), pageable_object::SYNCHRONIZES)?;
    initialize(cx.engine(), header, kind, bytes, state).map_err(|bad| cx.bad_pointer(bad))
}

/// The kind of the object at `header`, which some `KeInitialize…` must have set up.
///
/// # Errors
/// A verdict that names `what` was called if it is none.
#[inline]
pub(crate) fn expect(cx: &mut Cx<'_>, header: Header, what: &str, kinds: &[Kind]) -> Flow<Kind> {
    let kind = Kind::from_byte(cx.read(header + DISPATCHER_HEADER::Type)?);
    let linked = !cx.read((header + DISPATCHER_HEADER::WaitListHead) + abi::LIST_ENTRY::Flink)?.is_null();
    match kind {
        Some(kind) if linked && (kinds.is_empty() || kinds.contains(&kind)) => Ok(kind),
        kind => Err(unexpected(cx, header, what, kind.filter(|_| linked))),
    }
}

/// The verdict on an object of another kind, or on what is none.
#[cold]
fn unexpected(cx: &mut Cx<'_>, header: Header, what: &str, kind: Option<Kind>) -> engine::Leave {
    let at = header.address;
    let (rule, is) = match kind {
        Some(kind) => ("object-of-another-kind", format!("is a {}", kind.name())),
        None => ("object-not-initialized", "was never initialised".to_owned()),
    };
    cx.stop(Verdict::error(rule, format!("{what} was called for {at:#x}, which {is}")))
}

/// Whether a wait of `strand`'s for it alone would be satisfied now.
pub(crate) fn is_signaled(k: &Kernel, header: Header, strand: StrandId) -> Result<bool, BadAddress> {
    let state = k.engine.read(header + DISPATCHER_HEADER::SignalState)?;
    if state > 0 {
        return Ok(true);
    }
    let kind = Kind::from_byte(k.engine.read(header + DISPATCHER_HEADER::Type)?);
    if kind != Some(Kind::Mutant) {
        return Ok(false);
    }
    let owner = k.engine.read(header.cast::<KMUTANT>() + KMUTANT::OwnerThread)?;
    Ok(k.ke.sched.threads().get(strand).is_some_and(|thread| thread.object == owner))
}

/// What a satisfied wait of `strand`'s does to it. Whether it was an abandoned mutex.
pub(super) fn consume(k: &mut Kernel, header: Header, strand: StrandId) -> Result<bool, BadAddress> {
    let engine = k.engine;
    let state = header + DISPATCHER_HEADER::SignalState;
    match Kind::from_byte(engine.read(header + DISPATCHER_HEADER::Type)?) {
        Some(Kind::SynchronizationEvent | Kind::SynchronizationTimer) => engine.write(state, 0)?,
        Some(Kind::Semaphore) => engine.write(state, engine.read(state)?.wrapping_sub(1))?,
        Some(Kind::Mutant) => return own(k, header.cast(), strand),
        _ => {}
    }
    Ok(false)
}

/// A mutex becomes `strand`'s, or is its once more.
fn own(k: &mut Kernel, mutex: DriverPtr<KMUTANT>, strand: StrandId) -> Result<bool, BadAddress> {
    let engine = k.engine;
    let at = mutex.cast::<DISPATCHER_HEADER>() + DISPATCHER_HEADER::SignalState;
    let state = engine.read(at)?.wrapping_sub(1);
    engine.write(at, state)?;
    if state != 0 {
        return Ok(false);
    }
    let disable = engine.read(mutex + KMUTANT::ApcDisable)?;
    if let Some(thread) = k.ke.sched.threads_mut().get_mut(strand) {
        thread.mutexes.push(Owned { mutex: mutex.address, acquired: None });
        thread.apc_disable -= i32::from(disable);
        engine.write(mutex + KMUTANT::OwnerThread, thread.object)?;
    }
    let abandoned = engine.read(mutex + KMUTANT::Abandoned)? != 0;
    engine.write(mutex + KMUTANT::Abandoned, 0)?;
    Ok(abandoned)
}

/// Lets go, in the order of their arrival, the threads whose waits the object's state satisfies.
pub(crate) fn wake(k: &mut Kernel, header: Header, boost: u8) -> Result<(), Broken> {
    let mut passed = 0;
    // A thread that is let go leaves the list.
    while let Some(strand) = k.ke.waits.waits.get(&header.address).and_then(|all| all.get(passed).copied())
        && is_signaled(k, header, strand)?
    {
        match satisfy(k, header, strand)? {
            Some(status) => end_wait(k, strand, status, boost)?,
            None => passed += 1,
        }
    }
    Ok(())
}

/// The status with which a wait of `strand`'s ends because the object is signaled, whose effects it has had then; none if it
/// waits for others too, which are not.
fn satisfy(k: &mut Kernel, header: Header, strand: StrandId) -> Result<Option<NtStatus>, BadAddress> {
    let Some(wait) = k.ke.sched.threads().get(strand).and_then(|thread| thread.wait.as_ref()) else {
        return Ok(None);
    };
    if !wait.all {
        let index = wait.objects.iter().position(|object| *object == header).unwrap_or(0);
        let base = if consume(k, header, strand)? { NtStatus::ABANDONED_WAIT_0.0 } else { 0 };
        return Ok(Some(NtStatus(base + u32::try_from(index).expect("at most 64 objects"))));
    }
    let objects = wait.objects.clone();
    let mut ready = true;
    for object in &*objects {
        ready &= is_signaled(k, *object, strand)?;
    }
    if !ready {
        return Ok(None);
    }
    let mut abandoned = false;
    for object in &*objects {
        abandoned |= consume(k, *object, strand)?;
    }
    Ok(Some(if abandoned { NtStatus::ABANDONED_WAIT_0 } else { NtStatus::SUCCESS }))
}

/// Ends a thread's wait: its wait blocks leave their lists, its time-out is cancelled, and it is ready.
pub(in crate::ke) fn end_wait(
    k: &mut Kernel,
    strand: StrandId,
    status: NtStatus,
    boost: u8,
) -> Result<(), Broken> {
    let thread = k.ke.sched.threads_mut().get_mut(strand).expect("a thread that waits exists");
    let Some(wait) = thread.wait.take() else { return Ok(()) };
    thread.wait_status = status;
    thread.boost = boost;
    let queue = thread.queue;
    if queue != 0 {
        super::queue::runs_again(k, queue);
    }
    let thread = k.ke.sched.threads().get(strand).expect("a thread that waits exists");
    let is_waiting = thread.state == State::Waiting;
    k.ke.timing.timers_mut().cancel_timeout(strand);
    // The thread may be running an APC meanwhile.
    if is_waiting {
        scheduler::make_ready(k, strand);
    }
    for (index, object) in wait.objects.iter().enumerate() {
        waits_no_more(k, *object, strand);
        let block = wait.blocks.index(index as u64);
        links::remove(k.engine, block + KWAIT_BLOCK::WaitListEntry)?;
    }
    Ok(())
}

/// The thread is not among those that wait for the object any more; its wait block is its caller's to unlink.
pub(super) fn waits_no_more(k: &mut Kernel, header: Header, strand: StrandId) {
    if let Some(waiting) = k.ke.waits.waits.get_mut(&header.address) {
        waiting.remove_all(&strand);
        if waiting.is_empty() {
            k.ke.waits.waits.remove(&header.address);
        }
    }
}

/// Sets the state and lets go the threads it satisfies; returns the state before.
///
/// # Errors
/// A verdict if the object is not memory or its wait list is damaged.
pub(crate) fn signal(cx: &mut Cx<'_>, header: Header, state: i32, boost: u8) -> Flow<i32> {
    let result = cx.with(|k| -> Result<i32, Broken> {
        let at = header + DISPATCHER_HEADER::SignalState;
        let before = k.engine.read(at)?;
        k.engine.write(at, state)?;
        if state > 0 || before > 0 {
            wake(k, header, boost)?;
        }
        Ok(before)
    });
    let before = result.map_err(|broken| stop(cx, header, broken))?;
    if cx.nt().wants(EventKind::Signalled) {
        let (object, kind) = (header.address, cx.read(header + DISPATCHER_HEADER::Type)?);
        cx.emit(Event::Signalled { object, kind, before: before.cast_unsigned() });
    }
    Ok(before)
}

/// The verdict on an object whose memory or wait list is bad.
#[cold]
pub(crate) fn stop(cx: &mut Cx<'_>, header: Header, broken: Broken) -> engine::Leave {
    match broken {
        Broken::Memory(bad) => cx.bad_pointer(bad),
        Broken::Links(entry) => {
            let at = header.address;
            let message = format!(
                "the wait list of the object at {at:#x} is damaged (entry {entry:#x}): it was overwritten, freed or initialised again while a thread waited"
            );
            cx.stop(Verdict::error("wait-list-damaged", message).bug_check(0x139, [3, 0, 0, 0]))
        }
    }
}

/// An object of `base..base+length` that a thread waits for.
#[inline]
pub(in crate::ke) fn waited_for_in(k: &Kernel, base: u64, length: u64) -> Option<u64> {
    k.ke.waits.waits.range(base..base.saturating_add(length)).next().map(|(&object, _)| object)
}

/// What an object is, for people: its kind and address.
pub(crate) fn describe(k: &Kernel, header: Header) -> String {
    let kind = k.engine.read(header + DISPATCHER_HEADER::Type).ok().and_then(Kind::from_byte);
    let name = kind.map_or("object", Kind::name);
    match kind {
        Some(Kind::Thread) => match k.ke.thread_of(header.address) {
            Some(thread) => format!("the end of the {}", thread.name),
            None => format!("thread {:#x}", header.address),
        },
        Some(Kind::Mutant) => {
            let owner = k.engine.read(header.cast::<KMUTANT>() + KMUTANT::OwnerThread);
            match owner.ok().and_then(|owner| k.ke.thread_of(owner.address)) {
                Some(thread) => format!("mutex {:#x}, which the {} owns", header.address, thread.name),
                None => format!("mutex {:#x}", header.address),
            }
        }
        _ => format!("{name} {:#x}", header.address),
    }
}
