//! Device stacks: one device attached to another.
//!
//! Pages: *IoAttachDeviceToDeviceStack function*, *IoAttachDevice function*, *IoDetachDevice function*,
//! *IoGetAttachedDeviceReference function*, *IoGetDeviceObjectPointer function*.

use abi::{
    DEVICE_OBJECT, DO_DEVICE_INITIALIZING, DriverPtr, FILE_OBJECT, FILE_READ_ATTRIBUTES, NtStatus,
    UNICODE_STRING,
};
use engine::Flow;

use super::file::{self, OpenOptions};
use super::violation::{MOST_DEVICES, device_name, io_manager};
use super::{integrity, stand_in};
use crate::cx::{Cx, Kernel};
use crate::ob;
use crate::ob::handle::Mode;
use crate::verdict::Verdict;

/// `IoGetAttachedDevice`: the top of the stack that `device` is in.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn attached(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    climb(cx, device, |_, _| {})
}

/// From a device to the top of its stack, which is returned; `visit` gets each on the way.
///
/// # Errors
/// As [`attached`].
#[inline]
pub(crate) fn climb(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    mut visit: impl FnMut(&mut Cx<'_>, DriverPtr<DEVICE_OBJECT>),
) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    let mut top = device;
    for _ in 0..MOST_DEVICES {
        visit(cx, top);
        let above = cx.read(top + DEVICE_OBJECT::AttachedDevice)?;
        if above.is_null() {
            return Ok(top);
        }
        if !cx.with(|k| k.io.devices.contains(above.address)) {
            integrity::check_device(cx, top)?;
        }
        top = above;
    }
    Err(cx.stop(Verdict::endless_list("DEVICE_OBJECT.AttachedDevice", device.address)))
}

/// `IoGetAttachedDeviceReference`: as [`attached`], with a reference.
///
/// # Errors
/// As [`attached`].
pub(crate) fn attached_reference(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    let top = attached(cx, device)?;
    ob::object::reference(cx, top)?;
    ob::account::note(cx, ob::account::OBJECT, top.address);
    Ok(top)
}

/// `IoGetLowerDeviceObject`: the device below, with a reference; null at the bottom.
///
/// # Errors
/// As a reference.
pub(crate) fn lower(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    let below = DriverPtr::new(below(cx, device));
    if !below.is_null() {
        ob::object::reference(cx, below)?;
        ob::account::note(cx, ob::account::OBJECT, below.address);
    }
    Ok(below)
}

/// `IoGetDeviceAttachmentBaseRef`: the bottom of the stack, with a reference.
///
/// # Errors
/// As a reference.
pub(crate) fn base_reference(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    let base = cx.with(|k| bottom(k, device));
    ob::object::reference(cx, base)?;
    Ok(base)
}

/// The bottom of the stack that `device` is in.
#[must_use]
pub(crate) fn bottom(k: &Kernel, mut device: DriverPtr<DEVICE_OBJECT>) -> DriverPtr<DEVICE_OBJECT> {
    while let Some(below) =
        k.io.devices.get(device.address).map(|known| known.below).filter(|below| *below != 0)
    {
        device = DriverPtr::new(below);
    }
    device
}

