//! `Ke*`: processors, IRQL, threads, waits, timers, DPCs, interrupts.
//!
//! A thread is a strand; a processor has one current thread and the host runs one of them at a time
//! ([`scheduler`]). DPCs and interrupts run nested on the thread that is current, on stacks of the processor's own.
//! [`irql::settle`] is the one place where anything that waited is let in.
//!
//! Six rooms, from the bottom: `levels`, `timing`, `sched`, `calls`, `waits`, `irq`. Each may use those below it, and says in its
//! header what it names above and why. Its state is private to it; what others need are methods of its `State`. Here, above all of them,
//! stand boot, bug checks, processor instructions, and the words for what never goes on (`stuck`, `who_waits`).
//! Other prefixes name what this file exports, as `ke::dpc`, and no room.

pub(crate) mod boot;
pub(crate) mod bugcheck;
pub(crate) mod bugcheck_callback;
mod calls;
pub(crate) mod free_check;
pub(crate) mod instruction;
mod irq;
mod levels;
pub(crate) mod lock_order;
pub(crate) mod machine_callback;
pub(crate) mod pageable_object;
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

use engine::Engine;

use crate::ke::sched::thread_record;
use crate::nt::{Settings, WindowsVersion};
use sched::processor::Processor;
use sched::thread_record::Thread;

pub(crate) use calls::stack::stack_for_call;
pub(crate) use calls::{attach, callout, exception, expand, extended, fault, handler, system_service};
pub use calls::{depth, stack};
pub use irq::interrupt;
pub(crate) use irq::{dpc, interrupt_delivery, ipi, passive_isr, stall, vectors, watchdog};
pub(crate) use levels::{irql, locks, settle};
pub(crate) use sched::history;
pub(crate) use sched::{affinity, budget, node, priority, processor, region, slice, spinlock};
pub use sched::{patience, scheduler};
pub use timing::clock;
pub use timing::time::{TICK, UNIT};
pub(crate) use timing::{shared_data, time, timer_queue};
pub(crate) use waits::{apc, dispatcher, guarded_mutex, links, mutex, nt_timer, queue, semaphore, timer};
pub use waits::{event, integrity, thread, user_apc, wait};

/// State of this prefix.
pub struct State {
    engine: Engine,
    /// Which Windows this is.
    pub(crate) windows: WindowsVersion,
    /// The processor model.
    pub(crate) cpu: engine::Cpu,
    /// The virtual processors, by number.
    pub(crate) processors: Vec<Processor>,
    /// The processor that runs now, or ran last.
    pub(crate) current: usize,
    pub(crate) levels: levels::State,
    pub(crate) timing: timing::State,
    pub(crate) sched: sched::State,
    pub(crate) calls: calls::State,
    pub(crate) waits: waits::State,
    pub(crate) irq: irq::State,
    /// In which order locks were acquired.
    pub(crate) lock_order: lock_order::State,
    /// Routines that are called when the system stops.
    pub(crate) bug_check: bugcheck_callback::State,
    /// Routines that are called when a processor is added or an NMI comes.
    pub(crate) machine_callbacks: machine_callback::State,
    /// Descriptor tables, once a driver has asked.
    system: system::State,
}

impl State {
    /// How often drivers have looked how long the computer has been running.
    #[must_use]
    pub fn looks_at_uptime(&self) -> u64 {
        self.timing.looks_at_uptime()
    }

    /// Bytes of each kernel stack.
    pub(crate) fn stack_bytes(&self) -> u64 {
        self.calls.stack_bytes()
    }

    /// As at boot.
    #[must_use]
    pub fn new(engine: Engine, settings: &Settings) -> Self {
        let count = settings.processors.clamp(1, 64);
        Self {
            engine,
            windows: settings.windows,
            cpu: settings.cpu,
            processors: (0..count).map(Processor::new).collect(),
            current: 0,
            levels: levels::State::new(!settings.witness.is_empty()),
            timing: timing::State::default(),
            sched: sched::State::new(settings),
            calls: calls::State::new(settings),
            waits: waits::State::default(),
            irq: irq::State::default(),
            lock_order: lock_order::State::default(),
            bug_check: bugcheck_callback::State::default(),
            machine_callbacks: machine_callback::State::default(),
            system: system::State::default(),
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
        self.invalidate_levels();
    }

    /// A routine runs that must not lower the level below `floor`.
    pub(crate) fn push_floor(&mut self, floor: u8) {
        self.processor_mut().floors.push(floor);
        self.raise_floor(floor);
    }

    /// The innermost of these routines is over.
    #[inline]
    pub(crate) fn pop_floor(&mut self) {
        self.processor_mut().floors.pop();
        self.publish_floor();
    }

    /// The thread that runs now, if a strand runs at all.
    pub(crate) fn thread(&self) -> Option<&Thread> {
        self.sched.threads().get(self.processor().thread)
    }

    /// The thread that runs now.
    pub(crate) fn thread_mut(&mut self) -> Option<&mut Thread> {
        let strand = self.processor().thread;
        self.sched.threads_mut().get_mut(strand)
    }

    /// Changes the thread that runs now, if a strand runs at all.
    pub(crate) fn change_thread(&mut self, change: impl FnOnce(&mut Thread)) {
        if let Some(thread) = self.thread_mut() {
            change(thread);
        }
    }

    /// The thread whose object this is.
    pub(crate) fn thread_of(&self, object: u64) -> Option<&Thread> {
        self.sched.threads().of_object(object)
    }

    /// What the thread object holds as long as it is referenced, after the thread's end too.
    pub(crate) fn identity_of(&self, object: u64) -> Option<thread_record::Identity> {
        self.sched.identity_of(object)
    }
}
