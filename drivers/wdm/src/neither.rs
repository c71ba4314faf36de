//! `METHOD_NEITHER`: an application's own addresses, captured by probing and locking their pages.
//!
//! Pages: *Using Neither Buffered Nor Direct I/O*, *Buffer Descriptions for I/O Control Codes*, *MmProbeAndLockPages function*, *Handling Exceptions*. Such an
//! address means something only in the thread that has made the request, so it is captured from an [`Irp`], which a dispatch routine
//! has, and never from a [`crate::PendingIrp`]; and a request that another process has made, which a driver above has put off, is refused. The
//! pages are the request's from then on: [`Irp::source`] and [`Irp::destination`] reach them, from any thread, until it is completed, when
//! the system unlocks them. An address that is none is the status of the exception that the probe raises. No address is ever given out.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};

use abi::{IO_STACK_LOCATION, IRP, MDL, NtStatus};
use zerocopy::FromBytes;

use crate::direct::{Source, Way};
use crate::irp::Irp;
use crate::irql::Passive;
use crate::{Result, raw, sys};

impl Irp<'_> {
    /// Captures the input of a `METHOD_NEITHER` control request as a value of a type that any bytes are good for: a copy, so that nothing
    /// that was checked can change any more.
    ///
    /// # Errors
    /// `STATUS_BUFFER_TOO_SMALL` if there are not as many bytes; `STATUS_INVALID_DEVICE_REQUEST` if it is no such request, or not made by
    /// this process; the exception's status (`STATUS_ACCESS_VIOLATION`) if there are no such pages; `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn capture_input<T: FromBytes>(&self, passive: &mut Passive) -> Result<T> {
        let control = self.control();
        self.expect_neither()?;
        if size_of::<T>() > control.input as usize {
            return Err(NtStatus::BUFFER_TOO_SMALL);
        }
        let length = u32::try_from(size_of::<T>()).map_err(|_| NtStatus::BUFFER_TOO_SMALL)?;
        let locked = self.lock(self.input_address(), length, Way::FromApplication, passive)?;
        // SAFETY: the pages are locked, and unlocked behind the copy.
        let pages = unsafe { Source::of_list(locked.0.as_ptr()) }?;
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the value is ours, as long, and all of it is zero.
        let bytes = unsafe { core::slice::from_raw_parts_mut(value.as_mut_ptr().cast(), size_of::<T>()) };
        pages.copy_from(0, bytes)?;
        // SAFETY: any bytes are good for it.
        Ok(unsafe { value.assume_init() })
    }

    /// Locks the pages of the input of a `METHOD_NEITHER` control request, which [`Irp::source`] reaches from now on. One buffer of a
    /// request can be locked.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` if it is no such request, not made by this process, or has pages already; `STATUS_BUFFER_TOO_SMALL` if
    /// there are no bytes; the exception's status if there are no such pages; `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn lock_input(&mut self, passive: &mut Passive) -> Result<()> {
        let (address, length) = (self.input_address(), self.control().input);
        self.keep(address, length, Way::FromApplication, passive)
    }

    /// Locks the pages of the output of a `METHOD_NEITHER` control request, which [`Irp::destination`] reaches from now on. One buffer of a
    /// request can be locked.
    ///
    /// ```
    /// use wdm::*;
    ///
    /// /// Captured in the thread that asks; filled by the later holder of the request.
    /// fn samples<'irp>(mut irp: Irp<'irp>, passive: &mut Passive) -> Answer<'irp> {
    ///     match irp.capture_input::<u32>(passive).and_then(|_channel| irp.lock_output(passive)) {
    ///         Err(status) => irp.complete(status, 0, passive),
    ///         Ok(()) => {
    ///             let (irp, answer) = irp.pend();
    ///             filled(irp, passive);
    ///             answer
    ///         }
    ///     }
    /// }
    ///
    /// fn filled(irp: PendingIrp, passive: &mut Passive) {
    ///     let filled = irp.destination(passive).and_then(|pages| {
    ///         pages.copy_to(0, &[1, 2, 3])?;
    ///         Ok(3)
    ///     });
    ///     match filled {
    ///         Ok(bytes) => irp.complete(NtStatus::SUCCESS, bytes, passive),
    ///         Err(status) => irp.complete(status, 0, passive),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Irp::lock_input`].
    pub fn lock_output(&mut self, passive: &mut Passive) -> Result<()> {
        // SAFETY: the request is ours.
        let address = unsafe { raw::get(self.as_ptr(), IRP::UserBuffer) };
        let length = self.control().output;
        self.keep(raw::pointer(address), length, Way::ToApplication, passive)
    }

    fn input_address(&self) -> *mut () {
        // SAFETY: the request is ours; of others than control requests nothing is done with it.
        raw::pointer(unsafe {
            raw::get(self.stack(), IO_STACK_LOCATION::Parameters_DeviceIoControl_Type3InputBuffer)
        })
    }

    fn expect_neither(&self) -> Result<()> {
        let is_neither = self.is_control() && self.control().code & 3 == abi::METHOD_NEITHER;
        // SAFETY: the request is ours; the process that made it lives as long as the request.
        let is_here = unsafe { sys::IoGetRequestorProcess(self.as_ptr()) == sys::IoGetCurrentProcess() };
        if is_neither && is_here { Ok(()) } else { Err(NtStatus::INVALID_DEVICE_REQUEST) }
    }

    /// Makes the pages the request's.
    fn keep(&mut self, address: *mut (), length: u32, way: Way, passive: &mut Passive) -> Result<()> {
        self.expect_neither()?;
        // SAFETY: the request is ours.
        if !unsafe { raw::follow(self.as_ptr(), IRP::MdlAddress) }.is_null() {
            return Err(NtStatus::INVALID_DEVICE_REQUEST);
        }
        let locked = self.lock(address, length, way, passive)?;
        let list = locked.into_raw();
        // SAFETY: the request is ours; the system unlocks and frees its lists when it is completed.
        unsafe { raw::set(self.as_ptr(), IRP::MdlAddress, raw::stored(list)) };
        Ok(())
    }

    fn lock(&self, address: *mut (), length: u32, way: Way, _passive: &mut Passive) -> Result<Locked> {
        if length == 0 {
            return Err(NtStatus::BUFFER_TOO_SMALL);
        }
        let operation = match way {
            Way::FromApplication => abi::IoReadAccess,
            Way::ToApplication => abi::IoWriteAccess,
        };
        // SAFETY: at PASSIVE_LEVEL, in the process that made the request. Whatever the address is, the probe answers for it: with the
        // request's own mode, so that an application cannot name what is the system's.
        unsafe {
            let list = sys::IoAllocateMdl(address.cast(), length, 0, 0, null_mut());
            let list = NonNull::new(list).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
            let mode = raw::get(self.as_ptr(), IRP::RequestorMode);
            let status = probe_and_lock(list.as_ptr(), mode, operation);
            if !status.is_success() {
                sys::IoFreeMdl(list.as_ptr());
                return Err(status);
            }
            Ok(Locked(list))
        }
    }
}

