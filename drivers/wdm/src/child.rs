//! Requests that the driver itself makes and sends to the device below its own.
//!
//! Pages: *Creating IRPs for Lower-Level Drivers*, *IoBuildDeviceIoControlRequest*, *IoAllocateIrp*, *IoReuseIrp*, *Using IRP Completion
//! Routines*. One that is waited for is a call ([`Device::control_below`]). One that is not is a [`Child`]: it owns its request, its
//! buffer and what the driver wants to know when it ends; sending gives it away, its completion routine has it back and may send it
//! again. The device is not removed before that has returned. The request is freed with the child.
//!
//! A child's transfers are buffered: a device below that wants pages is not sent reads and writes. A child cannot be cancelled.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};

use abi::{DEVICE_OBJECT, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, KEVENT, NtStatus};

use crate::device::Device;
use crate::irp;
use crate::irql::{self, AtMostDispatch, DispatchOrBelow, Passive};
use crate::pool::{PoolBox, Tag};
use crate::{Result, event, raw, sys};

/// What a child asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// `IRP_MJ_DEVICE_CONTROL`; the code's method must be `METHOD_BUFFERED`. Input and output share the child's buffer.
    Control {
        /// The control code.
        code: u32,
        /// Bytes of input.
        input: u32,
        /// Bytes of room for output.
        output: u32,
    },
    /// `IRP_MJ_INTERNAL_DEVICE_CONTROL`, as [`Request::Control`].
    InternalControl {
        /// The control code.
        code: u32,
        /// Bytes of input.
        input: u32,
        /// Bytes of room for output.
        output: u32,
    },
    /// `IRP_MJ_READ` into the child's buffer.
    Read {
        /// Where on the device.
        offset: i64,
        /// Bytes.
        length: u32,
    },
    /// `IRP_MJ_WRITE` from the child's buffer.
    Write {
        /// Where on the device.
        offset: i64,
        /// Bytes.
        length: u32,
    },
}

impl Request {
    /// The bytes of the buffer that it uses.
    fn length(self) -> u32 {
        match self {
            Self::Control { input, output, .. } | Self::InternalControl { input, output, .. } => {
                input.max(output)
            }
            Self::Read { length, .. } | Self::Write { length, .. } => length,
        }
    }

    /// Whether its bytes travel in a system buffer to a device with these flags.
    fn is_buffered(self, flags: u32) -> bool {
        match self {
            Self::Control { code, .. } | Self::InternalControl { code, .. } => {
                code & 3 == abi::METHOD_BUFFERED
            }
            Self::Read { .. } | Self::Write { .. } => flags & abi::DO_BUFFERED_IO != 0,
        }
    }

    /// Fills a stack location in, which is zeroed.
    ///
    /// # Safety
    /// It is the caller's to write.
    unsafe fn write_to(self, stack: *mut IO_STACK_LOCATION) {
        type Stack = IO_STACK_LOCATION;
        let major = match self {
            Self::Control { .. } => abi::IRP_MJ_DEVICE_CONTROL,
            Self::InternalControl { .. } => abi::IRP_MJ_INTERNAL_DEVICE_CONTROL,
            Self::Read { .. } => abi::IRP_MJ_READ,
            Self::Write { .. } => abi::IRP_MJ_WRITE,
        };
        // SAFETY: the caller's promise.
        unsafe {
            raw::set(stack, Stack::MajorFunction, major);
            match self {
                Self::Control { code, input, output } | Self::InternalControl { code, input, output } => {
                    raw::set(stack, Stack::Parameters_DeviceIoControl_IoControlCode, code);
                    raw::set(stack, Stack::Parameters_DeviceIoControl_InputBufferLength, input);
                    raw::set(stack, Stack::Parameters_DeviceIoControl_OutputBufferLength, output);
                }
                // reads and writes have their members at the same places
                Self::Read { offset, length } | Self::Write { offset, length } => {
                    raw::set(stack, Stack::Parameters_Read_Length, length);
                    raw::set(stack, Stack::Parameters_Read_ByteOffset, offset);
                }
            }
        }
    }
}

/// How a child came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Its status.
    pub status: NtStatus,
    /// Bytes transferred, and no more than its buffer has.
    pub information: usize,
}

/// What is called when a child has ended: with the device, the child, how it ended.
type Then<T, C, const N: usize> = fn(&Device<T>, Child<T, C, N>, Ended, &mut DispatchOrBelow);

struct Block<T, C, const N: usize> {
    irp: NonNull<IRP>,
    tag: Tag,
    /// Of the device that sends it.
    object: *mut DEVICE_OBJECT,
    then: Option<Then<T, C, N>>,
    buffer: [u8; N],
    /// None once it was taken.
    context: Option<C>,
}

