//! Directories of a driver's and of a device's own, where files of theirs lie.
//!
//! Pages: *IoGetDriverDirectory function*, *DRIVER_DIRECTORY_TYPE enumeration*, *IoGetDeviceDirectory function*, *DEVICE_DIRECTORY_TYPE enumeration*.
//! No page says where they are: here below `DriverData` of the system's folder for drivers, by the service, or by the device's instance path
//! with `#` for each `\`; what is not there is made. The handle is the kernel's, for synchronous requests.

use abi::{
    DEVICE_OBJECT, DRIVER_OBJECT, DriverPtr, FILE_DIRECTORY_FILE, FILE_OPEN, FILE_OPEN_IF,
    FILE_SYNCHRONOUS_IO_NONALERT, GENERIC_READ, GENERIC_WRITE, NtStatus,
};
use engine::Flow;

use super::file::{self, OpenOptions, SHARED};
use super::{driver, zw};
use crate::cx::Cx;
use crate::nt::WindowsVersion;
use crate::ob;
use crate::ob::Handle;
use crate::ob::handle::Mode;
use crate::pnp;

/// `DriverDirectoryImage`, `DriverDirectoryData`, `DriverDirectorySharedData`.
const IMAGE: u32 = 0;
const DATA: u32 = 1;
const SHARED_DATA: u32 = 2;
/// `DeviceDirectoryData`.
const DEVICE_DATA: u32 = 0;

/// Where images of drivers lie.
const IMAGES: &str = r"\SystemRoot\System32\drivers";

/// `IoGetDriverDirectory`. Shared data came with Windows 11.
///
/// # Errors
/// A verdict if the handle cannot be written.
pub(crate) fn of_driver(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    kind: u32,
    flags: u32,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let is_driver = cx.with(|k| k.io.drivers.contains_key(&driver.address));
    let shares = cx.with(|k| k.ldr.windows) == WindowsVersion::Win11;
    if !is_driver || flags != 0 || handle.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let service = driver::service(cx, driver);
    match kind {
        IMAGE => hand_out(cx, &[], GENERIC_READ, handle),
        DATA => hand_out(cx, &["DriverData", &service], GENERIC_READ | GENERIC_WRITE, handle),
        SHARED_DATA if shares => {
            hand_out(cx, &["DriverData", &service, "Shared"], GENERIC_READ | GENERIC_WRITE, handle)
        }
        _ => Ok(NtStatus::INVALID_PARAMETER),
    }
}

/// `IoGetDeviceDirectory`.
///
/// # Errors
/// As [`of_driver`].
pub(crate) fn of_device(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    kind: u32,
    flags: u32,
    reserved: u64,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let path = cx.with(|k| pnp::instance_path(k, device));
    let is_valid = kind == DEVICE_DATA && flags == 0 && reserved == 0 && !handle.is_null();
    let Some(path) = path.filter(|_| is_valid) else {
        return Ok(NtStatus::INVALID_PARAMETER);
    };
    hand_out(cx, &["DriverData", "Devices", &path.replace('\\', "#")], GENERIC_READ | GENERIC_WRITE, handle)
}

/// Opens the directory below that of the images, made with those that lead to it.
fn hand_out(cx: &mut Cx<'_>, names: &[&str], access: u32, handle: DriverPtr<u64>) -> Flow<NtStatus> {
    let mut path = IMAGES.to_owned();
    let mut opened = open(cx, &path, FILE_OPEN, access)?;
    for name in names {
        match opened {
            Ok(above) => drop(ob::handle::close(cx, above)?),
            Err(status) => return Ok(status),
        }
        path = format!(r"{path}\{name}");
        opened = open(cx, &path, FILE_OPEN_IF, access)?;
    }
    match opened {
        Ok(opened) => {
            cx.write(handle, opened.0)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

fn open(cx: &mut Cx<'_>, path: &str, disposition: u32, access: u32) -> Flow<Result<Handle, NtStatus>> {
    let options = FILE_DIRECTORY_FILE | FILE_SYNCHRONOUS_IO_NONALERT;
    let options = OpenOptions { access, share: SHARED, options, disposition, ..OpenOptions::default() };
    let opened = file::create(cx, path, &options, Mode::Kernel, true)?;
    if let Err(status) = opened {
        zw::tell_of_file(cx, path, status);
    }
    Ok(opened.map(|opened| opened.handle))
}
