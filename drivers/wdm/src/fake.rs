//! A kernel for the tests of this crate: one processor, no waiting, just enough to count what is taken and released.
//!
//! It stands in for `ntoskrnl.exe` when the tests are linked on the build machine; dirql runs drivers against a real one.

use std::cell::RefCell;
use std::vec::Vec;

use abi::{DEVICE_OBJECT, IO_REMOVE_LOCK, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, KEVENT, NtStatus};

use crate::raw;

std::thread_local! {
    /// Requests completed, in order: address, status, information.
    static COMPLETED: RefCell<Vec<(usize, NtStatus, u64)>> = const { RefCell::new(Vec::new()) };
    static IRQL: RefCell<u8> = const { RefCell::new(0) };
    static LOCKED: RefCell<i32> = const { RefCell::new(0) };
}

/// The requests completed on this thread since the last call.
pub(crate) fn completed() -> Vec<(usize, NtStatus, u64)> {
    COMPLETED.take()
}

/// The level of this thread's processor.
pub(crate) fn irql() -> u8 {
    IRQL.with_borrow(|level| *level)
}

/// How often remove locks are held.
pub(crate) fn locked() -> i32 {
    LOCKED.with_borrow(|count| *count)
}

/// The processor goes to another level, and was at this one.
pub(crate) fn raise(to: u8) -> u8 {
    IRQL.replace(to)
}

/// A request with one stack location.
#[repr(C, align(16))]
pub(crate) struct Request {
    pub(crate) irp: IRP,
    pub(crate) stack: IO_STACK_LOCATION,
    device: DEVICE_OBJECT,
    /// The system buffer of a control request.
    pub(crate) buffer: [u8; 16],
}

impl Request {
    /// A buffered read of `length` bytes by `file`, where it will stay.
    pub(crate) fn read(file: u64, length: u32) -> std::boxed::Box<Self> {
        let (irp, stack, device) = (IRP::zeroed(), IO_STACK_LOCATION::zeroed(), DEVICE_OBJECT::zeroed());
        let mut request = std::boxed::Box::new(Self { irp, stack, device, buffer: [0; 16] });
        let (stack, device) = (&raw mut request.stack, &raw mut request.device);
        // SAFETY: the request is ours.
        unsafe {
            raw::set(&raw mut request.irp, IRP::Tail_Overlay_CurrentStackLocation, raw::stored(stack));
            raw::set(device, DEVICE_OBJECT::Flags, abi::DO_BUFFERED_IO);
            raw::set(stack, IO_STACK_LOCATION::DeviceObject, raw::stored(device));
            raw::set(stack, IO_STACK_LOCATION::MajorFunction, abi::IRP_MJ_READ);
            raw::set(stack, IO_STACK_LOCATION::FileObject, abi::DriverPtr::new(file));
            raw::set(stack, IO_STACK_LOCATION::Parameters_Read_Length, length);
        }
        request
    }

    /// A device control request with the code's system buffer, which has so many bytes of input and room for so many of output.
    pub(crate) fn control(code: u32, input: u32, output: u32) -> std::boxed::Box<Self> {
        let mut request = Self::read(0, 0);
        let (irp, stack) = (&raw mut request.irp, &raw mut request.stack);
        let buffer = request.buffer.as_mut_ptr().cast::<()>();
        // SAFETY: the request is ours.
        unsafe {
            raw::set(irp, IRP::AssociatedIrp_SystemBuffer, raw::stored(buffer));
            raw::set(stack, IO_STACK_LOCATION::MajorFunction, abi::IRP_MJ_DEVICE_CONTROL);
            raw::set(stack, IO_STACK_LOCATION::Parameters_DeviceIoControl_IoControlCode, code);
            raw::set(stack, IO_STACK_LOCATION::Parameters_DeviceIoControl_InputBufferLength, input);
            raw::set(stack, IO_STACK_LOCATION::Parameters_DeviceIoControl_OutputBufferLength, output);
        }
        request
    }

    /// `IoCancelIrp`: whether there was a cancel routine.
    pub(crate) fn cancel(&mut self) -> bool {
        let irp = &raw mut self.irp;
        // SAFETY: the routine is a cancel routine, and wants the cancel spin lock held.
        unsafe {
            raw::set(irp, IRP::Cancel, 1);
            let routine = raw::follow(irp, IRP::CancelRoutine);
            raw::set(irp, IRP::CancelRoutine, abi::DriverPtr::NULL);
            raw::set(irp, IRP::CancelIrql, raise(abi::DISPATCH_LEVEL));
            if routine.is_null() {
                IRQL.replace(raw::get(irp, IRP::CancelIrql));
                return false;
            }
            let routine = core::mem::transmute::<*mut abi::Code, crate::sys::DeviceIrp>(routine);
            routine(core::ptr::null_mut(), irp);
        }
        true
    }
}

