//! Processes: an object that can be waited for, an id, and the threads that belong to it. Follows *PsGetCurrentProcess*,
//! *PsGetCurrentProcessId function*, *ZwOpenProcess function*.
//!
//! Address spaces are `mm`'s, handle tables `ob`'s. A process has no other attributes yet.

use abi::{CLIENT_ID, DriverPtr, KPROCESS, NtStatus, OBJECT_ATTRIBUTES};
use engine::{Flow, StrandId};

use super::notify;
use crate::cx::{Cx, Kernel};
use crate::ke::dispatcher::{self, Kind};
use crate::ke::thread::Thread;
use crate::ke::time;
use crate::mm::{pool, spaces, user, view, virtual_memory};
use crate::ob;
use crate::se::token;
use crate::verdict::Verdict;

/// The id of the system process.
pub(crate) const SYSTEM_ID: u64 = 4;
/// The key of the system process.
pub const SYSTEM: u64 = 0;
/// Bytes of a process object; drivers see only its header.
const OBJECT_SIZE: u64 = 0x600;

/// A process.
pub(crate) struct Process {
    pub(crate) object: DriverPtr<KPROCESS>,
    /// `UniqueProcess` of a client id.
    pub(crate) id: u64,
    /// For people: `test.exe`.
    pub(crate) name: String,
    /// The system time when it was made.
    created: u64,
    /// The id of the process that made it, which is the first application's; 0 if none did.
    pub(crate) parent: u64,
    life: Life,
}

/// How far a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Runs,
    /// It ends with its last thread.
    Exits,
    /// It has ended. Its object, and with it its id, stays as long as something refers to it.
    Ended,
}

static PROCEDURES: ob::Procedures = ob::Procedures { close: ob::Procedures::nothing, delete };

/// Makes the system process. Once, before the first thread.
///
/// # Errors
/// As an allocation.
pub fn boot(cx: &mut Cx<'_>) -> Flow<()> {
    make(cx, SYSTEM, SYSTEM_ID, "System".to_owned())
}

/// Makes a process; its key, which is its id.
///
/// # Errors
/// As an allocation.
pub fn create(cx: &mut Cx<'_>, name: impl Into<String>) -> Flow<u64> {
    let id = cx.with(|k| k.ps.next_id());
    make(cx, id, id, name.into())?;
    Ok(id)
}

fn make(cx: &mut Cx<'_>, key: u64, id: u64, name: String) -> Flow<()> {
    let object: DriverPtr<KPROCESS> =
        pool::allocate(cx, pool::Kind::NonPaged, OBJECT_SIZE, pool::tag(b"Proc"))?;
    if object.is_null() {
        return Err(cx.stop(Verdict::not_implemented("running out of memory for a process")));
    }
    let header = (object + KPROCESS::Header).cast();
    dispatcher::initialize(cx.engine(), header, Kind::Process, OBJECT_SIZE, 0)
        .map_err(|bad| cx.bad_pointer(bad))?;
    ob::object::create(cx, object.address, ob::Kind::Process, "", &PROCEDURES)
        .expect("a process object has no name that could clash");
    cx.with(|k| {
        let created = time::boot(k) + time::ticked(k);
        let parent = k.ps.processes.keys().copied().find(|key| *key != SYSTEM).unwrap_or(0);
        k.ps.processes.insert(key, Process { object, id, name, created, parent, life: Life::Runs })
    });
    let user = if key == SYSTEM { token::User::System } else { token::User::default() };
    token::assign(cx, key, user)
}

/// The process exits. With its last thread, threads that drivers have made in it included, it ends: its object is signaled and let go.
///
/// # Errors
/// [`engine::Leave`] of what that sets going.
pub fn end(cx: &mut Cx<'_>, key: u64) -> Flow<()> {
    let last = cx.with(|k| {
        let has_threads = k.ke.sched.threads().iter().any(|thread| thread.home() == key);
        k.ps.processes.get_mut(&key).is_some_and(|process| {
            process.life = Life::Exits;
            !has_threads
        })
    });
    if last {
        notify::tell_of_process(cx, key, false)?;
        finish(cx, key)?;
    }
    crate::ke::irql::settle(cx)
}

