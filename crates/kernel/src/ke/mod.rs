//! `Ke*`: processors, IRQL, threads, waits, timers, DPCs, interrupts.
//!
//! A thread is a strand; a processor has one current thread and the host runs one of them at a time
//! ([`scheduler`]). DPCs and interrupts run nested on the thread that is current, on stacks of the processor's own.
//! [`irql::settle`] is the one place where anything that waited is let in.

pub(crate) mod boot;
pub(crate) mod bugcheck;
pub(crate) mod bugcheck_callback;
mod calls;
pub(crate) mod free_check;
pub(crate) mod instruction;
mod irq;
mod levels;
pub(crate) mod machine_callback;
#[cfg(test)]
pub(crate) mod rig;
mod sched;
pub mod stuck;
mod system;
#[cfg(test)]
mod tests;
mod timing;
mod waits;
pub(crate) mod who_waits;

use std::collections::BTreeMap;

use engine::{Engine, StrandId};

use crate::few::Few;
use crate::ke::levels::level;
use crate::ke::sched::thread_record;
use crate::nt::{Settings, WindowsVersion};
use crate::sorted_map::SortedMap;
use crate::verdict::Verdict;
use irq::interrupt_delivery::Interrupts;
use irq::ipi::Broadcast;
use levels::locks::Locks;
use sched::processor::Processor;
use sched::ready::ReadyQueues;
use sched::spin::Probe;
use sched::thread_record::Thread;
use sched::threads::Threads;
use timing::timer_queue::TimerQueue;

pub(crate) use calls::stack::stack_for_call;
pub(crate) use calls::{attach, callout, exception, expand, extended, fault, handler, system_service};
pub use calls::{depth, stack};
pub use irq::interrupt;
pub(crate) use irq::{dpc, interrupt_delivery, ipi, passive_isr, stall, vectors, watchdog};
pub(crate) use levels::{irql, locks, settle};
pub(crate) use sched::{affinity, budget, node, priority, processor, region, slice, spinlock};
pub use sched::{patience, scheduler};
pub use timing::clock;
pub(crate) use timing::{shared_data, time, timer_queue};
pub(crate) use waits::{apc, dispatcher, guarded_mutex, links, mutex, nt_timer, queue, semaphore, timer};
pub use waits::{event, integrity, thread, user_apc, wait};

/// State of this prefix.
pub struct State {
    /// The virtual processors, by number.
    pub(crate) processors: Vec<Processor>,
    /// Routines that are called when the system stops.
    pub(crate) bug_check: bugcheck_callback::State,
    /// Routines that are called when a processor is added or an NMI comes.
    pub(crate) machine_callbacks: machine_callback::State,
    /// How many processors make a group, 1–64.
    pub(crate) group_size: u32,
    /// The processor that runs now, or ran last.
    pub(crate) current: usize,
    /// All threads that have not been reaped, idle threads included.
    pub(crate) threads: Threads,
    /// Threads that have been reaped and whose objects are still held, by object.
    pub(crate) ended: BTreeMap<u64, thread_record::Identity>,
    /// Where the descriptor tables are, once a driver has asked.
    pub(crate) descriptor_tables: u64,
    /// Threads that could run.
    pub(crate) ready: ReadyQueues,
    /// The threads that wait for an object, by its address, in the order of arrival.
    pub(crate) waits: SortedMap<u64, Few<StrandId, 2>>,
    /// What is in a DPC queue, and where, by address.
    pub(crate) queued: SortedMap<u64, dpc::QueueOf>,
    /// Whether threaded DPCs run on threads; not said before the first is queued.
    pub(crate) threaded_dpcs: Option<bool>,
    /// Timers and time-outs.
    pub(crate) timers: TimerQueue,
    /// Spin locks that are held.
    pub(crate) locks: Locks,
    /// The routine that runs on all processors at once.
    pub(crate) broadcast: Option<Broadcast>,
    /// Connected interrupts and the lines' levels.
    pub(crate) interrupts: Interrupts,
    /// Nanoseconds that passed without driver instructions.
    pub(crate) charged: u64,
    /// When the engine's slice ends, as it was set last: at this time, or when so many driver instructions have retired
    /// since boot, whichever comes first.
    pub(crate) armed_until: u64,
    armed_retired: u64,
    /// Something has changed that may end it earlier.
    rearm: bool,
    engine: Engine,
    /// Below which level something may wait: see [`level`].
    waits_below: u8,
    /// Some reader gets every change of level.
    levels_are_told: bool,
    /// Some reader gets every call of an export, or its end.
    calls_are_told: bool,
    /// The stacks of moments are asked for: see [`crate::nt::Settings::witness`].
    is_witnessed: bool,
    /// When and how often `KUSER_SHARED_DATA` was polled lately.
    pub(crate) polling: time::Polling,
    /// Counts everything that could end a busy wait: turns in which memory may have changed, routines called,
    /// threads made ready, things the hardware did.
    pub(crate) progress: u64,
    /// What new threads have cost the host since boot, besides their events: see [`patience`].
    pub(crate) outlay: u64,
    /// How often drivers have accessed devices since boot.
    pub(crate) accesses: u64,
    /// What threads are to do, in all.
    pub(crate) apcs: usize,
    /// The turn that runs belongs to a busy wait, and it has got nowhere yet.
    pub(crate) turn_is_idle: bool,
    /// The routine that is being stepped through.
    pub(crate) probe: Option<Probe>,
    /// The verdict on a strand that waits busily, for it to take when it is resumed.
    pub(crate) pending_verdict: Option<(StrandId, Verdict)>,
    /// Driver instructions after which one call counts as an endless loop.
    pub(crate) budget: u64,
    /// How long the outside world waits for what it has asked.
    pub(crate) patience: patience::Patience,
    /// What calls of the kernel have used up of it.
    pub(crate) spending: budget::Budget,
    /// Which Windows this is.
    pub(crate) windows: WindowsVersion,
    /// The processor model.
    pub(crate) cpu: engine::Cpu,
    /// The greatest stack depth seen of any thread's driver stack that is gone already.
    pub(crate) deepest_stacks: std::collections::BTreeMap<String, u64>,
    /// Bytes of each kernel stack.
    pub(crate) kernel_stack: u64,
    /// How deep routines of drivers went, if that is asked for.
    pub(crate) depths: Option<depth::State>,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(engine: Engine, settings: &Settings) -> Self {
        let count = settings.processors.clamp(1, 64);
        Self {
            bug_check: bugcheck_callback::State::default(),
            machine_callbacks: machine_callback::State::default(),
            processors: (0..count).map(Processor::new).collect(),
            group_size: settings.group_size.clamp(1, 64),
            current: 0,
            threads: Threads::default(),
            ended: BTreeMap::new(),
            descriptor_tables: 0,
            ready: ReadyQueues::default(),
            waits: SortedMap::default(),
            queued: SortedMap::default(),
            threaded_dpcs: None,
            timers: TimerQueue::default(),
            locks: Locks::default(),
            broadcast: None,
            interrupts: Interrupts::default(),
            charged: 0,
            armed_until: 0,
            armed_retired: 0,
            rearm: false,
            engine,
            waits_below: level::ASK_ALWAYS,
            levels_are_told: false,
            calls_are_told: false,
            is_witnessed: !settings.witness.is_empty(),
            polling: time::Polling::default(),
            progress: 0,
            outlay: 0,
            accesses: 0,
            apcs: 0,
            turn_is_idle: false,
            probe: None,
            pending_verdict: None,
            budget: settings.instruction_budget.max(1),
            patience: patience::Patience::new(settings.patience),
            spending: budget::Budget::default(),
            windows: settings.windows,
            cpu: settings.cpu,
            deepest_stacks: std::collections::BTreeMap::new(),
            kernel_stack: settings.stack,
            depths: settings.stack_depths.then(depth::State::default),
        }
    }

