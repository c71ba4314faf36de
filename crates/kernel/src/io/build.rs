//! IRPs that the I/O manager builds for a driver, with buffers, event and status block in place.
//!
//! Pages: *IoBuildDeviceIoControlRequest function*, *IoBuildSynchronousFsdRequest function*,
//! *IoBuildAsynchronousFsdRequest function*, *IoMakeAssociatedIrp function*. The threaded ones belong to the calling
//! thread: the I/O manager frees them at completion, and cancels them when the thread ends.

use abi::{
    DEVICE_OBJECT, DriverPtr, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_ASSOCIATED_IRP,
    IRP_MJ_DEVICE_CONTROL, IRP_MJ_INTERNAL_DEVICE_CONTROL, IRP_MJ_READ, IRP_MJ_WRITE, KEVENT, NtStatus,
};
use engine::Flow;

use super::buffers::{self, Buffer, Way};
use super::irp::Origin;
use super::parameters::{self, Fill};
use super::violation::io_manager;
use super::{allocate, finish};
use crate::cx::Cx;
use crate::ke;
use crate::ob::handle::Mode;

/// `IoBuildDeviceIoControlRequest`; null if there is no memory.
///
/// # Errors
/// A verdict if a buffer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn device_control(
    cx: &mut Cx<'_>,
    code: u32,
    device: DriverPtr<DEVICE_OBJECT>,
    input: u64,
    input_length: u32,
    output: u64,
    output_length: u32,
    internal: bool,
    event: DriverPtr<KEVENT>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
) -> Flow<DriverPtr<IRP>> {
    let stack_size = cx.read(device + DEVICE_OBJECT::StackSize)?;
    let Some(mut packet) = allocate::packet(cx, stack_size, Origin::Threaded)? else {
        return Ok(DriverPtr::NULL);
    };
    let major = if internal { IRP_MJ_INTERNAL_DEVICE_CONTROL } else { IRP_MJ_DEVICE_CONTROL };
    packet.put(IO_STACK_LOCATION::MajorFunction, major);
    parameters::fill_control(&mut packet, code, input_length, output_length);
    let input = Buffer { address: input, length: input_length };
    let output = Buffer { address: output, length: output_length };
    let given = buffers::for_control(cx, &mut packet, code, input, output, Mode::Kernel)?;
    let irp = packet.write(cx)?;
    if let Err(status) = given {
        return refused(cx, irp, status, 0x9, "IoBuildDeviceIoControlRequest");
    }
    cx.with(|k| k.io.irps.live.change(irp.address, |record| record.output = Some(output.length)));
    answer_to(cx, irp, event, status_block)?;
    Ok(irp)
}

/// `IoBuildSynchronousFsdRequest`; null if there is no memory.
///
/// # Errors
/// A verdict if a pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn synchronous(
    cx: &mut Cx<'_>,
    major: u32,
    device: DriverPtr<DEVICE_OBJECT>,
    buffer: u64,
    length: u32,
    offset: DriverPtr<i64>,
    event: DriverPtr<KEVENT>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
) -> Flow<DriverPtr<IRP>> {
    let buffer = Buffer { address: buffer, length };
    let irp = transfer_irp(cx, major, device, buffer, offset, Origin::Threaded)?;
    if !irp.is_null() {
        answer_to(cx, irp, event, status_block)?;
    }
    Ok(irp)
}

/// `IoBuildAsynchronousFsdRequest`; null if there is no memory.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn asynchronous(
    cx: &mut Cx<'_>,
    major: u32,
    device: DriverPtr<DEVICE_OBJECT>,
    buffer: u64,
    length: u32,
    offset: DriverPtr<i64>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
) -> Flow<DriverPtr<IRP>> {
    let buffer = Buffer { address: buffer, length };
    let irp = transfer_irp(cx, major, device, buffer, offset, Origin::Asynchronous)?;
    if !irp.is_null() {
        cx.write(irp + IRP::UserIosb, status_block)?;
        let thread = ke::thread::current_object(cx);
        cx.write(irp + IRP::Tail_Overlay_Thread, thread)?;
    }
    Ok(irp)
}

fn transfer_irp(
    cx: &mut Cx<'_>,
    major: u32,
    device: DriverPtr<DEVICE_OBJECT>,
    buffer: Buffer,
    offset: DriverPtr<i64>,
    origin: Origin,
) -> Flow<DriverPtr<IRP>> {
    let stack_size = cx.read(device + DEVICE_OBJECT::StackSize)?;
    let Some(mut packet) = allocate::packet(cx, stack_size, origin)? else {
        return Ok(DriverPtr::NULL);
    };
    let major = u8::try_from(major).unwrap_or(u8::MAX);
    packet.put(IO_STACK_LOCATION::MajorFunction, major);
    let way = match major {
        IRP_MJ_READ => Way::In,
        IRP_MJ_WRITE => Way::Out,
        _ => return packet.write(cx),
    };
    let offset = if offset.is_null() { 0 } else { cx.read(offset)? };
    // Read and Write have the same layout.
    packet.put(IO_STACK_LOCATION::Parameters_Read_Length, buffer.length);
    packet.put(IO_STACK_LOCATION::Parameters_Read_ByteOffset, offset);
    let given = buffers::for_transfer(cx, &mut packet, device, buffer, way, Mode::Kernel)?;
    let irp = packet.write(cx)?;
    match given {
        Ok(()) => Ok(irp),
        Err(status) => refused(cx, irp, status, 0x8, "IoBuildXxxFsdRequest"),
    }
}

fn refused(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    status: NtStatus,
    code: u64,
    ddi: &str,
) -> Flow<DriverPtr<IRP>> {
    finish::abandon(cx, irp)?;
    if status == NtStatus::INSUFFICIENT_RESOURCES {
        return Ok(DriverPtr::NULL);
    }
    let message = format!("{ddi} was given a buffer that cannot be locked: {status}");
    // Windows gives no IRP.
    cx.verify(io_manager("irp-bad-buffer", code, message, DriverPtr::NULL, irp).as_verifier())?;
    Ok(DriverPtr::NULL)
}

/// Event, status block and thread of a threaded IRP.
fn answer_to(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    event: DriverPtr<KEVENT>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
) -> Flow<()> {
    cx.write(irp + IRP::UserEvent, event)?;
    cx.write(irp + IRP::UserIosb, status_block)?;
    let thread = ke::thread::current_object(cx);
    cx.write(irp + IRP::Tail_Overlay_Thread, thread)?;
    cx.with(|k| k.io.irps.live.change(irp.address, |record| record.thread = thread.address));
    Ok(())
}

/// `IoMakeAssociatedIrp`; null if there is no memory. The caller sets the master's `IrpCount`.
///
/// # Errors
/// A verdict if the master is none.
pub(crate) fn associated(cx: &mut Cx<'_>, master: DriverPtr<IRP>, stack_size: u8) -> Flow<DriverPtr<IRP>> {
    if !cx.with(|k| k.io.irps.live.contains(master.address)) {
        return Err(allocate::not_an_irp(cx, master, 0x1, "IoMakeAssociatedIrp"));
    }
    let irp = allocate::make(cx, stack_size, Origin::Associated(master.address))?;
    if irp.is_null() {
        return Ok(irp);
    }
    let thread = cx.read(master + IRP::Tail_Overlay_Thread)?;
    cx.write(irp + IRP::Flags, IRP_ASSOCIATED_IRP)?;
    cx.write(irp + IRP::AssociatedIrp_MasterIrp, master)?;
    cx.write(irp + IRP::Tail_Overlay_Thread, thread)?;
    Ok(irp)
}
