//! What the museum's drivers in Rust share: the DDK as they declare it for themselves, a device with a name and a link, and blocks of pool with an owner. It holds no
//! bug: what a driver does wrong stands in its own file, between `#[cfg(FIXED)]` and `#[cfg(not(FIXED))]`.
//!
//! Names, layouts and values are those of `wdm.h`; what its macros and inline functions do has a name of Rust's.
#![allow(dead_code, reason = "each exhibit uses some of what is declared here")]
#![allow(non_snake_case, non_camel_case_types, clippy::upper_case_acronyms, reason = "the names are those of `wdm.h`")]

use core::ffi::c_void;
use core::ops::{Deref, DerefMut};
use core::ptr::{null_mut, with_exposed_provenance_mut};

pub type NTSTATUS = i32;
pub type KIRQL = u8;

pub const STATUS_SUCCESS: NTSTATUS = 0;
pub const STATUS_PENDING: NTSTATUS = 0x103;
pub const STATUS_INVALID_PARAMETER: NTSTATUS = 0xC000_000D_u32.cast_signed();
pub const STATUS_INVALID_DEVICE_REQUEST: NTSTATUS = 0xC000_0010_u32.cast_signed();
pub const STATUS_BUFFER_TOO_SMALL: NTSTATUS = 0xC000_0023_u32.cast_signed();
pub const STATUS_DEVICE_BUSY: NTSTATUS = 0x8000_0011_u32.cast_signed();
pub const STATUS_INSUFFICIENT_RESOURCES: NTSTATUS = 0xC000_009A_u32.cast_signed();
pub const STATUS_NOT_FOUND: NTSTATUS = 0xC000_0225_u32.cast_signed();
pub const STATUS_CANCELLED: NTSTATUS = 0xC000_0120_u32.cast_signed();

pub const IRP_MJ_CREATE: usize = 0x00;
pub const IRP_MJ_CLOSE: usize = 0x02;
pub const IRP_MJ_DEVICE_CONTROL: usize = 0x0E;
pub const IRP_MJ_CLEANUP: usize = 0x12;

pub const FILE_DEVICE_UNKNOWN: u32 = 0x22;
pub const FILE_DEVICE_SECURE_OPEN: u32 = 0x100;
pub const DO_BUFFERED_IO: u32 = 0x4;
pub const DO_DEVICE_INITIALIZING: u32 = 0x80;
const NON_PAGED_POOL_NX: u32 = 512;
const SL_PENDING_RETURNED: u8 = 1;

/// `CTL_CODE(FILE_DEVICE_UNKNOWN, Function, METHOD_BUFFERED, FILE_ANY_ACCESS)`
pub const fn control_code(function: u32) -> u32 {
    FILE_DEVICE_UNKNOWN << 16 | function << 2
}

pub type Dispatch = unsafe extern "C" fn(*mut DEVICE_OBJECT, *mut IRP) -> NTSTATUS;
pub type Cancel = unsafe extern "C" fn(*mut DEVICE_OBJECT, *mut IRP);
pub type Completion = unsafe extern "C" fn(*mut DEVICE_OBJECT, *mut IRP, *mut c_void) -> NTSTATUS;
pub type Deferred = unsafe extern "C" fn(*mut KDPC, *mut c_void, *mut c_void, *mut c_void);

#[repr(C)]
pub struct UNICODE_STRING {
    pub Length: u16,
    pub MaximumLength: u16,
    pub Buffer: *const u16,
}

#[repr(C)]
pub struct DRIVER_OBJECT {
    Head: [u64; 6],
    pub DriverExtension: *mut DRIVER_EXTENSION,
    Names: [u64; 6],
    pub DriverUnload: Option<unsafe extern "C" fn(*mut DRIVER_OBJECT)>,
    pub MajorFunction: [Option<Dispatch>; 28],
}

#[repr(C)]
pub struct DRIVER_EXTENSION {
    DriverObject: u64,
    pub AddDevice: Option<unsafe extern "C" fn(*mut DRIVER_OBJECT, *mut DEVICE_OBJECT) -> NTSTATUS>,
}

#[repr(C)]
pub struct DEVICE_OBJECT {
    Head: [u64; 6],
    pub Flags: u32,
    pub Characteristics: u32,
    Vpb: u64,
    pub DeviceExtension: *mut c_void,
}

#[repr(C)]
pub struct FILE_OBJECT {
    Head: [u64; 3],
    pub FsContext: *mut c_void,
}