fn below(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> u64 {
    cx.with(|k| k.io.devices.get(device.address).map_or(0, |device| device.below))
}

/// `IoAttachDeviceToDeviceStack`: the device that `source` lies on now, null if it cannot be attached.
///
/// # Errors
/// A verdict if a pointer is bad, or `source` is attached already.
pub(crate) fn attach_to_stack(
    cx: &mut Cx<'_>,
    source: DriverPtr<DEVICE_OBJECT>,
    target: DriverPtr<DEVICE_OBJECT>,
) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    let top = attached(cx, target)?;
    let source_below = below(cx, source);
    if source_below != 0 {
        let (name, other) = (device_name(cx, source), device_name(cx, DriverPtr::new(source_below)));
        let message = format!("{name} is to be attached and is attached to {other} already");
        // A device has one link down: that of the first attachment is lost, and with it all that goes down by it (power, IoGetLowerDeviceObject).
        return Err(cx.stop(Verdict::error("device-attached-twice", message)));
    }
    if cx.with(|k| bottom(k, top)) == source {
        // It would lie on itself: a walk to the top of this stack never ends.
        return Err(cx.stop(Verdict::endless_list("DEVICE_OBJECT.AttachedDevice", source.address)));
    }
    let going = cx.with(|k| k.io.devices.get(top.address).is_none_or(|d| d.delete_pending || d.deleted));
    let flags = cx.read(top + DEVICE_OBJECT::Flags)?;
    if going || flags & DO_DEVICE_INITIALIZING != 0 {
        return Ok(DriverPtr::NULL);
    }
    let stack_size = cx.read(top + DEVICE_OBJECT::StackSize)?;
    let alignment = cx.read(top + DEVICE_OBJECT::AlignmentRequirement)?;
    let sector = cx.read(top + DEVICE_OBJECT::SectorSize)?;
    cx.write(source + DEVICE_OBJECT::StackSize, stack_size.saturating_add(1))?;
    cx.write(source + DEVICE_OBJECT::AlignmentRequirement, alignment)?;
    cx.write(source + DEVICE_OBJECT::SectorSize, sector)?;
    cx.write(top + DEVICE_OBJECT::AttachedDevice, source)?;
    cx.with(|k| k.io.devices.change(source.address, |device| device.below = top.address));
    Ok(top)
}

/// `IoAttachDeviceToDeviceStackSafe`: as [`attach_to_stack`]; `attached_to` is written before requests can arrive.
///
/// # Errors
/// As [`attach_to_stack`].
pub(crate) fn attach_to_stack_safe(
    cx: &mut Cx<'_>,
    source: DriverPtr<DEVICE_OBJECT>,
    target: DriverPtr<DEVICE_OBJECT>,
    attached_to: DriverPtr<DriverPtr<DEVICE_OBJECT>>,
) -> Flow<NtStatus> {
    let top = attach_to_stack(cx, source, target)?;
    cx.write(attached_to, top)?;
    Ok(if top.is_null() { NtStatus::NO_SUCH_DEVICE } else { NtStatus::SUCCESS })
}

/// `IoAttachDevice`: on top of the device of this name.
///
/// # Errors
/// As [`attach_to_stack`].
pub(crate) fn attach_by_name(
    cx: &mut Cx<'_>,
    source: DriverPtr<DEVICE_OBJECT>,
    name: DriverPtr<UNICODE_STRING>,
    attached_to: DriverPtr<DriverPtr<DEVICE_OBJECT>>,
) -> Flow<NtStatus> {
    let name = ob::string::read(cx, name)?;
    let (file, device) = match pointer(cx, &name, FILE_READ_ATTRIBUTES)? {
        Ok(found) => found,
        Err(status) => return Ok(status),
    };
    let status = attach_to_stack_safe(cx, source, device, attached_to)?;
    ob::object::dereference(cx, file)?;
    Ok(status)
}

/// `IoDetachDevice`: takes away what is attached to `target`.
///
/// # Errors
/// A verdict if nothing is.
pub(crate) fn detach(cx: &mut Cx<'_>, target: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let above = cx.read(target + DEVICE_OBJECT::AttachedDevice)?;
    if above.is_null() {
        let name = device_name(cx, target);
        let message = format!(
            "IoDetachDevice on {name}, to which nothing is attached (its argument is the device below)"
        );
        return Err(cx.stop(io_manager("device-not-attached", 0x202, message, target, DriverPtr::NULL)));
    }
    cx.write(target + DEVICE_OBJECT::AttachedDevice, DriverPtr::NULL)?;
    cx.with(|k| k.io.devices.change(above.address, |device| device.below = 0));
    super::device::finish_deletion(cx, target)
}

