//! Requests, each owned by exactly one party.
//!
//! Pages: *IRP*, *IoCompleteRequest*, *IoMarkIrpPending*, *IoSkipCurrentIrpStackLocation*. A dispatch routine is given an
//! [`Irp`] and must return an [`Answer`], which only completing, forwarding or pending that very request makes. A
//! pended request is a [`PendingIrp`], whose holder owns it. A request that is dropped fails; it is never lost.
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
//! What a request transfers lies in its system buffer ([`Irp::buffer`]) or in the application's own pages ([`Irp::source`],
//! [`Irp::destination`]), as its device or its control code says. Requests that the driver itself makes are children
//! ([`crate::Child`]).

use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{NonNull, null};

use abi::{DEVICE_OBJECT, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, KEVENT, MDL, NtStatus};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::device::Device;
use crate::direct::{Destination, Source, Way};
use crate::irql::{self, AtMostDispatch, DispatchOrBelow, Passive};
use crate::remove_lock::RemoveLock;
use crate::{Result, event, raw, sys};

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

/// A request that was marked pending: it is answered later, by its holder.
pub struct PendingIrp(Owned);

/// A request that the drivers below have completed: it is ours again, as they left it.
pub struct Returned(PendingIrp);

/// What is called when a request has come back from below.
type Then<T> = fn(&Device<T>, Returned, &mut DispatchOrBelow);

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

    /// Whether it is this device's: the remove lock that is held for it is the device's own.
    fn is_of<T>(&self, device: &Device<T>) -> bool {
        core::ptr::eq(self.lock, &raw const device.remove_lock)
    }

    #[track_caller]
    fn expect_of<T>(&self, device: &Device<T>) {
        assert!(self.is_of(device), "a request is passed down in another device's stack");
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

    /// The system buffer's length: what the request and its device say of it.
    fn buffered(&self) -> u32 {
        match self.get(IO_STACK_LOCATION::MajorFunction) {
            abi::IRP_MJ_READ | abi::IRP_MJ_WRITE if self.is_device(abi::DO_BUFFERED_IO) => {
                self.transfer().length
            }
            abi::IRP_MJ_DEVICE_CONTROL => match self.control().code & 3 {
                abi::METHOD_BUFFERED => self.control().input.max(self.control().output),
                abi::METHOD_IN_DIRECT | abi::METHOD_OUT_DIRECT => self.control().input,
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Which way the bytes of its pages go, if it is a direct request.
    pub(crate) fn direct(&self) -> Option<Way> {
        match self.get(IO_STACK_LOCATION::MajorFunction) {
            abi::IRP_MJ_READ if self.is_device(abi::DO_DIRECT_IO) => Some(Way::ToApplication),
            abi::IRP_MJ_WRITE if self.is_device(abi::DO_DIRECT_IO) => Some(Way::FromApplication),
            abi::IRP_MJ_DEVICE_CONTROL => match self.control().code & 3 {
                abi::METHOD_IN_DIRECT => Some(Way::FromApplication),
                abi::METHOD_OUT_DIRECT => Some(Way::ToApplication),
                _ => self.locked(),
            },
            _ => None,
        }
    }

    /// The same of a `METHOD_NEITHER` request: its pages are there once they were locked, and say for what.
    fn locked(&self) -> Option<Way> {
        // SAFETY: the request is ours, and so is its list, if it has one.
        unsafe {
            let list = raw::follow(self.as_ptr(), IRP::MdlAddress);
            let flags = (!list.is_null()).then(|| raw::get(list, MDL::MdlFlags).cast_unsigned())?;
            let writes = flags & abi::MDL_WRITE_OPERATION != 0;
            Some(if writes { Way::ToApplication } else { Way::FromApplication })
        }
    }

    /// Whether the device that the request was made for has this flag.
    fn is_device(&self, flag: u32) -> bool {
        let device = raw::pointer(self.get(IO_STACK_LOCATION::DeviceObject));
        // SAFETY: the request's device lives as long as the request; its kind of buffers does not change.
        unsafe { raw::get(device, DEVICE_OBJECT::Flags) & flag != 0 }
    }

    /// The most that the request's information can say was transferred: what lies behind it is no part of its buffer.
    fn room(&self) -> usize {
        match self.get(IO_STACK_LOCATION::MajorFunction) {
            abi::IRP_MJ_READ | abi::IRP_MJ_WRITE => self.transfer().length as usize,
            abi::IRP_MJ_DEVICE_CONTROL => self.control().output as usize,
            _ => usize::MAX,
        }
    }

    fn buffer(&mut self) -> &mut [u8] {
        // SAFETY: the request is ours, and with it the buffer, which the system made this long: `buffered` asks for a length
        // only where the system makes one.
        unsafe {
            let buffer = raw::follow(self.as_ptr(), IRP::AssociatedIrp_SystemBuffer).cast::<u8>();
            if buffer.is_null() {
                return &mut [];
            }
            core::slice::from_raw_parts_mut(buffer, self.buffered() as usize)
        }
    }

    fn input<T: FromBytes>(&mut self) -> Result<T> {
        let control = self.control();
        if !self.is_control() || control.code & 3 == abi::METHOD_NEITHER {
            return Err(NtStatus::INVALID_DEVICE_REQUEST);
        }
        let given = self.buffer().get(..control.input as usize).unwrap_or_default();
        T::read_from_prefix(given).map(|(value, _rest)| value).map_err(|_| NtStatus::BUFFER_TOO_SMALL)
    }

    fn output<T: IntoBytes + Immutable + ?Sized>(&mut self, answer: &T) -> Result<usize> {
        let control = self.control();
        if !self.is_control() || control.code & 3 != abi::METHOD_BUFFERED {
            return Err(NtStatus::INVALID_DEVICE_REQUEST);
        }
        let room = self.buffer().get_mut(..control.output as usize).unwrap_or_default();
        answer.write_to_prefix(room).map_err(|_| NtStatus::BUFFER_TOO_SMALL)?;
        Ok(size_of_val(answer))
    }

    fn is_control(&self) -> bool {
        self.get(IO_STACK_LOCATION::MajorFunction) == abi::IRP_MJ_DEVICE_CONTROL
    }

    /// Ends it; no more is transferred than it has room for.
    ///
    /// # Panics
    /// If the status says that it has not ended.
    #[track_caller]
    fn finish(self, status: NtStatus, information: usize) {
        assert!(status != NtStatus::PENDING, "a request is completed with STATUS_PENDING");
        let information = information.min(self.room());
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
        irql::expect_at_most(abi::DISPATCH_LEVEL);
        // the copy takes what `self`, which is not used again, owned
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

            /// Whether it is a device control request.
            #[must_use]
            pub fn is_control(&self) -> bool {
                self.$owned.is_control()
            }

            /// What it asks, if it is a device control request.
            #[must_use]
            pub fn control(&self) -> Control {
                self.$owned.control()
            }

            /// The system buffer of a buffered request: input at its beginning, output to its beginning. Of a device control
            /// request with direct transfers, its input. Empty for all others.
            pub fn buffer(&mut self) -> &mut [u8] {
                self.$owned.buffer()
            }

            /// The input of a device control request, as a value of a type that any bytes are good for: a copy.
            ///
            /// # Errors
            /// `STATUS_BUFFER_TOO_SMALL` if there are not as many bytes, `STATUS_INVALID_DEVICE_REQUEST` if it is no device control
            /// request with a system buffer.
            pub fn input<T: FromBytes>(&mut self) -> Result<T> {
                self.$owned.input()
            }

            /// Puts the output of a buffered device control request into its buffer, where its input was: the bytes to complete it with.
            ///
            /// # Errors
            /// `STATUS_BUFFER_TOO_SMALL` if there is no room for all of it; `STATUS_INVALID_DEVICE_REQUEST` if it is no buffered device
            /// control request.
            pub fn output<T: IntoBytes + Immutable + ?Sized>(&mut self, answer: &T) -> Result<usize> {
                self.$owned.output(answer)
            }

            /// The application's pages that a direct request takes its bytes from: a write, or `METHOD_IN_DIRECT`.
            ///
            /// # Errors
            /// `STATUS_INVALID_DEVICE_REQUEST` if it is no such request, `STATUS_INSUFFICIENT_RESOURCES` if the pages cannot be
            /// mapped.
            pub fn source<L: AtMostDispatch>(&self, _level: &mut L) -> Result<Source<'_>> {
                // SAFETY: the view borrows the request; at most at DISPATCH_LEVEL.
                unsafe { Source::of(&self.$owned) }
            }

            /// The application's pages that a direct request puts its bytes into: a read, or `METHOD_OUT_DIRECT`.
            ///
            /// # Errors
            /// As [`Self::source`].
            pub fn destination<L: AtMostDispatch>(&self, _level: &mut L) -> Result<Destination<'_>> {
                // SAFETY: the view borrows the request; at most at DISPATCH_LEVEL.
                unsafe { Destination::of(&self.$owned) }
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

    /// Ends the request: `information` is the bytes transferred, and no more than the request has room for.
    ///
    /// # Panics
    /// If the status is `STATUS_PENDING`, which is a bug check.
    #[track_caller]
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

    /// What its information is so far: of a Plug and Play request, what drivers above have answered.
    pub(crate) fn information(&self) -> u64 {
        // SAFETY: the request is ours.
        unsafe { raw::get(IRP::IoStatus.of(self.as_ptr()), IO_STATUS_BLOCK::Information) }
    }

    pub(crate) fn set_information(&mut self, information: u64) {
        // SAFETY: the request is ours.
        unsafe { raw::set(IRP::IoStatus.of(self.as_ptr()), IO_STATUS_BLOCK::Information, information) };
    }

    /// Ends it as it came: its driver has nothing to say.
    pub(crate) fn complete_as_it_came(self, passive: &mut Passive) -> Answer<'irp> {
        // SAFETY: the request is ours.
        let status = unsafe { raw::get(IRP::IoStatus.of(self.as_ptr()), IO_STATUS_BLOCK::Status) };
        let information = usize::try_from(self.information()).unwrap_or_default();
        self.complete(status, information, passive)
    }

    pub(crate) fn set_status(&mut self, status: NtStatus) {
        // SAFETY: the request is ours.
        unsafe { raw::set(IRP::IoStatus.of(self.as_ptr()), IO_STATUS_BLOCK::Status, status) };
    }

    /// Passes the request down and forgets it (`IoSkipCurrentIrpStackLocation`).
    ///
    /// # Panics
    /// If it is another device's request, which is a bug check: it has stack locations for the devices below its own.
    #[track_caller]
    pub fn forward<T, L: AtMostDispatch>(self, device: &Device<T>, _level: &mut L) -> Answer<'irp> {
        self.owned.expect_of(device);
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
    ///
    /// # Panics
    /// As [`Irp::forward`].
    #[track_caller]
    pub fn forward_and_wait<T>(self, device: &Device<T>, _passive: &mut Passive) -> (Self, NtStatus) {
        self.owned.expect_of(device);
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

impl<'irp> Irp<'irp> {
    /// Passes the request down, and has `then` called with it when the drivers below have completed it, maybe before this returns.
    ///
    /// ```
    /// use wdm::{Answer, Device, DispatchOrBelow, Function, Irp, Returned};
    ///
    /// fn read<'irp, T: Function>(device: &Device<T>, irp: Irp<'irp>, level: &mut DispatchOrBelow) -> Answer<'irp> {
    ///     irp.forward_then(device, done_below::<T>, level)
    /// }
    ///
    /// fn done_below<T>(_device: &Device<T>, mut irp: Returned, level: &mut DispatchOrBelow) {
    ///     irp.buffer().reverse();
    ///     irp.complete_as_it_is(level);
    /// }
    /// ```
    ///
    /// # Panics
    /// As [`Irp::forward`].
    #[track_caller]
    pub fn forward_then<T: Sync + 'static, L: AtMostDispatch>(
        self,
        device: &Device<T>,
        then: Then<T>,
        _level: &mut L,
    ) -> Answer<'irp> {
        self.owned.expect_of(device);
        let (irp, _lock) = self.into_raw(); // `returned` has it again, with the lock of its device
        // SAFETY: the request was ours; the driver below owns it from the call on, until `returned` is called with it.
        unsafe {
            mark_pending(irp.as_ptr());
            copy_to_next(irp.as_ptr());
            set_completion(irp.as_ptr(), returned::<T>, (then as *mut ()).cast());
            let _status = sys::IofCallDriver(device.lower(), irp.as_ptr());
        }
        Answer::new(NtStatus::PENDING)
    }
}

unsafe extern "system" fn returned<T: Sync + 'static>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    then: *mut c_void,
) -> NtStatus {
    if let Some(irp) = NonNull::new(irp) {
        // SAFETY: `forward_then` passed its routine; the remove lock that is held for the request keeps the device, whose request it
        // is again, marked pending. Completion routines run at most at DISPATCH_LEVEL.
        unsafe {
            let device = Device::<T>::of(object);
            let then = core::mem::transmute::<*mut c_void, Then<T>>(then);
            let irp = Returned(PendingIrp::from_raw(irp, &raw const device.remove_lock));
            then(device, irp, &mut DispatchOrBelow::assume());
        }
    }
    NtStatus::MORE_PROCESSING_REQUIRED
}

impl Returned {
    /// The status that the drivers below completed it with.
    pub fn status(&self) -> NtStatus {
        // SAFETY: the request is ours.
        unsafe { raw::get(IRP::IoStatus.of(self.0.as_ptr()), IO_STATUS_BLOCK::Status) }
    }

    /// The bytes that they transferred.
    #[must_use]
    pub fn information(&self) -> usize {
        // SAFETY: the request is ours.
        let said = unsafe { raw::get(IRP::IoStatus.of(self.0.as_ptr()), IO_STATUS_BLOCK::Information) };
        usize::try_from(said).unwrap_or(usize::MAX)
    }

    /// Ends it as the drivers below left it.
    pub fn complete_as_it_is<L: AtMostDispatch>(self, level: &mut L) {
        let (status, information) = (self.status(), self.information());
        self.0.complete(status, information, level);
    }

    /// Keeps it, to be ended otherwise or later.
    pub fn into_pending(self) -> PendingIrp {
        self.0
    }
}

impl core::ops::Deref for Returned {
    type Target = PendingIrp;

    fn deref(&self) -> &PendingIrp {
        &self.0
    }
}

impl core::ops::DerefMut for Returned {
    fn deref_mut(&mut self) -> &mut PendingIrp {
        &mut self.0
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

    pub(crate) fn as_ptr(&self) -> *mut IRP {
        self.0.as_ptr()
    }

    /// Which way the bytes of its pages go, if it is a direct request.
    pub(crate) fn direct(&self) -> Option<Way> {
        self.0.direct()
    }

    /// Whether it is this device's.
    pub(crate) fn is_of<T>(&self, device: &Device<T>) -> bool {
        self.0.is_of(device)
    }

    /// Ends the request: `information` is the bytes transferred, and no more than the request has room for.
    ///
    /// # Panics
    /// If the status is `STATUS_PENDING`, which is a bug check.
    #[track_caller]
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

pub(crate) unsafe extern "system" fn signal(
    _device: *mut abi::DEVICE_OBJECT,
    _irp: *mut IRP,
    event: *mut c_void,
) -> NtStatus {
    // SAFETY: who has set this routine passed its event, and waits for it or sees that nothing was pended.
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
