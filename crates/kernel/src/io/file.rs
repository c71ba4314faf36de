//! Files: open instances of devices, as applications and `ZwCreateFile` get them.
//!
//! Pages: *CreateFileW function*, *ZwCreateFile function*, *FILE_OBJECT structure*, *IRP_MJ_CREATE*, *IRP_MJ_CLEANUP*,
//! *IRP_MJ_CLOSE*, *Starting a Device* ("the PnP manager … blocks create requests for the device until the start IRP succeeds"). What a name
//! means behind a device's is its driver's to say. Reading and writing is in `transfer`.

use abi::{
    DEVICE_OBJECT, DO_DEVICE_INITIALIZING, DO_EXCLUSIVE, DriverPtr, FILE_ALL_ACCESS, FILE_GENERIC_EXECUTE,
    FILE_GENERIC_READ, FILE_GENERIC_WRITE, FILE_NO_INTERMEDIATE_BUFFERING, FILE_OBJECT, FILE_OPEN,
    FILE_RANDOM_ACCESS, FILE_READ_ATTRIBUTES, FILE_READ_DATA, FILE_SEQUENTIAL_ONLY,
    FILE_SYNCHRONOUS_IO_ALERT, FILE_SYNCHRONOUS_IO_NONALERT, FILE_WRITE_DATA, FILE_WRITE_THROUGH,
    FO_ALERTABLE_IO, FO_CLEANUP_COMPLETE, FO_FILE_OPEN, FO_HANDLE_CREATED, FO_NO_INTERMEDIATE_BUFFERING,
    FO_RANDOM_ACCESS, FO_SEQUENTIAL_ONLY, FO_SYNCHRONOUS_IO, FO_WRITE_THROUGH, GENERIC_ALL, GENERIC_EXECUTE,
    GENERIC_READ, GENERIC_WRITE, IO_FORCE_ACCESS_CHECK, IO_TYPE_FILE, IRP_CLOSE_OPERATION, IRP_MJ_CLEANUP,
    IRP_MJ_CLOSE, IRP_SYNCHRONOUS_API, MAXIMUM_ALLOWED, NtStatus, SYNCHRONIZE, UNICODE_STRING,
};
use engine::Flow;

use super::asked::About;
use super::irp::Blocks;
use super::system_request::{self, Request};
use super::{asked, change, completion_port, create, device, file_lock, integrity, stack, unload};
use crate::cx::{Cx, Kernel};
use crate::mm::pool;
use crate::ob::handle::{self, Mode};
use crate::ob::names::Target;
use crate::ob::{self, Handle, Kind, Procedures};
use crate::{ke, pnp};

pub use super::operation::{Operation, Segments};
pub use super::overlapped::Overlapped;
pub use super::system_request::Answer;
pub use super::transfer::{Buffer, device_control, perform, read, start, write};

/// How a file is to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenOptions {
    /// `DesiredAccess`, generic rights included.
    pub access: u32,
    /// `ShareAccess`; devices do not look at it unless their driver does.
    pub share: u16,
    /// `CreateOptions`: `FILE_SYNCHRONOUS_IO_NONALERT` unless the handle is overlapped.
    pub options: u32,
    /// `CreateDisposition`.
    pub disposition: u32,
    /// `FileAttributes`.
    pub attributes: u16,
    /// `AllocationSize`: what a file that is made begins with.
    pub allocation: i64,
    /// `EaBuffer`: extended attributes, in memory of the caller's.
    pub extended: Buffer,
    /// `Options` of `IoCreateFile`.
    pub io_options: u32,
    /// The open file that the name counts from; 0 if it is a whole one.
    pub root: u64,
}

/// `FILE_SHARE_READ`, `_WRITE` and `_DELETE`.
pub(super) const SHARED: u16 = 7;

impl Default for OpenOptions {
    /// For reading and writing, synchronous.
    fn default() -> Self {
        Self {
            access: GENERIC_READ | GENERIC_WRITE,
            share: 0,
            options: FILE_SYNCHRONOUS_IO_NONALERT,
            disposition: FILE_OPEN,
            attributes: 0,
            allocation: 0,
            extended: Buffer::default(),
            io_options: 0,
            root: 0,
        }
    }
}

impl OpenOptions {
    /// For reading and writing, overlapped.
    #[must_use]
    pub fn overlapped() -> Self {
        Self { options: 0, ..Self::default() }
    }
}

/// What the I/O manager knows of a file beside what drivers see.
pub(crate) struct File {
    /// The driver was asked and agreed: it gets `IRP_MJ_CLOSE`.
    opened: bool,
    /// The device whose drivers are being asked; 0 if none are.
    asked: u64,
    /// As the application named it; empty if a driver opened it.
    path: String,
}

