//! Threads: kernel-internal ones with bodies in Rust (applications, workers), system threads of drivers, idle threads.
//! Follows *PsCreateSystemThread function*, *PsTerminateSystemThread function* and *Managing Thread Objects*.
//!
//! A thread is a strand with a thread object that can be waited for, and a driver stack of its own. Handles, ids and
//! processes are `ps`'s. Bodies run inside the strand; who runs when is the scheduler's.

use std::cell::RefCell;
use std::rc::Rc;

use abi::{DISPATCHER_HEADER, DriverPtr, KEVENT, KTHREAD, NtStatus};
use engine::{Flow, Leave, StrandId};

use super::dispatcher::Kind as ObjectKind;
use super::mutex::Owned;
use super::{dispatcher, event, integrity, queue, wait};
use crate::cx::Cx;
use crate::event::{Event, Kind, Kind as EventKind};
use crate::io;
use crate::ke::bugcheck_callback;
use crate::ke::calls::{callout, stack};
use crate::ke::levels::irql;
use crate::ke::sched::history::{self, Operation};
use crate::ke::sched::thread_record::Made;
use crate::ke::sched::{affinity, budget, patience, processor, scheduler};
use crate::mm::pool;
use crate::mm::stack as memory;
use crate::ob;
use crate::ps;
use crate::se::impersonation;
use crate::verdict::Verdict;
use crate::witness;

pub(crate) use crate::ke::sched::thread_record::get_current;
pub(crate) use crate::ke::sched::thread_record::{
    Body, Identity, NORMAL_PRIORITY, Start, State, Thread, name,
};
pub use crate::ke::sched::thread_record::{Role, Work, current_object};

/// Bytes of a thread object; drivers see only its header.
const OBJECT_SIZE: u64 = 0x600;
/// The highest priority.
const HIGHEST: u8 = 31;

/// Bytes of memory, and areas of the host's, that a thread takes at most.
const NEEDS: (u64, usize) = (64 << 10, 16);

/// Whether there is room for one thread more; reports it if not.
pub(crate) fn is_room(cx: &mut Cx<'_>) -> bool {
    let enough = cx.with(|k| k.mm.physical.memory.has(NEEDS.0, NEEDS.1));
    if !enough {
        crate::mm::memory::tell(cx);
    }
    enough
}

/// Makes a thread of the system process that runs `work`: at normal priority, ready at once.
///
/// # Errors
/// [`Leave`] if it may run at once and the machine ends meanwhile.
pub fn spawn(cx: &mut Cx<'_>, name: impl Into<String>, work: Work) -> Flow<StrandId> {
    spawn_as(cx, name, Role::Worker, 0, work)
}

/// Has a new thread of the system's do `work`, and waits for what comes of it.
///
/// # Errors
/// As [`spawn`]; [`engine::Leave`] of what the work comes to.
pub fn wait_for_system<R: 'static>(
    cx: &mut Cx<'_>,
    name: impl Into<String>,
    work: impl FnOnce(&mut Cx<'_>) -> Flow<R> + 'static,
) -> Flow<R> {
    wait_for(cx, name.into(), (Role::Worker, 0), work)
}

/// As [`wait_for_system`], with a new thread of an application of process `process`.
///
/// # Errors
/// As [`wait_for_system`].
pub fn wait_for_application<R: 'static>(
    cx: &mut Cx<'_>,
    name: impl Into<String>,
    process: u64,
    work: impl FnOnce(&mut Cx<'_>) -> Flow<R> + 'static,
) -> Flow<R> {
    wait_for(cx, name.into(), (Role::Application, process), work)
}

