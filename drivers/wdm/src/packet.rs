//! The device queue: requests that `StartIo` is given one at a time.
//!
//! Pages: *IoStartPacket*, *IoStartNextPacket*, *StartIo routine*, *Canceling an IRP*. A request can be cancelled until
//! `StartIo` is called with it; then the driver owns it. `StartIo` is never nested in itself, and with each request it is given the
//! turn, a [`Packet`], which asks for the next request, once.

use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use abi::{DEVICE_OBJECT, DRIVER_OBJECT, IRP, KDEVICE_QUEUE, KEVENT, LIST_ENTRY, NtStatus};

use crate::device::Device;
use crate::driver::Function;
use crate::irp::{FileId, PendingIrp};
use crate::irql::{AtMostDispatch, Dispatch, Passive};
use crate::queue::{Refused, exchange_cancel, spare_word};
use crate::remove_lock::RemoveLock;
use crate::{event, raw, sys};

/// Where in a request the device queue has its entry.
#[allow(clippy::cast_possible_truncation, reason = "an offset in a small structure")]
const ENTRY_IN_IRP: usize = IRP::Tail_Overlay_DeviceQueueEntry.offset() as usize;

/// The packets of a device that have not ended, and the event of there being none.
pub(crate) struct Packets {
    outstanding: AtomicU32,
    idle: UnsafeCell<KEVENT>,
    /// A request that was cancelled while it was the current one, and so before `StartIo` was called with it, which it will be though the
    /// request is gone: calls of `StartIo` are deferred, and with them the change of what is current. By the cancel spin lock.
    cancelled: AtomicPtr<IRP>,
}

impl Packets {
    pub(crate) const fn new() -> Self {
        let (outstanding, cancelled) = (AtomicU32::new(0), AtomicPtr::new(null_mut()));
        Self { outstanding, idle: UnsafeCell::new(KEVENT::zeroed()), cancelled }
    }

    /// Makes it ready for use where it lies; it must not move after that.
    pub(crate) fn initialize(&self, _passive: &mut Passive) {
        // SAFETY: not in use yet.
        unsafe { sys::KeInitializeEvent(self.idle.get(), abi::NotificationEvent, 0) };
    }

    /// One has ended.
    fn end(&self) {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: initialized; callers are at most at DISPATCH_LEVEL.
            unsafe { sys::KeSetEvent(self.idle.get(), 0, 0) };
        }
    }
}

/// The turn of the request that `StartIo` was given: [`Device::start_next_packet`] takes it. Until then no other request comes, and if
/// it is lost, none ever.
#[must_use = "no request comes until `start_next_packet` was given this"]
pub struct Packet {
    /// Whose turn it is; nothing is there to be read.
    device: *const (),
}

// SAFETY: it is a device's name only.
unsafe impl Send for Packet {}
// SAFETY: as above.
unsafe impl Sync for Packet {}

/// Registers `StartIo`.
///
/// # Safety
/// `driver` is a driver whose devices are all of `F`.
pub(crate) unsafe fn register<F: Function>(driver: *mut DRIVER_OBJECT) {
    let routine = raw::stored((start_io::<F> as *const ()).cast_mut());
    // SAFETY: the driver object is ours to fill in.
    unsafe { raw::set(driver, DRIVER_OBJECT::DriverStartIo, routine) };
}

/// # Safety
/// `device` is ours and not yet in use.
pub(crate) unsafe fn initialize(device: *mut DEVICE_OBJECT) {
    // SAFETY: the caller's promise. Deferred, so that failing a long queue does not nest.
    unsafe { sys::IoSetStartIoAttributes(device, 1, 0) };
}

impl<F: Function> Device<F> {
    /// Queues a request for `StartIo`, or calls that at once if the device is idle.
    ///
    /// # Errors
    /// The request, if it is another device's.
    pub fn start_packet<L: AtMostDispatch>(
        &self,
        irp: PendingIrp,
        _level: &mut L,
    ) -> core::result::Result<(), (PendingIrp, Refused)> {
        if !irp.is_of(self) {
            return Err((irp, Refused::Foreign));
        }
        let (irp, lock) = irp.into_raw();
        self.packets.outstanding.fetch_add(1, Ordering::AcqRel);
        // SAFETY: the request was given to us and is the system's from the call on, until `StartIo` or a cancel routine
        // has it.
        unsafe {
            spare_word(irp).write(raw::stored(lock.cast_mut()));
            sys::IoStartPacket(self.object(), irp.as_ptr(), null_mut(), Some(cancel::<F>));
        }
        Ok(())
    }

    /// The request that `StartIo` was given with this turn has ended: the next one, if there is one, goes to `StartIo`. To be called
    /// before the request is completed.
    ///
    /// # Panics
    /// If it is another device's turn, which is a bug check.
    pub fn start_next_packet(&self, packet: Packet, _dispatch: &mut Dispatch) {
        assert!(packet.device == core::ptr::from_ref(self).cast(), "it is another device's turn");
        // SAFETY: at DISPATCH_LEVEL, without the cancel spin lock.
        unsafe { sys::IoStartNextPacket(self.object(), 1) };
        self.packets.end();
    }

    /// Cancels the packets of a file that `StartIo` does not have yet: to be called when its last handle is closed.
    pub fn cancel_packets<L: AtMostDispatch>(&self, file: FileId, level: &mut L) {
        while let Some(irp) = self.take_packet(file) {
            self.packets.end();
            irp.complete(NtStatus::CANCELLED, 0, level);
        }
    }

