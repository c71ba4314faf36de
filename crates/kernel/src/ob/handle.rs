//! Handles: a process's numbers for objects.
//!
//! Pages: *Object Handles*, *ObReferenceObjectByHandle function*, *ZwClose function*. The system process's table is the
//! kernel's: kernel handles are its numbers with the upper bits set. Not here: protection from close.

use std::collections::BTreeMap;

use abi::{
    DISPATCHER_HEADER, DriverPtr, FILE_OBJECT, NtStatus, OBJ_KERNEL_HANDLE, OBJECT_HANDLE_INFORMATION,
};
use engine::Flow;

use super::callbacks::{self, Operation};
use super::object::{self, Kind};
use super::{account, object_type};
use crate::cx::{Cx, Kernel};
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::{ke, ldr, ps};

/// A handle's value: a multiple of 4, the upper half set for the kernel's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Handle(pub u64);

/// `NtCurrentProcess()`.
pub const CURRENT_PROCESS: Handle = Handle(u64::MAX);
/// `NtCurrentThread()`.
pub const CURRENT_THREAD: Handle = Handle(u64::MAX - 1);
/// Marks a kernel handle.
const KERNEL: u64 = 0xFFFF_FFFF_8000_0000;

/// Who asks: a user-mode caller may not use kernel handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// `KernelMode`: trusted, no access checks.
    Kernel,
    /// `UserMode`.
    User,
}

impl Mode {
    /// From a `KPROCESSOR_MODE`.
    #[must_use]
    pub const fn from_argument(mode: u8) -> Self {
        if mode == 0 { Self::Kernel } else { Self::User }
    }

    /// As a `KPROCESSOR_MODE`.
    #[must_use]
    pub const fn value(self) -> u8 {
        match self {
            Self::Kernel => 0,
            Self::User => 1,
        }
    }
}

/// What a handle stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The body of the object.
    pub object: u64,
    /// Its kind.
    pub kind: Kind,
    /// The access that was granted.
    pub access: u32,
    /// A process that its own begins may get it, too (`OBJ_INHERIT`).
    pub inherit: bool,
}

/// A process's handles: the one with value 4 is the first.
#[derive(Default)]
pub(crate) struct Table {
    entries: Vec<Option<Entry>>,
    /// Handles that drivers have opened, by their values.
    made: BTreeMap<u64, Made>,
}

/// Which driver has opened a handle.
#[derive(Clone, Copy)]
struct Made {
    /// Base of the image.
    owner: u64,
    /// Return address of its call.
    caller: u64,
}

impl Table {
    /// Takes the lowest free value.
    fn insert(&mut self, entry: Entry) -> u64 {
        let free = self.entries.iter().position(Option::is_none);
        let index = free.unwrap_or(self.entries.len());
        if free.is_none() {
            self.entries.push(None);
        }
        self.entries[index] = Some(entry);
        4 * (index as u64 + 1)
    }

    fn place(&mut self, value: u64) -> Option<&mut Option<Entry>> {
        self.entries.get_mut(usize::try_from((value / 4).checked_sub(1)?).ok()?)
    }

    fn get(&self, value: u64) -> Option<Entry> {
        *self.entries.get(usize::try_from((value / 4).checked_sub(1)?).ok()?)?
    }

    fn remove(&mut self, value: u64) -> Option<Entry> {
        self.made.remove(&value);
        self.place(value)?.take()
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.entries.iter().flatten().count()
    }

    /// The lowest value that is in use.
    fn first(&self) -> Option<u64> {
        self.entries.iter().position(Option::is_some).map(|index| 4 * (index as u64 + 1))
    }
}

/// The process of the running thread, as a key of the tables: 0 is the system's.
pub(crate) fn current_process(cx: &mut Cx<'_>) -> u64 {
    cx.with(|k| k.ke.thread().map_or(0, |thread| thread.process))
}

/// Which process's table a handle is looked up in, and under which number.
fn place(cx: &mut Cx<'_>, handle: Handle) -> (u64, u64) {
    if handle.0 & KERNEL == KERNEL { (0, handle.0 & !KERNEL) } else { (current_process(cx), handle.0) }
}

