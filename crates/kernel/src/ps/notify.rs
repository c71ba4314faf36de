//! Notify routines of drivers: for processes, threads and images that come and go.
//!
//! Pages: *PsSetCreateProcessNotifyRoutine function*, *PsSetCreateThreadNotifyRoutine function*, *PsSetLoadImageNotifyRoutine function*,
//! *PsRemoveCreateThreadNotifyRoutine function*, *PsRemoveLoadImageNotifyRoutine function*, *PsSetCreateProcessNotifyRoutineEx function* and *…Ex2* (what
//! they are given is `create_notify`'s), *PsSetCreateThreadNotifyRoutineEx function*. Routines are called at PASSIVE_LEVEL in a critical
//! region, as the pages say. For a thread of an application that no thread has made, they run on that thread. Images of
//! applications are `user_image`'s. There are no subsystems but Win32.

use abi::{Code, DriverPtr, IMAGE_INFO, NtStatus, PS_CREATE_NOTIFY_INFO, UNICODE_STRING};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ex::routines::{self, Routine, Routines};
use crate::io::driver::with_string;
use crate::ke::callout::call_routine;
use crate::ke::region;
use crate::ldr;
use crate::mm::pool;
use crate::ps::process::SYSTEM_ID;

/// As many routines of a kind as Windows has room for.
const MOST: usize = 64;
/// `IMAGE_INFO::Properties`: `ImageAddressingMode` is `IMAGE_ADDRESSING_MODE_32BIT` everywhere, and `SystemModeImage`.
const USER_IMAGE: u32 = 3;
const SYSTEM_IMAGE: u32 = USER_IMAGE | 1 << 8;

/// `PS_IMAGE_NOTIFY_CONFLICTING_ARCHITECTURE`.
const CONFLICTING_ARCHITECTURE: u64 = 1;

/// As what a routine was registered, which is its context: the plain routine of its kind, or the extended one.
const PLAIN: u64 = 0;
const EXTENDED: u64 = 1;
const OF_SUBSYSTEMS: u64 = 2;
/// A routine for threads that is called on the new thread, if that is not the system's.
const NON_SYSTEM: u64 = 3;

/// `PsCreateProcessNotifySubsystems`.
const CREATE_PROCESS_SUBSYSTEMS: u32 = 0;
/// `PsCreateThreadNotifyNonSystem`, `PsCreateThreadNotifySubsystems`.
const CREATE_THREAD_NON_SYSTEM: u32 = 0;
const CREATE_THREAD_SUBSYSTEMS: u32 = 1;

/// What a routine is called for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Of {
    /// `PsSetCreateProcessNotifyRoutine`.
    Processes,
    /// `PsSetCreateThreadNotifyRoutine`.
    Threads,
    /// `PsSetLoadImageNotifyRoutine`.
    Images,
}

impl Of {
    const ALL: [Self; 3] = [Self::Processes, Self::Threads, Self::Images];

    const fn role(self) -> Role {
        match self {
            Self::Processes => Role::CreateProcessNotifyRoutine,
            Self::Threads => Role::CreateThreadNotifyRoutine,
            Self::Images => Role::LoadImageNotifyRoutine,
        }
    }
}

/// The routines of each kind.
#[derive(Default)]
pub(crate) struct State([Routines; 3]);

impl State {
    fn of(&self, of: Of) -> &Routines {
        &self.0[of as usize]
    }

    /// Whether there is a routine for these.
    pub(crate) fn is_any(&self, of: Of) -> bool {
        self.of(of).len() > 0
    }

    /// Whether there is an extended routine for processes.
    pub(crate) fn has_extended(&self) -> bool {
        self.of(Of::Processes).contexts().any(|context| context != PLAIN)
    }

    /// Whether there is a routine for anything that a thread's begin or end can be.
    pub(crate) fn is_told_of_threads(&self) -> bool {
        self.is_any(Of::Threads) || self.is_any(Of::Processes)
    }

    /// All routines, each with what it is called for.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, DriverPtr<Code>)> {
        Of::ALL.into_iter().flat_map(|of| self.of(of).code().map(move |code| (of.role().name(), code)))
    }
}

fn list_of(of: Of) -> impl routines::List {
    move |k: &mut Kernel| Some(&mut k.ps.notify.0[of as usize])
}

fn add(cx: &mut Cx<'_>, of: Of, code: DriverPtr<Code>, context: u64) -> NtStatus {
    cx.with(|k| {
        let list = &mut k.ps.notify.0[of as usize];
        if list.len() == MOST {
            return NtStatus::INSUFFICIENT_RESOURCES;
        }
        list.add(code.address, Routine { code, context });
        NtStatus::SUCCESS
    })
}

fn remove(cx: &mut Cx<'_>, of: Of, code: DriverPtr<Code>, ddi: &str) -> Flow<NtStatus> {
    let found = routines::remove(cx, list_of(of), code.address, ddi)?;
    Ok(if found { NtStatus::SUCCESS } else { NtStatus::PROCEDURE_NOT_FOUND })
}

