//! Threads: kernel-internal ones with bodies in Rust (applications, workers), system threads of drivers, idle threads.
//! Follows *PsCreateSystemThread function*, *PsTerminateSystemThread function* and *Managing Thread Objects*.
//!
//! A thread is a strand with a thread object that can be waited for, and a driver stack of its own. Handles, ids and
//! processes are `ps`'s. Bodies run inside the strand; who runs when is the scheduler's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use abi::{Code, DISPATCHER_HEADER, DriverPtr, KEVENT, KTHREAD, NtStatus};
use engine::{Flow, Leave, StrandId};

use super::apc::Apc;
use super::attach::Attached;
use super::callout::{self, Callout};
use super::depth;
use super::dispatcher::{self, Kind as ObjectKind};
use super::exception::Repeated;
use super::expand::Left;
use super::extended::Saved;
use super::handler::Running;
use super::mutex::Owned;
use super::spin::{FIRST_LOOK, Stuck};
use super::user_apc::Wanted;
use super::wait::{self, Wait};
use super::{
    affinity, budget, bugcheck_callback, event, integrity, irql, patience, processor, queue, scheduler, stack,
};
use crate::cx::{Cx, Kernel};
use crate::event::{Event, Kind, Kind as EventKind};
use crate::io;
use crate::mm::pool;
use crate::mm::stack::{self as memory, KernelStack};
use crate::ob;
use crate::ps;
use crate::se::impersonation;
use crate::verdict::Verdict;
use crate::witness;

/// Bytes of a thread object; drivers see only its header.
const OBJECT_SIZE: u64 = 0x600;
/// The highest priority that is not real-time.
pub(crate) const HIGHEST_DYNAMIC: u8 = 15;
/// The highest priority.
const HIGHEST: u8 = 31;
/// Priority of a thread to which no other was given.
pub const NORMAL_PRIORITY: u8 = 8;

/// What a thread of our own does.
pub type Work = Box<dyn FnOnce(&mut Cx<'_>) -> Flow<()>>;

/// What a thread runs.
pub(crate) enum Body {
    /// Rust.
    Work(Work),
    /// A driver's `ThreadStart` routine.
    Driver {
        /// The routine.
        routine: DriverPtr<Code>,
        /// Its argument.
        context: u64,
    },
    /// The loop of a processor's idle thread.
    Idle,
}

/// What a thread is for: decides how an unhandled exception of its ends, and whether it counts as waiting for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A thread of an application's, standing in a system call.
    Application,
    /// Made by a driver.
    System,
    /// A worker of ours: it may wait for ever.
    Worker,
    /// Runs when a processor has nothing else.
    Idle,
}

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// In a ready queue.
    Ready,
    /// On a processor.
    Running,
    /// In a wait.
    Waiting,
    /// Over.
    Terminated,
}

/// What a thread object holds as long as it is referenced: of the thread that runs, or as it was when it ended.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    /// As [`Thread::id`].
    pub(crate) id: u64,
    /// As [`Thread::home`].
    pub(crate) process: u64,
    /// It was made by the system or by a driver, not by an application: in whatever process.
    pub(crate) is_systems: bool,
    /// As [`Thread::priority`].
    pub(crate) priority: u8,
    /// As [`Thread::base_priority`].
    pub(crate) base_priority: u8,
}

/// What a routine of a driver has used, and when it is to be looked at (see [`super::spin`]).
#[derive(Clone, Copy)]
pub(crate) struct Account {
    /// Driver instructions, and what calls of the kernel count as.
    pub(crate) spent: u64,
    /// Driver instructions alone: what a slice can end at exactly, whatever is called meanwhile.
    pub(crate) stepped: u64,
    /// Nanoseconds on a processor: instructions, device accesses, stalls.
    pub(crate) busy: u64,
    /// The next look comes when so many are stepped.
    pub(crate) look_at: u64,
    /// How many looks there were.
    pub(crate) looks: u32,
}

impl Account {
    /// Whether nothing has been used and nothing was read.
    #[inline]
    pub(crate) fn is_new(&self) -> bool {
        self.spent | self.stepped | self.busy == 0 && self.look_at == FIRST_LOOK
    }

    /// With what ran between two marks of its thread (see [`Thread::mark`]).
    #[inline]
    pub(crate) const fn with_what_ran(&self, from: (u64, u64, u64), to: (u64, u64, u64)) -> Self {
        Self {
            spent: self.spent + (to.0 - from.0),
            stepped: self.stepped + (to.2 - from.2),
            busy: self.busy + (to.1 - from.1),
            ..*self
        }
    }
}