/// What the I/O manager remembers of an application's request while its IRP is under way.
pub(crate) struct Issue {
    /// `ReadFile`, `DeviceIoControl`, …
    pub(crate) name: &'static str,
    /// The file, on which the request holds a reference.
    pub(crate) file: u64,
    /// An event of the requester's, with a reference; 0 if none.
    pub(crate) event: u64,
    /// If it is pended, the requester goes on, and the answer is delivered when it comes.
    pub(crate) answered_later: bool,
    /// What a completion port calls it by; 0 if no port gets it.
    pub(crate) context: u64,
    /// The thread that gets a user APC with its end; 0 if none does.
    pub(crate) apc: u64,
    /// Its number, if requests are read and it is an application's; else 0.
    pub(crate) request: u64,
    /// Where its IRP and system buffer lie, if it took the fast path: see `fast_path`.
    pub(crate) blocks: Option<Blocks>,
}

const TAG: u32 = pool::tag(b"File");

static PROCEDURES: Procedures = Procedures { close: closed, delete };

/// What an application's `CreateFile` does: `path` as `\\.\Name`, `\\?\pci#…`, or an NT name.
///
/// # Errors
/// (inner) why it cannot be opened: the status of the name, or of the driver.
pub fn open(cx: &mut Cx<'_>, path: &str, options: &OpenOptions) -> Flow<Result<Handle, NtStatus>> {
    ke::patience::renew(cx);
    let number = asked::begin(cx, "CreateFile", |_| About::file(path.to_owned()));
    let mut options = *options;
    options.access |= SYNCHRONIZE | FILE_READ_ATTRIBUTES;
    let result = create(cx, &nt_path(path), &options, Mode::User, false)?.map(|opened| opened.handle);
    if let Ok(handle) = result
        && let Ok(entry) = handle::entry(cx, handle, Mode::User)
    {
        cx.with(|k| {
            k.io.files.entry(entry.object).and_modify(|file| path.clone_into(&mut file.path));
        });
    }
    let answer = Answer::failed(result.err().unwrap_or(NtStatus::SUCCESS));
    asked::end(cx, number, "CreateFile", answer);
    Ok(result)
}

/// `\\.\X` and `\\?\X` are `\??\X`; anything else is an NT name already.
fn nt_path(path: &str) -> String {
    match path.strip_prefix("\\\\.\\").or_else(|| path.strip_prefix("\\\\?\\")) {
        Some(name) => format!("\\??\\{name}"),
        None => path.to_owned(),
    }
}

/// An open file as its application named it, for people; else the handle's number.
pub(crate) fn shown(cx: &mut Cx<'_>, handle: Handle) -> String {
    let entry = handle::entry(cx, handle, Mode::User).ok();
    let path =
        entry.and_then(|entry| cx.with(|k| k.io.files.get(&entry.object).map(|file| file.path.clone())));
    path.filter(|path| !path.is_empty()).unwrap_or_else(|| format!("{:#x}", handle.0))
}

/// What an application's `CloseHandle` does; at its end all requests of the file that drivers still have stay with them.
///
/// # Errors
/// A verdict on a driver.
pub fn close(cx: &mut Cx<'_>, handle: Handle) -> Flow<NtStatus> {
    ke::patience::renew(cx);
    let number = asked::begin(cx, "CloseHandle", |cx| About::file(shown(cx, handle)));
    let status = ob::handle::close(cx, handle)?.err().unwrap_or(NtStatus::SUCCESS);
    asked::end(cx, number, "CloseHandle", Answer::failed(status));
    Ok(status)
}

/// What `CancelIo` does: cancels what the running thread has under way on this handle.
///
/// # Errors
/// A verdict on a driver.
pub fn cancel_io(cx: &mut Cx<'_>, handle: Handle) -> Flow<NtStatus> {
    cancel(cx, handle, "CancelIo", false)
}

/// What `CancelIoEx` does without an `OVERLAPPED`: cancels what any thread has under way on this file.
///
/// # Errors
/// A verdict on a driver.
pub fn cancel_io_ex(cx: &mut Cx<'_>, handle: Handle) -> Flow<NtStatus> {
    cancel(cx, handle, "CancelIoEx", true)
}

