//! How a request's data reach the driver: by a system buffer, by an MDL, or as they are.
//!
//! Pages: *Methods for Accessing Data Buffers*, *Buffer Descriptions for I/O Control Codes*. An application's bad buffer
//! is a status; a driver's own is a verdict on the caller.

use abi::{
    DEVICE_OBJECT, DO_BUFFERED_IO, DO_DIRECT_IO, DriverPtr, IO_STACK_LOCATION, IRP, IRP_BUFFERED_IO,
    IRP_DEALLOCATE_BUFFER, IRP_INPUT_OPERATION, IoReadAccess, IoWriteAccess, METHOD_BUFFERED,
    METHOD_IN_DIRECT, METHOD_NEITHER, NtStatus,
};
use engine::Flow;
use engine::windows::PAGE;

use super::operation::Segments;
use super::packet::Packet;
use super::parameters::Fill;
use crate::cx::{Cx, Kernel};
use crate::exports::data::USER_PROBE_ADDRESS;
use crate::mm::{mdl, mdl_lock, pool};
use crate::ob::handle::Mode;
use crate::verdict::Verdict;

/// A buffer of the requester's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Buffer {
    /// Where it begins; may be anything.
    pub address: u64,
    /// Bytes.
    pub length: u32,
}

/// Which way the data of a read or write go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// From the device into the buffer.
    In,
    /// From the buffer to the device.
    Out,
}

pub(crate) const TAG: u32 = pool::tag(b"IoSB");

/// Prepares an IRP for a read or write, as the device's flags say.
///
/// # Errors
/// (inner) `ACCESS_VIOLATION`, `INSUFFICIENT_RESOURCES`.
pub(crate) fn for_transfer(
    cx: &mut Cx<'_>,
    packet: &mut Packet,
    device: DriverPtr<DEVICE_OBJECT>,
    buffer: Buffer,
    way: Way,
    mode: Mode,
) -> Flow<Result<(), NtStatus>> {
    let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
    if flags & DO_BUFFERED_IO != 0 {
        let (input, output) = match way {
            Way::In => (Buffer::default(), buffer),
            Way::Out => (buffer, Buffer::default()),
        };
        packet.add_flags(nothing_to_copy(buffer.length, way));
        return buffered(cx, packet, input, output, mode);
    }
    if flags & DO_DIRECT_IO != 0 {
        return direct(cx, packet, buffer, way == Way::In, mode);
    }
    if mode == Mode::User && !in_user_half(&buffer) {
        return Ok(Err(NtStatus::ACCESS_VIOLATION));
    }
    packet.put(IRP::UserBuffer, DriverPtr::new(buffer.address));
    Ok(Ok(()))
}

/// As [`for_transfer`], of an application's pages, each of which lies elsewhere: the driver gets one MDL of all.
///
/// # Errors
/// As there; a verdict that names a device that would copy.
pub(crate) fn for_segments(
    cx: &mut Cx<'_>,
    packet: &mut Packet,
    device: DriverPtr<DEVICE_OBJECT>,
    segments: Segments,
    way: Way,
) -> Flow<Result<(), NtStatus>> {
    let Segments { array, length } = segments;
    if length == 0 {
        return Ok(Ok(()));
    }
    if cx.read(device + DEVICE_OBJECT::Flags)? & DO_DIRECT_IO == 0 {
        let what = "ReadFileScatter and WriteFileGather on a device without DO_DIRECT_IO";
        return Err(cx.stop(Verdict::not_implemented(what)));
    }
    let mut pages = Vec::new();
    for index in 0..u64::from(length).div_ceil(PAGE) {
        let page: Result<u64, _> = cx.engine().read(DriverPtr::new(array).index(index));
        match page {
            Ok(page) if page % PAGE != 0 => return Ok(Err(NtStatus::INVALID_PARAMETER)),
            Ok(page) if page < USER_PROBE_ADDRESS => pages.push(page),
            _ => return Ok(Err(NtStatus::ACCESS_VIOLATION)),
        }
    }
    let list = mdl::create(cx, pages[0], length)?;
    if list.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    let operation = if way == Way::In { IoWriteAccess } else { IoReadAccess };
    if mdl_lock::lock_pages(cx, list, &pages, operation)?.is_err() {
        mdl::io_free(cx, list)?;
        return Ok(Err(NtStatus::ACCESS_VIOLATION));
    }
    packet.put(IRP::MdlAddress, list);
    Ok(Ok(()))
}

/// Flags of a transfer of no bytes: it has no system buffer, and is a buffered one all the same.
pub(crate) fn nothing_to_copy(length: u32, way: Way) -> u32 {
    match (length, way) {
        (0, Way::In) => IRP_BUFFERED_IO | IRP_INPUT_OPERATION,
        (0, Way::Out) => IRP_BUFFERED_IO,
        _ => 0,
    }
}

/// Prepares an IRP for a control code, as its transfer method says.
///
/// # Errors
/// As [`for_transfer`].
pub(crate) fn for_control(
    cx: &mut Cx<'_>,
    packet: &mut Packet,
    code: u32,
    input: Buffer,
    output: Buffer,
    mode: Mode,
) -> Flow<Result<(), NtStatus>> {
    match code & METHOD_NEITHER {
        METHOD_BUFFERED => buffered(cx, packet, input, output, mode),
        METHOD_NEITHER => {
            let type3 = IO_STACK_LOCATION::Parameters_DeviceIoControl_Type3InputBuffer;
            packet.put(type3, DriverPtr::new(input.address));
            packet.put(IRP::UserBuffer, DriverPtr::new(output.address));
            Ok(Ok(()))
        }
        method => {
            if let Err(status) = buffered(cx, packet, present(input, mode), Buffer::default(), mode)? {
                return Ok(Err(status));
            }
            let output = present(output, mode);
            direct(cx, packet, output, method != METHOD_IN_DIRECT, mode)
        }
    }
}