impl Default for Account {
    fn default() -> Self {
        Self { spent: 0, stepped: 0, busy: 0, look_at: FIRST_LOOK, looks: 0 }
    }
}

/// A thread.
pub(crate) struct Thread {
    pub(crate) strand: StrandId,
    /// Its object in nonpaged memory.
    pub(crate) object: DriverPtr<KTHREAD>,
    /// For people: `system thread pci.sys!Worker`.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The process it is in: a key of `ps`, 0 for the system's. It belongs to it, or is attached to it.
    pub(crate) process: u64,
    /// Processes that it is attached to, the last one at the end.
    pub(crate) attached: Vec<Attached>,
    /// `UniqueThread` of its client id.
    pub(crate) id: u64,
    body: Option<Body>,
    /// The driver stack; idle threads have none.
    pub(crate) stack: Option<KernelStack>,
    /// Those it has left for larger ones, which it comes back to.
    pub(crate) left_stacks: Vec<Left>,
    pub(crate) state: State,
    /// Without boosts, 0–31.
    pub(crate) base_priority: u8,
    /// Added until the next wait; one less with each quantum.
    pub(crate) boost: u8,
    /// The boost is that of a thread that waited too long for a processor: it ends with the quantum.
    pub(crate) starved: bool,
    /// Its own affinity.
    pub(crate) own_affinity: u64,
    /// While `KeSetSystemAffinityThread` is in force.
    pub(crate) system_affinity: Option<u64>,
    /// Where it ran last.
    pub(crate) last_processor: usize,
    /// Its level while it is not on a processor: 0 or 1.
    pub(crate) irql: u8,
    /// The wait it is in.
    pub(crate) wait: Option<Wait>,
    /// How its last wait ended.
    pub(crate) wait_status: NtStatus,
    /// The queue object that it took an entry from last, or waits on; 0 if none.
    pub(crate) queue: u64,
    /// The entry that ended its wait on a queue.
    pub(crate) taken: u64,
    /// Negative: so many critical regions entered (normal kernel APCs disabled).
    pub(crate) apc_disable: i32,
    /// Negative: so many guarded regions entered (all APCs disabled).
    pub(crate) special_apc_disable: i32,
    /// What it is to do as soon as it may.
    pub(crate) apcs: VecDeque<Apc>,
    /// What its application has for it.
    pub(crate) wanted: Wanted,
    /// Mutexes it owns, in the order in which it came to.
    pub(crate) mutexes: Vec<Owned>,
    /// Routines of drivers it is in, innermost last.
    pub(crate) callouts: Vec<Callout>,
    /// Those whose depth is measured.
    pub(crate) depths: Vec<depth::Open>,
    /// Exception handlers of drivers it is in, innermost last.
    pub(crate) handlers: Vec<Running>,
    /// The exception that its code goes on from and raises again.
    pub(crate) repeated: Repeated,
    /// Saved extended processor states that driver code has not put back, innermost last.
    pub(crate) extended: Vec<Saved>,
    /// The calls (see [`engine::Engine::depth`]) whose driver code waits for a system service, innermost last.
    pub(crate) services: Vec<u32>,
    /// What its outermost routine has used up to `mark`.
    pub(crate) account: Account,
    /// `State::retired` and the clock when it was accounted last.
    pub(crate) mark: (u64, u64, u64),
    /// Driver instructions that it has retired before its last turn, and the machine before that turn.
    pub(crate) retired: (u64, u64),
    /// At which of its instructions the policy is asked next.
    pub(crate) question: u64,
    /// It waits busily, as was seen last.
    pub(crate) stuck: Option<Stuck>,
    /// The moment when it was made.
    pub(crate) created: u64,
    /// When its quantum ends.
    pub(crate) quantum_end: u64,
    /// Hard errors are not to be shown.
    pub(crate) hard_errors_disabled: bool,
    /// The device that its last hard error was about, or null.
    pub(crate) device_to_verify: u64,
    /// `EtwActivityIdControl`: what events of this thread belong to.
    pub(crate) activity: [u8; 16],
    /// Where a driver has that identifier, or null.
    pub(crate) activity_at: u64,
    /// It asked to end, with this status.
    pub(crate) exit: Option<NtStatus>,
}

