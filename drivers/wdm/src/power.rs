//! Power requests: the states of the device, and those of the system, which the device's follow.
//!
//! Pages: *Handling IRP_MN_SET_POWER for Device Power States*, *Handling IRP_MN_SET_POWER for System Power States*, *Sending
//! IRP_MN_QUERY_POWER or IRP_MN_SET_POWER for Device Power States*, *PoSetPowerState*. Going down, the driver lets go of the card before the request
//! passes; coming up, it is called when the drivers below are done. It is not called where the device has the state it is asked for, or goes from
//! one lower state to another. A function driver owns its device's power policy: a request for a state of the
//! system goes down first, then one for the device's state is made, D0 for working and D3 for all others, and the system's ends with it. A
//! filter passes all of them. It does not wake, and does not send an idle device to a lower state.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering;

use abi::{DEVICE_OBJECT, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, NtStatus};

use crate::device::Device;
use crate::driver::{Accepted, Function, Transfers, accept};
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
    // SAFETY: the request is ours.
    match unsafe { asked(irp.stack()) } {
        Asked::Up => {
            // SAFETY: the device's object.
            unsafe { pass_then(object, irp, device, is_up::<F>) }
        }
        Asked::Down(state) => {
            if device.in_d0.swap(false, Ordering::Relaxed) {
                F::power_down(device, &mut passive);
            }
            // SAFETY: at PASSIVE_LEVEL, before the state is left.
            unsafe { sys::PoSetPowerState(object, abi::DevicePowerState, state) };
            pass(device, irp)
        }
        Asked::System if F::TRANSFERS != Transfers::AsBelow => {
            // SAFETY: the device's object.
            unsafe { pass_then(object, irp, device, follow::<F>) }
        }
        Asked::System | Asked::Other => pass(device, irp),
    }
}

/// What a power request is about.
enum Asked {
    /// The device is to go to D0.
    Up,
    /// It is to go to a lower state.
    Down(u32),
    /// The system is to go to another state, or whether it may.
    System,
    Other,
}

/// # Safety
/// The caller's own location of a power request.
unsafe fn asked(stack: *mut IO_STACK_LOCATION) -> Asked {
    // SAFETY: the caller's promise.
    let (minor, kind, state) = unsafe {
        (
            raw::get(stack, IO_STACK_LOCATION::MinorFunction),
            raw::get(stack, IO_STACK_LOCATION::Parameters_Power_Type),
            raw::get(stack, IO_STACK_LOCATION::Parameters_Power_State),
        )
    };
    match (minor, kind) {
        (abi::IRP_MN_SET_POWER, abi::DevicePowerState) if state == abi::PowerDeviceD0 => Asked::Up,
        (abi::IRP_MN_SET_POWER, abi::DevicePowerState) => Asked::Down(state),
        (abi::IRP_MN_SET_POWER | abi::IRP_MN_QUERY_POWER, abi::SystemPowerState) => Asked::System,
        _ => Asked::Other,
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

/// Passes the request; `routine`, whose context is the device's object, gets it when it comes back, and releases the remove lock.
///
/// # Safety
/// `object` is the device's, which the request was made for.
unsafe fn pass_then<T>(
    object: *mut DEVICE_OBJECT,
    irp: Irp<'_>,
    device: &Device<T>,
    routine: sys::Completion,
) -> NtStatus {
    let (irp, _lock) = irp.into_raw();
    // SAFETY: the request was ours; the driver below owns it from the call on.
    unsafe {
        irp::mark_pending(irp.as_ptr());
        irp::copy_to_next(irp.as_ptr());
        irp::set_completion(irp.as_ptr(), routine, object.cast());
        let _status = sys::PoCallDriver(device.lower(), irp.as_ptr());
    }
    NtStatus::PENDING
}

/// The drivers below know of the system's state: the device is to follow.
unsafe extern "system" fn follow<F: Function>(
    _device: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    object: *mut c_void,
) -> NtStatus {
    // SAFETY: the remove lock that `accept` took keeps the device; the request is ours while it comes back.
    unsafe {
        let device = Device::<F>::of(object.cast::<DEVICE_OBJECT>());
        let block = IRP::IoStatus.of(irp);
        if raw::get(block, IO_STATUS_BLOCK::Status).is_success() {
            let stack = raw::follow(irp, IRP::Tail_Overlay_CurrentStackLocation);
            let minor = raw::get(stack, IO_STACK_LOCATION::MinorFunction);
            let works = raw::get(stack, IO_STACK_LOCATION::Parameters_Power_State) == abi::PowerSystemWorking;
            let state = if works { abi::PowerDeviceD0 } else { abi::PowerDeviceD3 };
            let pdo = device.pdo().object();
            let asked = sys::PoRequestPowerIrp(pdo, minor, state, has_followed::<F>, irp.cast(), null_mut());
            if asked == NtStatus::PENDING {
                return NtStatus::MORE_PROCESSING_REQUIRED;
            }
            raw::set(block, IO_STATUS_BLOCK::Status, asked);
        }
        sys::PoStartNextPowerIrp(irp);
        if let Some(irp) = NonNull::new(irp) {
            irp::release(irp, &raw const device.remove_lock);
        }
    }
    NtStatus::SUCCESS // STATUS_CONTINUE_COMPLETION
}

/// The device has followed, or has refused to: so ends the system's request.
unsafe extern "system" fn has_followed<F: Function>(
    _pdo: *mut DEVICE_OBJECT,
    _minor: u8,
    _state: u32,
    irp: *mut c_void,
    ended: *mut IO_STATUS_BLOCK,
) {
    let irp = irp.cast::<IRP>();
    // SAFETY: `follow` has kept the request, and with it the device; the system gives the status of the device's request.
    unsafe {
        let stack = raw::follow(irp, IRP::Tail_Overlay_CurrentStackLocation);
        let lock =
            &raw const Device::<F>::of(raw::follow(stack, IO_STACK_LOCATION::DeviceObject)).remove_lock;
        let status = raw::get(ended, IO_STATUS_BLOCK::Status);
        raw::set(IRP::IoStatus.of(irp), IO_STATUS_BLOCK::Status, status);
        sys::PoStartNextPowerIrp(irp);
        sys::IofCompleteRequest(irp, 0);
        if let Some(irp) = NonNull::new(irp) {
            irp::release(irp, lock);
        }
    }
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
            if !device.in_d0.swap(true, Ordering::Relaxed) {
                F::power_up(device, &mut DispatchOrBelow::assume());
            }
        }
        sys::PoStartNextPowerIrp(irp);
        if let Some(irp) = NonNull::new(irp) {
            irp::release(irp, &raw const device.remove_lock);
        }
    }
    NtStatus::SUCCESS // STATUS_CONTINUE_COMPLETION
}
