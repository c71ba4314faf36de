//! Checks that drivers have made for them: access, extended attributes, room on the stack; and the devices of a driver.
//!
//! Pages: *IoCheckDesiredAccess*, *IoCheckEaBufferValidity function*, *IoWithinStackLimits function*, *IoGetRequestorSessionId function*,
//! *IoEnumerateDeviceObjectList function*.

use abi::{DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, FILE_FULL_EA_INFORMATION, IRP, NtStatus};
use engine::Flow;

use super::{device, query};
use crate::cx::Cx;
use crate::ke::budget;
use crate::se::{acl, object};
use crate::{ob, ps};

/// `IoCheckDesiredAccess`: generic rights become a file's own, and all have to be granted.
///
/// # Errors
/// A verdict if a pointer is bad, here and below.
pub(crate) fn desired_access(cx: &mut Cx<'_>, desired: DriverPtr<u32>, granted: u32) -> Flow<NtStatus> {
    let rights = acl::mapped(cx.read(desired)?, &object::file_mapping());
    cx.write(desired, rights)?;
    Ok(if rights & !granted == 0 { NtStatus::SUCCESS } else { NtStatus::ACCESS_DENIED })
}

/// `IoCheckEaBufferValidity`: whether it is a list of extended attributes that ends where it says; else where it is wrong.
///
/// # Errors
/// As [`desired_access`].
pub(crate) fn ea_buffer(
    cx: &mut Cx<'_>,
    buffer: DriverPtr<FILE_FULL_EA_INFORMATION>,
    length: u32,
    wrong: DriverPtr<u32>,
) -> Flow<NtStatus> {
    const HEAD: u64 = FILE_FULL_EA_INFORMATION::EaName.offset();
    let mut at = 0;
    loop {
        budget::spend(cx, budget::SERVICE)?;
        let entry = buffer.byte_add(at);
        let left = u64::from(length).saturating_sub(at);
        if left < HEAD {
            break;
        }
        let next = u64::from(cx.read(entry + FILE_FULL_EA_INFORMATION::NextEntryOffset)?);
        let name = u64::from(cx.read(entry + FILE_FULL_EA_INFORMATION::EaNameLength)?);
        let value = u64::from(cx.read(entry + FILE_FULL_EA_INFORMATION::EaValueLength)?);
        let end = HEAD + name + 1 + value;
        if end > left {
            break;
        }
        let zero =
            cx.read(DriverPtr::<u8>::new((entry + FILE_FULL_EA_INFORMATION::EaName).address + name))?;
        if zero != 0 {
            break;
        }
        if next == 0 {
            return Ok(NtStatus::SUCCESS);
        }
        if next != end.next_multiple_of(4) || next > left {
            break;
        }
        at += next;
    }
    cx.write(wrong, u32::try_from(at).unwrap_or(u32::MAX))?;
    Ok(NtStatus::EA_LIST_INCONSISTENT)
}

/// `IoWithinStackLimits`: whether a region lies on the current thread's stack.
///
/// # Errors
/// None.
pub(crate) fn within_stack_limits(cx: &mut Cx<'_>, start: u64, bytes: u64) -> Flow<bool> {
    let stack = cx.with(|k| k.ke.thread().and_then(|thread| thread.stack));
    let end = start.checked_add(bytes);
    Ok(stack.is_some_and(|stack| start >= stack.limit && end.is_some_and(|end| end <= stack.base)))
}

/// `IoGetRequestorSessionId`: of the process whose thread made the request.
///
/// # Errors
/// As [`desired_access`].
pub(crate) fn requestor_session_id(
    cx: &mut Cx<'_>,
    irp: DriverPtr<IRP>,
    session: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let process = query::requestor_process(cx, irp)?;
    if process.is_null() {
        cx.write(session, u32::MAX)?;
        return Ok(NtStatus::UNSUCCESSFUL);
    }
    let own = ps::process::session(cx, process)?;
    cx.write(session, own)?;
    Ok(NtStatus::SUCCESS)
}

/// `IoEnumerateDeviceObjectList`: a driver's devices, each with a reference; how many there are goes to `count`.
///
/// # Errors
/// As [`desired_access`].
pub(crate) fn devices(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    list: DriverPtr<DriverPtr<DEVICE_OBJECT>>,
    bytes: u32,
    count: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let all = device::of_driver(cx, driver)?;
    cx.write(count, u32::try_from(all.len()).unwrap_or(u32::MAX))?;
    let room = bytes as usize / size_of::<u64>();
    for (index, own) in (0..).zip(all.iter().take(room)) {
        ob::object::reference(cx, *own)?;
        cx.write(list.index(index), *own)?;
    }
    Ok(if room < all.len() { NtStatus::BUFFER_TOO_SMALL } else { NtStatus::SUCCESS })
}