/// Registers a routine for processes or takes it back, which its own kind of registration does only.
fn set_for_processes(
    cx: &mut Cx<'_>,
    code: DriverPtr<Code>,
    remove_it: bool,
    context: u64,
    ddi: &str,
) -> Flow<NtStatus> {
    let known = cx.with(|k| k.ps.notify.of(Of::Processes).get(code.address));
    if remove_it {
        if known.is_none_or(|known| known.context != context) {
            return Ok(NtStatus::PROCEDURE_NOT_FOUND);
        }
        return remove(cx, Of::Processes, code, ddi);
    }
    if context != PLAIN && !ldr::is_signature_checked(cx, code.address)? {
        return Ok(NtStatus::ACCESS_DENIED);
    }
    if known.is_some() || cx.choose("fault.call", 2) == 1 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    Ok(match add(cx, Of::Processes, code, context) {
        NtStatus::INSUFFICIENT_RESOURCES => NtStatus::INVALID_PARAMETER,
        status => status,
    })
}

/// `PsSetCreateProcessNotifyRoutine`. One that is there already, or one too many, is an invalid parameter.
///
/// # Errors
/// A verdict if the routine runs and the caller may not wait for it.
pub(crate) fn set_create_process(cx: &mut Cx<'_>, code: DriverPtr<Code>, remove_it: bool) -> Flow<NtStatus> {
    set_for_processes(cx, code, remove_it, PLAIN, "PsSetCreateProcessNotifyRoutine")
}

/// `PsSetCreateProcessNotifyRoutineEx`: only for a routine in an image whose signature is checked.
///
/// # Errors
/// As [`set_create_process`].
pub(crate) fn set_create_process_ex(
    cx: &mut Cx<'_>,
    code: DriverPtr<Code>,
    remove_it: bool,
) -> Flow<NtStatus> {
    set_for_processes(cx, code, remove_it, EXTENDED, "PsSetCreateProcessNotifyRoutineEx")
}