fn cancel(cx: &mut Cx<'_>, handle: Handle, name: &'static str, every: bool) -> Flow<NtStatus> {
    let number = asked::begin(cx, name, |cx| About::file(shown(cx, handle)));
    let status = match handle::reference(cx, handle, Some(Kind::File), 0, Mode::User)? {
        Err(status) => status,
        Ok(entry) => {
            let status = super::cancel::cancel_file(cx, entry.object, every)?;
            ob::object::dereference(cx, DriverPtr::<FILE_OBJECT>::new(entry.object))?;
            status
        }
    };
    asked::end(cx, number, name, Answer::failed(status));
    Ok(status)
}

/// `GENERIC_*` as what they mean for files.
pub(crate) const fn map_generic(access: u32) -> u32 {
    let mut mapped = access & 0x0FFF_FFFF & !MAXIMUM_ALLOWED;
    if access & GENERIC_READ != 0 {
        mapped |= FILE_GENERIC_READ;
    }
    if access & GENERIC_WRITE != 0 {
        mapped |= FILE_GENERIC_WRITE;
    }
    if access & GENERIC_EXECUTE != 0 {
        mapped |= FILE_GENERIC_EXECUTE;
    }
    if access & (GENERIC_ALL | MAXIMUM_ALLOWED) != 0 {
        mapped |= FILE_ALL_ACCESS;
    }
    mapped
}

/// What an open comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Opened {
    pub(crate) handle: Handle,
    /// What the driver says that it did: `FILE_CREATED`, …
    pub(crate) information: u64,
}

/// Opens a device by name and gives the running thread's process (or the kernel) a handle.
///
/// # Errors
/// (inner) why it cannot be opened.
pub(crate) fn create(
    cx: &mut Cx<'_>,
    path: &str,
    options: &OpenOptions,
    mode: Mode,
    kernel_handle: bool,
) -> Flow<Result<Opened, NtStatus>> {
    let Answered { file, access, information } = match open_device(cx, path, options, mode)? {
        Ok(answered) => answered,
        Err(status) => return Ok(Err(status)),
    };
    let handle = handle::open(cx, file.address, access, kernel_handle)?;
    let flags = cx.read(file + FILE_OBJECT::Flags)?;
    cx.write(file + FILE_OBJECT::Flags, flags | FO_HANDLE_CREATED)?;
    ob::object::dereference(cx, file)?;
    Ok(Ok(Opened { handle, information }))
}

/// The device that a name leads to, and what of the name is left for its driver.
fn find_device(
    cx: &mut Cx<'_>,
    path: &str,
    root: u64,
) -> Flow<Result<(DriverPtr<DEVICE_OBJECT>, String), NtStatus>> {
    if root != 0 {
        let device = cx.read(DriverPtr::new(root) + FILE_OBJECT::DeviceObject)?;
        return Ok(Ok((device, path.to_owned())));
    }
    let found = match cx.with(|k| k.ob.names.resolve(path)) {
        Ok(found) => found,
        Err(status) => return Ok(Err(status)),
    };
    Ok(match found.target {
        Target::Object(body) if ob::object::kind(cx, body) == Some(Kind::Device) => {
            Ok((DriverPtr::new(body), found.rest))
        }
        _ => Err(NtStatus::OBJECT_TYPE_MISMATCH),
    })
}

/// A file that its driver has agreed to.
struct Answered {
    file: DriverPtr<FILE_OBJECT>,
    /// What was granted.
    access: u32,
    /// What the driver says that it did.
    information: u64,
}

/// Asks the device that a name leads to.
fn open_device(
    cx: &mut Cx<'_>,
    path: &str,
    options: &OpenOptions,
    mode: Mode,
) -> Flow<Result<Answered, NtStatus>> {
    let (device, name) = match find_device(cx, path, options.root)? {
        Ok(found) => found,
        Err(status) => return Ok(Err(status)),
    };
    if let Err(status) = take_device(cx, device)? {
        return Ok(Err(status));
    }
    let checked = mode == Mode::User || options.io_options & IO_FORCE_ACCESS_CHECK != 0;
    let granted =
        if checked { create::granted(cx, device, &name, options.access)? } else { Ok(options.access) };
    let options = match granted {
        Ok(access) => OpenOptions { access, ..*options },
        Err(status) => {
            release_device(cx, device)?;
            return Ok(Err(status));
        }
    };
    let Some(file) = new_file(cx, device, &name, &options)? else {
        release_device(cx, device)?;
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    };
    let asked = |cx: &mut Cx<'_>, device: u64| {
        cx.with(|k| change(&mut k.io.files, file.address, |file| file.asked = device));
    };
    asked(cx, device.address);
    let answer = create::ask_driver(cx, device, file, &options, mode)?;
    asked(cx, 0);
    if !answer.status.is_success() {
        ob::object::dereference(cx, file)?;
        return Ok(Err(answer.status));
    }
    cx.with(|k| change(&mut k.io.files, file.address, |file| file.opened = true));
    let flags = cx.read(file + FILE_OBJECT::Flags)?;
    cx.write(file + FILE_OBJECT::Flags, flags | FO_FILE_OPEN)?;
    // It is set while the driver is asked, and the related file may be gone later.
    cx.write(file + FILE_OBJECT::RelatedFileObject, DriverPtr::NULL)?;
    Ok(Ok(Answered { file, access: map_generic(options.access), information: answer.information }))
}