fn wait_for<R: 'static>(
    cx: &mut Cx<'_>,
    name: String,
    (role, process): (Role, u64),
    work: impl FnOnce(&mut Cx<'_>) -> Flow<R> + 'static,
) -> Flow<R> {
    let done: DriverPtr<KEVENT> =
        pool::allocate(cx, pool::Kind::NonPaged, size_of::<KEVENT>() as u64, pool::tag(b"Wait"))?;
    if done.is_null() {
        return Err(cx.stop(Verdict::not_implemented("running out of memory for a thread of the system's")));
    }
    event::initialize(cx, done, abi::NotificationEvent, false)?;
    let result = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&result);
    let body: Work = Box::new(move |cx| {
        let value = work(cx)?;
        *slot.borrow_mut() = Some(value);
        event::set(cx, done, 0, false).map(|_| ())
    });
    spawn_as(cx, name, role, process, body)?;
    let _ = wait::for_object(cx, done)?;
    pool::free(cx, done)?;
    let value = result.borrow_mut().take();
    Ok(value.expect("the event is set after the result"))
}

/// Makes a thread that runs `work` for an application of process `process`.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_application(
    cx: &mut Cx<'_>,
    name: impl Into<String>,
    process: u64,
    work: Work,
) -> Flow<StrandId> {
    spawn_as(cx, name, Role::Application, process, work)
}

fn spawn_as(
    cx: &mut Cx<'_>,
    name: impl Into<String>,
    role: Role,
    process: u64,
    work: Work,
) -> Flow<StrandId> {
    let (name, body) = (name.into(), Body::Work(work));
    let strand = create(cx, Start { name, role, process, priority: NORMAL_PRIORITY, body })?;
    irql::settle(cx)?;
    Ok(strand)
}

/// Makes a thread, ready but for [`irql::settle`].
pub(crate) fn create(cx: &mut Cx<'_>, start: Start) -> Flow<StrandId> {
    let is_drivers = start.role == Role::System;
    let strand = make(cx, start, true)?;
    if is_drivers {
        tell_drivers(cx, strand, true)?;
    }
    cx.with(|k| scheduler::make_ready(k, strand));
    Ok(strand)
}

/// Tells drivers that want to know of a thread that it begins or ends, and of a process that it ends with this thread.
fn tell_drivers(cx: &mut Cx<'_>, strand: StrandId, is_new: bool) -> Flow<()> {
    let notice = cx.with(|k| {
        if !k.ps.notify.is_told_of_threads() {
            return None;
        }
        let thread = k.ke.sched.threads_mut().get_mut(strand)?;
        let concerns = matches!(thread.role, Role::Application | Role::System);
        // It runs on until drivers have been notified.
        concerns.then(|| (thread.home(), thread.id, thread.role == Role::System, thread.exit.take()))
    });
    let Some((process, id, is_system, exit)) = notice else { return Ok(()) };
    ps::notify::tell_of_thread(cx, process, id, is_new, is_system)?;
    if !is_new && cx.with(|k| ps::process::ends_with(k, process, strand)) {
        ps::notify::tell_of_process(cx, process, false)?;
    }
    cx.with(|k| k.ke.sched.threads_mut().get_mut(strand).expect("it is there until it ends").exit = exit);
    Ok(())
}

/// The idle thread of processor `index`: always there, never in a queue.
pub(in crate::ke) fn spawn_idle(cx: &mut Cx<'_>, index: usize) -> Flow<StrandId> {
    let name = format!("idle thread of processor {index}");
    let start = Start { name, role: Role::Idle, process: 0, priority: 0, body: Body::Idle };
    let strand = make(cx, start, false)?;
    cx.with(|k| {
        let mask = k.ke.processors[index].mask();
        let thread = k.ke.sched.threads_mut().get_mut(strand).expect("just made");
        (thread.own_affinity, thread.state) = (mask, State::Running);
    });
    Ok(strand)
}

/// A thread of ours of normal priority; the caller settles later.
pub(in crate::ke) fn spawn_quietly(cx: &mut Cx<'_>, name: String, work: Work) -> Flow<StrandId> {
    let (role, priority, body) = (Role::Worker, NORMAL_PRIORITY, Body::Work(work));
    create(cx, Start { name, role, process: 0, priority, body })
}

/// The thread that runs the threaded DPCs of processor `index`: nothing that can be switched is better.
pub(in crate::ke) fn spawn_for_dpcs(cx: &mut Cx<'_>, index: usize, work: Work) -> Flow<StrandId> {
    let name = format!("DPC thread of processor {index}");
    let (role, priority, body) = (Role::Worker, HIGHEST, Body::Work(work));
    let strand = make(cx, Start { name, role, process: 0, priority, body }, true)?;
    cx.with(|k| {
        let mask = k.ke.processors[index].mask();
        k.ke.sched.threads_mut().get_mut(strand).expect("just made").own_affinity = mask;
        scheduler::make_ready(k, strand);
    });
    Ok(strand)
}

