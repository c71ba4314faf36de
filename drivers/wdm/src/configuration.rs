//! The configuration space of a PCI function, as its bus driver reads and writes it.
//!
//! Pages: *Accessing Device Configuration Space*, *BUS_INTERFACE_STANDARD*, *IRP_MN_QUERY_INTERFACE*, *GET_SET_DEVICE_DATA callback function*. A PCI Express function has 4 KiB,
//! a conventional one 256 bytes; what is beyond is not read.

use core::ffi::c_void;
use core::mem::transmute;

use abi::{
    BUS_INTERFACE_STANDARD, DEVICE_OBJECT, GUID, GUID_BUS_INTERFACE_STANDARD, IO_STACK_LOCATION,
    IO_STATUS_BLOCK, IRP, KEVENT, NtStatus,
};

use crate::device::Device;
use crate::irql::{AtMostDispatch, Passive};
use crate::{Result, event, irp, raw, sys};

/// `GetBusData` and `SetBusData`.
type Data = unsafe extern "system" fn(*mut c_void, u32, *mut c_void, u32, u32) -> u32;
/// `InterfaceDereference`.
type Release = unsafe extern "system" fn(*mut c_void);

/// `PCI_WHICHSPACE_CONFIG`.
const SPACE: u32 = 0;

/// The configuration space of a device's function. It is to be dropped before the device is removed: from start to stop is right.
pub struct Configuration {
    context: *mut c_void,
    get: Data,
    set: Data,
    release: Release,
}

// SAFETY: the bus driver's routines take any processor, at most at DISPATCH_LEVEL.
unsafe impl Send for Configuration {}
// SAFETY: as above.
unsafe impl Sync for Configuration {}

impl Configuration {
    /// Asks the bus driver for the way there.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, or what the drivers below answer: `STATUS_NOT_SUPPORTED` if it is no PCI function.
    pub fn open<T>(device: &Device<T>, _passive: &mut Passive) -> Result<Self> {
        let mut interface = BUS_INTERFACE_STANDARD::zeroed();
        // SAFETY: the device below is there as long as this one; at PASSIVE_LEVEL; the interface outlives the request.
        let status = unsafe { query(device.lower(), &raw mut interface) }?;
        if !status.is_success() {
            return Err(status);
        }
        let from = &raw mut interface;
        // SAFETY: the bus driver has filled the interface in; its routines have these declarations.
        unsafe {
            Ok(Self {
                context: raw::follow(from, BUS_INTERFACE_STANDARD::Context).cast(),
                get: transmute::<*mut (), Data>(raw::follow(from, BUS_INTERFACE_STANDARD::GetBusData).cast()),
                set: transmute::<*mut (), Data>(raw::follow(from, BUS_INTERFACE_STANDARD::SetBusData).cast()),
                release: transmute::<*mut (), Release>(
                    raw::follow(from, BUS_INTERFACE_STANDARD::InterfaceDereference).cast(),
                ),
            })
        }
    }

    /// Reads bytes from an offset: how many there were.
    pub fn read<L: AtMostDispatch>(&self, offset: u32, into: &mut [u8], _level: &mut L) -> usize {
        let length = u32::try_from(into.len()).unwrap_or(u32::MAX);
        // SAFETY: there are so many bytes; at most at DISPATCH_LEVEL.
        unsafe { (self.get)(self.context, SPACE, into.as_mut_ptr().cast(), offset, length) as usize }
    }

    /// Writes bytes to an offset: for how many there was room. What registers make of them is the function's.
    pub fn write<L: AtMostDispatch>(&self, offset: u32, bytes: &[u8], _level: &mut L) -> usize {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // SAFETY: there are so many bytes, which the bus driver only reads; at most at DISPATCH_LEVEL.
        unsafe { (self.set)(self.context, SPACE, bytes.as_ptr().cast_mut().cast(), offset, length) as usize }
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        // SAFETY: taken by `open`, once.
        unsafe { (self.release)(self.context) };
    }
}

/// Sends `IRP_MN_QUERY_INTERFACE` down and waits for its end: how it ended.
///
/// # Safety
/// At `PASSIVE_LEVEL`; the device is there, and the interface the caller's to write.
unsafe fn query(device: *mut DEVICE_OBJECT, interface: *mut BUS_INTERFACE_STANDARD) -> Result<NtStatus> {
    type Stack = IO_STACK_LOCATION;
    static KIND: GUID = GUID_BUS_INTERFACE_STANDARD;
    let size = u16::try_from(size_of::<BUS_INTERFACE_STANDARD>()).unwrap_or(u16::MAX);
    let mut done = KEVENT::zeroed();
    // SAFETY: the request is ours until it is sent, and again when `signal` has stopped its completion; event and interface outlive that.
    unsafe {
        let levels = raw::get(device, DEVICE_OBJECT::StackSize);
        let request = sys::IoAllocateIrp(levels.cast_signed(), 0);
        if request.is_null() {
            return Err(NtStatus::INSUFFICIENT_RESOURCES);
        }
        sys::KeInitializeEvent(&raw mut done, abi::NotificationEvent, 0);
        raw::set(IRP::IoStatus.of(request), IO_STATUS_BLOCK::Status, NtStatus::NOT_SUPPORTED);
        let stack = raw::follow(request, IRP::Tail_Overlay_CurrentStackLocation).wrapping_sub(1);
        raw::set(stack, Stack::MajorFunction, abi::IRP_MJ_PNP);
        raw::set(stack, Stack::MinorFunction, abi::IRP_MN_QUERY_INTERFACE);
        raw::set(
            stack,
            Stack::Parameters_QueryInterface_InterfaceType,
            raw::stored((&raw const KIND).cast_mut()),
        );
        raw::set(stack, Stack::Parameters_QueryInterface_Size, size);
        raw::set(stack, Stack::Parameters_QueryInterface_Version, 1);
        raw::set(stack, Stack::Parameters_QueryInterface_Interface, raw::stored(interface));
        irp::set_completion(request, irp::signal, (&raw mut done).cast());
        let mut status = sys::IofCallDriver(device, request);
        if status == NtStatus::PENDING {
            let _signaled = event::wait(&raw mut done, None);
            status = raw::get(IRP::IoStatus.of(request), IO_STATUS_BLOCK::Status);
        }
        sys::IoFreeIrp(request);
        Ok(status)
    }
}