/// Whether the process ends with this thread.
pub(crate) fn ends_with(k: &Kernel, key: u64, thread: StrandId) -> bool {
    let exits = k.ps.processes.get(&key).is_some_and(|process| process.life == Life::Exits);
    let mut others = k.ke.sched.threads().iter().filter(|other| other.strand != thread);
    exits && !others.any(|other| other.home() == key)
}

/// A thread of the process has ended. Its caller settles.
///
/// # Errors
/// As [`end`].
pub(crate) fn thread_ended(cx: &mut Cx<'_>, key: u64, ended: StrandId) -> Flow<()> {
    if cx.with(|k| ends_with(k, key, ended)) { finish(cx, key) } else { Ok(()) }
}

fn finish(cx: &mut Cx<'_>, key: u64) -> Flow<()> {
    let object = cx.with(|k| {
        let process = k.ps.processes.get_mut(&key)?;
        process.life = Life::Ended;
        Some(process.object)
    });
    let Some(object) = object else { return Ok(()) };
    view::unmap_process(cx, key)?;
    cx.with(|k| {
        spaces::release_process(k, key);
        virtual_memory::forget_process(k, key);
    });
    user::free_process(cx, u32::try_from(key).unwrap_or(u32::MAX));
    token::release(cx, key)?;
    dispatcher::signal(cx, (object + KPROCESS::Header).cast(), 1, 0)?;
    ob::object::dereference(cx, object).map(|_| ())
}

/// The last reference to a process that has ended is gone: nothing finds it any more.
fn delete(cx: &mut Cx<'_>, object: u64) -> Flow<()> {
    cx.with(|k| k.ps.processes.retain(|_, process| process.object.address != object));
    ob::Procedures::free(cx, object)
}

/// The key of the current thread's process: the one that it is attached to, if it is to any.
pub fn current_process(cx: &mut Cx<'_>) -> u64 {
    cx.with(|k| k.ke.thread().map_or(SYSTEM, |thread| thread.process))
}

/// The object of the current thread's process.
pub fn current_object(cx: &mut Cx<'_>) -> DriverPtr<KPROCESS> {
    let key = current_process(cx);
    object(cx, key)
}

/// The object of a process; null if it is gone.
pub fn object(cx: &mut Cx<'_>, key: u64) -> DriverPtr<KPROCESS> {
    cx.with(|k| k.ps.processes.get(&key).map_or(DriverPtr::NULL, |process| process.object))
}

/// The key of the process that is this object, if it has not ended.
pub(crate) fn living(k: &Kernel, object: u64) -> Option<u64> {
    let mut all = k.ps.processes.iter();
    all.find(|(_, process)| process.object.address == object && process.life != Life::Ended)
        .map(|(key, _)| *key)
}

/// The object of the system process: `PsInitialSystemProcess`.
pub fn system_object(cx: &mut Cx<'_>) -> DriverPtr<KPROCESS> {
    cx.with(|k| k.ps.processes.get(&SYSTEM).map_or(DriverPtr::NULL, |process| process.object))
}

/// A process's name, for people.
#[must_use]
pub fn name(k: &Kernel, key: u64) -> String {
    k.ps.processes.get(&key).map_or_else(|| format!("process {key}"), |process| process.name.clone())
}

/// `PsGetCurrentProcess`, `IoGetCurrentProcess`.
///
/// # Errors
/// None of its own.
pub fn get_current(cx: &mut Cx<'_>) -> Flow<DriverPtr<KPROCESS>> {
    Ok(current_object(cx))
}

