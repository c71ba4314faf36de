//! Priorities of threads. Follows *KeSetPriorityThread function*, *KeQueryPriorityThread function*.

use abi::{DriverPtr, KTHREAD};
use engine::Flow;

use super::thread::State;
use super::{irql, scheduler};
use crate::cx::Cx;
use crate::verdict::Verdict;

/// `KeSetPriorityThread`: 1–31; returns the priority before. A thread that is ready goes to the end of its new queue.
///
/// # Errors
/// A verdict if there is no such thread or priority; [`engine::Leave`] of what runs at once.
pub fn set(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>, priority: i32) -> Flow<i32> {
    let Some(priority) = u8::try_from(priority).ok().filter(|priority| (1..=31).contains(priority)) else {
        let message =
            format!("KeSetPriorityThread was called with priority {priority}; they go from 1 to 31");
        return Err(cx.stop(Verdict::error("thread-priority", message)));
    };
    let before = cx.with(|k| {
        let strand = k.ke.thread_of(thread.address)?.strand;
        let ready = k.ke.ready.remove(strand);
        let thread = k.ke.threads.get_mut(&strand)?;
        let before = thread.priority();
        (thread.base_priority, thread.boost) = (priority, 0);
        if ready {
            debug_assert_eq!(thread.state, State::Ready);
            scheduler::make_ready(k, strand);
        }
        Some(before)
    });
    match before {
        Some(before) => {
            irql::settle(cx)?;
            Ok(i32::from(before))
        }
        None => Err(no_thread(cx, thread, "KeSetPriorityThread")),
    }
}

/// `KeQueryPriorityThread`.
///
/// # Errors
/// A verdict if there is no such thread.
pub fn query(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<i32> {
    match cx.with(|k| k.ke.thread_of(thread.address).map(super::thread::Thread::priority)) {
        Some(priority) => Ok(i32::from(priority)),
        None => Err(no_thread(cx, thread, "KeQueryPriorityThread")),
    }
}

fn no_thread(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>, what: &str) -> engine::Leave {
    let message = format!("{what} was called for {:#x}, which is no thread that runs", thread.address);
    cx.stop(Verdict::error("not-a-thread", message))
}