/// `PsSetCreateProcessNotifyRoutineEx2`: of processes of all subsystems.
///
/// # Errors
/// As [`set_create_process`].
pub(crate) fn set_create_process_ex2(
    cx: &mut Cx<'_>,
    kind: u32,
    code: DriverPtr<Code>,
    remove_it: bool,
) -> Flow<NtStatus> {
    if kind != CREATE_PROCESS_SUBSYSTEMS {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    set_for_processes(cx, code, remove_it, OF_SUBSYSTEMS, "PsSetCreateProcessNotifyRoutineEx2")
}

/// `PsSetCreateThreadNotifyRoutine`.
///
/// # Errors
/// None.
pub(crate) fn set_create_thread(cx: &mut Cx<'_>, code: DriverPtr<Code>) -> Flow<NtStatus> {
    Ok(add(cx, Of::Threads, code, PLAIN))
}

/// `PsSetCreateThreadNotifyRoutineEx`: of threads that are not the system's, on the new thread, or of all subsystems' threads. Of other
/// kinds the page says nothing: they are invalid parameters.
///
/// # Errors
/// None.
pub(crate) fn set_create_thread_ex(cx: &mut Cx<'_>, kind: u32, code: DriverPtr<Code>) -> Flow<NtStatus> {
    Ok(match kind {
        CREATE_THREAD_NON_SYSTEM => add(cx, Of::Threads, code, NON_SYSTEM),
        CREATE_THREAD_SUBSYSTEMS => add(cx, Of::Threads, code, OF_SUBSYSTEMS),
        _ => NtStatus::INVALID_PARAMETER,
    })
}

/// `PsRemoveCreateThreadNotifyRoutine`.
///
/// # Errors
/// As [`set_create_process`].
pub(crate) fn remove_create_thread(cx: &mut Cx<'_>, code: DriverPtr<Code>) -> Flow<NtStatus> {
    remove(cx, Of::Threads, code, "PsRemoveCreateThreadNotifyRoutine")
}

/// `PsSetLoadImageNotifyRoutine`.
///
/// # Errors
/// None.
pub(crate) fn set_load_image(cx: &mut Cx<'_>, code: DriverPtr<Code>) -> Flow<NtStatus> {
    Ok(add(cx, Of::Images, code, PLAIN))
}

/// `PsSetLoadImageNotifyRoutineEx`: with `PS_IMAGE_NOTIFY_CONFLICTING_ARCHITECTURE` a routine is called for images of another architecture,
/// too, of which there are none.
///
/// # Errors
/// None.
pub(crate) fn set_load_image_ex(cx: &mut Cx<'_>, code: DriverPtr<Code>, flags: u64) -> Flow<NtStatus> {
    if flags & !CONFLICTING_ARCHITECTURE != 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    set_load_image(cx, code)
}

/// `PsRemoveLoadImageNotifyRoutine`.
///
/// # Errors
/// As [`set_create_process`].
pub(crate) fn remove_load_image(cx: &mut Cx<'_>, code: DriverPtr<Code>) -> Flow<NtStatus> {
    remove(cx, Of::Images, code, "PsRemoveLoadImageNotifyRoutine")
}

/// Calls each routine of a kind with what `arguments` returns for its context; not if that is none.
fn tell(cx: &mut Cx<'_>, of: Of, arguments: impl Fn(u64) -> Option<[u64; 3]>) -> Flow<()> {
    routines::call_all(cx, list_of(of), |cx, routine| {
        let Some(arguments) = arguments(routine.context) else { return Ok(()) };
        region::enter_critical(cx)?;
        call_routine(cx, of.role(), routine.code, 0, &arguments)?;
        region::leave_critical(cx)
    })
}

/// A process has been made, by the current thread; or it ends.
///
/// # Errors
/// A verdict on a routine.
pub(crate) fn tell_of_process(cx: &mut Cx<'_>, key: u64, is_new: bool) -> Flow<()> {
    tell_processes(cx, key, is_new, DriverPtr::NULL)
}

/// A process is created, by the current thread: extended routines get `info`.
///
/// # Errors
/// A verdict on a routine.
pub(super) fn tell_of_creation(
    cx: &mut Cx<'_>,
    key: u64,
    info: DriverPtr<PS_CREATE_NOTIFY_INFO>,
) -> Flow<()> {
    tell_processes(cx, key, true, info)
}

fn tell_processes(
    cx: &mut Cx<'_>,
    key: u64,
    is_new: bool,
    info: DriverPtr<PS_CREATE_NOTIFY_INFO>,
) -> Flow<()> {
    let found = cx.with(|k| {
        let process = k.ps.processes.get(&key)?;
        let found = (process.parent, process.id, process.object.address);
        Some(found).filter(|_| k.ps.notify.is_any(Of::Processes))
    });
    let Some((parent, id, object)) = found else { return Ok(()) };
    tell(cx, Of::Processes, |context| match context {
        PLAIN => Some([parent, id, is_new.into()]),
        // If an extended routine was registered while the others were called for a new process, there is no `info` for it.
        _ if is_new && info.is_null() => None,
        _ => Some([object, id, info.address]),
    })
}

/// A thread of a process with this key has been made, or ends.
///
/// # Errors
/// A verdict on a routine.
pub(crate) fn tell_of_thread(
    cx: &mut Cx<'_>,
    key: u64,
    thread: u64,
    is_new: bool,
    is_system: bool,
) -> Flow<()> {
    let process = cx.with(|k| {
        let id = k.ps.processes.get(&key).map_or(SYSTEM_ID, |process| process.id);
        k.ps.notify.is_any(Of::Threads).then_some(id)
    });
    let Some(process) = process else { return Ok(()) };
    tell(cx, Of::Threads, |context| {
        (context != NON_SYSTEM || !is_system).then_some([process, thread, is_new.into()])
    })
}

/// The image of a driver has been loaded, and has not run yet.
///
/// # Errors
/// A verdict on a routine.
pub(crate) fn tell_of_image(cx: &mut Cx<'_>, base: u64) -> Flow<()> {
    let image = cx.with(|k| {
        let loaded = k.ldr.images.get(&base).filter(|_| k.ps.notify.is_any(Of::Images))?;
        Some((format!("{}{}", ldr::FOLDER, loaded.name), u64::from(loaded.image.size())))
    });
    let Some((path, size)) = image else { return Ok(()) };
    tell_images(cx, &path, 0, (base, size, SYSTEM_IMAGE))
}

/// A process with this key has mapped an image, and the current thread is its.
///
/// # Errors
/// A verdict on a routine.
pub(super) fn tell_of_user_image(cx: &mut Cx<'_>, path: &str, key: u64, base: u64, size: u64) -> Flow<()> {
    let process = cx.with(|k| super::process::id_of(k, key));
    tell_images(cx, path, process, (base, size, USER_IMAGE))
}

/// An image, to each routine: its path, the id of its process, or 0, and where it is, its size and its properties.
fn tell_images(
    cx: &mut Cx<'_>,
    path: &str,
    process: u64,
    (base, size, properties): (u64, u64, u32),
) -> Flow<()> {
    with_string(cx, path, |cx, name: DriverPtr<UNICODE_STRING>| {
        let bytes = size_of::<IMAGE_INFO>() as u64;
        let info: DriverPtr<IMAGE_INFO> =
            pool::allocate(cx, pool::Kind::NonPaged, bytes, pool::tag(b"Psim"))?;
        if info.is_null() {
            return Ok(()); // this image has no notification
        }
        cx.write(info + IMAGE_INFO::Properties, properties)?;
        cx.write(info + IMAGE_INFO::ImageBase, DriverPtr::new(base))?;
        cx.write(info + IMAGE_INFO::ImageSize, size)?;
        tell(cx, Of::Images, |_| Some([name.address, process, info.address]))?;
        pool::free(cx, info)
    })
}