/// A request of the driver's own with a buffer of `N` bytes and what the driver keeps with it.
///
/// ```
/// use wdm::{AtMostDispatch, Child, Device, DispatchOrBelow, Ended, Function, NtStatus, PendingIrp, Request, Tag};
///
/// const CODE: u32 = 0x22_3000;
///
/// /// Asks the device below for what `irp` wants to know.
/// fn ask<T: Function, L: AtMostDispatch>(device: &Device<T>, irp: PendingIrp, level: &mut L) -> wdm::Result<()> {
///     let mut child = Child::<T, PendingIrp, 4>::new(device, irp, Tag::new(b"Chld"), level)?;
///     child.buffer().copy_from_slice(&5_u32.to_le_bytes());
///     let request = Request::Control { code: CODE, input: 4, output: 4 };
///     child.send(device, request, answered::<T>, level).map_err(|(child, status)| {
///         child.into_context().complete(status, 0, level);
///         status
///     })
/// }
///
/// fn answered<T>(
///     _device: &Device<T>,
///     mut child: Child<T, PendingIrp, 4>,
///     ended: Ended,
///     level: &mut DispatchOrBelow,
/// ) {
///     let _answer = *child.buffer();
///     child.into_context().complete(ended.status, 0, level);
/// }
/// ```
pub struct Child<T, C, const N: usize> {
    block: PoolBox<Block<T, C, N>>,
}

// SAFETY: it owns its context, and the request is its own while there is a `Child`; its device is shared.
unsafe impl<T: Sync, C: Send, const N: usize> Send for Child<T, C, N> {}
// SAFETY: a shared one gives its context out, shared.
unsafe impl<T: Sync, C: Send + Sync, const N: usize> Sync for Child<T, C, N> {}

impl<T, C, const N: usize> Drop for Block<T, C, N> {
    fn drop(&mut self) {
        irql::expect_at_most(abi::DISPATCH_LEVEL);
        // SAFETY: allocated by `new`, and not under way.
        unsafe { sys::IoFreeIrp(self.irp.as_ptr()) };
    }
}

impl<T, C, const N: usize> Child<T, C, N> {
    fn block(&mut self) -> &mut Block<T, C, N> {
        // SAFETY: the block is ours alone while there is a `Child`.
        unsafe { &mut *self.block.as_ptr() }
    }

    /// What it sends, and what came.
    pub fn buffer(&mut self) -> &mut [u8; N] {
        &mut self.block().buffer
    }

    /// What the driver keeps with it.
    ///
    /// # Panics
    /// Never: it is there until [`Child::into_context`].
    pub fn context(&mut self) -> &mut C {
        let Some(context) = &mut self.block().context else { unreachable!("it is there until the end") };
        context
    }

    /// Frees the request and gives back what was kept with it.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn into_context(mut self) -> C {
        let Some(context) = self.block().context.take() else { unreachable!("it is there until the end") };
        context
    }
}

impl<T: Sync + 'static, C: Send + 'static, const N: usize> Child<T, C, N> {
    /// A child of the device, its buffer zeroed.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`; `context` is dropped.
    pub fn new<L: AtMostDispatch>(device: &Device<T>, context: C, tag: Tag, level: &mut L) -> Result<Self> {
        // SAFETY: the device below is there as long as this one; at most at DISPATCH_LEVEL.
        let irp = unsafe {
            let size = raw::get(device.lower(), DEVICE_OBJECT::StackSize);
            NonNull::new(sys::IoAllocateIrp(size.cast_signed(), 0)).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?
        };
        let object = device.object();
        let block = Block { irp, tag, object, then: None, buffer: [0; N], context: Some(context) };
        Ok(Self { block: PoolBox::new(block, tag, level)? })
    }