#[repr(C)]
pub struct IRP {
    Head: [u64; 3],
    pub SystemBuffer: *mut c_void,
    ThreadListEntry: [u64; 2],
    pub Status: NTSTATUS,
    pub Information: usize,
    RequestorMode: u8,
    PendingReturned: u8,
    StackCount: u8,
    pub CurrentLocation: u8,
    pub Cancel: u8,
    pub CancelIrql: KIRQL,
    User: [u64; 6],
    pub DriverContext: [*mut c_void; 4],
    Thread: [u64; 4],
    pub CurrentStackLocation: *mut IO_STACK_LOCATION,
}

/// With the parameters of `IRP_MJ_DEVICE_CONTROL`.
#[repr(C)]
pub struct IO_STACK_LOCATION {
    pub MajorFunction: u8,
    pub MinorFunction: u8,
    pub Flags: u8,
    pub Control: u8,
    pub OutputBufferLength: u64,
    pub InputBufferLength: u64,
    pub IoControlCode: u64,
    Type3InputBuffer: u64,
    DeviceObject: u64,
    pub FileObject: *mut FILE_OBJECT,
    pub CompletionRoutine: Option<Completion>,
    pub Context: *mut c_void,
}

#[repr(C)]
pub struct KDPC([u64; 8]);
#[repr(C)]
pub struct KTIMER([u64; 8]);

const _: () = {
    assert!(core::mem::offset_of!(DRIVER_OBJECT, MajorFunction) == 0x70);
    assert!(core::mem::offset_of!(DEVICE_OBJECT, DeviceExtension) == 0x40);
    assert!(core::mem::offset_of!(FILE_OBJECT, FsContext) == 0x18);
    assert!(core::mem::offset_of!(IRP, Status) == 0x30);
    assert!(core::mem::offset_of!(IRP, Cancel) == 0x44);
    assert!(core::mem::offset_of!(IRP, DriverContext) == 0x78);
    assert!(core::mem::offset_of!(IRP, CurrentStackLocation) == 0xB8);
    assert!(core::mem::offset_of!(IO_STACK_LOCATION, IoControlCode) == 0x18);
    assert!(core::mem::offset_of!(IO_STACK_LOCATION, FileObject) == 0x30);
    assert!(size_of::<IO_STACK_LOCATION>() == 0x48);
};

impl KDPC {
    pub const fn new() -> Self {
        Self([0; 8])
    }
}

impl KTIMER {
    pub const fn new() -> Self {
        Self([0; 8])
    }
}

#[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    // What the compiler itself calls.
    fn memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
    fn memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
    fn memset(to: *mut c_void, byte: i32, bytes: usize) -> *mut c_void;
    fn memcmp(one: *const c_void, other: *const c_void, bytes: usize) -> i32;

    pub fn ExAllocatePoolWithTag(pool: u32, bytes: usize, tag: u32) -> *mut c_void;
    pub fn ExFreePoolWithTag(block: *mut c_void, tag: u32);
    pub fn IoAcquireCancelSpinLock(irql: *mut KIRQL);
    pub fn IoCreateDevice(
        driver: *mut DRIVER_OBJECT,
        extension: u32,
        name: *mut UNICODE_STRING,
        kind: u32,
        characteristics: u32,
        exclusive: u8,
        device: *mut *mut DEVICE_OBJECT,
    ) -> NTSTATUS;
    pub fn IoCreateSymbolicLink(link: *mut UNICODE_STRING, target: *mut UNICODE_STRING) -> NTSTATUS;
    pub fn IoDeleteDevice(device: *mut DEVICE_OBJECT);
    pub fn IoDeleteSymbolicLink(link: *mut UNICODE_STRING) -> NTSTATUS;
    pub fn IoReleaseCancelSpinLock(irql: KIRQL);
    pub fn IofCompleteRequest(irp: *mut IRP, boost: i8);
    fn KeAcquireSpinLockRaiseToDpc(lock: *mut usize) -> KIRQL;
    fn KeBugCheckEx(code: u32, one: usize, two: usize, three: usize, four: usize) -> !;
    pub fn KeCancelTimer(timer: *mut KTIMER) -> u8;
    pub fn KeFlushQueuedDpcs();
    pub fn KeInitializeDpc(dpc: *mut KDPC, routine: Deferred, context: *mut c_void);
    pub fn KeInitializeTimer(timer: *mut KTIMER);
    fn KeReleaseSpinLock(lock: *mut usize, irql: KIRQL);
    pub fn KeSetTimerEx(timer: *mut KTIMER, due: i64, period: i32, dpc: *mut KDPC) -> u8;
}

