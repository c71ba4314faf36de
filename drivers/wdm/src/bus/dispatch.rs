//! The dispatch routines of a bus driver: requests of its function devices and of their children.
//!
//! Page: *Writing Dispatch Routines*. A request of a child is accepted under the child's remove lock, and so is the routine that runs with it. One that is
//! stopped gets no further requests but the end of its files. WMI requests of a child end as they came.

use core::ffi::c_void;
use core::ptr::{NonNull, null};
use core::sync::atomic::Ordering;

use abi::{DEVICE_OBJECT, IRP, NtStatus};

use super::{Bus, ChildDevice, child_pnp, child_power};
use crate::device::Role;
use crate::driver::{self, Entry};
use crate::irp::{Irp, Owned};
use crate::irql::{DispatchOrBelow, Passive};
use crate::remove_lock::RemoveLock;
use crate::sys;

/// What stands in the driver object instead of a driver's whose devices have no children.
pub(crate) fn routines<D: Entry>() -> [(u8, sys::Dispatch); 9]
where
    D::Function: Bus,
{
    [
        (abi::IRP_MJ_CREATE, create::<D::Function>),
        (abi::IRP_MJ_CLEANUP, cleanup::<D::Function>),
        (abi::IRP_MJ_CLOSE, close::<D::Function>),
        (abi::IRP_MJ_READ, read::<D::Function>),
        (abi::IRP_MJ_WRITE, write::<D::Function>),
        (abi::IRP_MJ_DEVICE_CONTROL, device_control::<D::Function>),
        (abi::IRP_MJ_PNP, child_pnp::dispatch::<D::Function>),
        (abi::IRP_MJ_POWER, child_power::dispatch::<D::Function>),
        (abi::IRP_MJ_SYSTEM_CONTROL, system_control::<D>),
    ]
}

/// A request of a child that a dispatch routine was called with.
pub(super) struct Accepted<'irp, B: Bus> {
    pub(super) irp: Irp<'irp>,
    pub(super) child: &'irp ChildDevice<B>,
    /// Keeps the child for as long as the routine runs, whatever becomes of the request.
    pub(super) inside: Inside<'irp>,
}

/// Holds the remove lock for a routine.
pub(super) struct Inside<'a> {
    lock: &'a RemoveLock,
    tag: *mut c_void,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // SAFETY: taken with this tag by `accept`.
        unsafe { self.lock.release(self.tag) };
    }
}

/// Takes the child's remove lock for a request and for the routine that is called with it.
///
/// # Errors
/// The status with which the request was completed: the child is gone.
///
/// # Safety
/// Called first in a dispatch routine, with its arguments, the object a child's; what is returned lives no longer than the routine runs.
pub(super) unsafe fn accept<'irp, B: Bus>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
) -> core::result::Result<Accepted<'irp, B>, NtStatus> {
    let Some(irp) = NonNull::new(irp) else { return Err(NtStatus::INVALID_PARAMETER) };
    // SAFETY: the system gave us the request; the lock lies in the extension, which lives as long as the object.
    let (child, level) = unsafe { (ChildDevice::<B>::of(object), &mut DispatchOrBelow::assume()) };
    let (lock, tag) = (&child.remove_lock, irp.as_ptr().cast::<c_void>());
    let routine = tag.wrapping_byte_add(1); // a tag is any address: this one is the routine's while it runs
    if lock.acquire(tag).is_ok() {
        // SAFETY: the request is ours, and the lock is taken for it.
        let irp = Irp::new(unsafe { Owned::new(irp, lock) });
        if lock.acquire(routine).is_ok() {
            return Ok(Accepted { irp, child, inside: Inside { lock, tag: routine } });
        }
        return Err(refuse(irp, level));
    }
    // SAFETY: the request is ours; no lock is taken for it.
    Err(refuse(Irp::new(unsafe { Owned::new(irp, null()) }), level))
}

/// Ends a request of a child that is gone. A handle may be closed at any time.
fn refuse(irp: Irp<'_>, level: &mut DispatchOrBelow) -> NtStatus {
    let status = match irp.major() {
        abi::IRP_MJ_CLEANUP | abi::IRP_MJ_CLOSE => NtStatus::SUCCESS,
        _ => NtStatus::DELETE_PENDING,
    };
    if irp.major() == abi::IRP_MJ_POWER {
        // SAFETY: the request is ours.
        unsafe { sys::PoStartNextPowerIrp(irp.as_ptr()) };
    }
    irp.complete(status, 0, level).status()
}

/// Whether a stopped child has this request all the same: the end of a file.
fn ends_a_file(irp: &Irp<'_>) -> bool {
    matches!(irp.major(), abi::IRP_MJ_CLEANUP | abi::IRP_MJ_CLOSE)
}

macro_rules! dispatch_routines {
    ($($name:ident, $child:ident at $level:ident;)*) => {$(
        unsafe extern "system" fn $name<B: Bus>(object: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
            // SAFETY: called by the system with a request for a device of ours.
            if unsafe { Role::of(object) } != Role::Child {
                // SAFETY: as above.
                return unsafe { driver::$name::<B>(object, irp) };
            }
            // SAFETY: called by the system with a request for a child of ours, at this level.
            let (accepted, mut level) = unsafe { (accept::<B>(object, irp), $level::assume()) };
            match accepted {
                Ok(Accepted { irp, child, inside: _inside }) => {
                    if child.is_stopped.load(Ordering::Relaxed) && !ends_a_file(&irp) {
                        return irp.complete(NtStatus::DELETE_PENDING, 0, &mut level).status();
                    }
                    B::$child(child, irp, &mut level).status()
                }
                Err(status) => status,
            }
        }
    )*};
}

dispatch_routines! {
    create, child_create at Passive;
    cleanup, child_cleanup at Passive;
    close, child_close at Passive;
    read, child_read at DispatchOrBelow;
    write, child_write at DispatchOrBelow;
    device_control, child_device_control at DispatchOrBelow;
}

unsafe extern "system" fn system_control<D: Entry>(object: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus
where
    D::Function: Bus,
{
    // SAFETY: called by the system with a request for a device of ours, at PASSIVE_LEVEL.
    unsafe {
        if Role::of(object) != Role::Child {
            return driver::system_control::<D>(object, irp);
        }
        match accept::<D::Function>(object, irp) {
            Ok(Accepted { irp, child: _, inside: _inside }) => {
                irp.complete_as_it_came(&mut Passive::assume()).status()
            }
            Err(status) => status,
        }
    }
}