    /// The virtual interrupt flag of the processor that runs now.
    #[must_use]
    pub fn interrupt_flag(&self) -> bool {
        self.processor().interrupts_enabled
    }

    /// How many processors there are.
    pub(crate) fn processor_count(&self) -> u32 {
        u32::try_from(self.processors.len()).expect("there are at most 64")
    }

    /// The processor that runs now.
    pub(crate) fn processor(&self) -> &Processor {
        &self.processors[self.current]
    }

    /// The processor that runs now.
    pub(crate) fn processor_mut(&mut self) -> &mut Processor {
        &mut self.processors[self.current]
    }

    /// The current thread gives way as soon as the level allows, and then goes behind its equals.
    pub(crate) fn request_yield(&mut self) {
        self.processor_mut().yield_requested = true;
        self.unsettled();
    }

    /// A routine runs that must not lower the level below `floor`.
    pub(crate) fn push_floor(&mut self, floor: u8) {
        self.processor_mut().floors.push(floor);
        self.forbids(floor);
    }

    /// The innermost of these routines is over.
    #[inline]
    pub(crate) fn pop_floor(&mut self) {
        self.processor_mut().floors.pop();
        self.forbids_less();
    }

    /// The thread that runs now, if a strand runs at all.
    pub(crate) fn thread(&self) -> Option<&Thread> {
        self.threads.get(self.processor().thread)
    }

    /// The thread that runs now.
    pub(crate) fn thread_mut(&mut self) -> Option<&mut Thread> {
        let strand = self.processor().thread;
        self.threads.get_mut(strand)
    }

    /// Changes the thread that runs now, if a strand runs at all.
    pub(crate) fn change_thread(&mut self, change: impl FnOnce(&mut Thread)) {
        if let Some(thread) = self.thread_mut() {
            change(thread);
        }
    }

    /// The thread whose object this is.
    pub(crate) fn thread_of(&self, object: u64) -> Option<&Thread> {
        self.threads.iter().find(|thread| thread.object.address == object)
    }

    /// What the thread object holds as long as it is referenced, after the thread's end too.
    pub(crate) fn identity_of(&self, object: u64) -> Option<thread_record::Identity> {
        let running = self.thread_of(object).map(thread_record::Thread::identity);
        running.or_else(|| self.ended.get(&object).copied())
    }
}