/// A panic is a bug check, by the address of the file's name and the line.
#[panic_handler]
fn panic(panic: &core::panic::PanicInfo<'_>) -> ! {
    let (file, line) = panic.location().map_or(("", 0), |place| (place.file(), place.line()));
    // SAFETY: may be called at any level.
    unsafe { KeBugCheckEx(u32::from_be_bytes(*b"RUST"), file.as_ptr().addr(), file.len(), line as usize, 0) }
}

/// `IoGetCurrentIrpStackLocation`
///
/// # Safety
/// The request is the caller's.
pub unsafe fn stack(irp: *mut IRP) -> *mut IO_STACK_LOCATION {
    unsafe { (*irp).CurrentStackLocation }
}

/// The code of a device control, and how long its input and its output are.
///
/// # Safety
/// The request is a device control, and the caller's.
pub unsafe fn control_of(irp: *mut IRP) -> (u32, usize, usize) {
    let stack = unsafe { &*stack(irp) };
    // The upper half of each is padding.
    let low = |member: u64| member as u32;
    (low(stack.IoControlCode), low(stack.InputBufferLength) as usize, low(stack.OutputBufferLength) as usize)
}

/// Completes a request.
///
/// # Safety
/// The request is the caller's, and is not touched afterwards.
pub unsafe fn complete(irp: *mut IRP, status: NTSTATUS, information: usize) -> NTSTATUS {
    unsafe {
        (*irp).Status = status;
        (*irp).Information = information;
        IofCompleteRequest(irp, 0);
    }
    status
}

/// `IoMarkIrpPending`
///
/// # Safety
/// The request is the caller's.
pub unsafe fn mark_pending(irp: *mut IRP) {
    unsafe { (*stack(irp)).Control |= SL_PENDING_RETURNED }
}

/// `IoSetCancelRoutine`; `None`: there was none.
///
/// # Safety
/// The request is the caller's, or behind a lock under which it is completed.
pub unsafe fn set_cancel_routine(irp: *mut IRP, routine: Option<Cancel>) -> Option<Cancel> {
    let new = routine.map_or(null_mut(), |routine| routine as *mut c_void);
    // SAFETY: 0x68 is the member `CancelRoutine` of a request, which is a pointer and aligned.
    let old = unsafe {
        let place = irp.cast::<u8>().add(0x68).cast::<*mut c_void>();
        core::sync::atomic::AtomicPtr::from_ptr(place).swap(new, core::sync::atomic::Ordering::SeqCst)
    };
    // SAFETY: what was set before is a cancel routine, or null.
    unsafe { core::mem::transmute::<*mut c_void, Option<Cancel>>(old) }
}

/// Creating, cleaning up and closing where there is nothing to do.
///
/// # Safety
/// The I/O manager calls it.
pub unsafe extern "C" fn succeed(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    unsafe { complete(irp, STATUS_SUCCESS, 0) }
}

/// A text of ASCII as the kernel has it.
pub const fn wide<const N: usize>(text: &str) -> [u16; N] {
    let (mut wide, mut at) = ([0; N], 0);
    while at < N {
        wide[at] = text.as_bytes()[at] as u16;
        at += 1;
    }
    wide
}

pub const fn string(text: &'static [u16]) -> UNICODE_STRING {
    let bytes = (text.len() * 2) as u16;
    UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: text.as_ptr() }
}

/// Makes the device `\Device\NAME` with the link `\DosDevices\NAME`, whose extension is a `T`, and has requests go to `dispatch`; `unload` ends with [`delete`].
///
/// # Safety
/// `DriverEntry` calls it.
pub unsafe fn create<T>(
    driver: *mut DRIVER_OBJECT,
    (device_name, link): (&'static [u16], &'static [u16]),
    control: Dispatch,
    unload: unsafe extern "C" fn(*mut DRIVER_OBJECT),
    extension: T,
) -> Result<*mut DEVICE_OBJECT, NTSTATUS> {
    let (mut name, mut link) = (string(device_name), string(link));
    let mut device = null_mut();
    unsafe {
        (*driver).DriverUnload = Some(unload);
        for major in [IRP_MJ_CREATE, IRP_MJ_CLEANUP, IRP_MJ_CLOSE] {
            (*driver).MajorFunction[major] = Some(succeed);
        }
        (*driver).MajorFunction[IRP_MJ_DEVICE_CONTROL] = Some(control);
        let bytes = size_of::<T>() as u32;
        let status = IoCreateDevice(
            driver,
            bytes,
            &mut name,
            FILE_DEVICE_UNKNOWN,
            FILE_DEVICE_SECURE_OPEN,
            0,
            &mut device,
        );
        if status < 0 {
            return Err(status);
        }
        extension_of::<T>(device).write(extension);
        (*device).Flags |= DO_BUFFERED_IO;
        let status = IoCreateSymbolicLink(&mut link, &mut name);
        if status < 0 {
            IoDeleteDevice(device);
            return Err(status);
        }
    }
    Ok(device)
}

