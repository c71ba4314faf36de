//! Work items: a routine of the device that a system thread calls at `PASSIVE_LEVEL`, with what it was given.
//!
//! Pages: *System Worker Threads*, *IoAllocateWorkItem*, *IoQueueWorkItem*. A work item that is queued is given away, with its state;
//! its routine has both back, and may queue it again. Removal of the device waits for it. It is queued to `DelayedWorkQueue`.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::NonNull;

use abi::{DEVICE_OBJECT, IO_WORKITEM, NtStatus};

use crate::device::Device;
use crate::irql::{AtMostDispatch, Passive};
use crate::pool::{PoolBox, Tag};
use crate::{Result, sys};

/// What a work item calls: with the device, the state it was given, itself.
type Routine<T, C> = fn(&Device<T>, C, WorkItem<T, C>, &mut Passive);

struct Block<T, C> {
    item: NonNull<IO_WORKITEM>,
    tag: Tag,
    /// Of the device it was made for.
    object: *mut DEVICE_OBJECT,
    job: UnsafeCell<Option<(C, Routine<T, C>)>>,
}

/// A work item that is not queued.
///
/// ```
/// use wdm::{Device, Dispatch, Function, NtStatus, PendingIrp, Tag, WorkItem};
///
/// /// Has a request completed where its driver may wait.
/// fn later<T: Function>(device: &Device<T>, irp: PendingIrp, dispatch: &mut Dispatch) -> wdm::Result<()> {
///     let item = WorkItem::new(device, Tag::new(b"work"), dispatch)?;
///     if let Err((_item, irp)) = item.queue(device, irp, carry_out::<T>, dispatch) {
///         irp.complete(NtStatus::DELETE_PENDING, 0, dispatch);
///     }
///     Ok(())
/// }
///
/// fn carry_out<T>(
///     _device: &Device<T>,
///     irp: PendingIrp,
///     _item: WorkItem<T, PendingIrp>,
///     passive: &mut wdm::Passive,
/// ) {
///     wdm::delay_milliseconds(1, passive);
///     irp.complete(NtStatus::SUCCESS, 0, passive);
/// }
/// ```
pub struct WorkItem<T, C> {
    block: PoolBox<Block<T, C>>,
}

// SAFETY: one that is not queued is a block of pool, without state; its device is shared.
unsafe impl<T: Sync, C: Send> Send for WorkItem<T, C> {}
// SAFETY: a shared one gives nothing out.
unsafe impl<T: Sync, C: Send> Sync for WorkItem<T, C> {}

impl<T, C> Drop for Block<T, C> {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` and not queued; at most at DISPATCH_LEVEL, as a block of pool that is dropped is.
        unsafe { sys::IoFreeWorkItem(self.item.as_ptr()) };
    }
}

impl<T: Sync + 'static, C: Send + 'static> WorkItem<T, C> {
    /// A work item of the device.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn new<L: AtMostDispatch>(device: &Device<T>, tag: Tag, level: &mut L) -> Result<Self> {
        let object = device.object();
        // SAFETY: the device is there; at most at DISPATCH_LEVEL.
        let item = NonNull::new(unsafe { sys::IoAllocateWorkItem(object) });
        let item = item.ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        let block = Block { item, tag, object, job: UnsafeCell::new(None) };
        Ok(Self { block: PoolBox::new(block, tag, level)? })
    }

    /// Has `routine` called with `state` soon. The device is not removed before it has returned.
    ///
    /// # Errors
    /// Work item and state, if the device is being removed, or is not the work item's.
    pub fn queue<L: AtMostDispatch>(
        self,
        device: &Device<T>,
        state: C,
        routine: Routine<T, C>,
        level: &mut L,
    ) -> core::result::Result<(), (Self, C)> {
        let inside = if self.block.object == device.object() { device.inside.enter(level) } else { None };
        let Some(inside) = inside else { return Err((self, state)) };
        inside.keep(); // until `run` has called it
        // SAFETY: it is not queued, so the job is ours.
        unsafe { *self.block.job.get() = Some((state, routine)) };
        let item = self.block.item.as_ptr();
        let (block, _tag) = self.block.into_raw();
        // SAFETY: not queued; the block is the routine's from here on. At most at DISPATCH_LEVEL.
        unsafe { sys::IoQueueWorkItem(item, run::<T, C>, abi::DelayedWorkQueue, block.as_ptr().cast()) };
        Ok(())
    }
}

unsafe extern "system" fn run<T: Sync + 'static, C: Send + 'static>(
    object: *mut DEVICE_OBJECT,
    block: *mut c_void,
) {
    let Some(block) = NonNull::new(block.cast::<Block<T, C>>()) else { return };
    // SAFETY: `queue` gave the block, and kept the device; worker threads run at PASSIVE_LEVEL.
    unsafe {
        let device = Device::<T>::of(object);
        let item = WorkItem { block: PoolBox::from_raw(block, (*block.as_ptr()).tag) };
        if let Some((state, routine)) = (*item.block.job.get()).take() {
            routine(device, state, item, &mut Passive::assume());
        }
        // Behind this the device may go; its object stays until the system has this thread back.
        device.inside.leave_kept();
    }
}
