//! Small questions to the I/O manager.
//!
//! Pages: *IoGetCurrentProcess macro*, *IoGetRequestorProcess function*, *IoIsWdmVersionAvailable function*,
//! *IoSetCompletionRoutineEx function*, *IoGetStackLimits function*, *IoIsOperationSynchronous function*, *IoSetMasterIrpStatus function*,
//! *IoForwardIrpSynchronously function*, *IoIs32bitProcess function*.

use abi::{
    CONFIGURATION_INFORMATION, Code, DEVICE_OBJECT, DriverPtr, FILE_OBJECT, FO_SYNCHRONOUS_IO,
    IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_PAGING_IO, IRP_SYNCHRONOUS_API, KEVENT, KPROCESS, KTHREAD,
    NtStatus, SL_INVOKE_ON_CANCEL, SL_INVOKE_ON_ERROR, SL_INVOKE_ON_SUCCESS,
};
use engine::Flow;

use super::violation::{device_name, io_manager};
use super::{call, driver, irp};
use crate::cx::Cx;
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::{ke, ldr, ob, ps};

/// The WDM version of every Windows since Vista.
const WDM_VERSION: (u8, u8) = (6, 0);

/// `IoIsWdmVersionAvailable`.
///
/// # Errors
/// None.
pub(crate) fn is_wdm_version_available(_cx: &mut Cx<'_>, major: u8, minor: u8) -> Flow<bool> {
    Ok((major, minor) <= WDM_VERSION)
}

