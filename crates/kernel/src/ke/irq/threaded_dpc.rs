//! Threaded DPCs: routines on a thread of their processor's, at PASSIVE_LEVEL and the highest priority. Follows
//! *Introduction to Threaded DPCs*, *Synchronization and Threaded DPCs*, *Organization of DPC Queues*.
//!
//! A machine may have them disabled, and then they are ordinary ones: which it is is a choice, by default enabled. A routine must be
//! correct at either level, so one that waits is reported even where it could wait.

use abi::{DriverPtr, KDPC};
use engine::Flow;

use super::dpc::QueuedDpc;
use super::dpc_drain;
use super::kernel_worker::{self, KernelWorker};
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ke::calls::callout;
use crate::ke::waits::thread;
use crate::verdict::Verdict;

/// What a processor has for its threaded DPCs.
#[derive(Default)]
pub(crate) struct Threaded {
    /// DPCs to run there.
    pub(crate) queue: std::collections::VecDeque<QueuedDpc>,
    /// The one that runs.
    pub(crate) running: Option<u64>,
    worker: KernelWorker,
}

/// Whether this machine has them enabled, which Windows' registry says once for all.
pub(super) fn are_enabled(cx: &mut Cx<'_>) -> bool {
    if let Some(enabled) = cx.with(|k| k.ke.irq.threaded_dpcs) {
        return enabled;
    }
    let enabled = cx.choose("ke.threaded_dpcs", 2) == 0;
    cx.with(|k| k.ke.irq.threaded_dpcs = Some(enabled));
    enabled
}

/// Queues one for processor `target`, whose thread becomes ready.
pub(crate) fn enqueue(cx: &mut Cx<'_>, target: usize, queued: QueuedDpc, first: bool) -> Flow<()> {
    cx.with(|k| {
        let queue = &mut k.ke.processors[target].threaded.queue;
        if first {
            queue.push_front(queued);
        } else {
            queue.push_back(queued);
        }
    });
    kernel_worker::wake(cx, of_processor(target), |cx| {
        thread::spawn_for_dpcs(cx, target, Box::new(move |cx| run_all(cx, target)))
    })
}

fn of_processor(index: usize) -> impl Fn(&mut Kernel) -> &mut KernelWorker {
    move |k| &mut k.ke.processors[index].threaded.worker
}

/// What the thread of processor `index` does, for ever.
fn run_all(cx: &mut Cx<'_>, index: usize) -> Flow<()> {
    loop {
        let next = cx.with(|k| {
            let threaded = &mut k.ke.processors[index].threaded;
            let next = threaded.queue.pop_front();
            threaded.running = next.map(|dpc| dpc.object);
            next
        });
        match next {
            Some(queued) => run(cx, index, queued)?,
            None => kernel_worker::rest(cx, "a thread that runs DPCs", of_processor(index))?,
        }
    }
}

fn run(cx: &mut Cx<'_>, index: usize, queued: QueuedDpc) -> Flow<()> {
    let (routine, arguments) = dpc_drain::begin(cx, DriverPtr::<KDPC>::new(queued.object))?;
    let result = callout::call_routine(cx, Role::CustomThreadedDpc, routine, queued.object, &arguments);
    let left = cx.with(|k| {
        k.ke.processors[index].threaded.running = None;
        k.ke.sched.made_progress();
        k.ke.invalidate_levels();
        k.ke.thread_mut().is_some_and(|thread| thread.system_affinity.take().is_some())
    });
    result?;
    if left {
        let message = format!(
            "CustomThreadedDpc routine {:#x} returned without KeRevertToUserAffinityThread: the thread of its processor's DPCs would run elsewhere",
            routine.address
        );
        return Err(cx.stop(Verdict::error("affinity-not-reverted", message)));
    }
    Ok(())
}

/// Whether the current thread is in a threaded DPC.
fn is_in_one(k: &Kernel) -> bool {
    let strand = k.ke.processor().thread;
    k.ke.processors.iter().any(|p| p.threaded.worker.thread == Some(strand) && p.threaded.running.is_some())
}

/// Reports a wait of a threaded DPC, which must not wait even where its level allows it. Called before a wait begins.
pub(in crate::ke) fn look_at_wait(cx: &mut Cx<'_>, what: &str) {
    if cx.with(|k| is_in_one(k)) {
        let message = format!(
            "{what} was called in a threaded DPC: where those are disabled it runs at DISPATCH_LEVEL, and must not wait"
        );
        cx.report(Verdict::warning("threaded-dpc-waits", message));
    }
}