impl Thread {
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            id: self.id,
            process: self.home(),
            is_systems: self.role != Role::Application,
            priority: self.priority(),
            base_priority: self.base_priority,
        }
    }

    /// What it competes with.
    pub(crate) fn priority(&self) -> u8 {
        match self.base_priority {
            real_time @ 16.. => real_time,
            base => (base + self.boost).min(HIGHEST_DYNAMIC),
        }
    }

    /// Where it may run now.
    pub(crate) fn affinity(&self) -> u64 {
        self.system_affinity.unwrap_or(self.own_affinity)
    }

    /// All its driver stacks, the first one first.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = KernelStack> {
        self.left_stacks.iter().map(|left| left.stack).chain(self.stack)
    }

    /// Behind the highest address of its driver stack; 0 if it has none.
    pub(crate) fn stack_base(&self) -> u64 {
        self.stack.map_or(0, |stack| stack.base)
    }
}

/// What a new thread is.
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) process: u64,
    pub(crate) priority: u8,
    pub(crate) body: Body,
}

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
    spawn(cx, name, body)?;
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
        let thread = k.ke.threads.get_mut(strand)?;
        let concerns = matches!(thread.role, Role::Application | Role::System);
        // It runs on until drivers have been notified.
        concerns.then(|| (thread.home(), thread.id, thread.role == Role::System, thread.exit.take()))
    });
    let Some((process, id, is_system, exit)) = notice else { return Ok(()) };
    ps::notify::tell_of_thread(cx, process, id, is_new, is_system)?;
    if !is_new && cx.with(|k| ps::process::ends_with(k, process, strand)) {
        ps::notify::tell_of_process(cx, process, false)?;
    }
    cx.with(|k| k.ke.threads.get_mut(strand).expect("it is there until it ends").exit = exit);
    Ok(())
}

/// The idle thread of processor `index`: always there, never in a queue.
pub(crate) fn spawn_idle(cx: &mut Cx<'_>, index: usize) -> Flow<StrandId> {
    let name = format!("idle thread of processor {index}");
    let start = Start { name, role: Role::Idle, process: 0, priority: 0, body: Body::Idle };
    let strand = make(cx, start, false)?;
    cx.with(|k| {
        let mask = k.ke.processors[index].mask();
        let thread = k.ke.threads.get_mut(strand).expect("just made");
        (thread.own_affinity, thread.state) = (mask, State::Running);
    });
    Ok(strand)
}

/// A thread of ours of normal priority; the caller settles later.
pub(crate) fn spawn_quietly(cx: &mut Cx<'_>, name: String, work: Work) -> Flow<StrandId> {
    let (role, priority, body) = (Role::Worker, NORMAL_PRIORITY, Body::Work(work));
    create(cx, Start { name, role, process: 0, priority, body })
}

/// The thread that runs the threaded DPCs of processor `index`: nothing that can be switched is better.
pub(crate) fn spawn_for_dpcs(cx: &mut Cx<'_>, index: usize, work: Work) -> Flow<StrandId> {
    let name = format!("DPC thread of processor {index}");
    let (role, priority, body) = (Role::Worker, HIGHEST, Body::Work(work));
    let strand = make(cx, Start { name, role, process: 0, priority, body }, true)?;
    cx.with(|k| {
        let mask = k.ke.processors[index].mask();
        k.ke.threads.get_mut(strand).expect("just made").own_affinity = mask;
        scheduler::make_ready(k, strand);
    });
    Ok(strand)
}

