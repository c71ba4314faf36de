//! Files as drivers open and use them: the `Zw` routines, over what applications get.
//!
//! Pages: *ZwCreateFile function*, *ZwOpenFile function*, *ZwReadFile function*, *ZwWriteFile function*,
//! *ZwDeviceIoControlFile function*. A machine has a disk if it was given a folder (`fs`); without one a file on a disk is not found,
//! which is reported once as advice that names the option: a driver may look for a file that need not be there, so it is no error.

use abi::{
    DELETE, DriverPtr, FILE_APPEND_DATA, FILE_CREATE, FILE_DELETE_ON_CLOSE, FILE_DIRECTORY_FILE,
    FILE_DOES_NOT_EXIST, FILE_EXISTS, FILE_NO_INTERMEDIATE_BUFFERING, FILE_NON_DIRECTORY_FILE, FILE_OBJECT,
    FILE_OPEN, FILE_OPEN_IF, FILE_OVERWRITE_IF, FILE_SYNCHRONOUS_IO_ALERT, FILE_SYNCHRONOUS_IO_NONALERT,
    IO_FORCE_ACCESS_CHECK, IO_STATUS_BLOCK, IRP_MN_FLUSH_DATA_ONLY, IRP_MN_FLUSH_DATA_SYNC_ONLY,
    IRP_MN_FLUSH_NO_SYNC, IRP_MN_LOCK, IRP_MN_UNLOCK_SINGLE, NtStatus, OBJ_FORCE_ACCESS_CHECK,
    OBJECT_ATTRIBUTES, SL_EXCLUSIVE_LOCK, SL_FAIL_IMMEDIATELY, SYNCHRONIZE,
};
use engine::{Args, Flow};
use zerocopy::{FromBytes, IntoBytes};

use super::create;
use super::file::{self, OpenOptions, Opened};
use super::operation::{ByteRange, Operation};
use super::transfer::{self, Buffer, Request};
use crate::cx::Cx;
use crate::fs;
use crate::ke::{irql, region};
use crate::ob::attributes::Attributes;
use crate::ob::handle::Mode;
use crate::ob::{self, Handle};
use crate::verdict::Verdict;

/// Bytes of an `IO_DRIVER_CREATE_CONTEXT`: its size, and four pointers.
const IO_DRIVER_CREATE_CONTEXT_SIZE: u32 = 0x28;

/// `ZwCreateFile`.
///
/// # Errors
/// A verdict if a pointer is bad, or on a driver.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn create_file(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    allocation_size: DriverPtr<i64>,
    file_attributes: u32,
    share: u32,
    disposition: u32,
    options: u32,
    ea: u64,
    ea_length: u32,
) -> Flow<NtStatus> {
    let how = [file_attributes, share, disposition, options];
    let options = options_of(cx, access, allocation_size, how, (ea, ea_length))?;
    open(cx, handle, attributes, status_block, &options)
}

/// The options that `ZwCreateFile` and `IoCreateFile` share: attributes, share access, disposition and options, extended attributes.
fn options_of(
    cx: &mut Cx<'_>,
    access: u32,
    allocation_size: DriverPtr<i64>,
    [attributes, share, disposition, options]: [u32; 4],
    (ea, ea_length): (u64, u32),
) -> Flow<OpenOptions> {
    Ok(OpenOptions {
        access,
        share: u16::try_from(share & 7).unwrap_or(0),
        options,
        disposition,
        attributes: u16::try_from(attributes & 0xFFFF).unwrap_or(0),
        allocation: optional(cx, allocation_size)?.unwrap_or(0),
        extended: if ea == 0 { Buffer::default() } else { Buffer { address: ea, length: ea_length } },
        io_options: 0,
        root: 0,
    })
}

/// `IoCreateFile`: as [`create_file`], with more options; a create file type other than 0 (pipes, mailslots) is refused.
///
/// # Errors
/// As [`create_file`].
pub(crate) fn io_create_file(cx: &mut Cx<'_>, args: &Args) -> Flow<NtStatus> {
    let given = arguments(cx, args)?;
    io_create(cx, "IoCreateFile", given)
}

