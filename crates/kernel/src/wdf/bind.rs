//! `WdfVersionBind` and `WdfVersionUnbind`: a client's entry point gets the functions of its framework, and its unload gives them back.
//!
//! The framework decides about the client's version and the number of its functions, and stores their addresses, or that of its table, where
//! the client has asked for them.

use abi::{
    CLIENT_INFO, DRIVER_OBJECT, DriverPtr, NtStatus, UNICODE_STRING, WDF_BIND_INFO, WDF_BIND_INFO2,
    WDF_COMPONENT_GLOBALS, WDF_LIBRARY_INFO, WDF_VERSION,
};
use engine::Flow;

use super::library::{self, bytes};
use super::table::Table;
use super::{TAG, answers, callbacks, text};
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::io::call::low_half;
use crate::io::{driver as driver_object, routine};
use crate::mm::pool;

/// A client that is bound.
pub(super) struct Client {
    /// Its `WDF_BIND_INFO`.
    bind: u64,
    /// What its framework gave it.
    pub(super) globals: u64,
    pub(super) table: Table,
    /// The `WDF_LIBRARY_INFO` of its framework.
    pub(super) library: u64,
    /// Its driver object.
    driver: u64,
    /// The framework's version that it is built for.
    version: (u32, u32),
    /// The block with its `CLIENT_INFO`, and behind it the word that points to that.
    block: u64,
}

impl Client {
    pub(super) fn is(
        &self,
        bind: DriverPtr<WDF_BIND_INFO>,
        globals: DriverPtr<WDF_COMPONENT_GLOBALS>,
    ) -> bool {
        self.bind == bind.address && self.globals == globals.address
    }
}

/// The major and the minor number of a version.
pub(super) fn version(cx: &mut Cx<'_>, at: DriverPtr<WDF_VERSION>) -> Flow<(u32, u32)> {
    Ok((cx.read(at + WDF_VERSION::Major)?, cx.read(at + WDF_VERSION::Minor)?))
}

/// The version of the framework that a driver is built for, if it is bound as a client of one.
#[must_use]
pub fn version_of(k: &Kernel, driver: DriverPtr<DRIVER_OBJECT>) -> Option<(u32, u32)> {
    k.wdf.clients.iter().find(|client| client.driver == driver.address).map(|client| client.version)
}

