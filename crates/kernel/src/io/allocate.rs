//! Making and freeing IRPs.
//!
//! Pages: *IoAllocateIrp function*, *IoFreeIrp function*, *IoInitializeIrp function*, *IoReuseIrp function*.
//! What is charged to whom is `ps::quota`'s.

use abi::{DriverPtr, IRP, IRP_QUOTA_CHARGED, NtStatus};
use engine::Flow;

use super::cancel_routine;
use super::driver;
use super::irp::{self, Origin, Record};
use super::packet::Packet;
use super::priority_hint;
use super::violation::io_manager;
use crate::cx::Cx;
use crate::event::{Event, Kind};
use crate::mm::pool;
use crate::ps::quota;
use crate::verdict::Verdict;
use crate::witness;

pub(crate) const TAG: u32 = pool::tag(b"Irp ");

/// The most stack locations an IRP can have (`StackSize` is a signed byte).
pub(crate) const MOST_LOCATIONS: u8 = 127;

/// `IoAllocateIrp`: an IRP with `stack_size` (1–127) locations from nonpaged pool; null if there is no memory, or the current process, which is to be
/// charged, may not have more.
///
/// # Errors
/// As an allocation.
pub(crate) fn allocate(cx: &mut Cx<'_>, stack_size: u8, charge_quota: bool) -> Flow<DriverPtr<IRP>> {
    if !charge_quota {
        return make(cx, stack_size, Origin::Allocated);
    }
    let Some(charge) = quota::charge_current(cx, false, irp::size(stack_size).into()) else {
        return Ok(DriverPtr::NULL);
    };
    let irp = make(cx, stack_size, Origin::Allocated)?;
    let block = (!irp.is_null()).then_some(irp.address);
    cx.with(|k| quota::settle(k, block, charge));
    if block.is_some() {
        cx.write(irp + IRP::AllocationFlags, IRP_QUOTA_CHARGED)?;
    }
    Ok(irp)
}

/// `IoAllocateIrpEx`: as [`allocate`]; the device is for the verifier.
///
/// # Errors
/// As [`allocate`].
pub(crate) fn allocate_ex(
    cx: &mut Cx<'_>,
    _device: DriverPtr<()>,
    stack_size: u8,
    charge_quota: bool,
) -> Flow<DriverPtr<IRP>> {
    allocate(cx, stack_size, charge_quota)
}

/// An IRP of the given origin; null if there is no memory.
pub(crate) fn make(cx: &mut Cx<'_>, stack_size: u8, origin: Origin) -> Flow<DriverPtr<IRP>> {
    match packet(cx, stack_size, origin)? {
        Some(packet) => {
            packet.write_header(cx)?;
            Ok(packet.irp)
        }
        None => Ok(DriverPtr::NULL),
    }
}

/// As [`make`], to be filled in and written; none if there is no memory.
pub(crate) fn packet(cx: &mut Cx<'_>, stack_size: u8, origin: Origin) -> Flow<Option<Packet>> {
    if !(1..=MOST_LOCATIONS).contains(&stack_size) {
        return Ok(None);
    }
    let size = irp::size(stack_size);
    let irp: DriverPtr<IRP> = match origin {
        Origin::Allocated => pool::allocate_packet(cx, size.into(), TAG)?,
        _ => pool::allocate(cx, pool::Kind::NonPaged, size.into(), TAG)?,
    };
    if irp.is_null() {
        return Ok(None);
    }
    let owner = if origin == Origin::System { None } else { driver::calling(cx) };
    begin(cx, irp, origin, owner);
    let at = irp.address;
    cx.detail(Kind::IrpAllocated, || Event::IrpAllocated { irp: at, locations: stack_size });
    Ok(Some(Packet::new(irp, size, stack_size)))
}