/// Opens a handle to an object: one reference and one handle more. `kernel` puts it into the kernel's table.
///
/// # Errors
/// A verdict if there is no object.
pub fn open(cx: &mut Cx<'_>, object: u64, access: u32, kernel: bool) -> Flow<Handle> {
    if !cx.with(|k| k.ob.callbacks.is_any()) {
        let process = if kernel { 0 } else { current_process(cx) };
        return open_in(cx, process, object, access, kernel);
    }
    let begun = callbacks::before(cx, Operation::Create, object, access, kernel)?;
    let process = if kernel { 0 } else { current_process(cx) };
    let handle = open_in(cx, process, object, begun.access, kernel)?;
    callbacks::after(cx, begun)?;
    Ok(handle)
}

/// Opens a handle to an object that was just made, which keeps it from here on, and writes it to `to`.
///
/// # Errors
/// As [`open`]; a verdict if `to` is bad.
pub(crate) fn open_made<T>(
    cx: &mut Cx<'_>,
    object: DriverPtr<T>,
    access: u32,
    kernel: bool,
    to: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let opened = open(cx, object.address, access, kernel)?;
    super::object::dereference(cx, object)?;
    cx.write(to, opened.0)?;
    Ok(NtStatus::SUCCESS)
}

/// As [`open`], in the table of the process with this key; no callback is called.
///
/// # Errors
/// A verdict if there is no object.
pub(super) fn open_in(cx: &mut Cx<'_>, process: u64, object: u64, access: u32, kernel: bool) -> Flow<Handle> {
    object::reference(cx, DriverPtr::<()>::new(object))?;
    let (owner, caller) = pool::caller(cx);
    Ok(cx.with(|k| {
        let kind = k.ob.objects.get_mut(object).map_or(Kind::Directory, |object| {
            object.handles += 1;
            object.kind
        });
        let table = k.ob.tables.get_or_insert_with(process, Table::default);
        let value = table.insert(Entry { object, kind, access, inherit: false });
        if let Some(owner) = owner {
            table.made.insert(value, Made { owner, caller });
        }
        Handle(if kernel { value | KERNEL } else { value })
    }))
}

/// What `handle` stands for in the process with this key, which is no pseudo-handle.
pub(super) fn entry_in(cx: &mut Cx<'_>, process: u64, handle: Handle) -> Option<Entry> {
    let is_kernels = handle.0 & KERNEL == KERNEL;
    let (process, value) = if is_kernels { (0, handle.0 & !KERNEL) } else { (process, handle.0) };
    cx.with(|k| k.ob.tables.get(&process)?.get(value))
}

/// Closes a handle of the process with this key.
///
/// # Errors
/// (inner) `INVALID_HANDLE`.
pub(super) fn close_of(cx: &mut Cx<'_>, process: u64, handle: Handle) -> Flow<Result<(), NtStatus>> {
    let is_kernels = handle.0 & KERNEL == KERNEL;
    let (process, value) = if is_kernels { (0, handle.0 & !KERNEL) } else { (process, handle.0) };
    close_in(cx, process, value & !3)
}

/// What `handle` stands for, as the running thread's process sees it.
///
/// # Errors
/// `INVALID_HANDLE`.
pub fn entry(cx: &mut Cx<'_>, handle: Handle, mode: Mode) -> Result<Entry, NtStatus> {
    if let Some(entry) = pseudo(cx, handle) {
        return Ok(entry);
    }
    if mode == Mode::User && handle.0 & KERNEL == KERNEL {
        return Err(NtStatus::INVALID_HANDLE);
    }
    let (process, value) = place(cx, handle);
    cx.with(|k| k.ob.tables.get(&process)?.get(value)).ok_or(NtStatus::INVALID_HANDLE)
}

/// As [`entry`], of a kernel-mode caller's handle to an object of this kind.
///
/// # Errors
/// As [`entry`]; `OBJECT_TYPE_MISMATCH`.
pub(crate) fn entry_of(cx: &mut Cx<'_>, handle: Handle, kind: Kind) -> Result<Entry, NtStatus> {
    match entry(cx, handle, Mode::Kernel)? {
        entry if entry.kind == kind => Ok(entry),
        _ => Err(NtStatus::OBJECT_TYPE_MISMATCH),
    }
}