fn make(cx: &mut Cx<'_>, start: Start, with_stack: bool) -> Flow<StrandId> {
    // A driver was asked for its room before (`is_room`).
    cx.with(|k| k.mm.physical.memory.set_for_system(true));
    let object = pool::allocate(cx, pool::Kind::NonPaged, OBJECT_SIZE, pool::tag(b"Thre"));
    let bytes = cx.with(|k| k.ke.kernel_stack);
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
        k.ke.spending.charge(budget::NEW_THREAD);
        let own_affinity = affinity::of_new_thread(k);
        let id = k.ps.next_id();
        let Start { name, role, process, priority, body } = start;
        let thread = Thread {
            strand,
            object,
            name,
            role,
            process,
            id,
            body: Some(body),
            stack,
            state: State::Ready,
            base_priority: priority,
            boost: 0,
            starved: false,
            own_affinity,
            system_affinity: None,
            last_processor: k.ke.current,
            irql: 0,
            wait: None,
            wait_status: NtStatus::SUCCESS,
            queue: 0,
            taken: 0,
            apc_disable: 0,
            special_apc_disable: 0,
            apcs: VecDeque::new(),
            wanted: Wanted::default(),
            attached: Vec::new(),
            left_stacks: Vec::new(),
            mutexes: Vec::new(),
            callouts: Vec::new(),
            depths: Vec::new(),
            handlers: Vec::new(),
            repeated: Repeated::default(),
            extended: Vec::new(),
            services: Vec::new(),
            account: Account::default(),
            mark: (0, 0, 0),
            stuck: None,
            created,
            retired: (0, 0),
            question: 0,
            quantum_end: 0,
            hard_errors_disabled: false,
            device_to_verify: 0,
            activity: [0; 16],
            activity_at: 0,
            exit: None,
        };
        k.ke.threads.insert(thread);
    });
    Ok(strand)
}

/// The object of a thread is one block of pool.
static PROCEDURES: ob::Procedures = ob::Procedures { close: ob::Procedures::nothing, delete: forget };

fn forget(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    cx.with(|k| k.ke.ended.remove(&object));
    ob::Procedures::free(cx, object)
}

/// The object of the thread that runs now: `KeGetCurrentThread`. Null outside threads.
pub fn current_object(cx: &mut Cx<'_>) -> DriverPtr<KTHREAD> {
    cx.with(|k| k.ke.thread().map_or(DriverPtr::NULL, |thread| thread.object))
}

/// `KeGetCurrentThread`, `PsGetCurrentThread`.
///
/// # Errors
/// None of its own.
pub fn get_current(cx: &mut Cx<'_>) -> Flow<DriverPtr<KTHREAD>> {
    Ok(current_object(cx))
}

/// Runs the body of a strand's thread, from its first resume to its end.
pub(crate) fn run(cx: &mut Cx<'_>, id: StrandId) {
    let body = cx.with(|k| k.ke.threads.get_mut(id).and_then(|thread| thread.body.take()));
    let is_drivers = matches!(body, Some(Body::Driver { .. }));
    let result = match body {
        _ if cx.nt().stopping() => Err(Leave::Stop),
        Some(Body::Work(work)) if cx.with(|k| k.ke.threads[id].role == Role::Application) => {
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
    // An error at the end has been reported; there is no caller to return it to.
    let _ = end(cx, id, is_drivers, result);
}

fn end(cx: &mut Cx<'_>, id: StrandId, is_drivers: bool, result: Flow<()>) -> Flow<()> {
    let (exits, is_disabled) = cx.with(|k| {
        let thread = &k.ke.threads[id];
        (thread.exit.is_some(), thread.apc_disable != 0 || thread.special_apc_disable != 0)
    });
    if !cx.nt().stopping() && (result.is_ok() || exits) {
        tell_drivers(cx, id, false)?;
        // Those of an application are cancelled where it ends. In a region, which is reported below, no request would end.
        if is_drivers && !is_disabled {
            io::cancel::rundown_thread(cx)?;
        }
    }
    cx.with(|k| k.ke.threads.get_mut(id).expect("it has just run").state = State::Terminated);
    if cx.nt().stopping() || !(result.is_ok() || exits) {
        return Err(Leave::Stop);
    }
    check_end(cx)?;
    let (object, name) = cx.with(|k| (k.ke.threads[id].object, k.ke.threads[id].name.clone()));
    integrity::check_thread(cx, object, &name)?;
    let (object, process, stack) = cx.with(|k| {
        let thread = k.ke.threads.get_mut(id).expect("it has just run");
        let stack = thread.stack.take().map(|stack| (stack, stack::owner(&thread.name)));
        (thread.object, thread.home(), stack)
    });
    if let Some((stack, name)) = stack {
        let depth = stack::high_water(cx.engine(), stack);
        cx.with(|k| stack::note_depth(&mut k.ke.deepest_stacks, &name, depth));
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
        if let Some(thread) = k.ke.threads.remove(id) {
            k.ke.ended.insert(object.address, thread.identity());
        }
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

/// The name of the thread a strand is, for people.
pub(crate) fn name(k: &Kernel, strand: StrandId) -> String {
    k.ke.threads.get(strand).map_or_else(|| "scheduler".to_owned(), |thread| thread.name.clone())
}
