//! Export libraries: images that other drivers import from, with `DllInitialize` and `DllUnload` instead of a driver object.
//!
//! Page: *DllInitialize and DllUnload routines*. A library is initialised before the first driver that imports from it.

use abi::NtStatus;
use engine::Flow;

use super::call::low_half;
use super::{driver, routine, unload_check};
use crate::cx::Cx;
use crate::event::Role;
use crate::ldr;

/// Calls `DllInitialize` with the registry path of `service`, once for each image; one that has none succeeds.
///
/// # Errors
/// A verdict on the library.
pub fn initialize_library(cx: &mut Cx<'_>, service: &str, base: u64) -> Flow<NtStatus> {
    if !cx.with(|k| k.io.libraries.insert(base)) {
        return Ok(NtStatus::SUCCESS);
    }
    let status = initialize_imports(cx, base)?;
    let routine = ldr::initializer(cx, base);
    let (true, Some(routine)) = (status.is_success(), routine) else {
        return Ok(status);
    };
    let path = driver::registry_path(service);
    let answer = driver::with_string(cx, &path, |cx, string| {
        routine::call(cx, Role::DllInitialize, routine, base, &[string.address])
    })?;
    Ok(NtStatus(low_half(answer)))
}

/// Initialises what the image at `base` imports from; a library's service is called after its file.
pub(crate) fn initialize_imports(cx: &mut Cx<'_>, base: u64) -> Flow<NtStatus> {
    for library in ldr::libraries(cx, base) {
        let name = cx.with(|k| ldr::image_name(k, library).map(ToOwned::to_owned)).unwrap_or_default();
        let service = name.strip_suffix(".sys").unwrap_or(&name);
        let status = initialize_library(cx, service, library)?;
        if !status.is_success() {
            return Ok(status);
        }
    }
    Ok(NtStatus::SUCCESS)
}

/// Takes a library's image out of the machine: after its `DllUnload`, if it was initialised and has one, and with a report of
/// what it left.
///
/// # Errors
/// A verdict on the library.
pub fn unload_library(cx: &mut Cx<'_>, base: u64) -> Flow<()> {
    let initialized = cx.with(|k| k.io.libraries.remove(&base));
    if initialized && let Some(routine) = ldr::uninitializer(cx, base) {
        routine::call(cx, Role::DllUnload, routine, base, &[])?;
    }
    let known = cx.with(|k| {
        let loaded = k.ldr.images.get(&base)?;
        Some((loaded.name.clone(), u64::from(loaded.image.size())))
    });
    if let Some((name, size)) = known {
        unload_check::report_library(cx, &name, base, size)?;
    }
    ldr::unload(cx, base)
}
