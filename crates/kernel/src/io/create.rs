//! `IRP_MJ_CREATE`: what a driver is asked when one of its devices is opened, and what it may read about who opens it.
//!
//! Pages: *IRP_MJ_CREATE*, *IO_SECURITY_CONTEXT structure*, *ACCESS_STATE structure*, *ZwCreateFile function*,
//! *FILE_FULL_EA_INFORMATION structure*. The opener is the running thread, or the client it acts for.

use abi::{
    ACCESS_STATE, DEVICE_OBJECT, DriverPtr, FILE_DEVICE_SECURE_OPEN, FILE_FULL_EA_INFORMATION, FILE_OBJECT,
    IO_FORCE_ACCESS_CHECK, IO_SECURITY_CONTEXT, IRP_CREATE_OPERATION, IRP_MJ_CREATE, IRP_SYNCHRONOUS_API,
    NtStatus, SL_FORCE_ACCESS_CHECK, SL_OPEN_PAGING_FILE, SL_OPEN_TARGET_DIRECTORY, SL_STOP_ON_SYMLINK,
    UNICODE_STRING,
};
use engine::Flow;

use super::buffers::Buffer;
use super::file::{OpenOptions, map_generic};
use super::system_request::{self, Answer, Request};
use crate::cx::Cx;
use crate::mm::pool;
use crate::ob::handle::Mode;
use crate::se::access::{self, Asked};
use crate::se::{object, subject, token};
use crate::{ke, ps};

const TAG: u32 = pool::tag(b"IoCr");

// Options of `IoCreateFile`, of `ntifs.h`.
const IO_OPEN_PAGING_FILE: u32 = 0x2;
const IO_OPEN_TARGET_DIRECTORY: u32 = 0x4;
const IO_STOP_ON_SYMLINK: u32 = 0x8;

/// Sends `IRP_MJ_CREATE` for `file` to the top of the stack of `device`; how the driver answers.
///
/// # Errors
/// A verdict on a driver of the stack.
pub(crate) fn ask_driver(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    file: DriverPtr<FILE_OBJECT>,
    options: &OpenOptions,
    mode: Mode,
) -> Flow<Answer> {
    let Some(context) = security_context(cx, device, file, options)? else {
        return Ok(Answer::failed(NtStatus::INSUFFICIENT_RESOURCES));
    };
    let attributes = match copy_attributes(cx, options.extended)? {
        Some(copy) => copy,
        None => {
            pool::free(cx, context)?;
            return Ok(Answer::failed(NtStatus::INSUFFICIENT_RESOURCES));
        }
    };
    let disposition = u64::from(options.disposition << 24 | options.options & 0x00FF_FFFF);
    let sharing = u64::from(options.attributes) | u64::from(options.share) << 16;
    let request = Request {
        parameters: [context.address, disposition, sharing, options.extended.length.into()],
        file,
        flags: IRP_CREATE_OPERATION | IRP_SYNCHRONOUS_API,
        mode: mode.value(),
        location_flags: location_flags(options.io_options),
        system_buffer: attributes,
        allocation: options.allocation,
        ..Request::new(IRP_MJ_CREATE, 0)
    };
    let answer = system_request::send(cx, device, &request)?;
    if !attributes.is_null() {
        pool::free(cx, attributes)?;
    }
    pool::free(cx, context)?;
    Ok(answer)
}

/// What the subject that runs is granted of what it asks for: by the device's descriptor, unless a name goes on behind the device's and
/// that is the driver's to check.
///
/// # Errors
/// A verdict on a damaged device; (inner) `ACCESS_DENIED`, `PRIVILEGE_NOT_HELD`.
pub(crate) fn granted(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    name: &str,
    desired: u32,
) -> Flow<Result<u32, NtStatus>> {
    if !is_checked(cx, device, !name.is_empty())? {
        return Ok(Ok(desired));
    }
    let asked = Asked { desired, previous: 0, mapping: &object::file_mapping() };
    let granted = token::with_current(cx, |k, token| {
        access::check(object::device_descriptor(k, device.address), token, asked)
    });
    Ok(granted.flatten().map(|granted| granted.access))
}

/// Whether the I/O manager checks the device's descriptor; names inside the device are its driver's to check.
fn is_checked(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>, inside: bool) -> Flow<bool> {
    let characteristics = cx.read(device + DEVICE_OBJECT::Characteristics)?;
    Ok(!inside || characteristics & FILE_DEVICE_SECURE_OPEN != 0)
}

