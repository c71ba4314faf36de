//! `WdfVersionBindClass` and `WdfVersionUnbindClass`: a client of a framework gets the functions of a class extension.
//!
//! A class extension serves clients of its major version and of a minor version not above its own: others get STATUS_REVISION_MISMATCH.

use abi::{
    DriverPtr, NtStatus, WDF_BIND_INFO, WDF_CLASS_BIND_INFO, WDF_CLASS_LIBRARY_INFO, WDF_COMPONENT_GLOBALS,
};
use engine::Flow;

use super::bind::version;
use super::library::{self, bytes};
use super::text;
use crate::cx::Cx;
use crate::event::Role;
use crate::io::call::low_half;
use crate::io::routine;

/// The bytes of a binding of build 25 and later; what lies behind the first ones is between the client and the class extension.
const LATER_BYTES: u32 = 0x78;

/// A class extension that a client is bound to.
pub(super) struct Binding {
    /// The client's `WDF_CLASS_BIND_INFO`.
    class: u64,
    globals: u64,
    /// The `WDF_CLASS_LIBRARY_INFO`.
    pub(super) library: u64,
}

/// `WdfVersionBindClass`.
///
/// # Errors
/// A verdict if a pointer is bad, or on the class extension.
pub(crate) fn bind(
    cx: &mut Cx<'_>,
    bind: DriverPtr<WDF_BIND_INFO>,
    globals: DriverPtr<WDF_COMPONENT_GLOBALS>,
    class: DriverPtr<WDF_CLASS_BIND_INFO>,
) -> Flow<NtStatus> {
    let is_bound = cx.with(|k| k.wdf.clients.iter().any(|client| client.is(bind, globals)));
    if !is_bound || class.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let size = cx.read(class + WDF_CLASS_BIND_INFO::Size)?;
    let name = cx.read(class + WDF_CLASS_BIND_INFO::ClassName)?;
    if ![bytes::<WDF_CLASS_BIND_INFO>(), LATER_BYTES].contains(&size) || name.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let name = text(cx, name)?;
    let wanted = version(cx, class + WDF_CLASS_BIND_INFO::Version)?;
    let library = match library::find(cx, &name, wanted.0, true)? {
        Ok(library) => library,
        Err(status) => return Ok(status),
    };
    let info = DriverPtr::<WDF_CLASS_LIBRARY_INFO>::new(library);
    let own = version(cx, info + WDF_CLASS_LIBRARY_INFO::Version)?;
    if own.0 != wanted.0 || own.1 < wanted.1 {
        return Ok(NtStatus::REVISION_MISMATCH);
    }
    cx.write(class + WDF_CLASS_BIND_INFO::ClassModule, library)?;
    let enter = cx.read(info + WDF_CLASS_LIBRARY_INFO::ClassLibraryBindClient)?;
    let arguments = [class.address, globals.address];
    let answer = routine::call(cx, Role::ClassLibraryBindClient, enter, library, &arguments)?;
    let status = NtStatus(low_half(answer));
    if status.is_success() {
        let binding = Binding { class: class.address, globals: globals.address, library };
        cx.with(|k| k.wdf.classes.push(binding));
    }
    Ok(status)
}

/// `WdfVersionUnbindClass`. What is not bound is left alone.
///
/// # Errors
/// A verdict if a pointer is bad, or on the class extension.
pub(crate) fn unbind(
    cx: &mut Cx<'_>,
    _bind: DriverPtr<WDF_BIND_INFO>,
    globals: DriverPtr<WDF_COMPONENT_GLOBALS>,
    class: DriverPtr<WDF_CLASS_BIND_INFO>,
) -> Flow<()> {
    let found = cx.with(|k| {
        let is_it = |binding: &Binding| binding.class == class.address && binding.globals == globals.address;
        let index = k.wdf.classes.iter().position(is_it)?;
        Some(k.wdf.classes.remove(index))
    });
    let Some(binding) = found else { return Ok(()) };
    let info = DriverPtr::<WDF_CLASS_LIBRARY_INFO>::new(binding.library);
    let leave = cx.read(info + WDF_CLASS_LIBRARY_INFO::ClassLibraryUnbindClient)?;
    let arguments = [class.address, globals.address];
    routine::call(cx, Role::ClassLibraryUnbindClient, leave, binding.library, &arguments)?;
    cx.write(class + WDF_CLASS_BIND_INFO::ClassModule, 0)
}