/// `WdfVersionBind`.
///
/// # Errors
/// A verdict if a pointer is bad, or on the framework.
pub(crate) fn version_bind(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    registry_path: DriverPtr<UNICODE_STRING>,
    bind: DriverPtr<WDF_BIND_INFO>,
    out: DriverPtr<DriverPtr<WDF_COMPONENT_GLOBALS>>,
) -> Flow<NtStatus> {
    if driver.is_null() || registry_path.is_null() || bind.is_null() || out.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let size = cx.read(bind + WDF_BIND_INFO::Size)?;
    let component = cx.read(bind + WDF_BIND_INFO::Component)?;
    let known = size == bytes::<WDF_BIND_INFO>() || size == bytes::<WDF_BIND_INFO2>();
    if !known || component.is_null() || cx.read(bind + WDF_BIND_INFO::FuncTable)?.is_null() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    if cx.with(|k| k.wdf.clients.iter().any(|client| client.bind == bind.address)) {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let component = text(cx, component)?;
    let major = cx.read(bind + WDF_BIND_INFO::Version + WDF_VERSION::Major)?;
    let library = match library::find(cx, &component, major, false)? {
        Ok(library) => library,
        Err(status) => return Ok(status),
    };
    register(cx, driver, registry_path, bind, library, out)
}

fn register(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    registry_path: DriverPtr<UNICODE_STRING>,
    bind: DriverPtr<WDF_BIND_INFO>,
    library: u64,
    out: DriverPtr<DriverPtr<WDF_COMPONENT_GLOBALS>>,
) -> Flow<NtStatus> {
    const INFO: u64 = size_of::<CLIENT_INFO>() as u64;
    let client: DriverPtr<CLIENT_INFO> = pool::allocate(cx, pool::Kind::NonPaged, INFO + 16, TAG)?;
    if client.is_null() {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    cx.write(client + CLIENT_INFO::Size, bytes::<CLIENT_INFO>())?;
    cx.write(client + CLIENT_INFO::RegistryPath, registry_path)?;
    cx.write(client + CLIENT_INFO::DriverObject, driver)?;
    let context: DriverPtr<u64> = client.cast().byte_add(INFO);
    let globals: DriverPtr<DriverPtr<WDF_COMPONENT_GLOBALS>> = context.cast().byte_add(8);
    cx.write(context, client.address)?;
    cx.write(globals, DriverPtr::NULL)?;
    cx.write(bind + WDF_BIND_INFO::Module, library)?;
    let info = DriverPtr::<WDF_LIBRARY_INFO>::new(library);
    let enter = cx.read(info + WDF_LIBRARY_INFO::LibraryRegisterClient)?;
    let arguments = [bind.address, globals.address, context.address];
    let answer = routine::call(cx, Role::LibraryRegisterClient, enter, driver.address, &arguments)?;
    let status = NtStatus(low_half(answer));
    if !status.is_success() {
        pool::free(cx, client)?;
        note_refusal(cx, driver, (bind, info), status)?;
        return Ok(status);
    }
    let globals = cx.read(globals)?;
    cx.write(out, globals)?;
    let table = Table::take(cx, bind)?;
    let version = version(cx, bind + WDF_BIND_INFO::Version)?;
    let client = Client {
        bind: bind.address,
        globals: globals.address,
        table,
        driver: driver.address,
        version,
        library,
        block: client.address,
    };
    cx.with(|k| {
        k.wdf.clients.push(client);
        answers::clients_change(k);
    });
    Ok(status)
}

/// Tells the user that the framework is older than the client that it refuses, if it is.
fn note_refusal(
    cx: &mut Cx<'_>,
    driver: DriverPtr<DRIVER_OBJECT>,
    (bind, info): (DriverPtr<WDF_BIND_INFO>, DriverPtr<WDF_LIBRARY_INFO>),
    status: NtStatus,
) -> Flow<()> {
    let wanted = version(cx, bind + WDF_BIND_INFO::Version)?;
    let there = version(cx, info + WDF_LIBRARY_INFO::Version)?;
    if there < wanted {
        let service = driver_object::service(cx, driver);
        let ((major, minor), (own_major, own_minor)) = (wanted, there);
        let text = format!(
            "{service} is built for KMDF {major}.{minor}, and its framework is of version {own_major}.{own_minor}, which refuses it ({status}): \
             it needs a newer Wdf01000.sys (docs/kmdf.md)"
        );
        cx.with(|k| k.pnp.note(text));
    }
    Ok(())
}

/// `WdfVersionUnbind`. The framework deletes what its client has left, whose callbacks may call its functions: until it has, the client is bound.
///
/// # Errors
/// A verdict if a pointer is bad, or on the framework.
pub(crate) fn version_unbind(
    cx: &mut Cx<'_>,
    _registry_path: DriverPtr<UNICODE_STRING>,
    bind: DriverPtr<WDF_BIND_INFO>,
    globals: DriverPtr<WDF_COMPONENT_GLOBALS>,
) -> Flow<NtStatus> {
    let found = cx.with(|k| {
        let client = k.wdf.clients.iter_mut().find(|client| client.is(bind, globals))?;
        Some((client.table.take_copied(), client.library, client.block))
    });
    let Some((copied, library, block)) = found else { return Ok(NtStatus::INVALID_PARAMETER) };
    copied.give_back(cx, bind)?;
    let info = DriverPtr::<WDF_LIBRARY_INFO>::new(library);
    let leave = cx.read(info + WDF_LIBRARY_INFO::LibraryUnregisterClient)?;
    let arguments = [bind.address, globals.address];
    let answer = routine::call(cx, Role::LibraryUnregisterClient, leave, library, &arguments)?;
    let is_last = cx.with(|k| {
        k.wdf.clients.retain(|client| !client.is(bind, globals));
        answers::clients_change(k);
        k.wdf.clients.is_empty()
    });
    if is_last {
        callbacks::forget_all(cx)?;
    }
    cx.write(bind + WDF_BIND_INFO::Module, 0)?;
    pool::free(cx, DriverPtr::<CLIENT_INFO>::new(block))?;
    Ok(NtStatus(low_half(answer)))
}