pub(super) fn pseudo(cx: &mut Cx<'_>, handle: Handle) -> Option<Entry> {
    let access = u32::MAX;
    match handle {
        CURRENT_PROCESS => {
            let object = ps::process::current_object(cx).address;
            Some(Entry { object, kind: Kind::Process, access, inherit: false })
        }
        CURRENT_THREAD => {
            let object = ke::thread::current_object(cx).address;
            Some(Entry { object, kind: Kind::Thread, access, inherit: false })
        }
        _ => None,
    }
}

/// What handles of the table of `process` stand for; none for one that is none, or means something everywhere.
#[inline]
pub(crate) fn own_entries<const N: usize>(
    k: &Kernel,
    process: u64,
    handles: [Handle; N],
) -> Option<[Entry; N]> {
    let table = k.ob.tables.get(&process)?;
    let mut entries = [Entry { object: 0, kind: Kind::Directory, access: 0, inherit: false }; N];
    for (entry, handle) in entries.iter_mut().zip(handles) {
        if handle.0 & KERNEL == KERNEL {
            return None; // the pseudo-handles are among these
        }
        *entry = table.get(handle.0)?;
    }
    Some(entries)
}

/// As [`reference`] for a handle of the current process, in one step; none if there is more to say.
fn reference_plainly(
    k: &mut Kernel,
    handle: Handle,
    kind: Option<Kind>,
    access: u32,
    mode: Mode,
) -> Option<Entry> {
    let process = k.ke.thread().map_or(0, |thread| thread.process);
    let [entry] = own_entries(k, process, [handle])?;
    let is_it = kind.is_none_or(|kind| kind == entry.kind);
    let allowed = mode == Mode::Kernel || access & !entry.access == 0;
    if !is_it || !allowed {
        return None;
    }
    k.ob.objects.get_mut(entry.object)?.references += 1;
    Some(entry)
}

/// What `handle` stands for, with a reference, if it is of this kind.
///
/// # Errors
/// (inner) `INVALID_HANDLE`, `OBJECT_TYPE_MISMATCH`, `ACCESS_DENIED`.
pub fn reference(
    cx: &mut Cx<'_>,
    handle: Handle,
    kind: Option<Kind>,
    access: u32,
    mode: Mode,
) -> Flow<Result<Entry, NtStatus>> {
    if let Some(entry) = cx.with(|k| reference_plainly(k, handle, kind, access, mode)) {
        return Ok(Ok(entry));
    }
    reference_in_full(cx, handle, kind, access, mode)
}

#[cold]
fn reference_in_full(
    cx: &mut Cx<'_>,
    handle: Handle,
    kind: Option<Kind>,
    access: u32,
    mode: Mode,
) -> Flow<Result<Entry, NtStatus>> {
    let entry = match entry(cx, handle, mode) {
        Ok(entry) => entry,
        Err(status) => return Ok(Err(status)),
    };
    if kind.is_some_and(|kind| kind != entry.kind) {
        return Ok(Err(NtStatus::OBJECT_TYPE_MISMATCH));
    }
    if mode == Mode::User && access & !entry.access != 0 {
        return Ok(Err(NtStatus::ACCESS_DENIED));
    }
    object::reference(cx, DriverPtr::<()>::new(entry.object))?;
    Ok(Ok(entry))
}

/// Closes a handle: the owner hears of it (the last one of a file is its cleanup), then the reference goes.
///
/// # Errors
/// (inner) `INVALID_HANDLE`.
pub fn close(cx: &mut Cx<'_>, handle: Handle) -> Flow<Result<(), NtStatus>> {
    if handle == CURRENT_PROCESS || handle == CURRENT_THREAD {
        return Ok(Ok(()));
    }
    let (process, value) = place(cx, handle);
    close_in(cx, process, value & !3)
}

fn close_in(cx: &mut Cx<'_>, process: u64, value: u64) -> Flow<Result<(), NtStatus>> {
    let closed = cx.with(|k| {
        let table = k.ob.tables.get_mut(&process)?;
        let entry = table.remove(value)?;
        let of_process = table.entries.iter().flatten().filter(|other| other.object == entry.object).count();
        let object = k.ob.objects.get_mut(entry.object)?;
        object.handles -= 1;
        Some((
            entry.object,
            object.procedures.close,
            u32::try_from(of_process).unwrap_or(u32::MAX),
            object.handles,
        ))
    });
    let Some((object, procedure, of_process, of_all)) = closed else {
        return Ok(Err(NtStatus::INVALID_HANDLE));
    };
    procedure(cx, object, process, of_process, of_all)?;
    object::dereference(cx, DriverPtr::<()>::new(object))?;
    Ok(Ok(()))
}

