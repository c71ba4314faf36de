//! Work items: a driver's routine called later on a system thread.
//!
//! Pages: *IoAllocateWorkItem function*, *IoQueueWorkItem function*, *IoQueueWorkItemEx function*, *IoFreeWorkItem
//! function*, *IO_WORKITEM_ROUTINE callback function*, *System Worker Threads*. Each queued item runs on a worker thread of its own, so
//! any order that Windows may choose is possible. From the queuing until the routine has returned a reference is held on the item's
//! device or driver object, and with it on the driver's image.

use abi::{Code, DEVICE_OBJECT, DriverPtr, IO_WORKITEM};
use engine::Flow;

use super::change;
use super::violation::device_name;
use super::{driver, routine, unload};
use crate::cx::Cx;
use crate::event::{Event, Kind, Role};
use crate::ke::pageable_object;
use crate::mm::pool;
use crate::se::impersonation;
use crate::verdict::Verdict;
use crate::witness;
use crate::{ke, ob};

/// Bytes of a work item: `IoSizeofWorkItem`.
const SIZE: u32 = 0x58;

/// What the I/O manager knows of a work item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    /// The device or driver object it is for, which stays while it is queued.
    object: u64,
    pub(crate) owner: Option<u64>,
    /// The moment when it was allocated or initialized.
    pub(crate) made: u64,
    /// The moment when it was queued and the routine it was queued with, if it is.
    pub(crate) queued: Option<Queued>,
    /// In memory of the driver's own.
    embedded: bool,
}

/// A work item in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    /// The moment.
    pub(crate) at: u64,
    pub(crate) routine: u64,
}

/// `IoSizeofWorkItem`.
///
/// # Errors
/// None.
pub(crate) fn size(_cx: &mut Cx<'_>) -> Flow<u32> {
    Ok(SIZE)
}

/// `IoAllocateWorkItem`; null if there is no memory.
///
/// # Errors
/// As an allocation.
pub(crate) fn allocate(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<DriverPtr<IO_WORKITEM>> {
    let block: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, SIZE.into(), pool::tag(b"IoWI"))?;
    if !block.is_null() {
        remember(cx, block.address, device.address, false);
    }
    Ok(block.cast())
}

/// `IoInitializeWorkItem`: in memory of the driver's.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn initialize(cx: &mut Cx<'_>, object: DriverPtr<()>, item: DriverPtr<IO_WORKITEM>) -> Flow<()> {
    pageable_object::initialized(cx, item.address, "work item", pageable_object::WORK_ITEM)?;
    cx.write_bytes(item.address, &[0; SIZE as usize])?;
    remember(cx, item.address, object.address, true);
    Ok(())
}

fn remember(cx: &mut Cx<'_>, item: u64, object: u64, embedded: bool) {
    let owner = driver::calling(cx);
    let made = witness::moment(cx);
    cx.with(|k| k.io.work_items.insert(item, Item { object, owner, made, queued: None, embedded }));
}

/// `IoFreeWorkItem`.
///
/// # Errors
/// A verdict if it is none, or is queued.
pub(crate) fn free(cx: &mut Cx<'_>, item: DriverPtr<IO_WORKITEM>) -> Flow<()> {
    let known = take(cx, item, "IoFreeWorkItem")?;
    if known.embedded {
        let message = format!("IoFreeWorkItem on {:#x}, which IoInitializeWorkItem made", item.address);
        return Err(cx.stop(Verdict::error("work-item", message)));
    }
    pool::free(cx, DriverPtr::<()>::new(item.address))
}

/// `IoUninitializeWorkItem`.
///
/// # Errors
/// A verdict if it is none, or is queued.
pub(crate) fn uninitialize(cx: &mut Cx<'_>, item: DriverPtr<IO_WORKITEM>) -> Flow<()> {
    take(cx, item, "IoUninitializeWorkItem").map(|_| ())
}