#[unsafe(no_mangle)]
extern "C" fn IofCompleteRequest(irp: *mut IRP, _boost: i8) {
    assert!(irql() <= abi::DISPATCH_LEVEL);
    // SAFETY: the tests' requests live.
    let (status, information) = unsafe {
        let block = IRP::IoStatus.of(irp);
        (raw::get(block, IO_STATUS_BLOCK::Status), raw::get(block, IO_STATUS_BLOCK::Information))
    };
    COMPLETED.with_borrow_mut(|completed| completed.push((irp.addr(), status, information)));
}

#[unsafe(no_mangle)]
extern "C" fn IoReleaseCancelSpinLock(level: u8) {
    assert_eq!(raise(level), abi::DISPATCH_LEVEL);
}

#[unsafe(no_mangle)]
extern "C" fn IoAcquireRemoveLockEx(
    _lock: *mut IO_REMOVE_LOCK,
    _tag: *mut (),
    _file: *const u8,
    _line: u32,
    size: u32,
) -> NtStatus {
    assert_eq!(size, 0x20);
    LOCKED.with_borrow_mut(|count| *count += 1);
    NtStatus::SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn IoReleaseRemoveLockEx(_lock: *mut IO_REMOVE_LOCK, _tag: *mut (), _size: u32) {
    LOCKED.with_borrow_mut(|count| *count -= 1);
}

#[unsafe(no_mangle)]
extern "C" fn KeAcquireSpinLockRaiseToDpc(lock: *mut u64) -> u8 {
    KeAcquireSpinLockAtDpcLevel(lock);
    raise(abi::DISPATCH_LEVEL)
}

#[unsafe(no_mangle)]
extern "C" fn KeAcquireSpinLockAtDpcLevel(lock: *mut u64) {
    // SAFETY: the lock is a live one.
    assert_eq!(unsafe { lock.replace(1) }, 0, "a spin lock is taken twice");
}

#[unsafe(no_mangle)]
extern "C" fn KeReleaseSpinLock(lock: *mut u64, level: u8) {
    KeReleaseSpinLockFromDpcLevel(lock);
    raise(level);
}

#[unsafe(no_mangle)]
extern "C" fn KeReleaseSpinLockFromDpcLevel(lock: *mut u64) {
    assert_eq!(irql(), abi::DISPATCH_LEVEL);
    // SAFETY: the lock is a live one.
    assert_eq!(unsafe { lock.replace(0) }, 1, "a spin lock is released that is not held");
}

#[unsafe(no_mangle)]
extern "C" fn KfRaiseIrql(level: u8) -> u8 {
    raise(level)
}

#[unsafe(no_mangle)]
extern "C" fn KeLowerIrql(level: u8) {
    raise(level);
}

#[unsafe(no_mangle)]
extern "C" fn ExAllocatePoolWithTag(_pool: u32, bytes: usize, _tag: u32) -> *mut u8 {
    // a test that leaks fails nothing: what matters here is that blocks do not move
    let words = std::vec![0u128; bytes.div_ceil(16)];
    std::boxed::Box::leak(words.into_boxed_slice()).as_mut_ptr().cast()
}

#[unsafe(no_mangle)]
extern "C" fn ExFreePoolWithTag(_block: *mut u8, _tag: u32) {}

#[unsafe(no_mangle)]
extern "C" fn KeInitializeEvent(event: *mut KEVENT, _kind: u32, signaled: u8) {
    // SAFETY: the event is a live one.
    unsafe { event.cast::<u8>().write(signaled) };
}

#[unsafe(no_mangle)]
extern "C" fn KeClearEvent(event: *mut KEVENT) {
    KeInitializeEvent(event, 0, 0);
}

#[unsafe(no_mangle)]
extern "C" fn KeSetEvent(event: *mut KEVENT, _boost: i32, _wait: u8) -> i32 {
    KeInitializeEvent(event, 0, 1);
    0
}

#[unsafe(no_mangle)]
extern "C" fn KeWaitForSingleObject(
    event: *mut KEVENT,
    _reason: u32,
    _mode: i8,
    _alertable: u8,
    timeout: *mut i64,
) -> NtStatus {
    // SAFETY: the event is a live one.
    if unsafe { event.cast::<u8>().read() } != 0 {
        return NtStatus::SUCCESS;
    }
    assert!(!timeout.is_null(), "a wait that does not end");
    NtStatus::TIMEOUT
}
