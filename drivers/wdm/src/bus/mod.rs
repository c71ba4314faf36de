//! A function device that is a bus: its children, each a physical device object of the driver's, which the crate answers for.
//!
//! Pages: *Bus Drivers*, *Removing a Device in a Bus Driver*, *IRP_MN_QUERY_DEVICE_RELATIONS* ("BusRelations Request"),
//! *IoInvalidateDeviceRelations*. The driver says what is there ([`Device::plug`]) and no longer there ([`Device::unplug`]); the PnP manager learns
//! that something has changed, asks, and is given the list. A child ([`ChildDevice`]) is there from `plug` until the PnP manager has removed it
//! and it is reported no more, or its bus is removed. Who has a child has its bus: a bus is not removed before all its children have
//! been deleted, and a child not before every request of it has ended and every routine with it has returned.
//!
//! A child has no resources, no special files (paging, hibernation, dump), no interfaces between drivers and no WMI data of its own; it
//! does not wake the system. Its requests do not wait in its bus's queues (`IrpQueue`, `ManagedQueue`, `StartIo`), which are for those of the
//! bus itself.

mod child_pnp;
mod child_power;
mod dispatch;
mod identity;
mod list;

use core::cell::UnsafeCell;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};

use abi::{DEVICE_OBJECT, GUID, NtStatus};

use crate::Result;
use crate::device::{Device, Pdo, Role};
use crate::driver::{Function, Transfers};
use crate::irp::{Answer, Irp};
use crate::irql::{DispatchOrBelow, Passive};
use crate::pnp::Stop;
use crate::raw;
use crate::remove_lock::RemoveLock;

pub(crate) use dispatch::routines;
pub use identity::Identity;
pub(crate) use list::Children;

/// The routines of a bus: what it does for its children. Its driver is named with [`crate::bus_driver!`].
///
/// Plug and Play and power requests of a child are answered by the crate, which calls these where the driver may have something to do. Reads,
/// writes and control requests that reach a child's physical device object come from the child's own driver, or of a
/// [raw](Identity::raw) child from the application that opens it.
pub trait Bus: Function {
    /// What the driver keeps of a child.
    type Child: Send + Sync + 'static;
    /// `BusTypeGuid` of what children tell of their bus.
    const BUS_TYPE: GUID;
    /// `LegacyBusType`, an `INTERFACE_TYPE`.
    const LEGACY_BUS_TYPE: u32 = abi::PNPBus;
    /// `FILE_DEVICE_*` of a child.
    const CHILD_TYPE: u32 = abi::FILE_DEVICE_UNKNOWN;
    /// How reads and writes come to a child; not [`Transfers::AsBelow`], for nothing is below.
    const CHILD_TRANSFERS: Transfers = Transfers::Buffered;

    /// `IRP_MN_START_DEVICE`, before the child's own driver starts.
    ///
    /// # Errors
    /// Why it cannot be started; [`Bus::child_stop`] is called when it is removed then.
    fn child_start(_child: &ChildDevice<Self>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    /// The child is removed, or found to be gone: requests of it that the driver keeps are to end, because it is waited for them. It may come
    /// without a start, and before another one. It is called once for each start.
    fn child_stop(_child: &ChildDevice<Self>, _why: Stop, _passive: &mut Passive) {}

    /// The child goes to D0, or leaves it.
    fn child_power(_child: &ChildDevice<Self>, _is_on: bool, _passive: &mut Passive) {}

    /// An [ejectable](Identity::ejectable) child, which was removed before, is ejected. It is reported no more if this succeeds.
    ///
    /// # Errors
    /// Why it stays where it is.
    fn child_eject(_child: &ChildDevice<Self>, _passive: &mut Passive) -> Result<()> {
        Ok(())
    }

    /// `IRP_MJ_CREATE`.
    fn child_create<'irp>(_child: &ChildDevice<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        irp.complete(NtStatus::SUCCESS, 0, passive)
    }

    /// `IRP_MJ_CLEANUP`: the last handle of a file is closed; its requests are to end.
    fn child_cleanup<'irp>(
        _child: &ChildDevice<Self>,
        irp: Irp<'irp>,
        passive: &mut Passive,
    ) -> Answer<'irp> {
        irp.complete(NtStatus::SUCCESS, 0, passive)
    }

    /// `IRP_MJ_CLOSE`.
    fn child_close<'irp>(_child: &ChildDevice<Self>, irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
        irp.complete(NtStatus::SUCCESS, 0, passive)
    }

    /// `IRP_MJ_READ`, as [`Bus::CHILD_TRANSFERS`] says.
    fn child_read<'irp>(
        _child: &ChildDevice<Self>,
        irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0, level)
    }

    /// `IRP_MJ_WRITE`, as [`Bus::CHILD_TRANSFERS`] says.
    fn child_write<'irp>(
        _child: &ChildDevice<Self>,
        irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0, level)
    }

    /// `IRP_MJ_DEVICE_CONTROL`.
    fn child_device_control<'irp>(
        _child: &ChildDevice<Self>,
        irp: Irp<'irp>,
        level: &mut DispatchOrBelow,
    ) -> Answer<'irp> {
        irp.complete(NtStatus::INVALID_DEVICE_REQUEST, 0, level)
    }
}

/// A child of a bus: a physical device object. It lives in that object's extension and gives out the driver's [`Bus::Child`]. A routine is
/// lent it, and cannot keep it.
#[repr(C)]
pub struct ChildDevice<B: Bus> {
    role: Role,
    /// [`Bus::child_stop`] was called, and it has not been started since.
    is_stopped: AtomicBool,
    entry: UnsafeCell<list::Entry>,
    pdo: Pdo,
    bus: *const Device<B>,
    remove_lock: RemoveLock,
    identity: Identity,
    child: B::Child,
}

// SAFETY: its list's lock guards the entry; the objects are the kernel's; the rest is shared, and the driver's part may be.
unsafe impl<B: Bus> Sync for ChildDevice<B> {}

impl<B: Bus> ChildDevice<B> {
    /// The bus that it hangs on, which is there as long as the child.
    #[must_use]
    pub fn bus(&self) -> &Device<B> {
        // SAFETY: a bus deletes its children before it is deleted, which waits for all users of one: see `list::bury`.
        unsafe { &*self.bus }
    }

    /// Its physical device object: for a device interface of its own, or a common name.
    pub fn pdo(&self) -> &Pdo {
        &self.pdo
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The child whose object this is.
    ///
    /// # Safety
    /// `object` was made by [`Device::plug`] for a `B`, and lives for `'a`.
    unsafe fn of<'a>(object: *mut DEVICE_OBJECT) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*raw::follow(object, DEVICE_OBJECT::DeviceExtension).cast() }
    }

    /// [`Bus::child_stop`], if it was not called since the last start.
    fn stop(&self, why: Stop, passive: &mut Passive) {
        if !self.is_stopped.swap(true, Ordering::Relaxed) {
            B::child_stop(self, why, passive);
        }
    }
}

impl<B: Bus> Deref for ChildDevice<B> {
    type Target = B::Child;

    fn deref(&self) -> &B::Child {
        &self.child
    }
}