/// `PsGetCurrentProcessId`: of the process that the thread belongs to, whatever it is attached to.
///
/// # Errors
/// None of its own.
pub fn get_current_id(cx: &mut Cx<'_>) -> Flow<u64> {
    Ok(cx.with(|k| {
        let key = k.ke.thread().map_or(SYSTEM, Thread::home);
        id_of(k, key)
    }))
}

/// What `of` says of the process whose object this is.
fn ask<R>(
    cx: &mut Cx<'_>,
    ddi: &str,
    process: DriverPtr<KPROCESS>,
    of: impl FnOnce(&Process) -> R,
) -> Flow<R> {
    match cx.with(|k| k.ps.processes.values().find(|known| known.object == process).map(of)) {
        Some(answer) => Ok(answer),
        None => {
            let message = format!("{ddi} was called for {:#x}, which is no process", process.address);
            Err(cx.stop(Verdict::error("not-a-process", message)))
        }
    }
}

/// `PsGetProcessId`.
///
/// # Errors
/// A verdict if there is no such process.
pub fn get_id(cx: &mut Cx<'_>, process: DriverPtr<KPROCESS>) -> Flow<u64> {
    ask(cx, "PsGetProcessId", process, |known| known.id)
}

/// `STATUS_PENDING`, as the exit status of what runs.
const STILL_RUNS: NtStatus = NtStatus::PENDING;

/// `PsGetProcessExitStatus`: as who ends it says, from then on; an application says success.
///
/// # Errors
/// A verdict if there is no such process.
pub fn exit_status(cx: &mut Cx<'_>, process: DriverPtr<KPROCESS>) -> Flow<NtStatus> {
    ask(cx, "PsGetProcessExitStatus", process, |known| match known.life {
        Life::Runs => STILL_RUNS,
        Life::Exits | Life::Ended => NtStatus::SUCCESS,
    })
}

/// `PsGetProcessCreateTimeQuadPart`.
///
/// # Errors
/// A verdict if there is no such process.
pub fn create_time(cx: &mut Cx<'_>, process: DriverPtr<KPROCESS>) -> Flow<u64> {
    ask(cx, "PsGetProcessCreateTimeQuadPart", process, |known| known.created)
}

/// `PsGetProcessInheritedFromUniqueProcessId`: the id of the process that made it; 0 if none did.
///
/// # Errors
/// A verdict if there is no such process.
pub fn parent_id(cx: &mut Cx<'_>, process: DriverPtr<KPROCESS>) -> Flow<u64> {
    ask(cx, "PsGetProcessInheritedFromUniqueProcessId", process, |known| known.parent)
}

/// `PsGetProcessSessionId`, `PsGetProcessSessionIdEx`.
///
/// # Errors
/// A verdict if there is no such process.
pub fn session(cx: &mut Cx<'_>, process: DriverPtr<KPROCESS>) -> Flow<u32> {
    ask(cx, "PsGetProcessSessionId", process, |known| session_of(known.id))
}

/// Where in its object a process has the name of its image: the first [`IMAGE_NAME_BYTES`] of it, the last of which are 0.
const IMAGE_NAME: u64 = OBJECT_SIZE - 0x10;
const IMAGE_NAME_BYTES: usize = 15;

/// `PsGetProcessImageFileName`: where that is.
///
/// # Errors
/// A verdict if there is no such process.
pub fn image_name(cx: &mut Cx<'_>, process: DriverPtr<KPROCESS>) -> Flow<u64> {
    let name = ask(cx, "PsGetProcessImageFileName", process, |known| known.name.clone())?;
    let mut bytes: Vec<u8> = name.bytes().take(IMAGE_NAME_BYTES - 1).collect();
    bytes.resize(IMAGE_NAME_BYTES, 0);
    let at = process.address + IMAGE_NAME;
    cx.write_bytes(at, &bytes)?;
    Ok(at)
}

