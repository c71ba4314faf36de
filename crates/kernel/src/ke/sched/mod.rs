//! Threads on processors: whose turn it is, how long it lasts, and what a turn may use up.
//!
//! Above `timing` and `levels`. A turn looks for interrupts and due timers when it begins and when its slice ends, and so `scheduler`,
//! `slice`, `spin` and `taker` name `irq::interrupt_delivery` and `waits::timer` above. What a processor waits for may be the end of a DPC or of a
//! broadcast, which `scheduler` asks `irq`. The records of threads and processors hold types of the rooms that use them (`thread_record`,
//! `processor`). Verdicts on what never goes on are worded by `stuck`; a lock that is acquired while another
//! is held goes to `lock_order`.
//!
//! A slice is set once and ends at whatever comes first: a deadline, the quantum, the policy's question, a look at a busy wait. No event
//! depends on where slices end; so the fast path of switches (`switch_fast`) keeps a slice that serves the next thread too
//! (`slice::serves`), and else leaves the work to `scheduler`. Guards ask the cheap question first: whether any thread is ready, whether
//! there is one processor, whether the chooser can depart at all. The flag of the last is computed anew on each turn.
//!
//! Threads lie in a list by strand (`threads`), so that finding the current one is an index and a comparison. What returns through a switch
//! of stacks mispredicts each return, so `suspend` and `run_turn` are always inlined into their callers.

pub(crate) mod affinity;
mod assign_processor;
pub(crate) mod budget;
pub(crate) mod delay;
pub(crate) mod history;
pub(crate) mod node;
pub mod patience;
pub(crate) mod priority;
pub(crate) mod processor;
pub(in crate::ke) mod ready;
pub(crate) mod region;
pub mod scheduler;
pub(crate) mod slice;
pub(in crate::ke) mod spin;
pub(crate) mod spinlock;
pub(in crate::ke) mod switch_fast;
pub(in crate::ke) mod taker;
pub(in crate::ke) mod thread_record;
pub(in crate::ke) mod threads;

use std::collections::BTreeMap;

use engine::StrandId;

use crate::nt::Settings;
use crate::verdict::Verdict;
use ready::ReadyQueues;
use spin::Probe;
use thread_record::Identity;
use threads::Threads;

/// What this room keeps.
pub(crate) struct State {
    /// All threads that have not been reaped, idle threads included.
    threads: Threads,
    /// Threads that have been reaped and whose objects are still held, by object.
    ended: BTreeMap<u64, Identity>,
    /// Threads that could run.
    ready: ReadyQueues,
    /// How many processors make a group, 1–64.
    group_size: u32,
    /// Nanoseconds that passed without driver instructions.
    charged: u64,
    /// When the engine's slice ends, as it was set last: at this time, or when so many driver instructions have retired
    /// since boot, whichever comes first.
    armed_until: u64,
    armed_retired: u64,
    /// Counts everything that could end a busy wait: turns in which memory may have changed, routines called,
    /// threads made ready, things the hardware did.
    progress: u64,
    /// What new threads have cost the host since boot, besides their events: see [`patience`].
    outlay: u64,
    /// How often drivers have accessed devices since boot.
    accesses: u64,
    /// The turn that runs belongs to a busy wait, and it has got nowhere yet.
    turn_is_idle: bool,
    /// Where the policy was asked whether a thread is held up.
    delays: delay::Asked,
    /// Nanoseconds that threads were held up for.
    held_up: u64,
    /// The processor that is to take what has come: see [`taker`].
    taker: Option<usize>,
    /// The routine that is being stepped through.
    probe: Option<Probe>,
    /// The verdict on a strand that waits busily, for it to take when it is resumed.
    pending_verdict: Option<(StrandId, Verdict)>,
    /// Driver instructions after which one call counts as an endless loop.
    budget: u64,
    /// How long the outside world waits for what it has asked.
    patience: patience::Patience,
    /// What calls of the kernel have used up of it.
    spending: budget::Budget,
}

impl State {
    /// As at boot.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            threads: Threads::default(),
            ended: BTreeMap::new(),
            ready: ReadyQueues::default(),
            group_size: settings.group_size.clamp(1, 64),
            charged: 0,
            armed_until: 0,
            armed_retired: 0,
            progress: 0,
            outlay: 0,
            accesses: 0,
            turn_is_idle: false,
            delays: delay::Asked::default(),
            held_up: 0,
            taker: None,
            probe: None,
            pending_verdict: None,
            budget: settings.instruction_budget.max(1),
            patience: patience::Patience::new(settings.patience),
            spending: budget::Budget::default(),
        }
    }

    /// All threads that have not been reaped, idle threads included.
    #[inline]
    pub(crate) fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The same, to change one.
    #[inline]
    pub(crate) fn threads_mut(&mut self) -> &mut Threads {
        &mut self.threads
    }

    /// A thread is over: what its object holds is known until [`State::forget`].
    pub(super) fn reap(&mut self, strand: StrandId) {
        if let Some(thread) = self.threads.remove(strand) {
            self.ended.insert(thread.object.address, thread.identity());
        }
    }

    /// The object of a thread that is over is gone.
    pub(super) fn forget(&mut self, object: u64) {
        self.ended.remove(&object);
    }

    /// What the thread object holds as long as it is referenced, after the thread's end too.
    pub(crate) fn identity_of(&self, object: u64) -> Option<Identity> {
        let running = self.threads.of_object(object).map(thread_record::Thread::identity);
        running.or_else(|| self.ended.get(&object).copied())
    }

    /// Takes a thread out of the ready queues: whether it was there.
    #[cfg(test)]
    pub(super) fn take_from_ready(&mut self, strand: StrandId) -> bool {
        self.ready.remove(strand)
    }

    /// When the slice that runs ends at the latest.
    #[inline]
    pub(super) fn slice_end(&self) -> u64 {
        self.armed_until
    }

    /// Something has happened that could end a busy wait.
    #[inline]
    pub(crate) fn made_progress(&mut self) {
        self.progress += 1;
    }

    /// A driver has accessed a device.
    #[inline]
    pub(crate) fn count_access(&mut self) {
        self.accesses += 1;
    }

    /// A service stands for so many instructions, without a look at the account.
    #[inline]
    pub(super) fn spend(&mut self, instructions: u64) {
        self.spending.charge(instructions);
    }

    /// Driver instructions after which one call counts as an endless loop.
    #[inline]
    pub(super) fn instruction_budget(&self) -> u64 {
        self.budget
    }

    /// Whether the outside world has lost its patience once.
    #[inline]
    pub(crate) fn is_tired(&self) -> bool {
        self.patience.is_tired()
    }
}
