//! Power requests: the device's own state, set by the power manager.
//!
//! Pages: *Handling IRP_MN_SET_POWER for Device Power States*, *PoStartNextPowerIrp*, *PoSetPowerState*. Going down, the
//! driver lets go of the card before the request passes; coming up, it is told when the drivers below are done. It makes
//! no power requests of its own: a system request passes down, and does not change the device's state.

use core::ffi::c_void;
use core::ptr::NonNull;

use abi::{DEVICE_OBJECT, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, NtStatus};

use crate::device::Device;
use crate::driver::{Accepted, Function, accept};
use crate::irp::{self, Irp};
use crate::irql::{DispatchOrBelow, Passive};
use crate::{raw, sys};

pub(crate) unsafe extern "system" fn dispatch<F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
) -> NtStatus {
    // SAFETY: called by the system with a request for a device of ours; at PASSIVE_LEVEL, because our devices say
    // DO_POWER_PAGABLE.
    let (accepted, mut passive) = unsafe { (accept::<F>(object, irp), Passive::assume()) };
    let Accepted { irp, device, inside: _inside } = match accepted {
        Ok(accepted) => accepted,
        Err(status) => return status,
    };
    match device_state(&irp) {
        Some(abi::PowerDeviceD0) => {
            // SAFETY: the device's object.
            unsafe { come_up::<F>(object, irp) }
        }
        Some(state) => {
            F::power_down(device, &mut passive);
            // SAFETY: at PASSIVE_LEVEL, before the state is left.
            unsafe { sys::PoSetPowerState(object, abi::DevicePowerState, state) };
            pass(device, irp)
        }
        None => pass(device, irp),
    }
}

/// The device state that the request sets, if it sets one.
fn device_state(irp: &Irp<'_>) -> Option<u32> {
    let stack = irp.stack();
    // SAFETY: the request is ours.
    unsafe {
        let sets = raw::get(stack, IO_STACK_LOCATION::MinorFunction) == abi::IRP_MN_SET_POWER
            && raw::get(stack, IO_STACK_LOCATION::Parameters_Power_Type) == abi::DevicePowerState;
        sets.then(|| raw::get(stack, IO_STACK_LOCATION::Parameters_Power_State))
    }
}

fn pass<T>(device: &Device<T>, irp: Irp<'_>) -> NtStatus {
    let (irp, lock) = irp.into_raw();
    // SAFETY: the request was ours; the driver below owns it from the call on.
    unsafe {
        sys::PoStartNextPowerIrp(irp.as_ptr());
        irp::skip(irp.as_ptr());
        let status = sys::PoCallDriver(device.lower(), irp.as_ptr());
        irp::release(irp, lock);
        status
    }
}

/// # Safety
/// `object` is the device of `F` that the request was made for.
unsafe fn come_up<F: Function>(object: *mut DEVICE_OBJECT, irp: Irp<'_>) -> NtStatus {
    let (irp, _lock) = irp.into_raw(); // `is_up` releases the remove lock
    // SAFETY: the request was ours; the driver below owns it from the call on.
    unsafe {
        let lower = Device::<F>::of(object).lower();
        irp::mark_pending(irp.as_ptr());
        irp::copy_to_next(irp.as_ptr());
        irp::set_completion(irp.as_ptr(), is_up::<F>, object.cast());
        let _status = sys::PoCallDriver(lower, irp.as_ptr());
    }
    NtStatus::PENDING
}

unsafe extern "system" fn is_up<F: Function>(
    _device: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    object: *mut c_void,
) -> NtStatus {
    let object = object.cast::<DEVICE_OBJECT>();
    // SAFETY: the remove lock that `accept` took keeps the device; completion routines run at most at DISPATCH_LEVEL.
    unsafe {
        let device = Device::<F>::of(object);
        if raw::get(IRP::IoStatus.of(irp), IO_STATUS_BLOCK::Status).is_success() {
            sys::PoSetPowerState(object, abi::DevicePowerState, abi::PowerDeviceD0);
            F::power_up(device, &mut DispatchOrBelow::assume());
        }
        sys::PoStartNextPowerIrp(irp);
        if let Some(irp) = NonNull::new(irp) {
            irp::release(irp, &raw const device.remove_lock);
        }
    }
    NtStatus::SUCCESS // STATUS_CONTINUE_COMPLETION
}