/// `IoCreateFileEx`: as [`io_create_file`]. What its driver context can say (a filter's device to begin at, extra parameters, a
/// transaction) is refused.
///
/// # Errors
/// As [`create_file`].
pub(crate) fn io_create_file_ex(cx: &mut Cx<'_>, args: &Args) -> Flow<NtStatus> {
    const SIZE: u64 = 8;
    let context: u64 = cx.read(DriverPtr::new(args.slot(14)))?;
    for at in (SIZE..u64::from(IO_DRIVER_CREATE_CONTEXT_SIZE)).step_by(8) {
        if context != 0 && cx.read(DriverPtr::<u64>::new(context + at))? != 0 {
            return Err(
                cx.stop(Verdict::not_implemented("IoCreateFileEx with something in its DriverContext"))
            );
        }
    }
    let given = arguments(cx, args)?;
    io_create(cx, "IoCreateFileEx", given)
}

/// The arguments that `IoCreateFile` and `IoCreateFileEx` have in common.
fn arguments(cx: &mut Cx<'_>, args: &Args) -> Flow<[u64; 14]> {
    let mut given = [0; 14];
    for (index, value) in (0..).zip(&mut given) {
        *value = cx.read(DriverPtr::new(args.slot(index)))?;
    }
    Ok(given)
}

fn io_create(cx: &mut Cx<'_>, ddi: &str, given: [u64; 14]) -> Flow<NtStatus> {
    let low = super::call::low_half;
    if low(given[11]) != 0 {
        return Err(cx.stop(Verdict::not_implemented(&format!("{ddi} for a named pipe or mailslot"))));
    }
    let [handle, access, attributes, status_block, allocation_size, how @ .., _, io_options] = given;
    let [file_attributes, share, disposition, options, ea, ea_length, ..] = how;
    let how = [file_attributes, share, disposition, options].map(low);
    let options = options_of(cx, low(access), DriverPtr::new(allocation_size), how, (ea, low(ea_length)))?;
    let options = OpenOptions { io_options: low(io_options), ..options };
    open(cx, DriverPtr::new(handle), DriverPtr::new(attributes), DriverPtr::new(status_block), &options)
}

/// `ZwOpenFile`.
///
/// # Errors
/// As [`create_file`].
pub(crate) fn open_file(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    share: u32,
    options: u32,
) -> Flow<NtStatus> {
    let share = u16::try_from(share & 7).unwrap_or(0);
    let options = OpenOptions { access, share, options, disposition: FILE_OPEN, ..OpenOptions::default() };
    open(cx, handle, attributes, status_block, &options)
}