    /// Sends it to the device below; `then` has it back when it has ended, maybe before this returns. The device is not removed before
    /// `then` has returned.
    ///
    /// # Errors
    /// The child, and why it was not sent: `STATUS_DELETE_PENDING` if the device is being removed, `STATUS_INVALID_DEVICE_REQUEST` if it is
    /// not the child's, `STATUS_BUFFER_TOO_SMALL` if its buffer is shorter than the request says, `STATUS_NOT_SUPPORTED` for
    /// transfers that are not buffered.
    pub fn send<L: AtMostDispatch>(
        mut self,
        device: &Device<T>,
        request: Request,
        then: Then<T, C, N>,
        level: &mut L,
    ) -> core::result::Result<(), (Self, NtStatus)> {
        if self.block.object != device.object() {
            return Err((self, NtStatus::INVALID_DEVICE_REQUEST));
        }
        // SAFETY: the device below is there as long as this one.
        let flags = unsafe { raw::get(device.lower(), DEVICE_OBJECT::Flags) };
        if !request.is_buffered(flags) {
            return Err((self, NtStatus::NOT_SUPPORTED));
        }
        if request.length() as usize > N {
            return Err((self, NtStatus::BUFFER_TOO_SMALL));
        }
        let Some(inside) = device.inside.enter(level) else { return Err((self, NtStatus::DELETE_PENDING)) };
        inside.keep(); // until `ended` has called `then`
        self.block().then = Some(then);
        let irp = self.block.irp.as_ptr();
        let (block, _tag) = self.block.into_raw();
        // SAFETY: the request is ours and not under way; block and buffer are its completion routine's from the call on. Its
        // next stack location, which IoReuseIrp has zeroed, is the one below's.
        unsafe {
            sys::IoReuseIrp(irp, NtStatus::NOT_SUPPORTED);
            let buffer = (&raw mut (*block.as_ptr()).buffer).cast::<()>();
            raw::set(irp, IRP::AssociatedIrp_SystemBuffer, raw::stored(buffer));
            raw::set(irp, IRP::UserBuffer, raw::stored(buffer));
            request.write_to(raw::follow(irp, IRP::Tail_Overlay_CurrentStackLocation).wrapping_sub(1));
            irp::set_completion(irp, ended::<T, C, N>, block.as_ptr().cast());
            let _status = sys::IofCallDriver(device.lower(), irp);
        }
        Ok(())
    }
}

unsafe extern "system" fn ended<T: Sync + 'static, C: Send + 'static, const N: usize>(
    _device: *mut DEVICE_OBJECT, // null: the request has no location of ours
    irp: *mut IRP,
    block: *mut c_void,
) -> NtStatus {
    if let Some(block) = NonNull::new(block.cast::<Block<T, C, N>>()) {
        // SAFETY: `send` gave the block and kept the device; the request is ours again, and stays when this returns. Completion routines
        // run at most at DISPATCH_LEVEL.
        unsafe {
            let device = Device::<T>::of((*block.as_ptr()).object);
            let status = IRP::IoStatus.of(irp);
            let ended = Ended {
                status: raw::get(status, IO_STATUS_BLOCK::Status),
                information: usize::try_from(raw::get(status, IO_STATUS_BLOCK::Information))
                    .unwrap_or(N)
                    .min(N),
            };
            let mut child = Child { block: PoolBox::from_raw(block, (*block.as_ptr()).tag) };
            if let Some(then) = child.block().then.take() {
                then(device, child, ended, &mut DispatchOrBelow::assume());
            }
            device.inside.leave_kept();
        }
    }
    NtStatus::MORE_PROCESSING_REQUIRED
}

impl<T> Device<T> {
    /// Sends a device control request to the device below and waits for its end: the bytes that it put into `output`. The system
    /// makes the buffers that the code's method asks for.
    ///
    /// # Errors
    /// The request's status, if that is no success; `STATUS_INSUFFICIENT_RESOURCES` if it cannot be made,
    /// `STATUS_NOT_SUPPORTED` if its code has `METHOD_NEITHER`.
    pub fn control_below(
        &self,
        code: u32,
        input: &[u8],
        output: &mut [u8],
        _passive: &mut Passive,
    ) -> Result<usize> {
        if code & 3 == abi::METHOD_NEITHER {
            return Err(NtStatus::NOT_SUPPORTED); // the device below would have the addresses themselves
        }
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| NtStatus::INVALID_PARAMETER);
        let (given, room) = (length(input)?, length(output)?);
        let mut done = KEVENT::zeroed();
        let mut result = IO_STATUS_BLOCK::zeroed();
        // The buffers' addresses are the request's until it has ended. Input is not written: of METHOD_IN_DIRECT it is the output that the
        // device below reads.
        let from = if given == 0 { null_mut() } else { input.as_ptr().cast_mut().cast() };
        let to = if room == 0 { null_mut() } else { output.as_mut_ptr().cast() };
        // SAFETY: at PASSIVE_LEVEL; event, result and buffers outlive the request, because its end is waited for.
        unsafe {
            sys::KeInitializeEvent(&raw mut done, abi::NotificationEvent, 0);
            let irp = sys::IoBuildDeviceIoControlRequest(
                code,
                self.lower(),
                from,
                given,
                to,
                room,
                0,
                &raw mut done,
                &raw mut result,
            );
            if irp.is_null() {
                return Err(NtStatus::INSUFFICIENT_RESOURCES);
            }
            let mut status = sys::IofCallDriver(self.lower(), irp);
            if status == NtStatus::PENDING {
                let _signaled = event::wait(&raw mut done, None);
                status = raw::get(&raw mut result, IO_STATUS_BLOCK::Status);
            }
            if !status.is_success() {
                return Err(status);
            }
            let information = raw::get(&raw mut result, IO_STATUS_BLOCK::Information);
            Ok(usize::try_from(information).unwrap_or(usize::MAX).min(output.len()))
        }
    }
}