/// A file, referenced, and the top of the stack that it was opened on.
pub(crate) type Pointer = (DriverPtr<FILE_OBJECT>, DriverPtr<DEVICE_OBJECT>);

/// Opens the device of this name, or one that stands in for it, and returns the file, referenced, with the top of the device's stack.
pub(crate) fn pointer(cx: &mut Cx<'_>, name: &str, access: u32) -> Flow<Result<Pointer, NtStatus>> {
    stand_in::make(cx, name)?;
    let options = OpenOptions { access, options: 0, ..OpenOptions::default() };
    let handle = match file::create(cx, name, &options, Mode::Kernel, true)? {
        Ok(opened) => opened.handle,
        Err(status) => return Ok(Err(status)),
    };
    let file = match ob::handle::reference(cx, handle, Some(ob::Kind::File), 0, Mode::Kernel)? {
        Ok(entry) => DriverPtr::new(entry.object),
        Err(status) => return Ok(Err(status)),
    };
    let device = related_device(cx, file)?;
    // Its last handle: the stack gets IRP_MJ_CLEANUP now, and IRP_MJ_CLOSE with the caller's dereference.
    let _ = ob::handle::close(cx, handle)?;
    Ok(Ok((file, device)))
}

/// `IoGetDeviceObjectPointer`.
///
/// # Errors
/// A verdict if a pointer is bad, or on what drivers do at open.
pub(crate) fn get_device_object_pointer(
    cx: &mut Cx<'_>,
    name: DriverPtr<UNICODE_STRING>,
    access: u32,
    file: DriverPtr<DriverPtr<FILE_OBJECT>>,
    device: DriverPtr<DriverPtr<DEVICE_OBJECT>>,
) -> Flow<NtStatus> {
    let name = ob::string::read(cx, name)?;
    match pointer(cx, &name, access)? {
        Err(status) => Ok(status),
        Ok((file_object, top)) => {
            cx.write(file, file_object)?;
            cx.write(device, top)?;
            Ok(NtStatus::SUCCESS)
        }
    }
}

/// `IoGetRelatedDeviceObject`: the top of the stack of the device that the file was opened on.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn related_device(
    cx: &mut Cx<'_>,
    file: DriverPtr<FILE_OBJECT>,
) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    let device = cx.read(file + FILE_OBJECT::DeviceObject)?;
    attached(cx, device)
}

/// After `AddDevice`: every device that it made and attached, which are those of this thread's in front of what was the driver's first `before`, must have
/// cleared `DO_DEVICE_INITIALIZING`. Of one that is attached to nothing the PnP manager may do that, when it is reported as a child. Another thread of the driver's may be in the middle of making one, too: a child that is plugged in.
///
/// # Errors
/// With Driver Verifier's I/O option, a verdict if one has not.
pub(crate) fn check_added(
    cx: &mut Cx<'_>,
    driver: DriverPtr<abi::DRIVER_OBJECT>,
    before: DriverPtr<DEVICE_OBJECT>,
) -> Flow<()> {
    for device in super::device::of_driver(cx, driver)? {
        if device == before {
            break;
        }
        let is_own = cx.with(|k| {
            let known = k.io.devices.get(device.address).filter(|known| known.below != 0);
            known.and_then(|known| known.maker) == Some(k.ke.processor().thread)
        });
        if !is_own {
            continue;
        }
        let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
        if flags & DO_DEVICE_INITIALIZING != 0 {
            let name = device_name(cx, device);
            let message = format!("AddDevice returned and {name} still has DO_DEVICE_INITIALIZING set");
            let verdict = io_manager("device-initializing", 0x243, message, device, DriverPtr::NULL);
            // Windows goes on: the device cannot be opened, nor another attached to it.
            cx.verify(verdict.as_verifier())?;
        }
    }
    Ok(())
}
