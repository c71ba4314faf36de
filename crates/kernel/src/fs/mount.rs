//! The volume's device: `\Device\HarddiskVolume1` of a built-in driver, with its links.
//!
//! Pages: *Introduction to MS-DOS Device Names*, *DEVICE_OBJECT structure*, *IoVolumeDeviceToDosName function*. On Windows the file system's device has no name and hangs on the
//! disk's by a VPB; here both are one device, and there is no disk below it.

use abi::{
    DEVICE_OBJECT, DO_DEVICE_INITIALIZING, DRIVER_OBJECT, DRVO_BUILTIN_DRIVER, DriverPtr,
    FILE_DEVICE_DISK_FILE_SYSTEM, IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_CREATE, IRP_MJ_DIRECTORY_CONTROL,
    IRP_MJ_FLUSH_BUFFERS, IRP_MJ_LOCK_CONTROL, IRP_MJ_QUERY_INFORMATION, IRP_MJ_QUERY_VOLUME_INFORMATION,
    IRP_MJ_READ, IRP_MJ_SET_INFORMATION, IRP_MJ_SET_VOLUME_INFORMATION, IRP_MJ_WRITE, NtStatus,
    UNICODE_STRING,
};
use engine::Flow;

use crate::cx::Cx;
use crate::io;
use crate::ldr;
use crate::mm::pool;
use crate::ob::names::Target;
use crate::verdict::Verdict;

/// The volume's name.
const VOLUME: &str = r"\Device\HarddiskVolume1";
/// Its drive.
const DRIVE: &str = "C:";
/// What else leads to it.
const LINKS: [(&str, &str); 2] =
    [(r"\GLOBAL??\C:", VOLUME), (r"\SystemRoot", r"\Device\HarddiskVolume1\Windows")];

const REQUESTS: [u8; 12] = [
    IRP_MJ_CREATE,
    IRP_MJ_CLOSE,
    IRP_MJ_READ,
    IRP_MJ_WRITE,
    IRP_MJ_QUERY_INFORMATION,
    IRP_MJ_SET_INFORMATION,
    IRP_MJ_FLUSH_BUFFERS,
    IRP_MJ_QUERY_VOLUME_INFORMATION,
    IRP_MJ_SET_VOLUME_INFORMATION,
    IRP_MJ_DIRECTORY_CONTROL,
    IRP_MJ_LOCK_CONTROL,
    IRP_MJ_CLEANUP,
];

/// Makes the volume's device and links, if the machine has a folder. Once, on a system thread at PASSIVE_LEVEL, before any driver.
///
/// # Errors
/// As making a device; there is memory when a machine starts.
pub fn mount(cx: &mut Cx<'_>) -> Flow<()> {
    if cx.with(|k| k.fs.tree.is_none() || k.fs.device != 0) {
        return Ok(());
    }
    let new = io::driver::NewDriver {
        directory: r"\FileSystem",
        service: "Ntfs".to_owned(),
        base: 0,
        size: 0,
        entry: DriverPtr::NULL,
        section: DriverPtr::NULL,
    };
    let Ok(driver) = io::driver::create_driver(cx, &new)? else {
        return Err(cx.stop(Verdict::not_implemented(r"a machine in which \FileSystem\Ntfs is taken")));
    };
    for major in REQUESTS {
        let slot = (driver + DRIVER_OBJECT::MajorFunction).element(major.into());
        cx.write(slot, ldr::internal_address("FolderDispatch"))?;
    }
    let flags = cx.read(driver + DRIVER_OBJECT::Flags)?;
    cx.write(driver + DRIVER_OBJECT::Flags, flags | DRVO_BUILTIN_DRIVER)?;
    let new = io::device::NewDevice {
        extension: 0,
        name: VOLUME.to_owned(),
        device_type: FILE_DEVICE_DISK_FILE_SYSTEM,
        characteristics: 0,
        exclusive: false,
    };
    let Ok(device) = io::device::create(cx, driver, new)? else {
        return Err(cx.stop(Verdict::not_implemented("running out of memory for the volume's device")));
    };
    let flags = cx.read(device + DEVICE_OBJECT::Flags)?;
    cx.write(device + DEVICE_OBJECT::Flags, flags & !DO_DEVICE_INITIALIZING)?;
    cx.with(|k| {
        k.fs.device = device.address;
        for (link, to) in LINKS {
            k.ob.names
                .insert(link, Target::Link(to.to_owned()))
                .expect("nothing has a name before the first driver");
        }
    });
    Ok(())
}

/// `IoVolumeDeviceToDosName`, `RtlVolumeDeviceToDosName`: the drive of a volume, in pool of the caller's, with a zero behind it. A device that
/// is no volume is an invalid parameter.
///
/// # Errors
/// A verdict on a bad pointer.
pub fn dos_name(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    to: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    if !cx.with(|k| k.fs.is_volume(device.address)) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let units: Vec<u16> = DRIVE.encode_utf16().chain([0]).collect();
    let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let buffer: DriverPtr<u16> =
        pool::allocate_for_caller(cx, pool::Kind::Paged, bytes.len() as u64, pool::tag(b"Dosn"))?;
    if buffer.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.write_bytes(buffer.address, &bytes)?;
    let length = u16::try_from(bytes.len()).unwrap_or(0);
    cx.write(to + UNICODE_STRING::Length, length - 2)?;
    cx.write(to + UNICODE_STRING::MaximumLength, length)?;
    cx.write(to + UNICODE_STRING::Buffer, buffer)?;
    Ok(NtStatus::SUCCESS)
}
