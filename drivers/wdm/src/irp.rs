//! Requests, each owned by exactly one party.
//!
//! Pages: *IRP*, *IoCompleteRequest*, *IoMarkIrpPending*, *IoSkipCurrentIrpStackLocation*. A dispatch routine is given an
//! [`Irp`] and must return an [`Answer`], which only completing, forwarding or pending that very request makes. A
//! pended request is a [`PendingIrp`], whoever holds it owns it. A request that is dropped fails; it is never lost.
//!
//! Completing a request gives it away:
//!
//! ```compile_fail,E0382
//! fn twice(irp: wdm::PendingIrp, dispatch: &mut wdm::Dispatch) {
//!     irp.complete(wdm::NtStatus::SUCCESS, 0, dispatch);
//!     irp.complete(wdm::NtStatus::SUCCESS, 0, dispatch);
//! }
//! ```
//!
//! One request's answer is not another's:
//!
//! ```compile_fail
//! fn read<'a>(irp: wdm::Irp<'a>, other: wdm::Irp<'_>, passive: &mut wdm::Passive) -> wdm::Answer<'a> {
//!     let (_kept, _) = irp.pend();
//!     other.complete(wdm::NtStatus::SUCCESS, 0, passive)
//! }
//! ```
//!
//! It does not make requests of its own, and knows buffered transfers only.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{NonNull, null};

use abi::{IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, KEVENT, NtStatus};

use crate::device::Device;
use crate::irql::{AtMostDispatch, Passive};
use crate::remove_lock::RemoveLock;
use crate::{event, raw, sys};

/// An open file, to tell requests of one handle from another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileId(usize);

/// What a read or write asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Where on the device. Negative values have meanings of their own (`FILE_USE_FILE_POINTER_POSITION`).
    pub offset: i64,
    /// Bytes.
    pub length: u32,
}

/// What a device control request asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control {
    /// The control code; bits 1:0 are the method.
    pub code: u32,
    /// Bytes of input.
    pub input: u32,
    /// Bytes of room for output.
    pub output: u32,
}

/// An owned request and, unless that was refused, the remove lock that is held for it.
pub(crate) struct Owned {
    irp: NonNull<IRP>,
    lock: *const RemoveLock,
}

// SAFETY: an owner of a request may use it on any processor; the remove lock is the kernel's.
unsafe impl Send for Owned {}

/// A request that a dispatch routine was given and must answer.
pub struct Irp<'irp> {
    owned: Owned,
    brand: PhantomData<fn(&'irp ()) -> &'irp ()>,
}

/// A request that was marked pending: it is answered later, by whoever has it.
pub struct PendingIrp(Owned);

/// What a dispatch routine returns: the proof that its request was completed, passed on or pended.
#[must_use]
pub struct Answer<'irp> {
    status: NtStatus,
    brand: PhantomData<fn(&'irp ()) -> &'irp ()>,
}

impl Owned {
    /// # Safety
    /// The caller owns the request, and the remove lock for it, with the request as tag, if `lock` is not null.
    pub(crate) unsafe fn new(irp: NonNull<IRP>, lock: *const RemoveLock) -> Self {
        Self { irp, lock }
    }

    pub(crate) fn as_ptr(&self) -> *mut IRP {
        self.irp.as_ptr()
    }

    /// Gives the request away without completing it. The remove lock stays taken.
    pub(crate) fn into_raw(self) -> (NonNull<IRP>, *const RemoveLock) {
        let this = ManuallyDrop::new(self);
        (this.irp, this.lock)
    }

    fn stack(&self) -> *mut IO_STACK_LOCATION {
        // SAFETY: the request is ours, and so is its current stack location.
        unsafe { raw::follow(self.as_ptr(), IRP::Tail_Overlay_CurrentStackLocation) }
    }

    fn get<F: Copy>(&self, field: abi::Field<IO_STACK_LOCATION, F>) -> F {
        // SAFETY: as `stack`.
        unsafe { raw::get(self.stack(), field) }
    }

    fn file(&self) -> FileId {
        FileId(raw::pointer(self.get(IO_STACK_LOCATION::FileObject)).addr())
    }

    fn transfer(&self) -> Transfer {
        Transfer {
            offset: self.get(IO_STACK_LOCATION::Parameters_Read_ByteOffset),
            length: self.get(IO_STACK_LOCATION::Parameters_Read_Length),
        }
    }

    fn control(&self) -> Control {
        Control {
            code: self.get(IO_STACK_LOCATION::Parameters_DeviceIoControl_IoControlCode),
            input: self.get(IO_STACK_LOCATION::Parameters_DeviceIoControl_InputBufferLength),
            output: self.get(IO_STACK_LOCATION::Parameters_DeviceIoControl_OutputBufferLength),
        }
    }

    /// The system buffer's length: what the request says of it.
    fn buffered(&self) -> u32 {
        match self.get(IO_STACK_LOCATION::MajorFunction) {
            abi::IRP_MJ_READ | abi::IRP_MJ_WRITE => self.transfer().length,
            abi::IRP_MJ_DEVICE_CONTROL if self.control().code & 3 == abi::METHOD_BUFFERED => {
                self.control().input.max(self.control().output)
            }
            _ => 0,
        }
    }