fn take(cx: &mut Cx<'_>, item: DriverPtr<IO_WORKITEM>, ddi: &str) -> Flow<Item> {
    match cx.with(|k| k.io.work_items.get(&item.address).copied()) {
        None => Err(not_one(cx, item, ddi)),
        Some(Item { queued: Some(queued), .. }) => {
            let message = format!("{ddi} on the work item {:#x}, which is queued", item.address);
            Err(cx.stop(Verdict::error("work-item-queued", message).related("queued", queued.at)))
        }
        Some(known) => {
            cx.with(|k| k.io.work_items.remove(&item.address));
            Ok(known)
        }
    }
}

fn not_one(cx: &mut Cx<'_>, item: DriverPtr<IO_WORKITEM>, ddi: &str) -> engine::Leave {
    let message = format!("{ddi} on {:#x}, which is no work item (any more)", item.address);
    cx.stop(Verdict::error("work-item", message))
}

/// Which arguments a work item's routine gets.
#[derive(Clone, Copy)]
enum Form {
    /// Object and context.
    Plain,
    /// Object, context and the work item.
    Extended,
}

/// `IoQueueWorkItem`.
///
/// # Errors
/// A verdict if it is none, or is queued already.
pub(crate) fn queue(
    cx: &mut Cx<'_>,
    item: DriverPtr<IO_WORKITEM>,
    routine: DriverPtr<Code>,
    _queue: u32,
    context: u64,
) -> Flow<()> {
    queue_as(cx, item, routine, context, Form::Plain)
}

/// `IoQueueWorkItemEx`: its routine also gets the work item.
///
/// # Errors
/// As [`queue`].
pub(crate) fn queue_ex(
    cx: &mut Cx<'_>,
    item: DriverPtr<IO_WORKITEM>,
    routine: DriverPtr<Code>,
    _queue: u32,
    context: u64,
) -> Flow<()> {
    queue_as(cx, item, routine, context, Form::Extended)
}

fn queue_as(
    cx: &mut Cx<'_>,
    item: DriverPtr<IO_WORKITEM>,
    routine: DriverPtr<Code>,
    context: u64,
    form: Form,
) -> Flow<()> {
    let Some(known) = cx.with(|k| k.io.work_items.get(&item.address).copied()) else {
        return Err(not_one(cx, item, "IoQueueWorkItem"));
    };
    if let Some(queued) = known.queued {
        let name = device_name(cx, DriverPtr::new(known.object));
        let message = format!(
            "IoQueueWorkItem on the work item {:#x} of {name}, which is queued already and has not run",
            item.address
        );
        return Err(cx.stop(Verdict::error("work-item-queued", message).related("queued", queued.at)));
    }
    let object = known.object;
    ob::object::reference(cx, DriverPtr::<()>::new(object))?;
    let queued = Queued { at: witness::moment(cx), routine: routine.address };
    cx.with(|k| change(&mut k.io.work_items, item.address, |item| item.queued = Some(queued)));
    cx.detail(Kind::WorkQueued, || Event::WorkQueued { item: item.address, routine: routine.address });
    let kept = unload::begin_work(cx, object);
    let work = Box::new(move |cx: &mut Cx<'_>| {
        // From here on the driver may free the item or queue it again.
        cx.with(|k| change(&mut k.io.work_items, item.address, |item| item.queued = None));
        cx.detail(Kind::WorkRun, || Event::WorkRun { item: item.address });
        let arguments = [object, context, item.address];
        let arguments = if matches!(form, Form::Plain) { &arguments[..2] } else { &arguments[..] };
        routine::call(cx, Role::WorkItem, routine, item.address, arguments)?;
        impersonation::check_worker(cx, routine.address, context, item.address)?;
        ob::object::dereference(cx, DriverPtr::<()>::new(object))?;
        unload::end_work(cx, kept)
    });
    ke::thread::spawn(cx, "worker thread", work).map(|_| ())
}
