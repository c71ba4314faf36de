//! What frameworks ask the loader: values of the registry by their names, and its functions. And its own start and end, as an export library has them.

use abi::{
    Code, DriverPtr, GUID_WDF_LOADER_INTERFACE_STANDARD, NtStatus, REG_DWORD, UNICODE_STRING,
    WDF_INTERFACE_HEADER, WDF_LOADER_INTERFACE,
};
use engine::Flow;

use super::VERSIONS;
use super::library::bytes;
use crate::cm::access;
use crate::cx::Cx;
use crate::{ldr, ob};

/// `WdfLdrDiagnosticsValueByNameAsULONG`: a number of the key `Diagnostics`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn diagnostics(
    cx: &mut Cx<'_>,
    name: DriverPtr<UNICODE_STRING>,
    number: DriverPtr<u32>,
) -> Flow<NtStatus> {
    if name.is_null() || number.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let name = ob::string::read(cx, name)?;
    let Some(value) = access::value(cx, &format!("{VERSIONS}\\Diagnostics"), &name) else {
        return Ok(NtStatus::OBJECT_NAME_NOT_FOUND);
    };
    match value.data.try_into() {
        Ok(data) if value.kind == REG_DWORD => {
            cx.write(number, u32::from_le_bytes(data))?;
            Ok(NtStatus::SUCCESS)
        }
        _ => Ok(NtStatus::OBJECT_TYPE_MISMATCH),
    }
}

/// `WdfLdrQueryInterface`: the standard one; of others it has none.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn query_interface(cx: &mut Cx<'_>, header: DriverPtr<WDF_INTERFACE_HEADER>) -> Flow<NtStatus> {
    if header.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let kind = cx.read(header + WDF_INTERFACE_HEADER::InterfaceType)?;
    if kind.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    if !cx.read(kind)?.is(&GUID_WDF_LOADER_INTERFACE_STANDARD) {
        return Ok(NtStatus::NOINTERFACE);
    }
    if cx.read(header + WDF_INTERFACE_HEADER::InterfaceSize)? < bytes::<WDF_LOADER_INTERFACE>() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    type Loader = WDF_LOADER_INTERFACE;
    let all: DriverPtr<Loader> = header.cast();
    cx.write(all + Loader::RegisterLibrary, export("WdfRegisterLibrary"))?;
    cx.write(all + Loader::VersionBind, export("WdfVersionBind"))?;
    cx.write(all + Loader::VersionUnbind, export("WdfVersionUnbind"))?;
    cx.write(all + Loader::DiagnosticsValueByNameAsULONG, export("WdfLdrDiagnosticsValueByNameAsULONG"))?;
    Ok(NtStatus::SUCCESS)
}

fn export(name: &str) -> DriverPtr<Code> {
    ldr::export_address(name).expect("there is a row of this name")
}

/// `DllInitialize`: the loader is always there.
///
/// # Errors
/// None.
pub(crate) fn initialize(_cx: &mut Cx<'_>, _registry_path: DriverPtr<UNICODE_STRING>) -> Flow<NtStatus> {
    Ok(NtStatus::SUCCESS)
}

/// `DllUnload`.
///
/// # Errors
/// None.
pub(crate) fn unload(_cx: &mut Cx<'_>) -> Flow<NtStatus> {
    Ok(NtStatus::SUCCESS)
}
