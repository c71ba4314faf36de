//! Power requests of a child's physical device object, where they end.
//!
//! Pages: *IRP_MN_SET_POWER*, *IRP_MN_QUERY_POWER*, *PoSetPowerState*, *PoStartNextPowerIrp*. A bus driver succeeds them, and sets the state of the device. A child's
//! wake signals are not waited for: `IRP_MN_WAIT_WAKE` and `IRP_MN_POWER_SEQUENCE` end as they came.

use abi::{DEVICE_OBJECT, IO_STACK_LOCATION, IRP, NtStatus};

use super::Bus;
use super::dispatch::{Accepted, accept};
use crate::device::Role;
use crate::irql::Passive;
use crate::{power, raw, sys};

pub(super) unsafe extern "system" fn dispatch<B: Bus>(object: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    // SAFETY: called by the system with a request for a device of ours; at PASSIVE_LEVEL, because children say DO_POWER_PAGABLE.
    let (accepted, mut passive) = unsafe {
        if Role::of(object) != Role::Child {
            return power::dispatch::<B>(object, irp);
        }
        (accept::<B>(object, irp), Passive::assume())
    };
    let Accepted { irp, child, inside: _inside } = match accepted {
        Ok(accepted) => accepted,
        Err(status) => return status,
    };
    let stack = irp.stack();
    // SAFETY: the request is ours.
    let (minor, kind, state) = unsafe {
        (
            raw::get(stack, IO_STACK_LOCATION::MinorFunction),
            raw::get(stack, IO_STACK_LOCATION::Parameters_Power_Type),
            raw::get(stack, IO_STACK_LOCATION::Parameters_Power_State),
        )
    };
    if minor == abi::IRP_MN_SET_POWER && kind == abi::DevicePowerState {
        B::child_power(child, state == abi::PowerDeviceD0, &mut passive);
        // SAFETY: the child's object, at PASSIVE_LEVEL.
        unsafe { sys::PoSetPowerState(object, abi::DevicePowerState, state) };
    }
    // SAFETY: the request is ours.
    unsafe { sys::PoStartNextPowerIrp(irp.as_ptr()) };
    let answer = match minor {
        abi::IRP_MN_SET_POWER | abi::IRP_MN_QUERY_POWER => irp.complete(NtStatus::SUCCESS, 0, &mut passive),
        _ => irp.complete_as_it_came(&mut passive),
    };
    answer.status()
}
