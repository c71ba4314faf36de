//! What is known of a thread: who it is, what it is doing, what it has used up, and what each room keeps of it.
//!
//! How it begins and ends is in `thread`; who runs when is the scheduler's.

use std::collections::VecDeque;

use abi::{Code, DriverPtr, KTHREAD, NtStatus};
use engine::{Flow, StrandId};

use super::spin::{FIRST_LOOK, Stuck};
use crate::cx::{Cx, Kernel};
use crate::ke::calls::attach::Attached;
use crate::ke::calls::callout::Callout;
use crate::ke::calls::depth;
use crate::ke::calls::exception::Repeated;
use crate::ke::calls::expand::Left;
use crate::ke::calls::extended::Saved;
use crate::ke::calls::handler::Running;
use crate::ke::waits::apc::Apc;
use crate::ke::waits::mutex::Owned;
use crate::ke::waits::user_apc::Wanted;
use crate::ke::waits::wait::Wait;
use crate::mm::stack::KernelStack;

/// Priority of a thread to which no other was given.
pub(crate) const NORMAL_PRIORITY: u8 = 8;
/// The highest priority that is not real-time.
pub(super) const HIGHEST_DYNAMIC: u8 = 15;

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
    pub(in crate::ke) const fn with_what_ran(&self, from: (u64, u64, u64), to: (u64, u64, u64)) -> Self {
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
    pub(in crate::ke) body: Option<Body>,
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
    /// So many outermost routines it has begun.
    pub(crate) begun: u64,
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

/// What a new thread is.
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) process: u64,
    pub(crate) priority: u8,
    pub(crate) body: Body,
}

/// What the kernel has given it.
pub(in crate::ke) struct Made {
    pub(in crate::ke) strand: StrandId,
    pub(in crate::ke) object: DriverPtr<KTHREAD>,
    pub(in crate::ke) id: u64,
    /// The moment when it was made.
    pub(in crate::ke) created: u64,
    pub(in crate::ke) own_affinity: u64,
    pub(in crate::ke) stack: Option<KernelStack>,
    pub(in crate::ke) last_processor: usize,
}

impl Thread {
    /// A thread that has not run yet.
    pub(in crate::ke) fn new(made: Made, start: Start) -> Self {
        let Made { strand, object, id, created, own_affinity, stack, last_processor } = made;
        let Start { name, role, process, priority, body } = start;
        Self {
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
            last_processor,
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
            begun: 0,
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
        }
    }

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

    /// Whether this address lies on one of them.
    pub(crate) fn has_on_stack(&self, address: u64) -> bool {
        self.stacks().any(|stack| (stack.limit..stack.base).contains(&address))
    }

    /// Behind the highest address of its driver stack; 0 if it has none.
    pub(in crate::ke) fn stack_base(&self) -> u64 {
        self.stack.map_or(0, |stack| stack.base)
    }
}

/// The object of the thread that runs now: `KeGetCurrentThread`. Null outside threads.
pub fn current_object(cx: &mut Cx<'_>) -> DriverPtr<KTHREAD> {
    cx.with(|k| k.ke.thread().map_or(DriverPtr::NULL, |thread| thread.object))
}

/// `KeGetCurrentThread`, `PsGetCurrentThread`.
///
/// # Errors
/// None of its own.
pub(crate) fn get_current(cx: &mut Cx<'_>) -> Flow<DriverPtr<KTHREAD>> {
    Ok(current_object(cx))
}

/// The name of the thread a strand is, for people.
pub(crate) fn name(k: &Kernel, strand: StrandId) -> String {
    k.ke.sched.threads.get(strand).map_or_else(|| "scheduler".to_owned(), |thread| thread.name.clone())
}