/// `IoInitializeIrp`: makes `size` bytes of the driver's own memory an IRP.
///
/// # Errors
/// A verdict if it is in use, too small, or came from another routine that the I/O manager keeps account of.
pub(crate) fn initialize(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, size: u16, stack_size: u8) -> Flow<()> {
    if let Some(origin) = cx.with(|k| k.io.irps.live.get(irp.address).map(|record| record.origin)) {
        refuse_in_use(cx, irp, 0x310, "IoInitializeIrp")?;
        tell_initialized_again(cx, irp, origin)?;
    }
    let possible = (1..=MOST_LOCATIONS).contains(&stack_size);
    if !possible || size < irp::size(stack_size) {
        let message = format!(
            "IoInitializeIrp was given {size} bytes for {stack_size} stack locations; IoSizeOfIrp says {}",
            irp::size(stack_size.min(MOST_LOCATIONS))
        );
        let verdict = Verdict::error("irp-too-small", message);
        // Windows believes the size, which the memory may exceed: what it does not clear may be another request's.
        if !possible || usize::from(size) < size_of::<IRP>() {
            return Err(cx.stop(verdict));
        }
        cx.report(verdict.as_warning());
    }
    cx.write_bytes(irp.address, &vec![0; size.into()])?;
    Packet::new(irp, size, stack_size).write_header(cx)?;
    // One of IoAllocateIrp stays one: IoFreeIrp frees it.
    if !cx.with(|k| k.io.irps.live.get(irp.address).is_some_and(|record| record.origin == Origin::Allocated))
    {
        let owner = driver::calling(cx);
        begin(cx, irp, Origin::DriverMemory, owner);
    }
    Ok(())
}

/// An IRP that is one already is initialized. *IoInitializeIrp function* forbids it for what IoAllocateIrp gave, and Driver Verifier warns; *Reusing IRPs*
/// calls it safe, unless quota was charged for it: the flag that says so is lost. Old samples do it, so it is advice.
fn tell_initialized_again(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, origin: Origin) -> Flow<()> {
    let verdict = match origin {
        Origin::DriverMemory => return Ok(()),
        Origin::Allocated => initialized_again(irp, origin),
        _ => return Err(cx.stop(initialized_again(irp, origin))),
    };
    if cx.read(irp + IRP::AllocationFlags)? & IRP_QUOTA_CHARGED != 0 {
        return Err(cx.stop(verdict));
    }
    cx.report(verdict.as_advice());
    Ok(())
}

fn begin(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, origin: Origin, owner: Option<u64>) {
    let allocated = owner.map(|_| witness::moment(cx)).into();
    cx.with(|k| {
        k.io.irps.begin(irp.address, Record { allocated, ..Record::new(origin, owner) });
        if origin != Origin::DriverMemory {
            cancel_routine::watch(k, irp.address);
        }
    });
}

fn initialized_again(irp: DriverPtr<IRP>, origin: Origin) -> Verdict {
    let (code, maker) = match origin {
        Origin::Allocated => (0x238, "IoAllocateIrp: use IoReuseIrp"),
        _ => (0x311, "an IoBuildXxx routine or IoMakeAssociatedIrp"),
    };
    let message = format!("IoInitializeIrp on the IRP {:#x}, which came from {maker}", irp.address);
    io_manager("irp-initialized-again", code, message, DriverPtr::NULL, irp)
}