/// Whether the drivers of a device are being asked to open a file: by its physical device object.
pub(crate) fn is_being_opened(k: &Kernel, bottom: DriverPtr<DEVICE_OBJECT>) -> bool {
    let asked = k.io.files.values().map(|file| file.asked).filter(|device| *device != 0);
    asked.into_iter().any(|device| stack::bottom(k, DriverPtr::new(device)) == bottom)
}

/// Counts one more file on the device, if it can be opened now.
fn take_device(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<Result<(), NtStatus>> {
    let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
    let going = cx.with(|k| {
        k.io.devices.get(device.address).is_none_or(|d| d.delete_pending || d.deleted || d.going)
            || !pnp::node::can_be_opened(k, device)
            || unload::going(k, device).is_some()
    });
    if !going {
        integrity::check_device(cx, device)?;
    }
    if going || flags & DO_DEVICE_INITIALIZING != 0 {
        return Ok(Err(NtStatus::NO_SUCH_DEVICE));
    }
    let count = cx.read(device + DEVICE_OBJECT::ReferenceCount)?;
    if flags & DO_EXCLUSIVE != 0 && count > 0 {
        return Ok(Err(NtStatus::ACCESS_DENIED));
    }
    cx.write(device + DEVICE_OBJECT::ReferenceCount, count.wrapping_add(1))?;
    Ok(Ok(()))
}

fn release_device(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let count = cx.read(device + DEVICE_OBJECT::ReferenceCount)?;
    cx.write(device + DEVICE_OBJECT::ReferenceCount, count.wrapping_sub(1))?;
    pnp::surprise::file_closed(cx, device)?;
    let going = cx.with(|k| unload::going(k, device));
    device::finish_deletion(cx, device)?;
    match going {
        Some(driver) => unload::file_closed(cx, driver),
        None => Ok(()),
    }
}

fn new_file(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    name: &str,
    options: &OpenOptions,
) -> Flow<Option<DriverPtr<FILE_OBJECT>>> {
    let size = size_of::<FILE_OBJECT>();
    let file: DriverPtr<FILE_OBJECT> = pool::allocate(cx, pool::Kind::NonPaged, size as u64, TAG)?;
    if file.is_null() {
        return Ok(None);
    }
    let access = map_generic(options.access);
    cx.write(file + FILE_OBJECT::Type, IO_TYPE_FILE)?;
    cx.write(file + FILE_OBJECT::Size, i16::try_from(size).unwrap_or(i16::MAX))?;
    cx.write(file + FILE_OBJECT::DeviceObject, device)?;
    cx.write(file + FILE_OBJECT::Flags, file_flags(options.options))?;
    cx.write(file + FILE_OBJECT::RelatedFileObject, DriverPtr::new(options.root))?;
    cx.write(file + FILE_OBJECT::ReadAccess, u8::from(access & FILE_READ_DATA != 0))?;
    cx.write(file + FILE_OBJECT::WriteAccess, u8::from(access & FILE_WRITE_DATA != 0))?;
    ke::event::initialize(cx, file + FILE_OBJECT::Lock, 1, false)?;
    ke::event::initialize(cx, file + FILE_OBJECT::Event, 0, false)?;
    let list = file + FILE_OBJECT::IrpList;
    ke::links::initialize(cx.engine(), list).map_err(|bad| cx.bad_pointer(bad))?;
    ob::string::allocate(cx, file + FILE_OBJECT::FileName, name, pool::Kind::Paged, TAG)?;
    ob::object::create(cx, file.address, Kind::File, "", &PROCEDURES)
        .expect("an object without a name cannot collide");
    cx.with(|k| k.io.files.insert(file.address, File { opened: false, asked: 0, path: String::new() }));
    Ok(Some(file))
}

/// A file of this name that its driver never received a request for, with a reference. None if there is no memory.
///
/// # Errors
/// A verdict on a damaged device object.
pub(crate) fn stand_in(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    name: &str,
) -> Flow<Option<DriverPtr<FILE_OBJECT>>> {
    if take_device(cx, device)?.is_err() {
        return Ok(None);
    }
    let file = new_file(cx, device, name, &OpenOptions::default())?;
    if file.is_none() {
        release_device(cx, device)?;
    }
    Ok(file)
}

fn file_flags(options: u32) -> u32 {
    const MEANINGS: [(u32, u32); 6] = [
        (FILE_SYNCHRONOUS_IO_ALERT, FO_SYNCHRONOUS_IO | FO_ALERTABLE_IO),
        (FILE_SYNCHRONOUS_IO_NONALERT, FO_SYNCHRONOUS_IO),
        (FILE_NO_INTERMEDIATE_BUFFERING, FO_NO_INTERMEDIATE_BUFFERING),
        (FILE_WRITE_THROUGH, FO_WRITE_THROUGH),
        (FILE_SEQUENTIAL_ONLY, FO_SEQUENTIAL_ONLY),
        (FILE_RANDOM_ACCESS, FO_RANDOM_ACCESS),
    ];
    MEANINGS.iter().filter(|(option, _)| options & option != 0).fold(0, |flags, (_, flag)| flags | flag)
}

/// A handle to a file was closed: with the last one its driver cleans up.
fn closed(cx: &mut Cx<'_>, file: u64, _process: u64, _of_process: u32, of_all: u32) -> Flow<()> {
    if of_all > 0 {
        return Ok(());
    }
    let file = DriverPtr::<FILE_OBJECT>::new(file);
    let device = cx.read(file + FILE_OBJECT::DeviceObject)?;
    // A synchronous file does one request at a time, and this is one: it comes behind another thread's.
    let synchronous = cx.read(file + FILE_OBJECT::Flags)? & FO_SYNCHRONOUS_IO != 0;
    if synchronous {
        file_lock::acquire(cx, file)?;
    }
    let request =
        Request { file, flags: IRP_CLOSE_OPERATION | IRP_SYNCHRONOUS_API, ..Request::new(IRP_MJ_CLEANUP, 0) };
    let _ = system_request::send(cx, device, &request)?;
    if synchronous {
        file_lock::release(cx, file)?;
    }
    let flags = cx.read(file + FILE_OBJECT::Flags)?;
    cx.write(file + FILE_OBJECT::Flags, flags | FO_CLEANUP_COMPLETE)
}

/// Another name for an open file, as a file system gives it whose file was opened relative to another.
///
/// # Errors
/// A verdict on a damaged file object.
pub(crate) fn rename(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>, name: &str) -> Flow<()> {
    let old = cx.read((file + FILE_OBJECT::FileName) + UNICODE_STRING::Buffer)?;
    // Without memory it keeps its old name.
    if ob::string::allocate(cx, file + FILE_OBJECT::FileName, name, pool::Kind::Paged, TAG)? && !old.is_null()
    {
        pool::free(cx, old)?;
    }
    Ok(())
}

/// The last reference is gone.
fn delete(cx: &mut Cx<'_>, file: u64) -> Flow<()> {
    let file = DriverPtr::<FILE_OBJECT>::new(file);
    let device = cx.read(file + FILE_OBJECT::DeviceObject)?;
    let opened = cx.with(|k| k.io.files.remove(&file.address).is_some_and(|file| file.opened));
    if opened {
        let request = Request {
            file,
            flags: IRP_CLOSE_OPERATION | IRP_SYNCHRONOUS_API,
            ..Request::new(IRP_MJ_CLOSE, 0)
        };
        let _ = system_request::send(cx, device, &request)?;
    }
    let name = cx.read((file + FILE_OBJECT::FileName) + UNICODE_STRING::Buffer)?;
    if !name.is_null() {
        pool::free(cx, name)?;
    }
    completion_port::forget(cx, file)?;
    cx.with(|k| k.io.openers.gone(file.address));
    pool::free(cx, file)?;
    release_device(cx, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn win32_paths_become_names_in_dosdevices() {
        assert_eq!(nt_path("\\\\.\\Foo"), "\\??\\Foo");
        assert_eq!(nt_path("\\\\?\\pci#ven_10b5#{guid}"), "\\??\\pci#ven_10b5#{guid}");
        assert_eq!(nt_path("\\Device\\Foo"), "\\Device\\Foo");
    }

    #[test]
    fn generic_rights_become_a_files_own() {
        assert_eq!(map_generic(GENERIC_READ) & FILE_READ_DATA, FILE_READ_DATA);
        assert_eq!(map_generic(GENERIC_READ) & FILE_WRITE_DATA, 0);
        assert_eq!(map_generic(MAXIMUM_ALLOWED), FILE_ALL_ACCESS);
    }
}