    fn buffer(&mut self) -> &mut [u8] {
        // SAFETY: the request is ours, and with it the buffer, which the system made this long: every device of this
        // crate does buffered transfers.
        unsafe {
            let buffer = raw::follow(self.as_ptr(), IRP::AssociatedIrp_SystemBuffer).cast::<u8>();
            if buffer.is_null() {
                return &mut [];
            }
            core::slice::from_raw_parts_mut(buffer, self.buffered() as usize)
        }
    }

    fn finish(self, status: NtStatus, information: usize) {
        let (irp, lock) = self.into_raw();
        // SAFETY: the request was ours until now; its lock was taken for it.
        unsafe {
            let block = IRP::IoStatus.of(irp.as_ptr());
            raw::set(block, IO_STATUS_BLOCK::Status, status);
            raw::set(block, IO_STATUS_BLOCK::Information, information as u64);
            sys::IofCompleteRequest(irp.as_ptr(), 0);
            release(irp, lock);
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // the copy takes what `self`, which nobody sees again, owned
        Self { irp: self.irp, lock: self.lock }.finish(NtStatus::UNSUCCESSFUL, 0);
    }
}

/// Releases the remove lock that was held for a request which may be gone.
///
/// # Safety
/// The lock, if there is one, was taken with this tag.
pub(crate) unsafe fn release(tag: NonNull<IRP>, lock: *const RemoveLock) {
    // SAFETY: the device, and with it the lock, lives until the lock is released.
    if let Some(lock) = unsafe { lock.as_ref() } {
        // SAFETY: the caller's promise.
        unsafe { lock.release(tag.as_ptr().cast()) };
    }
}

macro_rules! request {
    ($type:ty, $owned:tt) => {
        impl $type {
            /// The open file it came by.
            #[must_use]
            pub fn file(&self) -> FileId {
                self.$owned.file()
            }

            /// What it asks, if it is a read or write.
            #[must_use]
            pub fn transfer(&self) -> Transfer {
                self.$owned.transfer()
            }

            /// Whether it reads from the device.
            #[must_use]
            pub fn is_read(&self) -> bool {
                self.$owned.get(IO_STACK_LOCATION::MajorFunction) == abi::IRP_MJ_READ
            }

            /// What it asks, if it is a device control request.
            #[must_use]
            pub fn control(&self) -> Control {
                self.$owned.control()
            }

            /// The system buffer of a buffered request: input at its beginning, output to its beginning. Empty for all
            /// others.
            pub fn buffer(&mut self) -> &mut [u8] {
                self.$owned.buffer()
            }
        }
    };
}

request!(Irp<'_>, owned);
request!(PendingIrp, 0);

impl<'irp> Irp<'irp> {
    pub(crate) fn new(owned: Owned) -> Self {
        Self { owned, brand: PhantomData }
    }

    pub(crate) fn as_ptr(&self) -> *mut IRP {
        self.owned.as_ptr()
    }

    pub(crate) fn major(&self) -> u8 {
        self.owned.get(IO_STACK_LOCATION::MajorFunction)
    }

    pub(crate) fn stack(&self) -> *mut IO_STACK_LOCATION {
        self.owned.stack()
    }

    /// Ends the request: `information` is the bytes transferred.
    pub fn complete<L: AtMostDispatch>(
        self,
        status: NtStatus,
        information: usize,
        _level: &mut L,
    ) -> Answer<'irp> {
        self.owned.finish(status, information);
        Answer::new(status)
    }

    /// Puts the answer off: the dispatch routine returns `STATUS_PENDING`.
    pub fn pend(self) -> (PendingIrp, Answer<'irp>) {
        // SAFETY: the request is ours.
        unsafe { mark_pending(self.as_ptr()) };
        (PendingIrp(self.owned), Answer::new(NtStatus::PENDING))
    }

    /// Gives the raw request and its remove lock away.
    pub(crate) fn into_raw(self) -> (NonNull<IRP>, *const RemoveLock) {
        self.owned.into_raw()
    }

    pub(crate) fn set_status(&mut self, status: NtStatus) {
        // SAFETY: the request is ours.
        unsafe { raw::set(IRP::IoStatus.of(self.as_ptr()), IO_STATUS_BLOCK::Status, status) };
    }

    /// Passes the request down and forgets it (`IoSkipCurrentIrpStackLocation`).
    pub fn forward<T, L: AtMostDispatch>(self, device: &Device<T>, _level: &mut L) -> Answer<'irp> {
        let (irp, lock) = self.into_raw();
        // SAFETY: the request was ours; the driver below owns it from the call on.
        let status = unsafe {
            skip(irp.as_ptr());
            let status = sys::IofCallDriver(device.lower(), irp.as_ptr());
            release(irp, lock);
            status
        };
        Answer::new(status)
    }