/// `SetHandleInformation` with `HANDLE_FLAG_INHERIT`, for a handle of the running thread's process.
///
/// # Errors
/// `INVALID_HANDLE`.
pub fn set_inherit(cx: &mut Cx<'_>, handle: Handle, inherit: bool) -> Result<(), NtStatus> {
    let (process, value) = place(cx, handle);
    cx.with(|k| {
        let entry = k.ob.tables.get_mut(&process)?.place(value & !3)?.as_mut()?;
        entry.inherit = inherit;
        Some(())
    })
    .ok_or(NtStatus::INVALID_HANDLE)
}

/// A process that `parent` begins gets its handles that can be inherited, by the same numbers.
///
/// # Errors
/// A verdict if an object is none any more.
pub fn inherit(cx: &mut Cx<'_>, parent: u64, child: u64) -> Flow<()> {
    let inherited: Vec<Option<Entry>> = cx.with(|k| {
        let own = k.ob.tables.get(&parent).map_or(&[][..], |table| &table.entries);
        own.iter().map(|entry| entry.filter(|entry| entry.inherit)).collect()
    });
    for entry in inherited.iter().flatten() {
        object::reference(cx, DriverPtr::<()>::new(entry.object))?;
    }
    cx.with(|k| {
        for entry in inherited.iter().flatten() {
            if let Some(object) = k.ob.objects.get_mut(entry.object) {
                object.handles += 1;
            }
        }
        k.ob.tables.get_or_insert_with(child, Table::default).entries = inherited;
    });
    Ok(())
}

/// Closes every handle of a process that ends.
///
/// # Errors
/// Whatever closing meets.
pub fn close_all(cx: &mut Cx<'_>, process: u64) -> Flow<()> {
    loop {
        let next = cx.with(|k| k.ob.tables.get(&process)?.first());
        let Some(value) = next else {
            return Ok(());
        };
        // An entry that was there a moment ago closes.
        let _ = close_in(cx, process, value)?;
    }
}

/// A kernel handle that its driver has left open.
pub(crate) struct Left {
    pub(crate) handle: u64,
    pub(crate) kind: Kind,
    /// The object's name, if it has one.
    pub(crate) name: Option<String>,
    pub(crate) opened_by: String,
}

/// Handles of the system process that the image at `driver` has opened and not closed. Those of other processes go with them.
pub(crate) fn outstanding(cx: &mut Cx<'_>, driver: u64) -> Vec<Left> {
    let own: Vec<(u64, Entry, u64)> = cx.with(|k| {
        let Some(table) = k.ob.tables.get(&0) else { return Vec::new() };
        let made = table.made.iter().filter(|(_, made)| made.owner == driver);
        made.filter_map(|(value, made)| Some((*value, table.get(*value)?, made.caller))).collect()
    });
    own.into_iter()
        .map(|(value, entry, caller)| {
            let name = cx.with(|k| k.ob.objects.get(entry.object).and_then(|object| object.path.clone()));
            let opened_by = ldr::symbols::describe(cx, caller);
            Left { handle: value | KERNEL, kind: entry.kind, name, opened_by }
        })
        .collect()
}

/// `ObReferenceObjectByHandle`.
///
/// # Errors
/// A verdict if `object` cannot be written.
pub fn reference_by_handle(
    cx: &mut Cx<'_>,
    handle: u64,
    desired_access: u32,
    object_type: DriverPtr<()>,
    access_mode: u8,
    object: DriverPtr<u64>,
    information: DriverPtr<OBJECT_HANDLE_INFORMATION>,
) -> Flow<NtStatus> {
    cx.write(object, 0)?;
    cx.with(|k| k.engine.note_handle(handle));
    let kind = object_type::kind(object_type.address);
    if !object_type.is_null() && kind.is_none() {
        return Ok(NtStatus::OBJECT_TYPE_MISMATCH);
    }
    match reference(cx, Handle(handle), kind, desired_access, Mode::from_argument(access_mode))? {
        Err(status) => Ok(status),
        Ok(entry) => {
            account::taken(cx, entry.object);
            cx.write(object, entry.object)?;
            if Mode::from_argument(access_mode) == Mode::Kernel {
                look_whose(cx, Handle(handle), entry)?;
            }
            if !information.is_null() {
                cx.write(information + OBJECT_HANDLE_INFORMATION::HandleAttributes, 0)?;
                cx.write(information + OBJECT_HANDLE_INFORMATION::GrantedAccess, entry.access)?;
            }
            Ok(NtStatus::SUCCESS)
        }
    }
}