fn make(cx: &mut Cx<'_>, start: Start, with_stack: bool) -> Flow<StrandId> {
    // A driver was asked for its room before (`is_room`).
    cx.with(|k| k.mm.physical.memory.set_for_system(true));
    let object = pool::allocate(cx, pool::Kind::NonPaged, OBJECT_SIZE, pool::tag(b"Thre"));
    let bytes = cx.with(|k| k.ke.stack_bytes());
    let stack = with_stack.then(|| memory::allocate(cx, bytes)).flatten();
    cx.with(|k| k.mm.physical.memory.set_for_system(false));
    let object: DriverPtr<KTHREAD> = object?;
    if object.is_null() || (with_stack && stack.is_none()) {
        return Err(cx.stop(Verdict::not_implemented("running out of memory for a thread")));
    }
    let engine = cx.engine();
    dispatcher::initialize(engine, (object + KTHREAD::Header).cast(), ObjectKind::Thread, OBJECT_SIZE, 0)
        .map_err(|bad| cx.bad_pointer(bad))?;
    ob::object::create(cx, object.address, ob::Kind::Thread, "", &PROCEDURES)
        .expect("a thread object has no name that could clash");
    let strand = engine.spawn();
    let created = witness::moment(cx);
    if cx.count_event(Kind::Thread) {
        cx.emit(Event::Thread { thread: strand, name: start.name.clone() });
    }
    cx.with(|k| {
        patience::begins_thread(k);
        k.ke.sched.spend(budget::NEW_THREAD);
        let own_affinity = affinity::of_new_thread(k);
        let id = k.ps.next_id();
        let made = Made { strand, object, id, created, own_affinity, stack, last_processor: k.ke.current };
        k.ke.sched.threads_mut().insert(Thread::new(made, start));
    });
    Ok(strand)
}

/// The object of a thread is one block of pool.
static PROCEDURES: ob::Procedures = ob::Procedures { close: ob::Procedures::nothing, delete: forget };

fn forget(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    cx.with(|k| k.ke.sched.forget(object));
    ob::Procedures::free(cx, object)
}

/// Runs the body of a strand's thread, from its first resume to its end.
pub(crate) fn run(cx: &mut Cx<'_>, id: StrandId) {
    let body = cx.with(|k| k.ke.sched.threads_mut().get_mut(id).and_then(|thread| thread.body.take()));
    let is_drivers = matches!(body, Some(Body::Driver { .. }));
    history::operates(cx, Operation::Begin, 0);
    let result = match body {
        _ if cx.nt().stopping() => Err(Leave::Stop),
        Some(Body::Work(work)) if cx.with(|k| k.ke.sched.threads()[id].role == Role::Application) => {
            tell_drivers(cx, id, true).and_then(|()| work(cx))
        }
        Some(Body::Work(work)) => work(cx),
        Some(Body::Driver { routine, context }) => {
            callout::call_routine(cx, crate::event::Role::ThreadStart, routine, 0, &[context]).map(|_| ())
        }
        Some(Body::Idle) => scheduler::idle(cx),
        None => unreachable!("a strand is a thread, and runs once"),
    };
    if result.is_err() && cx.nt().stopping() {
        bugcheck_callback::call_all(cx);
    }
    history::operates(cx, Operation::End, 0);
    // An error at the end has been reported; there is no caller to return it to.
    let _ = end(cx, id, is_drivers, result);
}

