//! Work items of the executive's own: a driver's routine called later on a system thread.
//!
//! Page: *ExQueueWorkItem function*, *WORKER_THREAD_ROUTINE callback function*. Obsolete for drivers that unload
//! (`IoQueueWorkItem` is not), used all the same. Each item runs on a worker thread of its own, so any order that Windows
//! may choose is possible.

use abi::{DriverPtr, INVALID_WORK_QUEUE_ITEM, LIST_ENTRY, WORK_QUEUE_ITEM};
use engine::Flow;

use crate::cx::Cx;
use crate::event::{Event, Kind, Role};
use crate::ke;
use crate::ke::callout::call_routine;
use crate::ke::pageable_object;
use crate::se::impersonation;
use crate::verdict::Verdict;
use crate::witness;

/// `ExQueueWorkItem`.
///
/// # Errors
/// A verdict if the item is queued already, or has no routine.
pub(crate) fn queue(cx: &mut Cx<'_>, item: DriverPtr<WORK_QUEUE_ITEM>, queue: u32) -> Flow<()> {
    pageable_object::initialized(cx, item.address, "work item", pageable_object::WORK_ITEM)?;
    let link = (item + WORK_QUEUE_ITEM::List) + LIST_ENTRY::Flink;
    let queued = cx.with(|k| k.ex.work_items.get(&item.address).copied());
    let routine = cx.read(item + WORK_QUEUE_ITEM::WorkerRoutine)?;
    let wrong = match () {
        () if queued.is_some() => Some("which is queued already"),
        () if !cx.read(link)?.is_null() => Some("which ExInitializeWorkItem has not initialized"),
        () if routine.is_null() => Some("which has no routine"),
        () => None,
    };
    if let Some(wrong) = wrong {
        let message = format!("ExQueueWorkItem was given the work item {:#x}, {wrong}", item.address);
        let verdict = Verdict::error("work-item", message);
        let parameters = [1, item.address, queue.into(), 0];
        let verdict = verdict.bug_check(INVALID_WORK_QUEUE_ITEM, parameters);
        return Err(cx.stop(verdict.related_if("queued", queued)));
    }
    // Linked, as far as the driver can see.
    cx.write(link, item.cast())?;
    let queued = witness::moment(cx);
    cx.with(|k| k.ex.work_items.insert(item.address, queued));
    let (at, routine) = (item.address, routine.address);
    cx.detail(Kind::WorkQueued, || Event::WorkQueued { item: at, routine });
    ke::thread::spawn(cx, "work item", Box::new(move |cx| run(cx, item))).map(|_| ())
}

/// The driver may free or queue the item again as soon as its routine runs.
fn run(cx: &mut Cx<'_>, item: DriverPtr<WORK_QUEUE_ITEM>) -> Flow<()> {
    cx.with(|k| k.ex.work_items.remove(&item.address));
    cx.detail(Kind::WorkRun, || Event::WorkRun { item: item.address });
    cx.write((item + WORK_QUEUE_ITEM::List) + LIST_ENTRY::Flink, DriverPtr::NULL)?;
    let routine = cx.read(item + WORK_QUEUE_ITEM::WorkerRoutine)?;
    let parameter = cx.read(item + WORK_QUEUE_ITEM::Parameter)?;
    call_routine(cx, Role::WorkerRoutine, routine, item.address, &[parameter.address])?;
    impersonation::check_worker(cx, routine.address, parameter.address, item.address)
}