/// A handle of an application's, which no driver has opened, must not be looked up as one of the kernel's: neither its access nor that it is the application's to
/// use is looked at then.
fn look_whose(cx: &mut Cx<'_>, handle: Handle, entry: Entry) -> Flow<()> {
    if handle.0 & KERNEL == KERNEL {
        return Ok(()); // the pseudo-handles are among these
    }
    let (process, value) = place(cx, handle);
    let is_applications = process != 0
        && cx
            .with(|k| k.ob.tables.get(&process).is_some_and(|table| !table.made.contains_key(&(value & !3))));
    if !is_applications {
        return Ok(());
    }
    let message = format!(
        "ObReferenceObjectByHandle was called with AccessMode KernelMode for {:#x}, an application's handle ({:?}): whether the application may do with the object what the driver does is not looked at",
        handle.0, entry.kind
    );
    let verdict = Verdict::verifier("user-handle-as-kernel", message);
    cx.verify(verdict.bug_check(0xC4, [0xF6, handle.0, process, 0]))
}

/// `ObReferenceObjectByHandleWithTag`; the tag is for debuggers.
///
/// # Errors
/// As [`reference_by_handle`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn reference_by_handle_with_tag(
    cx: &mut Cx<'_>,
    handle: u64,
    desired_access: u32,
    object_type: DriverPtr<()>,
    access_mode: u8,
    _tag: u32,
    object: DriverPtr<u64>,
    information: DriverPtr<OBJECT_HANDLE_INFORMATION>,
) -> Flow<NtStatus> {
    reference_by_handle(cx, handle, desired_access, object_type, access_mode, object, information)
}

/// `ObOpenObjectByPointer`: a handle to an object of the type asked for (0: any).
///
/// # Errors
/// A verdict if there is no object, or `handle` cannot be written.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn open_by_pointer(
    cx: &mut Cx<'_>,
    object: DriverPtr<()>,
    attributes: u32,
    _access_state: u64,
    desired_access: u32,
    object_type: DriverPtr<()>,
    _access_mode: u8,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let wanted = object_type::kind(object_type.address);
    if !object_type.is_null() && (wanted.is_none() || wanted != object::kind(cx, object.address)) {
        return Ok(NtStatus::OBJECT_TYPE_MISMATCH);
    }
    let opened = open(cx, object.address, desired_access, attributes & OBJ_KERNEL_HANDLE != 0)?;
    cx.write(handle, opened.0)?;
    Ok(NtStatus::SUCCESS)
}

/// What is waited for where a handle stands for this: none if it cannot be waited for.
fn waited_for(entry: Entry) -> Option<DriverPtr<DISPATCHER_HEADER>> {
    match entry.kind {
        Kind::File => Some((DriverPtr::<FILE_OBJECT>::new(entry.object) + FILE_OBJECT::Event).cast()),
        Kind::Event | Kind::Mutant | Kind::Process | Kind::Semaphore | Kind::Thread | Kind::Timer => {
            Some(DriverPtr::new(entry.object))
        }
        _ => None,
    }
}