/// `IoGetRequestorProcess`: the process of the thread that made the request; null if no thread did.
///
/// # Errors
/// A verdict if the IRP is bad.
pub(crate) fn requestor_process(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<DriverPtr<KPROCESS>> {
    let thread: DriverPtr<KTHREAD> = cx.read(irp + IRP::Tail_Overlay_Thread)?;
    Ok(process_of(cx, thread))
}

/// `IoGetInitialStack`: where the current thread's driver stack begins, its highest address.
///
/// # Errors
/// None.
pub(crate) fn initial_stack(cx: &mut Cx<'_>) -> Flow<u64> {
    Ok(cx.with(|k| k.ke.thread().and_then(|thread| thread.stack)).map_or(0, |stack| stack.base))
}

/// `IoGetPagingIoPriority`: none of a request that is no paging I/O, the usual one of one that is.
///
/// # Errors
/// A verdict if the IRP is bad.
pub(crate) fn paging_priority(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<u32> {
    Ok(u32::from(cx.read(irp + IRP::Flags)? & IRP_PAGING_IO != 0))
}

/// `IoGetStackLimits`: the stack that the driver runs on, which in a DPC or an interrupt is the processor's.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn stack_limits(cx: &mut Cx<'_>, low: DriverPtr<u64>, high: DriverPtr<u64>) -> Flow<()> {
    let stack = cx.with(|k| ke::stack::limits(k));
    cx.write(low, stack.limit)?;
    cx.write(high, stack.base)
}

/// `IoIsOperationSynchronous`.
///
/// # Errors
/// A verdict if the IRP is bad.
pub(crate) fn is_operation_synchronous(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<bool> {
    if cx.read(irp + IRP::Flags)? & IRP_SYNCHRONOUS_API != 0 {
        return Ok(true);
    }
    let file: DriverPtr<FILE_OBJECT> = cx.read(irp + IRP::Tail_Overlay_OriginalFileObject)?.cast();
    Ok(!file.is_null() && cx.read(file + FILE_OBJECT::Flags)? & FO_SYNCHRONOUS_IO != 0)
}

/// `IoSetMasterIrpStatus`: the IRP's status becomes this one, if that is a failure and a worse one than it has.
///
/// # Errors
/// A verdict if the IRP is bad.
pub(crate) fn set_master_status(cx: &mut Cx<'_>, master: DriverPtr<IRP>, status: NtStatus) -> Flow<()> {
    /// Success, information, warning, error.
    const fn severity(status: NtStatus) -> u32 {
        status.0 >> 30
    }
    let at = (master + IRP::IoStatus) + IO_STATUS_BLOCK::Status;
    let own = cx.read(at)?;
    if !status.is_success() && severity(status) > severity(own) {
        cx.write(at, status)?;
    }
    Ok(())
}

/// The reference that keeps the driver loaded is one on its own device: the lower one belongs to another driver.
fn expect_own(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) {
    let Some(driver) = driver::calling(cx) else { return };
    let is_lower = cx.with(|k| {
        let is_its = |above: &super::device::Device| above.driver == driver && above.below == device.address;
        k.io.devices.get(device.address).is_some_and(|device| device.driver != driver)
            && !k.io.devices.keys_where(is_its).is_empty()
    });
    if is_lower {
        let message = format!(
            "IoSetCompletionRoutineEx was given {}, the device below the driver's own: it keeps that one's driver loaded until the routine has run, and not the caller",
            device_name(cx, device)
        );
        cx.report(Verdict::warning("completion-routine-device", message));
    }
}

/// `IoSetCompletionRoutineEx`: the routine is called through one of the kernel's that keeps the driver loaded.
///
/// # Errors
/// A verdict if the IRP has no location for it.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn set_completion_routine_ex(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
    routine: DriverPtr<Code>,
    context: u64,
    on_success: bool,
    on_error: bool,
    on_cancel: bool,
) -> Flow<NtStatus> {
    if cx.read(irp + IRP::CurrentLocation)? <= 1 {
        let name = device_name(cx, device);
        let message = format!(
            "IoSetCompletionRoutineEx for {name} on the IRP {:#x}, which has no stack location left",
            irp.address
        );
        return Err(cx.stop(io_manager("no-stack-location", 0x212, message, device, irp)));
    }
    expect_own(cx, device);
    let bits = [
        (on_success, SL_INVOKE_ON_SUCCESS),
        (on_error, SL_INVOKE_ON_ERROR),
        (on_cancel, SL_INVOKE_ON_CANCEL),
    ];
    let control = bits.iter().filter(|(wanted, _)| *wanted).fold(0, |control, (_, bit)| control | bit);
    let location = irp::next(cx, irp)?;
    cx.write(location + IO_STACK_LOCATION::CompletionRoutine, routine)?;
    cx.write(location + IO_STACK_LOCATION::Context, DriverPtr::new(context))?;
    cx.write(location + IO_STACK_LOCATION::Control, control)?;
    Ok(NtStatus::SUCCESS)
}

/// `IoForwardIrpSynchronously`: copies the stack location, sends the IRP down and waits. False if it has no location left.
///
/// # Errors
/// A verdict on a driver below.
pub(crate) fn forward_synchronously(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    irp: DriverPtr<IRP>,
) -> Flow<bool> {
    let current = irp::current(cx, irp)?;
    if current.is_null() || cx.read(irp + IRP::CurrentLocation)? <= 1 {
        return Ok(false);
    }
    let event: DriverPtr<KEVENT> =
        pool::allocate(cx, pool::Kind::NonPaged, size_of::<KEVENT>() as u64, pool::tag(b"IoWt"))?;
    if event.is_null() {
        return Ok(false);
    }
    ke::event::initialize(cx, event, 0, false)?;
    let next = irp::next(cx, irp)?;
    // `IoCopyCurrentIrpStackLocationToNext`: everything before the completion routine.
    let bytes = cx.read_bytes(current.address, IO_STACK_LOCATION::CompletionRoutine.offset())?;
    cx.write_bytes(next.address, &bytes)?;
    cx.write(next + IO_STACK_LOCATION::CompletionRoutine, ldr::internal_address("IopForwardCompletion"))?;
    cx.write(next + IO_STACK_LOCATION::Context, event.cast())?;
    let always = SL_INVOKE_ON_SUCCESS | SL_INVOKE_ON_ERROR | SL_INVOKE_ON_CANCEL;
    cx.write(next + IO_STACK_LOCATION::Control, always)?;
    if call::call_driver(cx, device, irp)? == NtStatus::PENDING {
        let _ = ke::wait::for_object(cx, event)?;
    }
    pool::free(cx, event)?;
    Ok(true)
}

/// The completion routine of [`forward_synchronously`].
///
/// # Errors
/// As setting an event.
pub(crate) fn forward_completion(
    cx: &mut Cx<'_>,
    _device: DriverPtr<DEVICE_OBJECT>,
    _irp: DriverPtr<IRP>,
    event: DriverPtr<KEVENT>,
) -> Flow<NtStatus> {
    ke::event::set(cx, event, 0, false)?;
    Ok(NtStatus::MORE_PROCESSING_REQUIRED)
}

/// `IoIs32bitProcess`: whether the program that made a request, or the one that runs, is of 32 bits, as the platform has them all or none.
///
/// # Errors
/// A verdict if the IRP is none.
pub(crate) fn is_32bit_process(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<bool> {
    if !cx.with(|k| k.hal.platform.programs_of_32_bits) {
        return Ok(false);
    }
    let is_programs = match irp.is_null() {
        true => ob::handle::current_process(cx) != 0,
        false => cx.read(irp + IRP::RequestorMode)? != 0,
    };
    Ok(is_programs)
}

/// `IoGetTopLevelIrp`: what [`set_top_level_irp`] said for this thread; null if nothing.
///
/// # Errors
/// None.
pub(crate) fn top_level_irp(cx: &mut Cx<'_>) -> Flow<u64> {
    let thread = ke::thread::current_object(cx).address;
    Ok(cx.with(|k| k.io.top_level.get(&thread).copied()).unwrap_or(0))
}

/// `IoSetTopLevelIrp`.
///
/// # Errors
/// None.
pub(crate) fn set_top_level_irp(cx: &mut Cx<'_>, irp: u64) -> Flow<()> {
    let thread = ke::thread::current_object(cx).address;
    cx.with(|k| k.io.top_level.insert(thread, irp));
    Ok(())
}

/// `IoGetConfigurationInformation`: counts of devices that old drivers keep.
///
/// # Errors
/// As an allocation.
pub(crate) fn configuration_information(cx: &mut Cx<'_>) -> Flow<DriverPtr<CONFIGURATION_INFORMATION>> {
    let known = cx.with(|k| k.io.configuration);
    if known != 0 {
        return Ok(DriverPtr::new(known));
    }
    let size = size_of::<CONFIGURATION_INFORMATION>();
    let block: DriverPtr<CONFIGURATION_INFORMATION> =
        pool::allocate(cx, pool::Kind::NonPaged, size as u64, pool::tag(b"IoCf"))?;
    cx.write(block + CONFIGURATION_INFORMATION::Version, u32::try_from(size).unwrap_or(0))?;
    cx.with(|k| k.io.configuration = block.address);
    Ok(block)
}

/// `IoIsSystemThread`.
///
/// # Errors
/// None.
pub(crate) fn is_system_thread(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<bool> {
    ps::system_thread::is_system(cx, thread)
}

/// `IoThreadToProcess`.
///
/// # Errors
/// None.
pub(crate) fn thread_to_process(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<DriverPtr<KPROCESS>> {
    Ok(process_of(cx, thread))
}

fn process_of(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> DriverPtr<KPROCESS> {
    cx.with(|k| {
        let process = k.ke.identity_of(thread.address).map(|thread| thread.process);
        let object = process.and_then(|process| k.ps.processes.get(&process)).map(|process| process.object);
        object.unwrap_or(DriverPtr::NULL)
    })
}

/// `IoGetRequestorProcessId`: 0 if no thread made the request.
///
/// # Errors
/// A verdict if the IRP is bad.
pub(crate) fn requestor_process_id(cx: &mut Cx<'_>, irp: DriverPtr<IRP>) -> Flow<u32> {
    let process = requestor_process(cx, irp)?;
    if process.is_null() { Ok(0) } else { Ok(call::low_half(ps::process::get_id(cx, process)?)) }
}

/// `IoValidateDeviceIoControlAccess`: whether the file was opened for what the code needs (1 reading, 2 writing).
///
/// # Errors
/// A verdict if the IRP is bad.
pub(crate) fn validate_control_access(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, required: u32) -> Flow<NtStatus> {
    let file: DriverPtr<FILE_OBJECT> = cx.read(irp + IRP::Tail_Overlay_OriginalFileObject)?.cast();
    if cx.read(irp + IRP::RequestorMode)? == 0 || file.is_null() {
        return Ok(NtStatus::SUCCESS);
    }
    let read = cx.read(file + FILE_OBJECT::ReadAccess)? != 0;
    let write = cx.read(file + FILE_OBJECT::WriteAccess)? != 0;
    let granted = u32::from(read) | u32::from(write) << 1;
    Ok(if required & 3 & !granted == 0 { NtStatus::SUCCESS } else { NtStatus::ACCESS_DENIED })
}
