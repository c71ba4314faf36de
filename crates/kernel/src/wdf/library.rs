//! What frameworks and class extensions register, and how one is found: by the service that the registry names for a component, which is
//! loaded if it has not registered yet.

use abi::{
    Code, DriverPtr, FILE_READ_DATA, NtStatus, UNICODE_STRING, WDF_CLASS_LIBRARY_INFO, WDF_LIBRARY_INFO,
};
use engine::Flow;

use super::{COMPONENT, Library, SERVICE, VERSIONS, service_of};
use crate::cm::access::{self, SERVICES};
use crate::cx::Cx;
use crate::event::Role;
use crate::io::call::low_half;
use crate::io::{driver, load, routine, stack};
use crate::ob;

/// `WdfRegisterLibrary`: a framework is there. The loader opens its device, which keeps its image, and commissions it.
///
/// # Errors
/// A verdict if a pointer is bad, or on the framework.
pub(crate) fn register(
    cx: &mut Cx<'_>,
    info: DriverPtr<WDF_LIBRARY_INFO>,
    service_path: DriverPtr<UNICODE_STRING>,
    device_name: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    if info.is_null() || cx.read(info + WDF_LIBRARY_INFO::Size)? < bytes::<WDF_LIBRARY_INFO>() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let begin = cx.read(info + WDF_LIBRARY_INFO::LibraryCommission)?;
    let library = Given { info: info.address, is_class: false, begin, role: Role::LibraryCommission };
    enter(cx, library, service_path, device_name)
}

/// `WdfRegisterClassLibrary`: a class extension is there; the name of its device may be null.
///
/// # Errors
/// A verdict if a pointer is bad, or on the class extension.
pub(crate) fn register_class(
    cx: &mut Cx<'_>,
    info: DriverPtr<WDF_CLASS_LIBRARY_INFO>,
    service_path: DriverPtr<UNICODE_STRING>,
    device_name: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    if info.is_null() || cx.read(info + WDF_CLASS_LIBRARY_INFO::Size)? < bytes::<WDF_CLASS_LIBRARY_INFO>() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let begin = cx.read(info + WDF_CLASS_LIBRARY_INFO::ClassLibraryInitialize)?;
    let library = Given { info: info.address, is_class: true, begin, role: Role::ClassLibraryInitialize };
    enter(cx, library, service_path, device_name)
}

/// What is to be registered, and how it is begun.
struct Given {
    info: u64,
    is_class: bool,
    begin: DriverPtr<Code>,
    role: Role,
}

fn enter(
    cx: &mut Cx<'_>,
    given: Given,
    service_path: DriverPtr<UNICODE_STRING>,
    device_name: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let path = ob::string::read(cx, service_path)?;
    let service = service_of(&path).to_owned();
    if service.is_empty() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    if cx.with(|k| k.wdf.library(&service, given.is_class).is_some()) {
        return Ok(NtStatus::OBJECT_NAME_COLLISION);
    }
    let device = ob::string::read(cx, device_name)?;
    let file = match device.as_str() {
        "" => None,
        name => match stack::pointer(cx, name, FILE_READ_DATA)? {
            Ok((file, _)) => Some(file),
            Err(status) => return Ok(status),
        },
    };
    let library = Library { service, info: given.info, is_class: given.is_class, file };
    let status = NtStatus(low_half(routine::call(cx, given.role, given.begin, given.info, &[])?));
    if status.is_success() {
        cx.with(|k| k.wdf.libraries.push(library));
    } else if let Some(file) = file {
        ob::object::dereference(cx, file)?;
    }
    Ok(status)
}

/// The framework, or the class extension, that serves this component. One that has not registered is loaded by the name of its service.
pub(super) fn find(
    cx: &mut Cx<'_>,
    component: &str,
    major: u32,
    is_class: bool,
) -> Flow<Result<u64, NtStatus>> {
    let key = format!("{VERSIONS}\\{component}\\Versions\\{major}");
    let path = match access::text(cx, &key, "Service") {
        Some(path) => path,
        None if is_class => format!("{SERVICES}\\{component}"),
        None if component.eq_ignore_ascii_case(COMPONENT) => format!("{SERVICES}\\Wdf{major:02}000"),
        None => return Ok(Err(NtStatus::OBJECT_NAME_NOT_FOUND)),
    };
    let registered =
        |cx: &mut Cx<'_>| cx.with(|k| k.wdf.library(service_of(&path), is_class).map(|library| library.info));
    if let Some(info) = registered(cx) {
        return Ok(Ok(info));
    }
    let status = driver::with_string(cx, &path, load::zw_load)?;
    if !status.is_success() && status != NtStatus::IMAGE_ALREADY_LOADED {
        return Ok(Err(status));
    }
    Ok(registered(cx).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND))
}

/// The framework is this service: what `WdfVersionBind` looks for.
///
/// # Errors
/// The registry has no room.
pub fn install(cx: &mut Cx<'_>) -> Result<(), NtStatus> {
    let key = format!("{VERSIONS}\\{COMPONENT}\\Versions\\1");
    access::set_text(cx, &key, "Service", &format!("{SERVICES}\\{SERVICE}"))
}

/// A driver is about to be unloaded: if it is a framework or a class extension without clients, the loader lets go of it, as it does with the
/// last of them when the system shuts down.
///
/// # Errors
/// A verdict on the driver.
pub fn leave(cx: &mut Cx<'_>, service: &str) -> Flow<()> {
    loop {
        let taken = cx.with(|k| {
            let used = |library: &Library| {
                k.wdf.clients.iter().any(|client| client.library == library.info)
                    || k.wdf.classes.iter().any(|binding| binding.library == library.info)
            };
            let is_it = |library: &Library| library.service.eq_ignore_ascii_case(service) && !used(library);
            let index = k.wdf.libraries.iter().position(is_it)?;
            Some(k.wdf.libraries.remove(index))
        });
        let Some(library) = taken else { return Ok(()) };
        end(cx, &library)?;
    }
}

fn end(cx: &mut Cx<'_>, library: &Library) -> Flow<()> {
    let (role, routine) = if library.is_class {
        let info = DriverPtr::<WDF_CLASS_LIBRARY_INFO>::new(library.info);
        (Role::ClassLibraryDeinitialize, cx.read(info + WDF_CLASS_LIBRARY_INFO::ClassLibraryDeinitialize)?)
    } else {
        let info = DriverPtr::<WDF_LIBRARY_INFO>::new(library.info);
        (Role::LibraryDecommission, cx.read(info + WDF_LIBRARY_INFO::LibraryDecommission)?)
    };
    routine::call(cx, role, routine, library.info, &[])?;
    match library.file {
        Some(file) => ob::object::dereference(cx, file).map(|_| ()),
        None => Ok(()),
    }
}

/// The bytes of a structure, as its `Size` has them.
pub(super) const fn bytes<T>() -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "structures of a hundred bytes")]
    let bytes = size_of::<T>() as u32;
    bytes
}