/// A list whose pages are locked.
struct Locked(NonNull<MDL>);

impl Locked {
    /// Gives the list away, its pages locked.
    fn into_raw(self) -> *mut MDL {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: it has locked the pages, and is the only owner of the list.
        unsafe {
            sys::MmUnlockPages(self.0.as_ptr());
            sys::IoFreeMdl(self.0.as_ptr());
        }
    }
}

/// `MmProbeAndLockPages`, whose exception becomes its status.
///
/// # Safety
/// As the routine's page says, but that the address may be any.
unsafe fn probe_and_lock(list: *mut MDL, mode: u8, operation: u32) -> NtStatus {
    /// The routine with arguments as `wdm_guarded` passes them.
    unsafe extern "system" fn probe(list: *mut c_void, mode: usize, operation: usize) {
        #[expect(clippy::cast_possible_truncation, reason = "they were passed as such")]
        // SAFETY: the caller's promise.
        unsafe {
            sys::MmProbeAndLockPages(list.cast(), mode as u8, operation as u32);
        }
    }
    // SAFETY: the caller's promise; `probe` has nothing to drop where an exception leaves it.
    unsafe { guarded(list.cast(), mode.into(), operation as usize, probe) }
}

type Guarded = unsafe extern "system" fn(*mut c_void, usize, usize);

/// Calls a routine; an exception in it ends the call with the exception's code.
///
/// # Safety
/// As the routine, which has nothing to drop.
#[cfg(windows)]
unsafe fn guarded(one: *mut c_void, two: usize, three: usize, routine: Guarded) -> NtStatus {
    unsafe extern "system" {
        fn wdm_guarded(one: *mut c_void, two: usize, three: usize, routine: Guarded) -> NtStatus;
    }
    // SAFETY: the caller's promise.
    unsafe { wdm_guarded(one, two, three, routine) }
}

// Rust has no structured exceptions: a frame with the scope table that `__try { } __except (EXCEPTION_EXECUTE_HANDLER) { }` would have, written by
// hand. The handler that C drivers have too goes on behind the call, with the exception's code in `eax`.
#[cfg(windows)]
core::arch::global_asm!(
    ".section .text$wdm, \"xr\"",
    ".globl wdm_guarded",
    ".p2align 4",
    ".seh_proc wdm_guarded",
    "wdm_guarded:",
    "sub rsp, 40",
    ".seh_stackalloc 40",
    ".seh_handler __C_specific_handler, @except",
    ".seh_endprologue",
    ".Lwdm_guarded_begin:",
    "call r9",
    "nop", // where the call returns to lies inside
    ".Lwdm_guarded_end:",
    "xor eax, eax",
    ".Lwdm_guarded_leave:",
    "add rsp, 40",
    "ret",
    ".seh_handlerdata",
    ".long 1", // one scope: from, to, filter (1: always), where to go on
    ".long .Lwdm_guarded_begin@IMGREL",
    ".long .Lwdm_guarded_end@IMGREL",
    ".long 1",
    ".long .Lwdm_guarded_leave@IMGREL",
    ".section .text$wdm, \"xr\"",
    ".seh_endproc",
);

/// Where there are no structured exceptions, as in this crate's own tests, the routine raises none.
///
/// # Safety
/// As the routine.
#[cfg(not(windows))]
unsafe fn guarded(one: *mut c_void, two: usize, three: usize, routine: Guarded) -> NtStatus {
    // SAFETY: the caller's promise.
    unsafe { routine(one, two, three) };
    NtStatus::SUCCESS
}