/// `IoReuseIrp`: as new, with `status` in it; for IRPs of [`allocate`] only.
///
/// # Errors
/// A verdict if it is in use or came from elsewhere.
pub(crate) fn reuse(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, status: NtStatus) -> Flow<()> {
    refuse_in_use(cx, irp, 0x310, "IoReuseIrp")?;
    let origin = cx.with(|k| k.io.irps.live.get(irp.address).map(|record| record.origin));
    if !matches!(origin, Some(Origin::Allocated | Origin::DriverMemory)) {
        let message = format!(
            "IoReuseIrp on {:#x}, which is not an IRP of IoAllocateIrp (an IRP of IoBuildXxx is freed when it is complete)",
            irp.address
        );
        let verdict = io_manager("irp-reuse", 0x311, message, DriverPtr::NULL, irp);
        // In its thread's list, or its master's, it would be lost there; one of IoBuildAsynchronousFsdRequest is in none.
        if !matches!(origin, Some(Origin::Asynchronous)) {
            return Err(cx.stop(verdict));
        }
        cx.verify(verdict.as_verifier())?;
    }
    let flags = cx.read(irp + IRP::AllocationFlags)?;
    let stack_size = cx.read(irp + IRP::StackCount)?;
    let size = cx.read(irp + IRP::Size)?;
    if !(1..=MOST_LOCATIONS).contains(&stack_size) || size < irp::size(stack_size) {
        let message = format!(
            "IoReuseIrp on the IRP {:#x}, whose StackCount says {stack_size} and whose Size says {size}",
            irp.address
        );
        return Err(cx.stop(io_manager("irp-damaged", 0x212, message, DriverPtr::NULL, irp)));
    }
    cx.with(|k| {
        if let Some(record) = k.io.irps.live.get_mut(irp.address) {
            record.priority = priority_hint::NORMAL;
            record.cancelled = 0;
        }
    });
    cx.write_bytes(irp.address, &vec![0; size.into()])?;
    Packet::new(irp, size, stack_size).write_header(cx)?;
    cx.write(irp + IRP::AllocationFlags, flags)?;
    cx.write((irp + IRP::IoStatus) + abi::IO_STATUS_BLOCK::Status, status)
}

/// `IoFreeIrp`.
///
/// # Errors
/// A verdict if it is none, is freed already, or still has an owner.
pub(crate) fn free(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<()> {
    let known = cx.with(|k| k.io.irps.live.get(irp.address).map(|record| (record.origin, record.thread)));
    let Some((origin, thread)) = known else {
        return Err(not_an_irp(cx, irp, 0x1, "IoFreeIrp"));
    };
    if thread != 0 {
        let message = format!(
            "IoFreeIrp on the IRP {:#x}, which is in its thread's list: the I/O manager frees it at completion",
            irp.address
        );
        return Err(cx.stop(io_manager("irp-free-threaded", 0x20C, message, DriverPtr::NULL, irp)));
    }
    refuse_in_use(cx, irp, 0x20A, "IoFreeIrp")?;
    if origin == Origin::DriverMemory {
        let message = format!(
            "IoFreeIrp on the IRP {:#x}, which IoInitializeIrp made in the driver's own memory",
            irp.address
        );
        return Err(cx.stop(io_manager("irp-free", 0x1, message, DriverPtr::NULL, irp)));
    }
    discard(cx, irp)
}

/// Frees without asking.
pub(crate) fn discard(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<()> {
    cx.with(|k| {
        k.io.frames.forget(irp.address);
        k.io.invariant.forget(irp.address);
    });
    cx.detail(Kind::IrpFreed, || Event::IrpFreed { irp: irp.address });
    if cx.with(|k| k.io.irps.retire(irp.address)) { pool::free(cx, irp) } else { Ok(()) }
}

/// A verdict if a driver has the IRP and has not completed it.
fn refuse_in_use(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, code: u64, ddi: &str) -> Flow<()> {
    let Some(device) = cx.with(|k| k.io.frames.holder(irp.address)) else {
        return Ok(());
    };
    let device = DriverPtr::new(device);
    let name = super::violation::device_name(cx, device);
    let message = format!("{ddi} on the IRP {:#x}, which {name} was sent and has not completed", irp.address);
    Err(cx.stop(io_manager("irp-in-use", code, message, device, irp)))
}

/// The verdict on something that is no live IRP.
#[cold]
pub(crate) fn not_an_irp(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, code: u64, ddi: &str) -> engine::Leave {
    let freed = cx.with(|k| k.io.irps.was_freed(irp.address));
    let what = if freed { "an IRP that has been freed already" } else { "no IRP" };
    let message = format!("{ddi} on {:#x}, which is {what}", irp.address);
    cx.stop(io_manager("not-an-irp", code, message, DriverPtr::NULL, irp))
}
