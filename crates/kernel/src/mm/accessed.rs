//! Which memory an access of driver code was meant for, of accesses that are findings.
//!
//! Page: *Methods for Accessing Data Buffers* (a request without bytes has no system buffer). A null pointer counts as a request's buffer where the
//! routine that runs has a buffered request without one. It does not look at where the pointer came from.

use abi::{
    DriverPtr, IO_STACK_LOCATION, IRP, IRP_BUFFERED_IO, IRP_MJ_DEVICE_CONTROL,
    IRP_MJ_INTERNAL_DEVICE_CONTROL, METHOD_BUFFERED, METHOD_NEITHER,
};
use engine::BadAddress;
use image::unwind::FunctionEntry;

use super::pool::Block;
use crate::cx::{Cx, Kernel};
use crate::io::buffers;
use crate::verdict::{Accessed, Memory};

/// Addresses below are those of a null pointer and an offset.
const NULL_END: u64 = 0x1_0000;

/// Where the routine begins that an instruction belongs to.
fn routine(k: &Kernel, instruction: u64) -> Option<u64> {
    let (base, loaded) = k.ldr.image_at(instruction)?;
    let entry = FunctionEntry::find(&loaded.image, u32::try_from(instruction - base).ok()?)?;
    Some(base + u64::from(entry.primary.begin))
}

/// Whether this block is the I/O manager's copy of a request's data.
pub(crate) fn is_system_buffer(block: &Block) -> bool {
    block.tag == buffers::TAG && !block.allocator.is_driver()
}

/// An access to this block, or beside it.
pub(crate) fn of_block(cx: &mut Cx<'_>, block: &Block, is_outside: bool, instruction: u64) -> Accessed {
    let memory = if is_system_buffer(block) {
        Memory::SystemBuffer
    } else if block.is_freed() && !is_outside && block.freed.by != 0 {
        Memory::Freed(block.freed.by)
    } else {
        Memory::Pool
    };
    Accessed { memory, is_outside, routine: cx.with(|k| routine(k, instruction)) }
}

/// An access to an address at which nothing is.
pub(crate) fn of_nothing(cx: &mut Cx<'_>, address: u64, instruction: u64) -> Accessed {
    let (memory, is_outside) = match address {
        NULL_END.. => (Memory::Unknown, true),
        _ if has_no_system_buffer(cx) => (Memory::SystemBuffer, true),
        _ => (Memory::Null, false),
    };
    Accessed { memory, is_outside, routine: cx.with(|k| routine(k, instruction)) }
}

/// An access to device memory that was mapped from this bus address on.
pub(crate) fn of_window(cx: &mut Cx<'_>, bus: u64, instruction: u64) -> Accessed {
    let routine = cx.with(|k| routine(k, instruction));
    Accessed { memory: Memory::Unmapped(bus), is_outside: false, routine }
}

/// Whether the routine that runs was called for a buffered request whose system buffer is NULL.
fn has_no_system_buffer(cx: &mut Cx<'_>) -> bool {
    let request = cx.with(|k| {
        let call = k.ke.thread()?.callouts.last()?;
        k.io.irps.live.contains(call.object).then_some(call.object)
    });
    // An IRP that the driver has damaged says nothing.
    request.is_some_and(|irp| is_without_buffer(cx, DriverPtr::new(irp)).unwrap_or(false))
}

fn is_without_buffer(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Result<bool, BadAddress> {
    let engine = cx.engine();
    if !engine.read(irp + IRP::AssociatedIrp_SystemBuffer)?.is_null() {
        return Ok(false);
    }
    let location = engine.read(irp + IRP::Tail_Overlay_CurrentStackLocation)?;
    match engine.read(location + IO_STACK_LOCATION::MajorFunction)? {
        IRP_MJ_DEVICE_CONTROL | IRP_MJ_INTERNAL_DEVICE_CONTROL => {
            let code = engine.read(location + IO_STACK_LOCATION::Parameters_DeviceIoControl_IoControlCode)?;
            Ok(match code & METHOD_NEITHER {
                METHOD_BUFFERED => true,
                METHOD_NEITHER => false,
                // Without an MDL it is as likely that which is NULL.
                _ => !engine.read(irp + IRP::MdlAddress)?.is_null(),
            })
        }
        _ => Ok(engine.read(irp + IRP::Flags)? & IRP_BUFFERED_IO != 0),
    }
}
