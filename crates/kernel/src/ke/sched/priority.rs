//! Priorities of threads. Follows *KeSetPriorityThread function*, *KeSetBasePriorityThread function*,
//! *KeQueryPriorityThread function*. A thread that has ended has its object, and so its priority, as long as a reference to it is held.

use abi::{DriverPtr, KTHREAD};
use engine::Flow;

use super::scheduler;
use super::thread_record::NORMAL_PRIORITY;
use super::thread_record::{HIGHEST_DYNAMIC, State};
use crate::cx::Cx;
use crate::ke::levels::irql;
use crate::verdict::Verdict;

/// The highest priority: HIGH_PRIORITY.
const HIGHEST: u8 = 31;

/// `KeSetPriorityThread`: 1–31; returns the priority before. A thread that is ready goes to the end of its new queue.
///
/// # Errors
/// A verdict if there is no such thread or priority; [`engine::Leave`] of what runs at once.
pub(crate) fn set(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>, priority: i32) -> Flow<i32> {
    let Some(wanted) = u8::try_from(priority).ok().filter(|priority| *priority <= HIGHEST) else {
        // There is no such queue: what Windows would write lies beyond them.
        let message =
            format!("KeSetPriorityThread was called with priority {priority}; they go from 1 to 31");
        return Err(cx.stop(Verdict::error("thread-priority", message)));
    };
    if wanted == 0 {
        let message = "KeSetPriorityThread was called with LOW_PRIORITY (0), which is reserved for the system: such a thread runs only where no other can";
        cx.report(Verdict::warning("thread-priority", message));
    }
    let (before, _) = change(cx, thread, wanted, "KeSetPriorityThread")?;
    Ok(before.into())
}

/// `KeSetBasePriorityThread`: so much above or below the base priority of the thread's process, but not real-time; returns
/// how much it was before.
///
/// # Errors
/// As [`set`].
pub(crate) fn set_base(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>, increment: i32) -> Flow<i32> {
    // Every process here is one of normal priority.
    let process = i32::from(NORMAL_PRIORITY);
    let wanted = process.saturating_add(increment).clamp(1, HIGHEST_DYNAMIC.into());
    let priority = u8::try_from(wanted).expect("between 1 and 15");
    let (_, base) = change(cx, thread, priority, "KeSetBasePriorityThread")?;
    Ok(i32::from(base) - process)
}

/// Gives a thread another base priority. What it competed with before, and its base priority.
fn change(cx: &mut Cx<'_>, object: DriverPtr<KTHREAD>, priority: u8, what: &str) -> Flow<(u8, u8)> {
    let before = cx.with(|k| {
        let Some(strand) = k.ke.thread_of(object.address).map(|thread| thread.strand) else {
            let ended = k.ke.sched.ended.get_mut(&object.address)?;
            let before = (ended.priority, ended.base_priority);
            (ended.priority, ended.base_priority) = (priority, priority);
            return Some(before);
        };
        let ready = k.ke.sched.ready.remove(strand);
        let thread = k.ke.sched.threads.get_mut(strand)?;
        let before = (thread.priority(), thread.base_priority);
        (thread.base_priority, thread.boost) = (priority, 0);
        if ready {
            debug_assert_eq!(thread.state, State::Ready);
            scheduler::make_ready(k, strand);
        }
        k.ke.invalidate_levels();
        Some(before)
    });
    let Some(before) = before else { return Err(no_thread(cx, object, what)) };
    irql::settle(cx)?;
    Ok(before)
}

/// `KeQueryPriorityThread`.
///
/// # Errors
/// A verdict if there is no such thread.
pub(crate) fn query(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<i32> {
    match cx.with(|k| k.ke.identity_of(thread.address)) {
        Some(identity) => Ok(identity.priority.into()),
        None => Err(no_thread(cx, thread, "KeQueryPriorityThread")),
    }
}

fn no_thread(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>, what: &str) -> engine::Leave {
    let message = format!("{what} was called for {:#x}, which is no thread object", thread.address);
    cx.stop(Verdict::error("not-a-thread", message))
}
