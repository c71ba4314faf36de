//! A timer whose routine runs as a DPC of its own: `CustomTimerDpc`.
//!
//! Pages: *Timer Objects and DPCs*, *KeSetTimer*, *KeCancelTimer*. It fires once for each time it is set. There are no
//! periodic timers.

use core::cell::UnsafeCell;
use core::ffi::c_void;

use abi::{KDPC, KTIMER};

use crate::device::{Device, Tie};
use crate::irql::{self, AtMostDispatch, Dispatch, Passive};
use crate::pool::{PoolBox, Tag};
use crate::{Result, sys};

struct Block<T> {
    timer: UnsafeCell<KTIMER>,
    dpc: UnsafeCell<KDPC>,
    device: *const Device<T>,
    routine: fn(&Device<T>, &mut Dispatch),
}

/// A timer of a device. Dropping it cancels it and waits for its routine: at `PASSIVE_LEVEL`; above that its end is a bug check, and
/// so is the removal of its device if it is still there.
pub struct Timer<T> {
    block: PoolBox<Block<T>>,
    _tie: Tie,
}

// SAFETY: the kernel's routines take a timer from any processor, and the device, which is shared, is there until the timer has gone.
unsafe impl<T: Sync> Sync for Timer<T> {}
// SAFETY: as above; any thread may drop it.
unsafe impl<T: Sync> Send for Timer<T> {}

impl<T: Sync + 'static> Timer<T> {
    /// A timer that is not set. It goes when the device is stopped.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn new(
        device: &Device<T>,
        routine: fn(&Device<T>, &mut Dispatch),
        tag: Tag,
        passive: &mut Passive,
    ) -> Result<Self> {
        let block = Block {
            timer: UnsafeCell::new(KTIMER::zeroed()),
            dpc: UnsafeCell::new(KDPC::zeroed()),
            device,
            routine,
        };
        let block = PoolBox::new(block, tag, passive)?;
        // SAFETY: both objects are ours and stay where they are.
        unsafe {
            sys::KeInitializeTimer(block.timer.get());
            sys::KeInitializeDpc(block.dpc.get(), fired::<T>, block.as_ptr().cast());
        }
        Ok(Self { block, _tie: device.tie() })
    }

    /// Sets it: its routine runs in so many milliseconds. If it was set already it fires at the new time only.
    pub fn set_milliseconds<L: AtMostDispatch>(&self, milliseconds: u32, _level: &mut L) {
        const PER_MILLISECOND: i64 = 10_000;
        let due = -i64::from(milliseconds) * PER_MILLISECOND;
        // SAFETY: initialized; at most at DISPATCH_LEVEL.
        unsafe { sys::KeSetTimer(self.block.timer.get(), due, self.block.dpc.get()) };
    }

    /// Takes it back, and waits for its routine if that runs. It can be set again.
    pub fn cancel(&self, _passive: &mut Passive) {
        self.end();
    }
}

impl<T> Timer<T> {
    /// At `PASSIVE_LEVEL`.
    fn end(&self) {
        // SAFETY: initialized; the callers are at PASSIVE_LEVEL. After the flush the routine does not run.
        unsafe {
            sys::KeCancelTimer(self.block.timer.get());
            sys::KeFlushQueuedDpcs();
        }
    }
}

impl<T> Drop for Timer<T> {
    fn drop(&mut self) {
        irql::expect_at_most(abi::PASSIVE_LEVEL);
        self.end();
    }
}

unsafe extern "system" fn fired<T>(
    _dpc: *mut KDPC,
    block: *mut c_void,
    _one: *mut c_void,
    _two: *mut c_void,
) {
    // SAFETY: the block lives until its timer is cancelled and its DPC flushed, or for ever if it was forgotten; the device does not
    // go before its tie.
    let (device, routine) = unsafe {
        let block = &*block.cast::<Block<T>>();
        (&*block.device, block.routine)
    };
    // SAFETY: DPCs run at DISPATCH_LEVEL.
    routine(device, &mut unsafe { Dispatch::assume() });
}
