//! What drivers get about a process that is created, and their refusal of it.
//!
//! Pages: *PsSetCreateProcessNotifyRoutineEx function*, *PsSetCreateProcessNotifyRoutineEx2 function*, *PCREATE_PROCESS_NOTIFY_ROUTINE_EX callback function*,
//! *PS_CREATE_NOTIFY_INFO structure*. A driver that sets `CreationStatus` to an error prevents the process from being created; the other routines are
//! called all the same, and for its end. An application here has no image: if the machine has a folder in which there is a file of its name, that is
//! what `FileObject` has open, else a file of that name on a volume without a name, which answers no request.

use abi::{
    CLIENT_ID, DEVICE_OBJECT, DO_DEVICE_INITIALIZING, DRIVER_OBJECT, DRVO_BUILTIN_DRIVER, DriverPtr,
    FILE_DEVICE_DISK_FILE_SYSTEM, FILE_EXECUTE, FILE_OBJECT, NtStatus, PS_CREATE_NOTIFY_INFO, UNICODE_STRING,
};
use engine::Flow;

use super::notify;
use crate::cx::Cx;
use crate::io;
use crate::io::driver::{self, with_string};
use crate::io::file::{self, OpenOptions};
use crate::mm::pool;
use crate::ob::handle::{self, Mode};
use crate::verdict::Verdict;
use crate::{fs, ob};

/// `PS_CREATE_NOTIFY_INFO::FileOpenNameAvailable`.
const FILE_OPEN_NAME_AVAILABLE: u32 = 1;
/// `FILE_SHARE_READ`.
const SHARE_READ: u16 = 1;
const TAG: u32 = pool::tag(b"PsCr");

/// A process has been made, by the current thread, with this command line: what drivers say to it, a failure if one prevents it.
///
/// # Errors
/// A verdict on a routine.
pub fn tell(cx: &mut Cx<'_>, key: u64, command: &str) -> Flow<NtStatus> {
    if !cx.with(|k| k.ps.notify.has_extended()) {
        notify::tell_of_process(cx, key, true)?;
        return Ok(NtStatus::SUCCESS);
    }
    let name = cx.with(|k| super::process::name(k, key));
    let image = if name.contains(':') { format!(r"\??\{name}") } else { format!(r"\??\C:\{name}") };
    let Some((file, opened)) = image_file(cx, &image)? else {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    };
    let status = with_string(cx, &image, |cx, image| {
        with_string(cx, command, |cx, command| tell_with(cx, key, file, image, command))
    })?;
    match opened {
        Some(handle) => drop(handle::close(cx, handle)?),
        None => drop(ob::object::dereference(cx, file)?),
    }
    Ok(status)
}

fn tell_with(
    cx: &mut Cx<'_>,
    key: u64,
    file: DriverPtr<FILE_OBJECT>,
    image: DriverPtr<UNICODE_STRING>,
    command: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let size = size_of::<PS_CREATE_NOTIFY_INFO>() as u64;
    let info: DriverPtr<PS_CREATE_NOTIFY_INFO> = pool::allocate(cx, pool::Kind::NonPaged, size, TAG)?;
    if info.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let (parent, process, thread) = cx.with(|k| {
        let parent = k.ps.processes.get(&key).map_or(0, |process| process.parent);
        let thread = k.ke.thread();
        let process = thread.map_or(0, |thread| thread.home());
        (parent, super::process::id_of(k, process), k.ke.thread().map_or(0, |thread| thread.id))
    });
    cx.write(info + PS_CREATE_NOTIFY_INFO::Size, size)?;
    cx.write(info + PS_CREATE_NOTIFY_INFO::Flags, FILE_OPEN_NAME_AVAILABLE)?;
    cx.write(info + PS_CREATE_NOTIFY_INFO::ParentProcessId, parent)?;
    let creator = info + PS_CREATE_NOTIFY_INFO::CreatingThreadId;
    cx.write(creator + CLIENT_ID::UniqueProcess, process)?;
    cx.write(creator + CLIENT_ID::UniqueThread, thread)?;
    cx.write(info + PS_CREATE_NOTIFY_INFO::FileObject, file)?;
    cx.write(info + PS_CREATE_NOTIFY_INFO::ImageFileName, image)?;
    cx.write(info + PS_CREATE_NOTIFY_INFO::CommandLine, command)?;
    cx.write(info + PS_CREATE_NOTIFY_INFO::CreationStatus, NtStatus::SUCCESS)?;
    notify::tell_of_creation(cx, key, info)?;
    let status = cx.read(info + PS_CREATE_NOTIFY_INFO::CreationStatus)?;
    pool::free(cx, info)?;
    Ok(status)
}

/// The file of an image with a reference, and the kernel's handle if it is open. None if there is no memory.
fn image_file(cx: &mut Cx<'_>, path: &str) -> Flow<Option<(DriverPtr<FILE_OBJECT>, Option<ob::Handle>)>> {
    if cx.with(|k| fs::is_mounted(k)) {
        let options = OpenOptions { access: FILE_EXECUTE, share: SHARE_READ, ..OpenOptions::default() };
        if let Ok(opened) = file::create(cx, path, &options, Mode::Kernel, true)?
            && let Ok(entry) = handle::entry(cx, opened.handle, Mode::Kernel)
        {
            return Ok(Some((DriverPtr::new(entry.object), Some(opened.handle))));
        }
    }
    let device = volume(cx)?;
    let name = path.split_once(':').map_or(path, |(_, name)| name);
    Ok(file::stand_in(cx, device, name)?.map(|file| (file, None)))
}

/// The volume of images that are in no folder: made when it is asked for first.
fn volume(cx: &mut Cx<'_>) -> Flow<DriverPtr<DEVICE_OBJECT>> {
    let known = cx.with(|k| k.ps.image_volume);
    if known != 0 {
        return Ok(DriverPtr::new(known));
    }
    let new = driver::NewDriver {
        directory: r"\FileSystem",
        service: "RAW".to_owned(),
        base: 0,
        size: 0,
        entry: DriverPtr::NULL,
        section: DriverPtr::NULL,
    };
    let Ok(driver) = driver::create_driver(cx, &new)? else {
        return Err(cx.stop(Verdict::not_implemented(r"a machine in which \FileSystem\RAW is taken")));
    };
    let flags = cx.read(driver + DRIVER_OBJECT::Flags)?;
    cx.write(driver + DRIVER_OBJECT::Flags, flags | DRVO_BUILTIN_DRIVER)?;
    let new = io::device::NewDevice {
        extension: 0,
        name: String::new(),
        device_type: FILE_DEVICE_DISK_FILE_SYSTEM,
        characteristics: 0,
        exclusive: false,
    };
    let Ok(device) = io::device::create(cx, driver, new)? else {
        return Err(cx.stop(Verdict::not_implemented("running out of memory for a volume's device")));
    };
    let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
    cx.write(device + DEVICE_OBJECT::Flags, flags & !DO_DEVICE_INITIALIZING)?;
    cx.with(|k| k.ps.image_volume = device.address);
    Ok(device)
}