/// What a device's extension is.
///
/// # Safety
/// The device was made with a `T`.
pub unsafe fn extension_of<T>(device: *mut DEVICE_OBJECT) -> *mut T {
    unsafe { (*device).DeviceExtension.cast() }
}

/// Deletes the driver's device and its link.
///
/// # Safety
/// It is the driver's only one, and not used any more.
pub unsafe fn delete(driver: *mut DRIVER_OBJECT, link: &'static [u16]) {
    let mut link = string(link);
    unsafe {
        IoDeleteSymbolicLink(&mut link);
        IoDeleteDevice((*driver).only_device());
    }
}

impl DRIVER_OBJECT {
    /// The only device that there is.
    pub fn only_device(&self) -> *mut DEVICE_OBJECT {
        with_exposed_provenance_mut(self.Head[1] as usize)
    }
}

/// A block of nonpaged pool, and what is in it.
pub struct PoolBox<T>(*mut T);

impl<T> PoolBox<T> {
    const TAG: u32 = u32::from_le_bytes(*b"tsuR");

    pub fn new(value: T) -> Result<Self, NTSTATUS> {
        // SAFETY: at DISPATCH_LEVEL or below, as all callers are.
        let block: *mut T =
            unsafe { ExAllocatePoolWithTag(NON_PAGED_POOL_NX, size_of::<T>(), Self::TAG) }.cast();
        if block.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        // SAFETY: the block is new, and as long as that.
        unsafe { block.write(value) };
        Ok(Self(block))
    }

    pub fn into_raw(self) -> *mut T {
        let block = self.0;
        core::mem::forget(self);
        block
    }

    /// # Safety
    /// It came from [`PoolBox::into_raw`], and has no owner.
    pub unsafe fn from_raw(block: *mut T) -> Self {
        Self(block)
    }
}

impl<T> Deref for PoolBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the block is there for as long as its owner.
        unsafe { &*self.0 }
    }
}

impl<T> DerefMut for PoolBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0 }
    }
}

impl<T> Drop for PoolBox<T> {
    fn drop(&mut self) {
        // SAFETY: the block and what is in it end with their owner.
        unsafe {
            self.0.drop_in_place();
            ExFreePoolWithTag(self.0.cast(), Self::TAG);
        }
    }
}

/// A spin lock and what it guards.
pub struct SpinLock<T> {
    lock: core::cell::UnsafeCell<usize>,
    value: core::cell::UnsafeCell<T>,
}

// SAFETY: one at a time has what it guards.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    pub const fn new(value: T) -> Self {
        Self { lock: core::cell::UnsafeCell::new(0), value: core::cell::UnsafeCell::new(value) }
    }

    /// At DISPATCH_LEVEL or below.
    pub fn lock(&self) -> SpinGuard<'_, T> {
        // SAFETY: the lock is initialised: 0.
        SpinGuard { lock: self, irql: unsafe { KeAcquireSpinLockRaiseToDpc(self.lock.get()) } }
    }
}

/// The lock is held for as long as this is there.
pub struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
    irql: KIRQL,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: it was acquired with this level.
        unsafe { KeReleaseSpinLock(self.lock.lock.get(), self.irql) }
    }
}

/// The names of a device and of its link.
#[macro_export]
macro_rules! names {
    ($name:literal) => {
        const DEVICE_NAME: [u16; concat!("\\Device\\", $name).len()] =
            $crate::ddk::wide(concat!("\\Device\\", $name));
        const LINK_NAME: [u16; concat!("\\DosDevices\\", $name).len()] =
            $crate::ddk::wide(concat!("\\DosDevices\\", $name));
        static NAMES: (&[u16], &[u16]) = (&DEVICE_NAME, &LINK_NAME);
    };
}
