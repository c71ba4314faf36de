//! The device's own DPC: `DpcForIsr`.
//!
//! Page: *Registering and Queuing a DpcForIsr Routine*. `IoInitializeDpcRequest` and `IoRequestDpc` are inlined by
//! `wdm.h`, as they are here. Timers have DPCs of their own
//! (`timer`); there are no others yet.

use core::ffi::c_void;
use core::ptr::null_mut;

use abi::{DEVICE_OBJECT, KDPC};

use crate::device::Device;
use crate::driver::Function;
use crate::irql::Dispatch;
use crate::sys;

/// Registers `F`'s `DpcForIsr` (`IoInitializeDpcRequest`).
///
/// # Safety
/// `device` is a device of `F`, not yet in use.
pub(crate) unsafe fn initialize<F: Function>(device: *mut DEVICE_OBJECT) {
    // SAFETY: the device's DPC is ours to initialize.
    unsafe { sys::KeInitializeDpc(DEVICE_OBJECT::Dpc.of(device), dpc_for_isr::<F>, device.cast()) };
}

/// Queues it, unless it is queued already (`IoRequestDpc`).
///
/// # Safety
/// `device` lives, and its DPC is initialized.
pub(crate) unsafe fn request(device: *mut DEVICE_OBJECT) {
    // SAFETY: the caller's promise.
    unsafe { sys::KeInsertQueueDpc(DEVICE_OBJECT::Dpc.of(device), null_mut(), null_mut()) };
}

unsafe extern "system" fn dpc_for_isr<F: Function>(
    _dpc: *mut KDPC,
    device: *mut c_void,
    _irp: *mut c_void,
    _context: *mut c_void,
) {
    // SAFETY: the device outlives its interrupt, whose end flushes this DPC.
    let device = unsafe { Device::<F>::of(device.cast()) };
    // SAFETY: DPCs run at DISPATCH_LEVEL.
    F::dpc_for_isr(device, &mut unsafe { Dispatch::assume() });
}
