//! The routines that `WmiSystemControl` calls, and what becomes of a request.
//!
//! Pages: *WmiSystemControl function*, *WMILIB_CONTEXT structure*, *WMI_QUERY_REGINFO_CALLBACK callback function* and those of the other DpWmiXxx routines,
//! *WmiCompleteRequest function*. Each routine ends its request before it returns.

use core::marker::PhantomData;
use core::ptr::{NonNull, null, null_mut};

use abi::{DEVICE_OBJECT, GUID, IO_STATUS_BLOCK, IRP, NtStatus, UNICODE_STRING};

use super::{ALIGNMENT, Item, Method, Offered};
use crate::device::Device;
use crate::driver::{Entry, Function};
use crate::irp::{Irp, Owned, release};
use crate::irql::Passive;
use crate::pool::PoolBox;
use crate::{Result, raw, sys};

/// More blocks than a device offers.
const MOST: usize = 16;
/// Most code units of a service's key: names of services have at most 256.
const PATH_CAPACITY: usize = 384;

/// `WMIGUIDREGINFO`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Registered {
    guid: *const GUID,
    instances: u32,
    flags: u32,
}

type QueryRegInfo = unsafe extern "system" fn(
    *mut DEVICE_OBJECT,
    *mut u32,
    *mut UNICODE_STRING,
    *mut *mut UNICODE_STRING,
    *mut UNICODE_STRING,
    *mut *mut DEVICE_OBJECT,
) -> NtStatus;
type QueryBlock = unsafe extern "system" fn(
    *mut DEVICE_OBJECT,
    *mut IRP,
    u32,
    u32,
    u32,
    *mut u32,
    u32,
    *mut u8,
) -> NtStatus;
type SetBlock = unsafe extern "system" fn(*mut DEVICE_OBJECT, *mut IRP, u32, u32, u32, *mut u8) -> NtStatus;
type SetItem =
    unsafe extern "system" fn(*mut DEVICE_OBJECT, *mut IRP, u32, u32, u32, u32, *mut u8) -> NtStatus;
type Execute =
    unsafe extern "system" fn(*mut DEVICE_OBJECT, *mut IRP, u32, u32, u32, u32, u32, *mut u8) -> NtStatus;
type Switch = unsafe extern "system" fn(*mut DEVICE_OBJECT, *mut IRP, u32, u32, u8) -> NtStatus;

/// `WMILIB_CONTEXT`.
#[repr(C)]
struct Context {
    count: u32,
    list: *const Registered,
    query_reg_info: QueryRegInfo,
    query: QueryBlock,
    set: SetBlock,
    set_item: SetItem,
    execute: Execute,
    switch: Switch,
}

const _: () = assert!(size_of::<Registered>() == size_of::<abi::WMIGUIDREGINFO>());
const _: () = assert!(size_of::<Context>() == size_of::<abi::WMILIB_CONTEXT>());
const _: () = assert!(
    core::mem::offset_of!(Context, switch) as u64 == abi::WMILIB_CONTEXT::WmiFunctionControl.offset()
);

/// What the library gets of a driver: constants of its image.
struct Tables<D>(PhantomData<D>);

impl<D: Entry> Tables<D> {
    const LIST: &'static [Registered; MOST] = &list::<D::Function>();
    const CONTEXT: &'static Context = &Context {
        count: count::<D::Function>(),
        list: Self::LIST.as_ptr(),
        query_reg_info: query_reg_info::<D>,
        query: query::<D::Function>,
        set: set::<D::Function>,
        set_item: set_item::<D::Function>,
        execute: execute::<D::Function>,
        switch: switch::<D::Function>,
    };
}

#[expect(clippy::cast_possible_truncation, reason = "it is at most MOST")]
const fn count<F: Function>() -> u32 {
    assert!(F::WMI.len() <= MOST, "a device offers at most 16 blocks");
    F::WMI.len() as u32
}

const fn list<F: Function>() -> [Registered; MOST] {
    let mut list = [Registered { guid: null(), instances: 0, flags: 0 }; MOST];
    let mut index = 0;
    while index < F::WMI.len() {
        let Offered { guid, instances, flags, .. } = F::WMI[index];
        list[index] = Registered { guid, instances, flags };
        index += 1;
    }
    list
}

/// The service's key as `DriverEntry` was given it: the string dies with that routine, and a provider has to name it.
pub(crate) struct KeptPath {
    string: UNICODE_STRING,
    units: [u16; PATH_CAPACITY],
}

