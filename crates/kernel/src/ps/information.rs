//! What processes and threads say by their handles, and what is said to them.
//!
//! Pages: *ZwQueryInformationProcess function*, *ZwSetInformationThread function*, *NtQueryInformationProcess function*. Other classes than those of here
//! end the run by their number. A process has no environment block, and no debugger.

use abi::{DriverPtr, KPROCESS, KTHREAD, NtStatus};
use engine::Flow;

use super::process;
use crate::cx::Cx;
use crate::fields::Fields;
use crate::ke;
use crate::ob::handle::{self, Mode};
use crate::ob::{Handle, Kind};
use crate::verdict::Verdict;

/// Classes of processes.
const BASIC: u32 = 0;
const DEBUG_PORT: u32 = 7;
const SESSION: u32 = 24;
const WOW64: u32 = 26;
/// Classes of threads.
const PRIORITY: u32 = 2;
const BASE_PRIORITY: u32 = 3;

/// The base priority of each process.
const NORMAL: u32 = 8;

/// `ZwQueryInformationProcess`, `NtQueryInformationProcess`.
///
/// # Errors
/// A verdict on a bad pointer, or on a class that is not here.
pub(crate) fn query_process(
    cx: &mut Cx<'_>,
    handle: u64,
    class: u32,
    to: u64,
    room: u32,
    length: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let entry = match handle::entry_of(cx, Handle(handle), Kind::Process) {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let object = DriverPtr::<KPROCESS>::new(entry.object);
    let form = match class {
        BASIC => {
            let (id, parent) = (process::get_id(cx, object)?, process::parent_id(cx, object)?);
            let affinity = cx.with(|k| ke::affinity::of_group(k, 0));
            let status = process::exit_status(cx, object)?;
            let form = Fields::default().u32(status.0).u32(0).u64(0).u64(affinity);
            form.u32(NORMAL).u32(0).u64(id).u64(parent)
        }
        DEBUG_PORT | WOW64 => Fields::default().u64(0),
        SESSION => {
            let session = process::session(cx, object)?;
            Fields::default().u32(session)
        }
        other => {
            let what = format!("class {other} of ZwQueryInformationProcess");
            return Err(cx.stop(Verdict::not_implemented(&what)));
        }
    };
    let form = form.done();
    if !length.is_null() {
        cx.write(length, u32::try_from(form.len()).unwrap_or(u32::MAX))?;
    }
    if room as usize != form.len() {
        return Ok(NtStatus::INFO_LENGTH_MISMATCH);
    }
    cx.write_bytes(to, &form)?;
    Ok(NtStatus::SUCCESS)
}

/// `ZwSetInformationThread`, `NtSetInformationThread`: its priority.
///
/// # Errors
/// A verdict on a bad pointer, or on a class that is not here.
pub(crate) fn set_thread(
    cx: &mut Cx<'_>,
    handle: u64,
    class: u32,
    from: DriverPtr<i32>,
    length: u32,
) -> Flow<NtStatus> {
    if !matches!(class, PRIORITY | BASE_PRIORITY) {
        let what = format!("class {class} of ZwSetInformationThread");
        return Err(cx.stop(Verdict::not_implemented(&what)));
    }
    if length != 4 {
        return Ok(NtStatus::INFO_LENGTH_MISMATCH);
    }
    let value = cx.read(from)?;
    let entry = match handle::reference(cx, Handle(handle), Some(Kind::Thread), 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let object = DriverPtr::<KTHREAD>::new(entry.object);
    let status = match class {
        PRIORITY if !(1..=31).contains(&value) => NtStatus::INVALID_PARAMETER,
        PRIORITY => {
            ke::priority::set(cx, object, value)?;
            NtStatus::SUCCESS
        }
        _ => {
            ke::priority::set_base(cx, object, value)?;
            NtStatus::SUCCESS
        }
    };
    crate::ob::object::dereference(cx, object)?;
    Ok(status)
}