/// A driver's buffer is there if its pointer is not null, whatever its length says.
fn present(buffer: Buffer, mode: Mode) -> Buffer {
    if mode == Mode::Kernel && buffer.address == 0 { Buffer::default() } else { buffer }
}

/// One system buffer for input and output; the output is copied back at completion.
///
/// # Errors
/// As [`for_transfer`].
pub(crate) fn buffered(
    cx: &mut Cx<'_>,
    packet: &mut Packet,
    input: Buffer,
    output: Buffer,
    mode: Mode,
) -> Flow<Result<(), NtStatus>> {
    let length = input.length.max(output.length);
    if length == 0 {
        return Ok(Ok(()));
    }
    if mode == Mode::User
        && !(in_user_half(&input)
            && in_user_half(&output)
            && cx.with(|k| readable(k, &input) && writable(k, &output)))
    {
        return Ok(Err(NtStatus::ACCESS_VIOLATION));
    }
    let (mut short, mut long) = ([0; SHORT], Vec::new());
    // A driver's null pointer with a length asks for the buffer and has nothing to put into it.
    let given = if mode == Mode::Kernel && input.address == 0 { 0 } else { input.length };
    let bytes = scratch(&mut short, &mut long, given);
    if !bytes.is_empty()
        && let Err(bad) = cx.engine().read_bytes(input.address, bytes)
    {
        return if mode == Mode::User {
            Ok(Err(NtStatus::ACCESS_VIOLATION))
        } else {
            Err(cx.bad_pointer(bad))
        };
    }
    let system: DriverPtr<()> = pool::allocate(cx, pool::Kind::NonPaged, length.into(), TAG)?;
    if system.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    // Zeroed here; Windows does not say what lies behind the input.
    cx.engine().never_stored(system.address, length.into());
    if !bytes.is_empty() {
        cx.write_bytes(system.address, bytes)?;
    }
    packet.add_flags(IRP_BUFFERED_IO | IRP_DEALLOCATE_BUFFER);
    if output.length > 0 && (mode == Mode::User || output.address != 0) {
        packet.add_flags(IRP_INPUT_OPERATION);
        packet.put(IRP::UserBuffer, DriverPtr::new(output.address));
    }
    packet.put(IRP::AssociatedIrp_SystemBuffer, system);
    Ok(Ok(()))
}

/// Bytes that are copied without memory of the heap's.
pub(crate) const SHORT: usize = 64;

/// `length` bytes, of `short` if that is long enough.
pub(crate) fn scratch<'a>(short: &'a mut [u8; SHORT], long: &'a mut Vec<u8>, length: u32) -> &'a mut [u8] {
    let length = usize::try_from(length).unwrap_or(0);
    if length > SHORT {
        long.resize(length, 0);
        return long;
    }
    &mut short[..length]
}

/// The buffer's pages, locked.
fn direct(
    cx: &mut Cx<'_>,
    packet: &mut Packet,
    buffer: Buffer,
    device_writes: bool,
    mode: Mode,
) -> Flow<Result<(), NtStatus>> {
    if buffer.length == 0 {
        return Ok(Ok(()));
    }
    if mode == Mode::User && !in_user_half(&buffer) {
        return Ok(Err(NtStatus::ACCESS_VIOLATION));
    }
    let list = mdl::create(cx, buffer.address, buffer.length)?;
    if list.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    let operation = if device_writes { IoWriteAccess } else { IoReadAccess };
    if mdl_lock::lock(cx, list, operation)?.is_err() {
        mdl::io_free(cx, list)?;
        return Ok(Err(NtStatus::ACCESS_VIOLATION));
    }
    packet.put(IRP::MdlAddress, list);
    Ok(Ok(()))
}

pub(crate) fn in_user_half(buffer: &Buffer) -> bool {
    buffer.length == 0
        || buffer.address.checked_add(buffer.length.into()).is_some_and(|end| end <= USER_PROBE_ADDRESS)
}

/// `ProbeForWrite`.
pub(crate) fn writable(k: &Kernel, buffer: &Buffer) -> bool {
    has_pages(buffer, |at| k.mm.map.page(at).is_some_and(|page| page.protection.write))
}

/// Whether all of it can be read, which may be said to be 4 GiB long.
pub(crate) fn readable(k: &Kernel, buffer: &Buffer) -> bool {
    has_pages(buffer, |at| k.mm.map.page(at).is_some_and(|page| page.protection.read))
}

fn has_pages(buffer: &Buffer, may: impl Fn(u64) -> bool) -> bool {
    let page = |address: u64| address / engine::windows::PAGE;
    let Some(last) = u64::from(buffer.length).checked_sub(1).map(|last| buffer.address + last) else {
        return true;
    };
    if page(buffer.address) == page(last) {
        return may(last);
    }
    (page(buffer.address)..=page(last)).all(|number| may(number * engine::windows::PAGE))
}
