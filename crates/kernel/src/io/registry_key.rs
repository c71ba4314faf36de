//! Keys in the registry of a device interface and of a driver.
//!
//! Pages: *IoOpenDeviceInterfaceRegistryKey function*, *IoOpenDriverRegistryKey function*, *DRIVER_REGKEY_TYPE enumeration*, *Registry Trees and Keys for
//! Devices and Drivers*. A device's keys are `pnp::registry`'s. Where a driver's state lies no page says: here it is below the key of its service.

use abi::{DRIVER_OBJECT, DriverPtr, NtStatus, UNICODE_STRING};
use engine::Flow;

use super::driver;
use crate::cm::{absent, access, key};
use crate::cx::Cx;
use crate::nt::WindowsVersion;
use crate::ob;

/// `IoOpenDeviceInterfaceRegistryKey`: made if it is not there.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn open_interface(
    cx: &mut Cx<'_>,
    name: DriverPtr<UNICODE_STRING>,
    access: u32,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let name = ob::string::read(cx, name)?;
    let found = match of_interface(&name) {
        Some(path) => access::create(cx, &path),
        None => Err(NtStatus::INVALID_PARAMETER),
    };
    hand_out(cx, found, access, handle)
}

/// `DriverRegKeyParameters`, `DriverRegKeyPersistentState`, `DriverRegKeySharedPersistentState`.
const PARAMETERS: u32 = 0;
const STATE: u32 = 1;
const SHARED_STATE: u32 = 2;

/// `IoOpenDriverRegistryKey`: the parameters have to be there, which an INF makes; a state is made if it is not. What shares it came with
/// Windows 11.
///
/// # Errors
/// A verdict if a pointer is bad.
pub fn open_driver(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    kind: u32,
    access: u32,
    flags: u32,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let is_driver = cx.with(|k| k.io.drivers.contains_key(&driver.address));
    let shares = cx.with(|k| k.ldr.windows) == WindowsVersion::Win11;
    if !is_driver || flags != 0 || kind > SHARED_STATE || kind == SHARED_STATE && !shares {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let service = driver::registry_path(&driver::service(cx, driver));
    let found = match kind {
        PARAMETERS => {
            let path: Vec<u16> = format!("{service}\\Parameters").encode_utf16().collect();
            absent::open(cx, None, &path)
        }
        STATE => access::create(cx, &format!("{service}\\State")),
        _ => access::create(cx, &format!("{service}\\SharedState")),
    };
    hand_out(cx, found, access, handle)
}

/// The key of a device interface, by its symbolic link: `\??\PCI#…#{class}[\reference]` has `…\DeviceClasses\{class}\##?#PCI#…#{class}\#[reference]\Device Parameters`.
#[must_use]
pub fn of_interface(name: &str) -> Option<String> {
    let device = name.strip_prefix("\\??\\")?;
    let (link, reference) = device.split_once('\\').unwrap_or((device, ""));
    let class = &link[link.rfind("#{")? + 1..];
    let root = "\\Registry\\Machine\\System\\CurrentControlSet\\Control\\DeviceClasses";
    Some(format!("{root}\\{class}\\##?#{link}\\#{reference}\\Device Parameters"))
}

fn hand_out(
    cx: &mut Cx<'_>,
    found: Result<crate::cm::registry::KeyId, NtStatus>,
    access: u32,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let opened = match found {
        // A driver's own handle is the kernel's.
        Ok(found) => key::open_handle(cx, found, access, true)?,
        Err(status) => Err(status),
    };
    match opened {
        Ok(opened) => {
            cx.write(handle, opened.0)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_a_key_under_its_class() {
        let root =
            "\\Registry\\Machine\\System\\CurrentControlSet\\Control\\DeviceClasses\\{c}\\##?#PCI#X#3#{c}\\";
        assert_eq!(of_interface("\\??\\PCI#X#3#{c}").unwrap(), format!("{root}#\\Device Parameters"));
        assert_eq!(of_interface("\\??\\PCI#X#3#{c}\\ref").unwrap(), format!("{root}#ref\\Device Parameters"));
        assert_eq!(of_interface("\\Device\\X"), None);
    }
}