impl KeptPath {
    /// A copy, which stays where it is.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`; `STATUS_NAME_TOO_LONG`.
    ///
    /// # Safety
    /// `path` is a counted string.
    pub(crate) unsafe fn of<F: Function>(
        path: *mut UNICODE_STRING,
        passive: &mut Passive,
    ) -> Result<PoolBox<Self>> {
        // SAFETY: the caller's promise.
        let given = unsafe {
            let units = raw::get(path, UNICODE_STRING::Length) / 2;
            core::slice::from_raw_parts(raw::follow(path, UNICODE_STRING::Buffer), units.into())
        };
        let mut units = [0; PATH_CAPACITY];
        units.get_mut(..given.len()).ok_or(NtStatus::NAME_TOO_LONG)?.copy_from_slice(given);
        let kept = PoolBox::new(Self { string: UNICODE_STRING::zeroed(), units }, F::TAG, passive)?;
        // SAFETY: the block is ours, and no other thread has seen it; its own string goes where it lies.
        unsafe {
            let units = (*kept.as_ptr()).units.get(..given.len()).unwrap_or_default();
            (*kept.as_ptr()).string = crate::text::unicode_string(units);
        }
        Ok(kept)
    }
}

/// `IRP_MJ_SYSTEM_CONTROL` of a device that offers something: the library sees whether it is for this device.
pub(crate) fn control<D: Entry>(
    device: &Device<D::Function>,
    irp: Irp<'_>,
    passive: &mut Passive,
) -> NtStatus {
    let (irp, lock) = irp.into_raw();
    let mut disposition = abi::IrpForward;
    // SAFETY: the request was ours; the context lies in the image. At PASSIVE_LEVEL.
    let status = unsafe {
        let context = core::ptr::from_ref(Tables::<D>::CONTEXT).cast_mut().cast();
        sys::WmiSystemControl(context, device.object(), irp.as_ptr(), &raw mut disposition)
    };
    if disposition == abi::IrpProcessed {
        // SAFETY: a routine has completed it; the lock was taken for it.
        unsafe { release(irp, lock) };
        return status;
    }
    // SAFETY: it is ours again, with its lock.
    let irp = Irp::new(unsafe { Owned::new(irp, lock) });
    if disposition != abi::IrpNotCompleted {
        return irp.forward(device, passive).status();
    }
    // SAFETY: the request is ours; the library has said how it ends.
    let (status, information) = unsafe {
        let block = IRP::IoStatus.of(irp.as_ptr());
        (raw::get(block, IO_STATUS_BLOCK::Status), raw::get(block, IO_STATUS_BLOCK::Information))
    };
    irp.complete(status, usize::try_from(information).unwrap_or(0), passive).status()
}

/// Says what is registered; instances are named after the physical device object, to which the library adds a reference.
unsafe extern "system" fn query_reg_info<D: Entry>(
    object: *mut DEVICE_OBJECT,
    flags: *mut u32,
    _name: *mut UNICODE_STRING,
    path: *mut *mut UNICODE_STRING,
    _resource: *mut UNICODE_STRING,
    pdo: *mut *mut DEVICE_OBJECT,
) -> NtStatus {
    // SAFETY: the library calls it in `control`, for the device that is there; what it gives is to be filled in. The path is kept until the driver is unloaded.
    unsafe {
        let device = Device::<D::Function>::of(object);
        *flags = abi::WMIREG_FLAG_INSTANCE_PDO;
        *path = D::cell().path().map_or(null_mut(), |kept| (&raw mut (*kept).string).cast());
        *pdo = device.pdo().object();
    }
    NtStatus::SUCCESS
}

/// How a routine ends: the bytes that it has used, or the status, and for `STATUS_BUFFER_TOO_SMALL` the bytes that it needs.
type Ended = core::result::Result<usize, (NtStatus, usize)>;

fn failed(status: NtStatus) -> (NtStatus, usize) {
    (status, 0)
}

/// Runs `body` on the device and the block of a request, and completes the request as it says.
///
/// # Safety
/// Called by the library in [`control`], with its arguments.
unsafe fn answer<F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    block: u32,
    body: impl FnOnce(&Device<F>, &Offered<F>, &mut Passive) -> Ended,
) -> NtStatus {
    // SAFETY: the device is there for as long as `control` runs; at PASSIVE_LEVEL.
    let (device, mut passive) = unsafe { (Device::<F>::of(object), Passive::assume()) };
    let ended = match F::WMI.get(block as usize) {
        Some(offered) => body(device, offered, &mut passive),
        None => Err(failed(NtStatus::WMI_GUID_NOT_FOUND)),
    };
    let (status, used) = match ended {
        Ok(used) => (NtStatus::SUCCESS, used),
        Err(refused) => refused,
    };
    // SAFETY: the request is the library's to complete, once, and no routine says that it is pending.
    unsafe { sys::WmiCompleteRequest(object, irp, status, u32::try_from(used).unwrap_or(u32::MAX), 0) }
}

