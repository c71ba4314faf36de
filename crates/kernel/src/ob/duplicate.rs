//! Handles that are passed from one process to another.
//!
//! Page: *ZwDuplicateObject function*. Both processes are named by handles; the new one stands for the same object. The new one is not inherited.

use abi::{DriverPtr, NtStatus, OBJ_KERNEL_HANDLE};
use engine::Flow;

use super::callbacks::{self, Operation};
use super::handle::{self, Handle, Mode};
use super::object::Kind;
use crate::cx::Cx;
use crate::ps::process;

/// `DUPLICATE_CLOSE_SOURCE`: whatever else comes of it.
const CLOSE_SOURCE: u32 = 1;
/// `DUPLICATE_SAME_ACCESS`.
const SAME_ACCESS: u32 = 2;

/// The key and the object of the process that a handle stands for.
fn process_of(cx: &mut Cx<'_>, handle: u64) -> Result<(u64, u64), NtStatus> {
    let entry = handle::entry_of(cx, Handle(handle), Kind::Process)?;
    let key = cx.with(|k| process::living(k, entry.object)).ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
    Ok((key, entry.object))
}

/// `DuplicateHandle`, as an application calls it for a handle of its own, with the same access.
///
/// # Errors
/// [`engine::Leave`] if the machine ends meanwhile. (inner) `INVALID_HANDLE`.
pub fn of_own(cx: &mut Cx<'_>, source: Handle) -> Flow<Result<Handle, NtStatus>> {
    let entry = match handle::entry(cx, source, Mode::User) {
        Ok(entry) => entry,
        Err(status) => return Ok(Err(status)),
    };
    let own = crate::ps::current_process(cx);
    let process = process::current_object(cx).address;
    let operation = Operation::Duplicate { source: process, target: process };
    let begun = callbacks::before(cx, operation, entry.object, entry.access, false)?;
    let made = handle::open_in(cx, own, entry.object, begun.access, false)?;
    callbacks::after(cx, begun)?;
    Ok(Ok(made))
}

/// `ZwDuplicateObject`. Without a target the source is only closed, if that is asked for.
///
/// # Errors
/// A verdict if the pointer is bad.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn zw_duplicate(
    cx: &mut Cx<'_>,
    source_process: u64,
    source: u64,
    target_process: u64,
    target: DriverPtr<u64>,
    access: u32,
    attributes: u32,
    options: u32,
) -> Flow<NtStatus> {
    let (key, from) = match process_of(cx, source_process) {
        Ok(process) => process,
        Err(status) => return Ok(status),
    };
    let source = Handle(source);
    let pseudo = handle::pseudo(cx, source);
    let Some(entry) = pseudo.or_else(|| handle::entry_in(cx, key, source)) else {
        return Ok(NtStatus::INVALID_HANDLE);
    };
    let mut status = NtStatus::SUCCESS;
    if target_process != 0 {
        status = match process_of(cx, target_process) {
            Ok((into, process)) => {
                let access = if options & SAME_ACCESS != 0 { entry.access } else { access };
                let kernel = attributes & OBJ_KERNEL_HANDLE != 0;
                let operation = Operation::Duplicate { source: from, target: process };
                let begun = callbacks::before(cx, operation, entry.object, access, kernel)?;
                let into = if kernel { 0 } else { into };
                let made = handle::open_in(cx, into, entry.object, begun.access, kernel)?;
                callbacks::after(cx, begun)?;
                if !target.is_null() {
                    cx.write(target, made.0)?;
                }
                NtStatus::SUCCESS
            }
            Err(status) => status,
        };
    }
    if options & CLOSE_SOURCE != 0 && pseudo.is_none() {
        let _ = handle::close_of(cx, key, source)?;
    }
    Ok(status)
}
