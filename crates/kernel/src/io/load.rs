//! Loading and unloading drivers by the names of their services, as drivers ask for it.
//!
//! Pages: *ZwLoadDriver function*, *ZwUnloadDriver function*. A service is a key of the registry whose `ImagePath` names the file. The disk has
//! the files of drivers that were given and unloaded; any other is not found, which is reported once as advice. Where no page says it: a
//! driver that fails in its `DriverEntry` gives that status. Both run on a thread of the system's, which the caller waits for; privileges are
//! not asked, since the caller is the kernel.

use abi::{DRIVER_EXTENSION, DRIVER_OBJECT, DriverPtr, NtStatus, UNICODE_STRING};
use engine::Flow;

use super::zw::tell_of_file;
use super::{driver, unload};
use crate::cm::access;
use crate::cx::Cx;
use crate::ke::thread::wait_for_system;
use crate::ldr::{self, LoadError, LoadedImage};
use crate::ob;

/// The name of the service whose key this is, and of its file.
fn service(cx: &mut Cx<'_>, key: DriverPtr<UNICODE_STRING>) -> Flow<Result<(String, String), NtStatus>> {
    let path = ob::string::read(cx, key)?;
    if let Err(status) = access::open(cx, &path) {
        return Ok(Err(status));
    }
    let service = path.rsplit('\\').next().unwrap_or_default().to_owned();
    let image = access::text(cx, &path, "ImagePath");
    let image = image.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
    Ok(Ok((service, image)))
}

/// The driver object of a service.
fn object_of(cx: &mut Cx<'_>, service: &str) -> Option<DriverPtr<DRIVER_OBJECT>> {
    cx.with(|k| {
        let mut all = k.io.drivers.iter();
        let found = all.find(|(_, driver)| driver.service.eq_ignore_ascii_case(service) && driver.base != 0);
        found.map(|(object, _)| DriverPtr::new(*object))
    })
}

/// The drivers that are loaded and not among these, the last one first: others have had them loaded.
pub fn loaded_by_name(cx: &mut Cx<'_>, given: &[DriverPtr<DRIVER_OBJECT>]) -> Vec<DriverPtr<DRIVER_OBJECT>> {
    cx.with(|k| {
        let own = k.io.drivers.iter().filter(|(_, driver)| driver.base != 0);
        let mut others: Vec<_> = own.map(|(object, driver)| (driver.base, DriverPtr::new(*object))).collect();
        others.retain(|(_, object)| !given.contains(object));
        others.sort_unstable_by_key(|(base, _)| std::cmp::Reverse(*base));
        others.into_iter().map(|(_, object)| object).collect()
    })
}

/// `ZwLoadDriver`.
///
/// # Errors
/// A verdict if the name cannot be read, or on the driver that is loaded.
pub(crate) fn zw_load(cx: &mut Cx<'_>, key: DriverPtr<UNICODE_STRING>) -> Flow<NtStatus> {
    let (service, path) = match service(cx, key)? {
        Ok(found) => found,
        Err(status) => return Ok(status),
    };
    let file = path.rsplit('\\').next().unwrap_or_default().to_owned();
    if object_of(cx, &service).is_some() || cx.with(|k| k.ldr.image_named(&file).is_some()) {
        return Ok(NtStatus::IMAGE_ALREADY_LOADED);
    }
    let Some(module) = cx.with(|k| ldr::from_disk(k, &file)) else {
        tell_of_file(cx, &format!("\\SystemRoot\\{path}"), NtStatus::OBJECT_NAME_NOT_FOUND);
        return Ok(NtStatus::OBJECT_NAME_NOT_FOUND);
    };
    wait_for_system(cx, "I/O manager", move |cx| match ldr::load(cx, module)? {
        Ok(image) => start(cx, &service, &image),
        Err(LoadError::Image(_)) => Ok(NtStatus::INVALID_IMAGE_FORMAT),
        Err(LoadError::AlreadyLoaded(_)) => Ok(NtStatus::IMAGE_ALREADY_LOADED),
        Err(LoadError::NoRoom(_) | LoadError::NoMemory(_) | LoadError::TooManyMissing(_)) => {
            Ok(NtStatus::INSUFFICIENT_RESOURCES)
        }
    })
}

fn start(cx: &mut Cx<'_>, service: &str, image: &LoadedImage) -> Flow<NtStatus> {
    Ok(match driver::load(cx, service, image)? {
        Ok(_) => NtStatus::SUCCESS,
        Err(status) => status,
    })
}

/// `NtUnloadDriver` of a driver that is known: a program has it unloaded.
///
/// # Errors
/// A verdict on the driver.
pub fn unload_for_program(cx: &mut Cx<'_>, driver: DriverPtr<DRIVER_OBJECT>) -> Flow<NtStatus> {
    if !cx.with(|k| unload::is_loaded(k, driver)) {
        return Ok(NtStatus::OBJECT_NAME_NOT_FOUND);
    }
    let extension = cx.read(driver + DRIVER_OBJECT::DriverExtension)?;
    if !cx.read(extension + DRIVER_EXTENSION::AddDevice)?.is_null() {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    }
    let status = wait_for_system(cx, "I/O manager", move |cx| unload::unload(cx, driver))?;
    Ok(if status == NtStatus::PENDING { NtStatus::SUCCESS } else { status })
}

/// `ZwUnloadDriver`: a driver on whose devices files are open goes with the last of them.
///
/// # Errors
/// A verdict if the name cannot be read, or on the driver that is unloaded.
pub(crate) fn zw_unload(cx: &mut Cx<'_>, key: DriverPtr<UNICODE_STRING>) -> Flow<NtStatus> {
    let (service, _) = match service(cx, key)? {
        Ok(found) => found,
        Err(status) => return Ok(status),
    };
    match object_of(cx, &service) {
        Some(driver) => unload_for_program(cx, driver),
        None => Ok(NtStatus::OBJECT_NAME_NOT_FOUND),
    }
}
