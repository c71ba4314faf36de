//! Threads that drivers make, and what drivers ask of threads. Follows *PsCreateSystemThread function*,
//! *PsTerminateSystemThread function*, *PsGetCurrentThreadId function*.
//!
//! Threads themselves are `ke::thread`'s. A thread is always made in the system process or, if the driver names a handle
//! to one, in that process.

use abi::{CLIENT_ID, Code, DriverPtr, KTHREAD, NtStatus, OBJECT_ATTRIBUTES};
use engine::Flow;

use crate::cx::Cx;
use crate::ke::thread::{self, Body, Identity, NORMAL_PRIORITY, Role, Start, State};
use crate::verdict::Verdict;
use crate::{ke, ldr, ob, ps};

/// `OBJ_KERNEL_HANDLE`.
const KERNEL_HANDLE: u32 = 0x200;
/// `THREAD_ALL_ACCESS`.
const ALL_ACCESS: u32 = 0x001F_FFFF;

/// `PsCreateSystemThread`.
///
/// # Errors
/// A verdict if the routine is null or a pointer is bad; [`engine::Leave`] of what runs at once.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn create(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    _access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    process: u64,
    client: DriverPtr<CLIENT_ID>,
    routine: DriverPtr<Code>,
    context: u64,
) -> Flow<NtStatus> {
    let process = match process_of(cx, process)? {
        Ok(process) => process,
        Err(status) => return Ok(status),
    };
    if routine.is_null() {
        let verdict =
            Verdict::error("null-routine", "PsCreateSystemThread was called without a start routine");
        return Err(cx.stop(verdict));
    }
    if !thread::is_room(cx) {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let name = format!("system thread {}", ldr::symbols::describe(cx, routine.address));
    let start = Start {
        name,
        role: Role::System,
        process,
        priority: NORMAL_PRIORITY,
        body: Body::Driver { routine, context },
    };
    let strand = thread::create(cx, start)?;
    let (object, id) = cx.with(|k| (k.ke.sched.threads()[strand].object, k.ke.sched.threads()[strand].id));
    let kernel = if attributes.is_null() {
        // Called in the system process the handle is the system's; elsewhere it is that process's.
        ps::current_process(cx) == ps::process::SYSTEM
    } else {
        cx.read(attributes + OBJECT_ATTRIBUTES::Attributes)? & KERNEL_HANDLE != 0
    };
    let opened = ob::handle::open(cx, object.address, ALL_ACCESS, kernel)?;
    cx.write(handle, opened.0)?;
    if !client.is_null() {
        let owner = cx.with(|k| k.ps.processes.get(&process).map_or(ps::process::SYSTEM_ID, |p| p.id));
        cx.write(client + CLIENT_ID::UniqueProcess, owner)?;
        cx.write(client + CLIENT_ID::UniqueThread, id)?;
    }
    ke::irql::settle(cx)?;
    Ok(NtStatus::SUCCESS)
}

/// The process a handle names; the system's for none.
fn process_of(cx: &mut Cx<'_>, handle: u64) -> Flow<Result<u64, NtStatus>> {
    if handle == 0 {
        return Ok(Ok(ps::process::SYSTEM));
    }
    let entry = match ob::handle::entry(cx, ob::Handle(handle), ob::handle::Mode::Kernel) {
        Ok(entry) => entry,
        Err(status) => return Ok(Err(status)),
    };
    let found = cx.with(|k| {
        let mut processes = k.ps.processes.iter();
        processes.find(|(_, process)| process.object.address == entry.object).map(|(key, _)| *key)
    });
    Ok(found.ok_or(NtStatus::OBJECT_TYPE_MISMATCH))
}

/// `PsTerminateSystemThread`: does not return, if the caller is a system thread.
///
/// # Errors
/// The leaving itself.
pub(crate) fn terminate(cx: &mut Cx<'_>, status: NtStatus) -> Flow<NtStatus> {
    let system = cx.with(|k| k.ke.thread().is_some_and(|thread| thread.role == Role::System));
    if system { Err(thread::exit_current(cx, status)) } else { Ok(NtStatus::INVALID_PARAMETER) }
}

/// `PsGetCurrentThreadId`.
///
/// # Errors
/// None of its own.
pub(crate) fn current_id(cx: &mut Cx<'_>) -> Flow<u64> {
    Ok(cx.with(|k| k.ke.thread().map_or(0, |thread| thread.id)))
}

/// `PsLookupThreadByThreadId`: the object with a reference.
///
/// # Errors
/// A verdict if the pointer is bad.
pub(crate) fn lookup(cx: &mut Cx<'_>, id: u64, into: DriverPtr<DriverPtr<KTHREAD>>) -> Flow<NtStatus> {
    let found =
        cx.with(|k| k.ke.sched.threads().iter().find(|thread| thread.id == id).map(|thread| thread.object));
    let Some(object) = found else { return Ok(NtStatus::INVALID_PARAMETER) };
    ob::object::reference(cx, object)?;
    cx.write(into, object)?;
    Ok(NtStatus::SUCCESS)
}

/// What `of` says of the thread whose object this is.
pub(crate) fn ask<R>(
    cx: &mut Cx<'_>,
    ddi: &str,
    thread: DriverPtr<KTHREAD>,
    of: impl FnOnce(&Identity) -> R,
) -> Flow<R> {
    match cx.with(|k| k.ke.identity_of(thread.address)) {
        Some(identity) => Ok(of(&identity)),
        None => {
            let message = format!("{ddi} was called for {:#x}, which is no thread", thread.address);
            Err(cx.stop(Verdict::error("not-a-thread", message)))
        }
    }
}

/// `PsGetThreadId`.
///
/// # Errors
/// A verdict if there is no such thread.
pub(crate) fn id(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<u64> {
    ask(cx, "PsGetThreadId", thread, |thread| thread.id)
}

/// `PsGetThreadProcessId`.
///
/// # Errors
/// A verdict if there is no such thread.
pub(crate) fn process_id(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<u64> {
    let process = ask(cx, "PsGetThreadProcessId", thread, |thread| thread.process)?;
    Ok(cx.with(|k| k.ps.processes.get(&process).map_or(ps::process::SYSTEM_ID, |process| process.id)))
}

/// `PsIsThreadTerminating`: whether it is ending, or over.
///
/// # Errors
/// A verdict if there is no such thread.
pub(crate) fn is_terminating(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<bool> {
    ask(cx, "PsIsThreadTerminating", thread, |_| ())?;
    Ok(cx.with(|k| {
        let mut all = k.ke.sched.threads().iter();
        let living = all.find(|known| known.object == thread && known.state != State::Terminated);
        living.is_none_or(|known| known.exit.is_some())
    }))
}

/// `PsIsSystemThread`: whether it was made by the system or by a driver, whatever process it was made in.
///
/// # Errors
/// None of its own.
pub(crate) fn is_system(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<bool> {
    Ok(cx.with(|k| k.ke.identity_of(thread.address).is_some_and(|thread| thread.is_systems)))
}