/// `IO_STACK_LOCATION::Flags` by the options of `IoCreateFile`.
fn location_flags(options: u32) -> u8 {
    const MEANINGS: [(u32, u8); 4] = [
        (IO_FORCE_ACCESS_CHECK, SL_FORCE_ACCESS_CHECK),
        (IO_OPEN_PAGING_FILE, SL_OPEN_PAGING_FILE),
        (IO_OPEN_TARGET_DIRECTORY, SL_OPEN_TARGET_DIRECTORY),
        (IO_STOP_ON_SYMLINK, SL_STOP_ON_SYMLINK),
    ];
    MEANINGS.iter().filter(|(option, _)| options & option != 0).fold(0, |flags, (_, flag)| flags | flag)
}

/// `Parameters.Create.SecurityContext` and the `ACCESS_STATE` behind it, in one block; none if there is no memory.
fn security_context(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    file: DriverPtr<FILE_OBJECT>,
    options: &OpenOptions,
) -> Flow<Option<DriverPtr<IO_SECURITY_CONTEXT>>> {
    let size = size_of::<IO_SECURITY_CONTEXT>() + size_of::<ACCESS_STATE>();
    let context: DriverPtr<IO_SECURITY_CONTEXT> = pool::allocate(cx, pool::Kind::NonPaged, size as u64, TAG)?;
    if context.is_null() {
        return Ok(None);
    }
    let state: DriverPtr<ACCESS_STATE> = context.index(1).cast();
    let access = map_generic(options.access);
    cx.write(context + IO_SECURITY_CONTEXT::AccessState, state)?;
    cx.write(context + IO_SECURITY_CONTEXT::DesiredAccess, access)?;
    cx.write(context + IO_SECURITY_CONTEXT::FullCreateOptions, options.options)?;
    let inside = cx.read((file + FILE_OBJECT::FileName) + UNICODE_STRING::Length)? != 0;
    let (granted, remaining) = if is_checked(cx, device, inside)? { (access, 0) } else { (0, access) };
    cx.write(state + ACCESS_STATE::OriginalDesiredAccess, access)?;
    cx.write(state + ACCESS_STATE::PreviouslyGrantedAccess, granted)?;
    cx.write(state + ACCESS_STATE::RemainingDesiredAccess, remaining)?;
    let process = ps::current_process(cx);
    let thread = ke::thread::current_object(cx).address;
    subject::describe(cx, thread, process, state + ACCESS_STATE::SubjectSecurityContext)?;
    Ok(Some(context))
}

/// A copy of the requester's extended attributes for the IRP, null if there are none; none if there is no memory.
fn copy_attributes(cx: &mut Cx<'_>, given: Buffer) -> Flow<Option<DriverPtr<()>>> {
    if given.length == 0 {
        return Ok(Some(DriverPtr::NULL));
    }
    let bytes = cx.read_bytes(given.address, given.length.into())?;
    let copy: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, given.length.into(), TAG)?;
    if copy.is_null() {
        return Ok(None);
    }
    cx.write_bytes(copy.address, &bytes)?;
    Ok(Some(copy))
}

/// `EaBuffer`: whether its entries follow one another to its end; else where the list is wrong.
pub(crate) fn check_attributes(cx: &mut Cx<'_>, given: Buffer) -> Flow<Result<(), u32>> {
    const NAME: u32 = 8;
    let mut at = 0;
    loop {
        if given.length == 0 {
            return Ok(Ok(()));
        }
        let left = given.length - at;
        if left < NAME + 1 {
            return Ok(Err(at));
        }
        let entry = DriverPtr::<FILE_FULL_EA_INFORMATION>::new(given.address.wrapping_add(at.into()));
        let name = u32::from(cx.read(entry + FILE_FULL_EA_INFORMATION::EaNameLength)?);
        let value = u32::from(cx.read(entry + FILE_FULL_EA_INFORMATION::EaValueLength)?);
        let next = cx.read(entry + FILE_FULL_EA_INFORMATION::NextEntryOffset)?;
        let size = NAME + name + 1 + value;
        if size > left {
            return Ok(Err(at));
        }
        if next == 0 {
            return Ok(Ok(()));
        }
        if !next.is_multiple_of(4) || next < size || next > left {
            return Ok(Err(at));
        }
        at += next;
    }
}