/// `ZwWaitForSingleObject`: waits for what the handle stands for; `timeout` as for `KeWaitForSingleObject`.
///
/// # Errors
/// As waiting.
pub fn zw_wait(cx: &mut Cx<'_>, handle: u64, alertable: bool, timeout: DriverPtr<i64>) -> Flow<NtStatus> {
    let entry = match reference(cx, Handle(handle), None, 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let object = DriverPtr::<()>::new(entry.object);
    let status = match waited_for(entry) {
        Some(waited) => ke::wait::single(cx, waited, 0, 0, alertable, timeout)?,
        None => NtStatus::OBJECT_TYPE_MISMATCH,
    };
    object::dereference(cx, object)?;
    Ok(status)
}

/// `ZwWaitForMultipleObjects`: for all of them if `kind` is 0, else for any.
///
/// # Errors
/// As waiting.
pub fn zw_wait_for_several(
    cx: &mut Cx<'_>,
    count: u32,
    handles: DriverPtr<u64>,
    kind: u32,
    alertable: bool,
    timeout: DriverPtr<i64>,
) -> Flow<NtStatus> {
    /// `MAXIMUM_WAIT_OBJECTS`.
    const MOST: u32 = 64;
    if !(1..=MOST).contains(&count) {
        return Ok(NtStatus::INVALID_PARAMETER_1);
    }
    if kind > 1 {
        return Ok(NtStatus::INVALID_PARAMETER_3);
    }
    let (mut held, mut waited, mut refused) = (Vec::new(), Vec::new(), None);
    for index in 0..u64::from(count) {
        let handle = cx.read(handles.index(index))?;
        match reference(cx, Handle(handle), None, 0, Mode::Kernel)? {
            Ok(entry) => {
                held.push(entry.object);
                match waited_for(entry) {
                    Some(object) => waited.push(object),
                    None => refused = Some(NtStatus::OBJECT_TYPE_MISMATCH),
                }
            }
            Err(status) => refused = Some(status),
        }
        if refused.is_some() {
            break;
        }
    }
    let status = match refused {
        Some(status) => status,
        None => ke::wait::for_several(cx, &waited, kind == 0, alertable, timeout)?,
    };
    for object in held {
        object::dereference(cx, DriverPtr::<()>::new(object))?;
    }
    Ok(status)
}

/// `ZwClose`. A kernel handle that is none is Windows's bug check 0x93. In the system's process an application's handle is none, or another's.
///
/// # Errors
/// That verdict; whatever closing meets.
pub fn zw_close(cx: &mut Cx<'_>, handle: u64) -> Flow<NtStatus> {
    match close(cx, Handle(handle))? {
        Ok(()) => Ok(NtStatus::SUCCESS),
        Err(_) if handle & KERNEL == KERNEL => {
            let message = format!("ZwClose of {handle:#x}, which is no open kernel handle");
            Err(cx.stop(Verdict::error("invalid-handle", message).bug_check(0x93, [handle, 0, 0, 1])))
        }
        Err(status) => {
            // Nothing and the pseudo-handles are closed by careless code, and nothing comes of it.
            let is_some = handle != 0 && handle.cast_signed() > 0;
            if is_some && ps::current_process(cx) == ps::process::SYSTEM {
                let message = format!(
                    "ZwClose of {handle:#x} in the system's process, where it is no open handle: if an application's thread has opened it, \
                     without OBJ_KERNEL_HANDLE, it is one there only"
                );
                cx.report(Verdict::warning("invalid-handle", message));
            }
            Ok(status)
        }
    }
}

/// `ObCloseHandle`: as [`zw_close`]; for an application no kernel handle is one.
///
/// # Errors
/// As [`zw_close`].
pub fn ob_close_handle(cx: &mut Cx<'_>, handle: u64, previous_mode: u8) -> Flow<NtStatus> {
    if Mode::from_argument(previous_mode) == Mode::User && handle & KERNEL == KERNEL {
        return Ok(NtStatus::INVALID_HANDLE);
    }
    zw_close(cx, handle)
}

/// `ObIsKernelHandle`; the pseudo-handles are none.
///
/// # Errors
/// None.
pub fn is_kernel(_cx: &mut Cx<'_>, handle: u64) -> Flow<bool> {
    let is_pseudo = Handle(handle) == CURRENT_PROCESS || Handle(handle) == CURRENT_THREAD;
    Ok(handle & KERNEL == KERNEL && !is_pseudo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_multiples_of_four_and_used_again() {
        let mut table = Table::default();
        let entry = Entry { object: 1, kind: Kind::Event, access: 0, inherit: false };
        assert_eq!([table.insert(entry), table.insert(entry), table.insert(entry)], [4, 8, 12]);
        table.remove(8);
        assert_eq!([table.insert(entry), table.insert(entry)], [8, 16]);
    }
}
