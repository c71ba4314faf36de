//! What drivers want to be told of: processes, threads and images that come and go.
//!
//! Pages: *PsSetCreateProcessNotifyRoutine function*, *PsSetCreateThreadNotifyRoutine function*, *PsSetLoadImageNotifyRoutine function*,
//! *PsRemoveCreateThreadNotifyRoutine function*, *PsRemoveLoadImageNotifyRoutine function*. Routines are called at PASSIVE_LEVEL in a critical
//! region, as the pages say. A thread of an application that no thread has made tells of itself. Applications' images are not there,
//! so only drivers' are told of; for the same reason PsSetCreateProcessNotifyRoutineEx, which gives a process's file, is not here.

use abi::{Code, DriverPtr, IMAGE_INFO, NtStatus, UNICODE_STRING};
use engine::Flow;

use crate::cx::{Cx, Kernel};
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
const SYSTEM_IMAGE: u32 = 3 | 1 << 8;

/// `PS_IMAGE_NOTIFY_CONFLICTING_ARCHITECTURE`.
const CONFLICTING_ARCHITECTURE: u64 = 1;

/// Of what a routine is told.
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

    const fn role(self) -> &'static str {
        match self {
            Self::Processes => "CreateProcessNotifyRoutine",
            Self::Threads => "CreateThreadNotifyRoutine",
            Self::Images => "LoadImageNotifyRoutine",
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

    /// Whether a routine is told of these.
    pub(crate) fn is_any(&self, of: Of) -> bool {
        self.of(of).len() > 0
    }

    /// Whether a routine is told of anything that a thread's begin or end can be.
    pub(crate) fn is_told_of_threads(&self) -> bool {
        self.is_any(Of::Threads) || self.is_any(Of::Processes)
    }

    /// All routines, each with what it is told of.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, DriverPtr<Code>)> {
        Of::ALL.into_iter().flat_map(|of| self.of(of).code().map(move |code| (of.role(), code)))
    }
}

fn list_of(of: Of) -> impl routines::List {
    move |k: &mut Kernel| Some(&mut k.ps.notify.0[of as usize])
}

fn add(cx: &mut Cx<'_>, of: Of, code: DriverPtr<Code>) -> NtStatus {
    cx.with(|k| {
        let list = &mut k.ps.notify.0[of as usize];
        if list.len() == MOST {
            return NtStatus::INSUFFICIENT_RESOURCES;
        }
        list.add(code.address, Routine { code, context: 0 });
        NtStatus::SUCCESS
    })
}

fn remove(cx: &mut Cx<'_>, of: Of, code: DriverPtr<Code>, ddi: &str) -> Flow<NtStatus> {
    let found = routines::remove(cx, list_of(of), code.address, ddi)?;
    Ok(if found { NtStatus::SUCCESS } else { NtStatus::PROCEDURE_NOT_FOUND })
}

/// `PsSetCreateProcessNotifyRoutine`. One that is there already, or one too many, is an invalid parameter.
///
/// # Errors
/// A verdict if the routine runs and the caller may not wait for it.
pub fn set_create_process(cx: &mut Cx<'_>, code: DriverPtr<Code>, remove_it: bool) -> Flow<NtStatus> {
    if remove_it {
        return remove(cx, Of::Processes, code, "PsSetCreateProcessNotifyRoutine");
    }
    if cx.with(|k| k.ps.notify.of(Of::Processes).has(code.address)) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    Ok(match add(cx, Of::Processes, code) {
        NtStatus::INSUFFICIENT_RESOURCES => NtStatus::INVALID_PARAMETER,
        status => status,
    })
}

/// `PsSetCreateThreadNotifyRoutine`.
///
/// # Errors
/// None.
pub fn set_create_thread(cx: &mut Cx<'_>, code: DriverPtr<Code>) -> Flow<NtStatus> {
    Ok(add(cx, Of::Threads, code))
}

/// `PsRemoveCreateThreadNotifyRoutine`.
///
/// # Errors
/// As [`set_create_process`].
pub fn remove_create_thread(cx: &mut Cx<'_>, code: DriverPtr<Code>) -> Flow<NtStatus> {
    remove(cx, Of::Threads, code, "PsRemoveCreateThreadNotifyRoutine")
}

/// `PsSetLoadImageNotifyRoutine`.
///
/// # Errors
/// None.
pub fn set_load_image(cx: &mut Cx<'_>, code: DriverPtr<Code>) -> Flow<NtStatus> {
    Ok(add(cx, Of::Images, code))
}

/// `PsSetLoadImageNotifyRoutineEx`: with `PS_IMAGE_NOTIFY_CONFLICTING_ARCHITECTURE` a routine is told of images of another architecture,
/// too, of which there are none.
///
/// # Errors
/// None.
pub fn set_load_image_ex(cx: &mut Cx<'_>, code: DriverPtr<Code>, flags: u64) -> Flow<NtStatus> {
    if flags & !CONFLICTING_ARCHITECTURE != 0 {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    set_load_image(cx, code)
}

/// `PsRemoveLoadImageNotifyRoutine`.
///
/// # Errors
/// As [`set_create_process`].
pub fn remove_load_image(cx: &mut Cx<'_>, code: DriverPtr<Code>) -> Flow<NtStatus> {
    remove(cx, Of::Images, code, "PsRemoveLoadImageNotifyRoutine")
}

fn tell(cx: &mut Cx<'_>, of: Of, arguments: &[u64]) -> Flow<()> {
    routines::call_all(cx, list_of(of), |cx, routine| {
        region::enter_critical(cx)?;
        call_routine(cx, of.role(), routine.code, 0, arguments)?;
        region::leave_critical(cx)
    })
}

/// A process has been made, by the current thread; or it ends.
///
/// # Errors
/// A verdict on a routine.
pub fn tell_of_process(cx: &mut Cx<'_>, key: u64, is_new: bool) -> Flow<()> {
    let ids = cx.with(|k| {
        let process = k.ps.processes.get(&key)?;
        Some((process.parent, process.id)).filter(|_| k.ps.notify.is_any(Of::Processes))
    });
    let Some((parent, id)) = ids else { return Ok(()) };
    tell(cx, Of::Processes, &[parent, id, is_new.into()])
}

/// A thread of a process with this key has been made, or ends.
///
/// # Errors
/// A verdict on a routine.
pub(crate) fn tell_of_thread(cx: &mut Cx<'_>, key: u64, thread: u64, is_new: bool) -> Flow<()> {
    let process = cx.with(|k| {
        let id = k.ps.processes.get(&key).map_or(SYSTEM_ID, |process| process.id);
        k.ps.notify.is_any(Of::Threads).then_some(id)
    });
    let Some(process) = process else { return Ok(()) };
    tell(cx, Of::Threads, &[process, thread, is_new.into()])
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
    with_string(cx, &path, |cx, name: DriverPtr<UNICODE_STRING>| {
        let bytes = size_of::<IMAGE_INFO>() as u64;
        let info: DriverPtr<IMAGE_INFO> =
            pool::allocate(cx, pool::Kind::NonPaged, bytes, pool::tag(b"Psim"))?;
        if info.is_null() {
            return Ok(()); // they are told of the next
        }
        cx.write(info + IMAGE_INFO::Properties, SYSTEM_IMAGE)?;
        cx.write(info + IMAGE_INFO::ImageBase, DriverPtr::new(base))?;
        cx.write(info + IMAGE_INFO::ImageSize, size)?;
        tell(cx, Of::Images, &[name.address, 0, info.address])?;
        pool::free(cx, info)
    })
}