    /// Passes the request down, waits until the drivers below have completed it, and has it back with their status.
    pub fn forward_and_wait<T>(self, device: &Device<T>, _passive: &mut Passive) -> (Self, NtStatus) {
        let (irp, lock) = self.into_raw();
        let mut done = KEVENT::zeroed();
        // SAFETY: the request was ours, and is again when `signal` has stopped its completion; the event outlives that.
        unsafe {
            sys::KeInitializeEvent(&raw mut done, abi::NotificationEvent, 0);
            copy_to_next(irp.as_ptr());
            set_completion(irp.as_ptr(), signal, (&raw mut done).cast());
            let mut status = sys::IofCallDriver(device.lower(), irp.as_ptr());
            if status == NtStatus::PENDING {
                let _signaled = event::wait(&raw mut done, None);
                status = raw::get(IRP::IoStatus.of(irp.as_ptr()), IO_STATUS_BLOCK::Status);
            }
            (Self::new(Owned::new(irp, lock)), status)
        }
    }
}

impl PendingIrp {
    /// # Safety
    /// The caller owns the request, which is marked pending, and the remove lock for it if `lock` is not null.
    pub(crate) unsafe fn from_raw(irp: NonNull<IRP>, lock: *const RemoveLock) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Owned::new(irp, lock) })
    }

    pub(crate) fn into_raw(self) -> (NonNull<IRP>, *const RemoveLock) {
        self.0.into_raw()
    }

    /// Ends the request: `information` is the bytes transferred.
    pub fn complete<L: AtMostDispatch>(self, status: NtStatus, information: usize, _level: &mut L) {
        self.0.finish(status, information);
    }
}

impl Answer<'_> {
    pub(crate) const fn new(status: NtStatus) -> Self {
        Self { status, brand: PhantomData }
    }

    /// What the dispatch routine returns to the system.
    pub(crate) const fn status(&self) -> NtStatus {
        self.status
    }
}

unsafe extern "system" fn signal(
    _device: *mut abi::DEVICE_OBJECT,
    _irp: *mut IRP,
    event: *mut c_void,
) -> NtStatus {
    // SAFETY: `forward_and_wait` passed its event and waits for it, or sees that nothing was pended.
    unsafe { sys::KeSetEvent(event.cast(), 0, 0) };
    NtStatus::MORE_PROCESSING_REQUIRED
}

/// `IoSkipCurrentIrpStackLocation`.
///
/// # Safety
/// The request is the caller's, who passes it on next.
pub(crate) unsafe fn skip(irp: *mut IRP) {
    // SAFETY: the caller's promise.
    unsafe {
        let stack = raw::follow(irp, IRP::Tail_Overlay_CurrentStackLocation);
        raw::set(irp, IRP::CurrentLocation, raw::get(irp, IRP::CurrentLocation).wrapping_add(1));
        raw::set(irp, IRP::Tail_Overlay_CurrentStackLocation, raw::stored(stack.wrapping_add(1)));
    }
}

/// `IoCopyCurrentIrpStackLocationToNext`: all but the completion routine.
///
/// # Safety
/// As [`skip`].
pub(crate) unsafe fn copy_to_next(irp: *mut IRP) {
    let bytes = IO_STACK_LOCATION::CompletionRoutine.of(null::<IO_STACK_LOCATION>().cast_mut()).addr();
    // SAFETY: every device of this crate has a driver below it, so there is a next location.
    unsafe {
        let stack = raw::follow(irp, IRP::Tail_Overlay_CurrentStackLocation);
        let next = stack.wrapping_sub(1);
        core::ptr::copy_nonoverlapping(stack.cast::<u8>(), next.cast(), bytes);
        raw::set(next, IO_STACK_LOCATION::Control, 0);
    }
}

/// `IoSetCompletionRoutine`, for success, error and cancellation.
///
/// # Safety
/// As [`skip`]; `context` is good for the routine.
pub(crate) unsafe fn set_completion(irp: *mut IRP, routine: sys::Completion, context: *mut c_void) {
    // SAFETY: as `copy_to_next`.
    unsafe {
        let next = raw::follow(irp, IRP::Tail_Overlay_CurrentStackLocation).wrapping_sub(1);
        raw::set(next, IO_STACK_LOCATION::CompletionRoutine, raw::stored((routine as *const ()).cast_mut()));
        raw::set(next, IO_STACK_LOCATION::Context, raw::stored(context));
        let always = abi::SL_INVOKE_ON_SUCCESS | abi::SL_INVOKE_ON_ERROR | abi::SL_INVOKE_ON_CANCEL;
        raw::set(next, IO_STACK_LOCATION::Control, always);
    }
}

/// `IoMarkIrpPending`.
///
/// # Safety
/// The request's current stack location is the caller's.
pub(crate) unsafe fn mark_pending(irp: *mut IRP) {
    // SAFETY: the caller's promise.
    unsafe {
        let stack = raw::follow(irp, IRP::Tail_Overlay_CurrentStackLocation);
        let control = raw::get(stack, IO_STACK_LOCATION::Control) | abi::SL_PENDING_RETURNED;
        raw::set(stack, IO_STACK_LOCATION::Control, control);
    }
}