fn open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    options: &OpenOptions,
) -> Flow<NtStatus> {
    look_at_apcs(cx, "ZwCreateFile")?;
    if !is_consistent(options) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let named = match ob::attributes::read_for_file(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    if let Err(at) = create::check_attributes(cx, options.extended)? {
        return answer(cx, status_block, NtStatus::EA_LIST_INCONSISTENT, at.into());
    }
    match open_named(cx, &named, options)? {
        Ok(opened) => {
            cx.write(handle, opened.handle.0)?;
            answer(cx, status_block, NtStatus::SUCCESS, opened.information)
        }
        Err(status) => {
            let information = match status {
                NtStatus::OBJECT_NAME_COLLISION => FILE_EXISTS,
                NtStatus::OBJECT_NAME_NOT_FOUND => FILE_DOES_NOT_EXIST,
                _ => 0,
            };
            answer(cx, status_block, status, information)
        }
    }
}

/// Opens what is named so, for a driver.
pub(super) fn open_named(
    cx: &mut Cx<'_>,
    named: &Attributes,
    options: &OpenOptions,
) -> Flow<Result<Opened, NtStatus>> {
    let mut options = OpenOptions { root: named.file, ..*options };
    if named.flags & OBJ_FORCE_ACCESS_CHECK != 0 {
        options.io_options |= IO_FORCE_ACCESS_CHECK;
    }
    let root = DriverPtr::<FILE_OBJECT>::new(named.file);
    if !root.is_null() {
        ob::object::reference(cx, root)?;
    }
    let opened = file::create(cx, &named.name, &options, Mode::Kernel, named.kernel_handle())?;
    if !root.is_null() {
        ob::object::dereference(cx, root)?;
    }
    if let Err(status) = opened {
        tell_of_file(cx, &named.name, status);
    }
    Ok(opened)
}

/// The I/O manager tells a thread the end of its request by a special kernel APC: where none comes, Windows may wait for ever.
fn look_at_apcs(cx: &mut Cx<'_>, ddi: &str) -> Flow<()> {
    if irql::current(cx) == 0 && region::are_all_apcs_disabled(cx)? {
        let message = format!(
            "{ddi} was called in a guarded region: special kernel APCs are disabled, and the I/O manager tells the end of a request by one"
        );
        cx.report(Verdict::warning("file-apcs-disabled", message));
    }
    Ok(())
}

/// Whether the options go together, as *ZwCreateFile function* says.
fn is_consistent(options: &OpenOptions) -> bool {
    const SYNCHRONOUS: u32 = FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT;
    let (has, access) = (|option: u32| options.options & option != 0, file::map_generic(options.access));
    let made = matches!(options.disposition, FILE_CREATE | FILE_OPEN | FILE_OPEN_IF);
    // Generic rights have SYNCHRONIZE in them, as *Using Files in a Driver* opens.
    !(has(SYNCHRONOUS) && access & SYNCHRONIZE == 0
        || options.options & SYNCHRONOUS == SYNCHRONOUS
        || options.disposition > FILE_OVERWRITE_IF
        || has(FILE_DIRECTORY_FILE) && (has(FILE_NON_DIRECTORY_FILE) || !made)
        || has(FILE_DELETE_ON_CLOSE) && access & DELETE == 0
        || has(FILE_NO_INTERMEDIATE_BUFFERING) && options.access & FILE_APPEND_DATA != 0)
}

/// Where drivers look for files, in capitals.
const DISKS: [&str; 4] = ["\\SYSTEMROOT\\", "\\DEVICE\\HARDDISK", "\\ARCNAME\\", "\\DEVICE\\CDROM"];

/// A file on a disk was not found, and on Windows it may be there: nothing is wrong with a driver that opens it.
pub(super) fn tell_of_file(cx: &mut Cx<'_>, name: &str, status: NtStatus) {
    let not_found = matches!(status, NtStatus::OBJECT_NAME_NOT_FOUND | NtStatus::OBJECT_PATH_NOT_FOUND);
    if !not_found || cx.with(|k| fs::is_mounted(k)) {
        return;
    }
    let upper = name.to_ascii_uppercase();
    let dos =
        ["\\??\\", "\\DOSDEVICES\\", "\\GLOBAL??\\"].iter().find_map(|prefix| upper.strip_prefix(prefix));
    let is_drive = dos.is_some_and(|rest| matches!(rest.as_bytes(), [b'A'..=b'Z', b':', ..]));
    if is_drive || DISKS.iter().any(|disk| upper.starts_with(disk)) {
        let message = format!(
            "the driver opened {name}: the machine has no disk, and dirql answers {status} as if the file were not there; on Windows it \
             may be, and what the driver does with it then is not seen here: give a folder with --files, which is drive C:"
        );
        cx.report(Verdict::advice("no-disk", message));
    }
}

/// Says how it ended, there and by the status.
pub(super) fn answer(
    cx: &mut Cx<'_>,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    status: NtStatus,
    information: u64,
) -> Flow<NtStatus> {
    cx.write(status_block + IO_STATUS_BLOCK::Status, status)?;
    cx.write(status_block + IO_STATUS_BLOCK::Information, information)?;
    Ok(status)
}

/// `ZwReadFile`.
///
/// # Errors
/// A verdict if a pointer is bad, or on a driver.
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn read_file(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    _apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    offset: DriverPtr<i64>,
    key: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let offset = optional(cx, offset)?;
    let operation = Operation::Read(Buffer { address: buffer, length }, offset);
    let key = optional(cx, key)?.unwrap_or(0);
    issue(cx, handle, event, apc, status_block, (operation, key))
}

/// `ZwWriteFile`.
///
/// # Errors
/// As [`read_file`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn write_file(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    _apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    buffer: u64,
    length: u32,
    offset: DriverPtr<i64>,
    key: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let offset = optional(cx, offset)?;
    let operation = Operation::Write(Buffer { address: buffer, length }, offset);
    let key = optional(cx, key)?.unwrap_or(0);
    issue(cx, handle, event, apc, status_block, (operation, key))
}

/// `ZwFlushBuffersFile`.
///
/// # Errors
/// As [`read_file`].
pub(crate) fn flush_buffers_file(
    cx: &mut Cx<'_>,
    handle: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
) -> Flow<NtStatus> {
    issue(cx, handle, 0, 0, status_block, (Operation::Flush(0), 0))
}