fn end(cx: &mut Cx<'_>, id: StrandId, is_drivers: bool, result: Flow<()>) -> Flow<()> {
    let (exits, is_disabled) = cx.with(|k| {
        let thread = &k.ke.sched.threads()[id];
        (thread.exit.is_some(), thread.apc_disable != 0 || thread.special_apc_disable != 0)
    });
    if !cx.nt().stopping() && (result.is_ok() || exits) {
        tell_drivers(cx, id, false)?;
        // Those of an application are cancelled where it ends. In a region, which is reported below, no request would end.
        if is_drivers && !is_disabled {
            io::cancel::rundown_thread(cx)?;
        }
    }
    cx.with(|k| k.ke.sched.threads_mut().get_mut(id).expect("it has just run").state = State::Terminated);
    if cx.nt().stopping() || !(result.is_ok() || exits) {
        return Err(Leave::Stop);
    }
    check_end(cx)?;
    io::overlapped::give_own(cx);
    let (object, name) =
        cx.with(|k| (k.ke.sched.threads()[id].object, k.ke.sched.threads()[id].name.clone()));
    integrity::check_thread(cx, object, &name)?;
    let (object, process, stack) = cx.with(|k| {
        let thread = k.ke.sched.threads_mut().get_mut(id).expect("it has just run");
        let stack = thread.stack.take().map(|stack| (stack, stack::owner(&thread.name)));
        (thread.object, thread.home(), stack)
    });
    if let Some((stack, name)) = stack {
        let depth = stack::high_water(cx.engine(), stack);
        cx.with(|k| k.ke.calls.note_depth(&name, depth));
        memory::free(cx, stack);
    }
    impersonation::thread_ended(cx, object)?;
    cx.with(|k| queue::leave(k, id));
    let header = (object + KTHREAD::Header).cast::<DISPATCHER_HEADER>();
    cx.detail(EventKind::ThreadEnded, || Event::ThreadEnded { thread: id });
    dispatcher::signal(cx, header, 1, 0)?;
    if process != ps::process::SYSTEM {
        ps::process::thread_ended(cx, process, id)?;
    }
    cx.with(|k| {
        let idle = k.ke.processor().idle;
        processor::set_current_thread(k, k.ke.current, idle);
        k.ke.sched.reap(id);
        k.ke.lock_order.forget_thread(id);
    });
    // With the last reference the object is gone.
    ob::object::dereference(cx, object).map(|_| ())
}

/// What a thread must not leave behind; a raised level is reported where its routine returns, or by the contract of PsTerminateSystemThread.
fn check_end(cx: &mut Cx<'_>) -> Flow<()> {
    let found = cx.with(|k| {
        let thread = k.ke.thread()?;
        let name = &thread.name;
        let disabled = thread.apc_disable + thread.special_apc_disable;
        let irql = k.level();
        if let Some(Owned { mutex, acquired }) = thread.mutexes.first() {
            let message = format!("the {name} ended and still owns mutex {mutex:#x}");
            let verdict = Verdict::error("thread-ended-owning-mutex", message).bug_check(0x20, [0, 0, 0, 1]);
            return Some(verdict.related_if("acquired", *acquired));
        }
        if !thread.left_stacks.is_empty() {
            let message = format!(
                "the {name} ended within the routine that KeExpandKernelStackAndCallout has called, which must return before"
            );
            return Some(Verdict::error("thread-ended-on-expanded-stack", message));
        }
        if !thread.attached.is_empty() {
            let other = ps::process::name(k, thread.process);
            let message = format!("the {name} ended attached to {other}");
            let object = |key: u64| k.ps.processes.get(&key).map_or(0, |process| process.object.address);
            let parameters = [object(thread.home()), object(thread.process), 1, 0];
            return Some(Verdict::error("still-attached", message).bug_check(0x5, parameters));
        }
        if disabled != 0 {
            let message = format!("the {name} ended inside {} critical or guarded region(s)", -disabled);
            let verdict = Verdict::error("thread-ended-in-critical-region", message);
            return Some(verdict.bug_check(0x20, [0, i64::from(disabled).cast_unsigned(), irql.into(), 1]));
        }
        None
    });
    match found {
        Some(verdict) => Err(cx.stop(verdict)),
        None => Ok(()),
    }
}

/// Ends the current thread: its frames are left without returning.
pub(crate) fn exit_current(cx: &mut Cx<'_>, status: NtStatus) -> Leave {
    cx.with(|k| k.ke.change_thread(|thread| thread.exit = Some(status)));
    Leave::Stop
}
