//! `Ke*`: processors, IRQL, threads, waits, timers, DPCs, interrupts.
//!
//! A thread is a strand; a processor has one current thread and the host runs one of them at a time
//! ([`scheduler`]). DPCs and interrupts run nested on the thread that is current, on stacks of the processor's own.
//! [`irql::settle`] is the one place where anything that waited is let in.

pub mod affinity;
pub mod bugcheck;
pub mod callout;
pub mod dispatcher;
pub mod dpc;
pub mod event;
pub mod fault;
pub mod guarded_mutex;
pub mod instruction;
pub mod interrupt;
pub mod irql;
pub mod leftover;
pub mod line;
pub mod links;
pub mod mutex;
pub mod place;
pub mod priority;
pub mod processor;
pub mod ready;
pub mod region;
#[cfg(test)]
pub(crate) mod rig;
pub mod scheduler;
pub mod semaphore;
pub mod shared_data;
pub mod slice;
pub mod spinlock;
pub mod stack;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod time;
pub mod timer;
pub mod wait;

use std::collections::BTreeMap;

use engine::StrandId;

use crate::nt::{Settings, WindowsVersion};
use line::Interrupts;
use processor::Processor;
use ready::ReadyQueues;
use spinlock::Locks;
use thread::Thread;
use timer::TimerQueue;

pub(crate) use stack::stack_for_call;

/// State of this prefix.
pub struct State {
    /// The virtual processors, by number.
    pub(crate) processors: Vec<Processor>,
    /// The processor that runs now, or ran last.
    pub(crate) current: usize,
    /// All threads that have not been reaped, idle threads included.
    pub(crate) threads: BTreeMap<StrandId, Thread>,
    /// Threads that have been reaped and whose objects are still held, by object.
    pub(crate) ended: BTreeMap<u64, thread::Identity>,
    /// Threads that could run.
    pub(crate) ready: ReadyQueues,
    /// Who waits for an object, by its address, in the order of arrival.
    pub(crate) waits: BTreeMap<u64, Vec<StrandId>>,
    /// Timers and time-outs.
    pub(crate) timers: TimerQueue,
    /// Spin locks that are held.
    pub(crate) locks: Locks,
    /// Connected interrupts and the lines' levels.
    pub(crate) interrupts: Interrupts,
    /// Nanoseconds that passed without driver instructions.
    pub(crate) charged: u64,
    /// When the policy asked to be asked next.
    pub(crate) next_question: u64,
    /// When the engine's slice ends, as it was set last.
    pub(crate) armed_until: u64,
    /// Something has changed that may end it earlier.
    pub(crate) rearm: bool,
    /// When and how often `KUSER_SHARED_DATA` was polled lately.
    pub(crate) polling: time::Polling,
    /// Driver instructions after which one call counts as an endless loop.
    pub(crate) budget: u64,
    /// Which Windows this is.
    pub(crate) windows: WindowsVersion,
    /// The greatest stack depth seen of any thread's driver stack that is gone already.
    pub(crate) deepest_stack: u64,
}

impl State {
    /// As at boot.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let count = settings.processors.clamp(1, 64);
        Self {
            processors: (0..count).map(Processor::new).collect(),
            current: 0,
            threads: BTreeMap::new(),
            ended: BTreeMap::new(),
            ready: ReadyQueues::default(),
            waits: BTreeMap::new(),
            timers: TimerQueue::default(),
            locks: Locks::default(),
            interrupts: Interrupts::default(),
            charged: 0,
            next_question: 0,
            armed_until: 0,
            rearm: false,
            polling: time::Polling::default(),
            budget: settings.instruction_budget.max(1),
            windows: settings.windows,
            deepest_stack: 0,
        }
    }

    /// The processor that runs now, and its IRQL.
    #[must_use]
    pub fn where_now(&self) -> (u32, u8) {
        let processor = self.processor();
        (processor.number, processor.irql)
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

    /// The thread that runs now, if a strand runs at all.
    pub(crate) fn thread(&self) -> Option<&Thread> {
        self.threads.get(&self.processor().thread)
    }

    /// The thread that runs now.
    pub(crate) fn thread_mut(&mut self) -> Option<&mut Thread> {
        let strand = self.processor().thread;
        self.threads.get_mut(&strand)
    }

    /// Changes the thread that runs now, if a strand runs at all.
    pub(crate) fn change_thread(&mut self, change: impl FnOnce(&mut Thread)) {
        if let Some(thread) = self.thread_mut() {
            change(thread);
        }
    }

    /// The thread whose object this is.
    pub(crate) fn thread_of(&self, object: u64) -> Option<&Thread> {
        self.threads.values().find(|thread| thread.object.address == object)
    }

    /// What the thread object tells as long as somebody holds it, after the thread's end too.
    pub(crate) fn identity_of(&self, object: u64) -> Option<thread::Identity> {
        let running = self.thread_of(object).map(thread::Thread::identity);
        running.or_else(|| self.ended.get(&object).copied())
    }
}