/// `PsGetCurrentThreadProcess`: the one that the thread belongs to, whatever it is attached to.
///
/// # Errors
/// None of its own.
pub fn of_current_thread(cx: &mut Cx<'_>) -> Flow<DriverPtr<KPROCESS>> {
    Ok(cx.with(|k| {
        let key = k.ke.thread().map_or(SYSTEM, Thread::home);
        k.ps.processes.get(&key).map_or(DriverPtr::NULL, |process| process.object)
    }))
}

/// The session of a process with this id: 0 is the system's, and the one user's is 1.
pub(crate) const fn session_of(id: u64) -> u32 {
    (id > SYSTEM_ID) as u32
}

/// `PsGetCurrentProcessSessionId`: of the process that the thread is in.
///
/// # Errors
/// None of its own.
pub fn current_session(cx: &mut Cx<'_>) -> Flow<u32> {
    let object = current_object(cx);
    ask(cx, "PsGetCurrentProcessSessionId", object, |known| session_of(known.id))
}

/// `ZwOpenProcess`: a handle to the process with this id, or with a thread with this id.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn zw_open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    client: DriverPtr<CLIENT_ID>,
) -> Flow<NtStatus> {
    let named = match ob::attributes::read(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    if !named.name.is_empty() {
        return Ok(NtStatus::INVALID_PARAMETER_MIX);
    }
    if client.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let (process, thread) =
        (cx.read(client + CLIENT_ID::UniqueProcess)?, cx.read(client + CLIENT_ID::UniqueThread)?);
    let found = cx.with(|k| {
        if thread != 0 {
            let known = k.ke.sched.threads().iter().find(|known| known.id == thread)?;
            let owner = k.ps.processes.get(&known.home())?;
            return (process == 0 || owner.id == process).then_some(owner.object);
        }
        k.ps.processes.values().find(|known| known.id == process).map(|known| known.object)
    });
    let Some(object) = found else { return Ok(NtStatus::INVALID_CID) };
    let opened = ob::handle::open(cx, object.address, access, named.kernel_handle())?;
    cx.write(handle, opened.0)?;
    Ok(NtStatus::SUCCESS)
}

/// `OpenProcess`, as an application calls it for the process with this key: a handle with this access, as far as drivers leave it.
///
/// # Errors
/// A verdict on a driver that filters handles. (inner) `INVALID_CID` if there is no such process.
pub fn open_by_application(cx: &mut Cx<'_>, key: u64, access: u32) -> Flow<Result<ob::Handle, NtStatus>> {
    let object = object(cx, key);
    if object.is_null() {
        return Ok(Err(NtStatus::INVALID_CID));
    }
    ob::handle::open(cx, object.address, access, false).map(Ok)
}

/// The key of the process that is this object, ended or not.
///
/// # Errors
/// A verdict if there is no such process.
pub(crate) fn key(cx: &mut Cx<'_>, ddi: &str, process: DriverPtr<KPROCESS>) -> Flow<u64> {
    ask(cx, ddi, process, |known| if known.id == SYSTEM_ID { SYSTEM } else { known.id })
}

/// The id of the process with this key.
pub(crate) fn id_of(k: &Kernel, key: u64) -> u64 {
    k.ps.processes.get(&key).map_or(SYSTEM_ID, |process| process.id)
}

/// `PsLookupProcessByProcessId`: the object with a reference.
///
/// # Errors
/// A verdict if the pointer is bad.
pub fn lookup(cx: &mut Cx<'_>, id: u64, into: DriverPtr<DriverPtr<KPROCESS>>) -> Flow<NtStatus> {
    let found = cx.with(|k| k.ps.processes.values().find(|process| process.id == id).map(|p| p.object));
    let Some(object) = found else { return Ok(NtStatus::INVALID_PARAMETER) };
    ob::object::ddi::reference(cx, object.cast())?;
    cx.write(into, object)?;
    Ok(NtStatus::SUCCESS)
}