/// `ZwFlushBuffersFileEx`: the flags say how much is flushed, and one of them only.
///
/// # Errors
/// As [`read_file`].
pub(crate) fn flush_buffers_file_ex(
    cx: &mut Cx<'_>,
    handle: u64,
    flags: u32,
    _parameters: u64,
    _parameters_size: u32,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
) -> Flow<NtStatus> {
    // `FLUSH_FLAGS_FILE_DATA_ONLY`, `FLUSH_FLAGS_NO_SYNC`, `FLUSH_FLAGS_FILE_DATA_SYNC_ONLY`.
    let minor = match flags {
        0 => 0,
        1 => IRP_MN_FLUSH_DATA_ONLY,
        2 => IRP_MN_FLUSH_NO_SYNC,
        4 => IRP_MN_FLUSH_DATA_SYNC_ONLY,
        _ => return Ok(NtStatus::INVALID_PARAMETER),
    };
    issue(cx, handle, 0, 0, status_block, (Operation::Flush(minor), 0))
}

/// `ZwLockFile`.
///
/// # Errors
/// As [`read_file`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn lock_file(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    _apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    offset: DriverPtr<i64>,
    length: DriverPtr<i64>,
    key: u32,
    fail_immediately: bool,
    exclusive: bool,
) -> Flow<NtStatus> {
    let at_once = if fail_immediately { SL_FAIL_IMMEDIATELY } else { 0 };
    let flags = at_once | if exclusive { SL_EXCLUSIVE_LOCK } else { 0 };
    let (minor, offset) = (IRP_MN_LOCK, cx.read(offset)?);
    let range = ByteRange { minor, flags, offset, length: length.address };
    issue(cx, handle, event, apc, status_block, (Operation::Lock(range), key))
}

/// `ZwUnlockFile`.
///
/// # Errors
/// As [`read_file`].
pub(crate) fn unlock_file(
    cx: &mut Cx<'_>,
    handle: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    offset: DriverPtr<i64>,
    length: DriverPtr<i64>,
    key: u32,
) -> Flow<NtStatus> {
    let (minor, offset) = (IRP_MN_UNLOCK_SINGLE, cx.read(offset)?);
    let range = ByteRange { minor, flags: 0, offset, length: length.address };
    issue(cx, handle, 0, 0, status_block, (Operation::Lock(range), key))
}

/// `ZwDeviceIoControlFile`.
///
/// # Errors
/// As [`read_file`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn device_io_control_file(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    _apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    code: u32,
    input: u64,
    input_length: u32,
    output: u64,
    output_length: u32,
) -> Flow<NtStatus> {
    let input = Buffer { address: input, length: input_length };
    let output = Buffer { address: output, length: output_length };
    issue(cx, handle, event, apc, status_block, (Operation::Control(code, input, output), 0))
}

/// `ZwFsControlFile`: as [`device_io_control_file`], of a file system. Its drivers are asked by `IRP_MJ_FILE_SYSTEM_CONTROL`.
///
/// # Errors
/// As [`read_file`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub(crate) fn fs_control_file(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    _apc_context: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    code: u32,
    input: u64,
    input_length: u32,
    output: u64,
    output_length: u32,
) -> Flow<NtStatus> {
    let input = Buffer { address: input, length: input_length };
    let output = Buffer { address: output, length: output_length };
    issue(cx, handle, event, apc, status_block, (Operation::FsControl(code, input, output), 0))
}

fn optional<T: FromBytes + IntoBytes>(cx: &mut Cx<'_>, given: DriverPtr<T>) -> Flow<Option<T>> {
    Ok(if given.is_null() { None } else { Some(cx.read(given)?) })
}

fn issue(
    cx: &mut Cx<'_>,
    handle: u64,
    event: u64,
    apc: u64,
    status_block: DriverPtr<IO_STATUS_BLOCK>,
    (operation, key): (Operation, u32),
) -> Flow<NtStatus> {
    look_at_apcs(cx, operation.ddi())?;
    if apc != 0 {
        return Err(cx.stop(Verdict::not_implemented("a file operation with an APC routine")));
    }
    let event = (event != 0).then_some(Handle(event));
    let request = Request { operation: &operation, event, status_block, key, context: 0, apc: false };
    let answer = transfer::issue(cx, Handle(handle), &request, Mode::Kernel)?;
    Ok(answer.status)
}