/// The bytes of a buffer that the library gives.
///
/// # Safety
/// It is so long, and not used elsewhere meanwhile.
unsafe fn bytes<'a>(buffer: *mut u8, length: usize) -> &'a mut [u8] {
    match NonNull::new(buffer) {
        // SAFETY: the caller's promise; the system has filled it.
        Some(buffer) if length > 0 => unsafe { core::slice::from_raw_parts_mut(buffer.as_ptr(), length) },
        _ => &mut [],
    }
}

unsafe extern "system" fn query<F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    block: u32,
    first: u32,
    count: u32,
    lengths: *mut u32,
    available: u32,
    buffer: *mut u8,
) -> NtStatus {
    let body = |device: &Device<F>, offered: &Offered<F>, passive: &mut Passive| {
        let (size, stride) = (offered.size, offered.size.next_multiple_of(ALIGNMENT));
        let needed = (count as usize).saturating_sub(1).saturating_mul(stride) + size;
        if lengths.is_null() || needed > available as usize {
            return Err((NtStatus::BUFFER_TOO_SMALL, needed));
        }
        // SAFETY: the library gives so much room.
        let mut rest = unsafe { bytes(buffer, needed) };
        for index in 0..count {
            let (own, behind) = rest.split_at_mut(stride.min(rest.len()));
            rest = behind;
            own.fill(0);
            (offered.query)(device, first + index, &mut own[..size], passive).map_err(failed)?;
            let length = u32::try_from(size).unwrap_or(u32::MAX);
            // SAFETY: there is a length for each instance.
            unsafe { lengths.add(index as usize).write_unaligned(length) };
        }
        Ok(needed)
    };
    // SAFETY: called by the library.
    unsafe { answer::<F>(object, irp, block, body) }
}

unsafe extern "system" fn set<F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    block: u32,
    instance: u32,
    size: u32,
    buffer: *mut u8,
) -> NtStatus {
    let body = |device: &Device<F>, offered: &Offered<F>, passive: &mut Passive| {
        // SAFETY: the library says how long the data are.
        let data = unsafe { bytes(buffer, size as usize) };
        (offered.set)(device, instance, data, passive).map(|()| 0).map_err(failed)
    };
    // SAFETY: called by the library.
    unsafe { answer::<F>(object, irp, block, body) }
}

unsafe extern "system" fn set_item<F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    block: u32,
    instance: u32,
    id: u32,
    size: u32,
    buffer: *mut u8,
) -> NtStatus {
    let body = |device: &Device<F>, offered: &Offered<F>, passive: &mut Passive| {
        // SAFETY: the library says how long the value is.
        let item = Item { id, bytes: unsafe { bytes(buffer, size as usize) } };
        (offered.set_item)(device, instance, item, passive).map(|()| 0).map_err(failed)
    };
    // SAFETY: called by the library.
    unsafe { answer::<F>(object, irp, block, body) }
}

unsafe extern "system" fn execute<F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    block: u32,
    instance: u32,
    id: u32,
    input: u32,
    room: u32,
    buffer: *mut u8,
) -> NtStatus {
    let body = |device: &Device<F>, offered: &Offered<F>, passive: &mut Passive| {
        let (input, room) = (input as usize, room as usize);
        // SAFETY: the library says how long input and room are, and both begin here.
        let buffer = unsafe { bytes(buffer, input.max(room)) };
        let mut method = Method { id, buffer, input, room, used: 0 };
        match (offered.execute)(device, instance, &mut method, passive) {
            Ok(()) => Ok(method.used),
            Err(status) => Err((status, method.used)),
        }
    };
    // SAFETY: called by the library.
    unsafe { answer::<F>(object, irp, block, body) }
}

unsafe extern "system" fn switch<F: Function>(
    object: *mut DEVICE_OBJECT,
    irp: *mut IRP,
    block: u32,
    _function: u32,
    on: u8,
) -> NtStatus {
    let body = |device: &Device<F>, offered: &Offered<F>, passive: &mut Passive| {
        (offered.switch)(device, on != 0, passive).map(|()| 0).map_err(failed)
    };
    // SAFETY: called by the library.
    unsafe { answer::<F>(object, irp, block, body) }
}