    /// The first packet of a file in the device queue; it can no longer be cancelled.
    fn take_packet(&self, file: FileId) -> Option<PendingIrp> {
        let mut level = 0;
        // SAFETY: the callers are at most at DISPATCH_LEVEL. Packets enter and leave the queue with the cancel spin lock held only,
        // because all of them can be cancelled.
        unsafe {
            sys::IoAcquireCancelSpinLock(&raw mut level);
            let taken = self.queued(file).map(|irp| {
                let entry = IRP::Tail_Overlay_DeviceQueueEntry.of(irp.as_ptr());
                sys::KeRemoveEntryDeviceQueue(DEVICE_OBJECT::DeviceQueue.of(self.object()), entry);
                exchange_cancel(irp, None);
                PendingIrp::from_raw(irp, lock_of(irp))
            });
            sys::IoReleaseCancelSpinLock(level);
            taken
        }
    }

    /// # Safety
    /// The cancel spin lock is held.
    unsafe fn queued(&self, file: FileId) -> Option<NonNull<IRP>> {
        let head = KDEVICE_QUEUE::DeviceListHead.of(DEVICE_OBJECT::DeviceQueue.of(self.object()));
        // SAFETY: the caller's promise: the list is whole and does not change; its entries are those of packets.
        unsafe {
            let mut entry = raw::follow(head, LIST_ENTRY::Flink);
            while entry != head {
                let irp = NonNull::new(entry.wrapping_byte_sub(ENTRY_IN_IRP).cast::<IRP>())?;
                let packet = PendingIrp::from_raw(irp, lock_of(irp));
                let is_its = packet.file() == file;
                let (irp, _lock) = packet.into_raw(); // it stays the queue's
                if is_its {
                    return Some(irp);
                }
                entry = raw::follow(entry, LIST_ENTRY::Flink);
            }
        }
        None
    }

    /// Waits until no packet is queued or under way, but not longer. Whether that came.
    #[must_use]
    pub fn wait_for_packets(&self, milliseconds: u32, _passive: &mut Passive) -> bool {
        // SAFETY: initialized; at PASSIVE_LEVEL.
        unsafe {
            sys::KeClearEvent(self.packets.idle.get());
            // what ends after this line signals the event; what ended before it is not counted any more
            self.packets.outstanding.load(Ordering::Acquire) == 0
                || event::wait(self.packets.idle.get(), Some(milliseconds)) != NtStatus::TIMEOUT
        }
    }
}

unsafe extern "system" fn start_io<F: Function>(object: *mut DEVICE_OBJECT, irp: *mut IRP) {
    let mut level = 0;
    // SAFETY: called at DISPATCH_LEVEL for a device of this driver. A request that is not the current one any more was cancelled and
    // may be gone, and so was one of which `cancel` says so; of others the cancel routine says whether they are still ours.
    let owned = unsafe {
        sys::IoAcquireCancelSpinLock(&raw mut level);
        let cancelled = &Device::<F>::of(object).packets.cancelled;
        let gone = cancelled.compare_exchange(irp, null_mut(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let current = NonNull::new(irp).filter(|irp| !gone && current(object) == irp.as_ptr());
        let owned = current.filter(|irp| !exchange_cancel(*irp, None).is_null());
        sys::IoReleaseCancelSpinLock(level);
        owned.map(|irp| PendingIrp::from_raw(irp, lock_of(irp)))
    };
    if let Some(irp) = owned {
        // SAFETY: StartIo is called for devices of this driver, at DISPATCH_LEVEL.
        let (device, mut dispatch) = unsafe { (Device::<F>::of(object), Dispatch::assume()) };
        let packet = Packet { device: core::ptr::from_ref(device).cast() };
        F::start_io(device, irp, packet, &mut dispatch);
    }
}

/// Cancels a request that `StartIo` does not have yet. It is called with the cancel spin lock held.
unsafe extern "system" fn cancel<F: Function>(object: *mut DEVICE_OBJECT, irp: *mut IRP) {
    // SAFETY: the request is queued or current, and ours, because its cancel routine is called; its remove lock keeps
    // the device until it is completed.
    unsafe {
        let Some(irp) = NonNull::new(irp) else { return };
        let device = Device::<F>::of(object);
        let level = raw::get(irp.as_ptr(), IRP::CancelIrql);
        if current(object) == irp.as_ptr() {
            device.packets.cancelled.store(irp.as_ptr(), Ordering::Relaxed);
            sys::IoReleaseCancelSpinLock(abi::DISPATCH_LEVEL);
            sys::IoStartNextPacket(object, 1);
            sys::KeLowerIrql(level);
        } else {
            let entry = IRP::Tail_Overlay_DeviceQueueEntry.of(irp.as_ptr());
            sys::KeRemoveEntryDeviceQueue(DEVICE_OBJECT::DeviceQueue.of(object), entry);
            sys::IoReleaseCancelSpinLock(level);
        }
        device.packets.end();
        let mut level = crate::irql::DispatchOrBelow::assume();
        PendingIrp::from_raw(irp, lock_of(irp)).complete(NtStatus::CANCELLED, 0, &mut level);
    }
}

/// # Safety
/// The device lives.
unsafe fn current(device: *mut DEVICE_OBJECT) -> *mut IRP {
    // SAFETY: the caller's promise.
    unsafe { raw::follow(device, DEVICE_OBJECT::CurrentIrp) }
}

/// # Safety
/// The request went through [`Device::start_packet`].
unsafe fn lock_of(irp: NonNull<IRP>) -> *const RemoveLock {
    // SAFETY: the caller's promise.
    raw::pointer(unsafe { spare_word(irp).read() }).cast::<RemoveLock>()
}
