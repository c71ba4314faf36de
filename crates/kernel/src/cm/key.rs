//! Keys as drivers open, make and delete them, by handles.
//!
//! Pages: *ZwOpenKey function*, *ZwCreateKey function*, *ZwDeleteKey function*. A driver's own calls are trusted: the
//! access it asks for is remembered and not checked. Symbolic links are made by the kernel only.

use abi::{
    DriverPtr, NtStatus, OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES, REG_CREATED_NEW_KEY, REG_OPENED_EXISTING_KEY,
    UNICODE_STRING,
};
use engine::Flow;

use super::access;
use super::registry::KeyId;
use crate::cx::Cx;
use crate::mm::pool;
use crate::ob::handle::{self, Mode};
use crate::ob::{self, Handle, Kind, Procedures};
use crate::rtl::string;

static PROCEDURES: Procedures = Procedures { close: Procedures::nothing, delete };

fn delete(cx: &mut Cx<'_>, body: u64) -> Flow<()> {
    cx.with(|k| k.cm.open.remove(&body));
    Procedures::free(cx, body)
}

/// A handle to `key`.
///
/// # Errors
/// Inside, `INSUFFICIENT_RESOURCES`.
pub fn open_handle(cx: &mut Cx<'_>, key: KeyId, access: u32, kernel: bool) -> Flow<Result<Handle, NtStatus>> {
    let body: DriverPtr<()> = pool::allocate(cx, pool::Kind::Paged, 0x40, pool::tag(b"Key "))?;
    if body.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    if let Err(status) = ob::object::create(cx, body.address, Kind::Key, "", &PROCEDURES) {
        pool::free(cx, body)?;
        return Ok(Err(status));
    }
    cx.with(|k| k.cm.open.insert(body.address, key));
    let handle = handle::open(cx, body.address, access, kernel)?;
    // The handle keeps it from here on.
    ob::object::dereference(cx, body)?;
    Ok(Ok(handle))
}

/// The key that a handle stands for.
///
/// # Errors
/// `INVALID_HANDLE`, `OBJECT_TYPE_MISMATCH`.
pub fn by_handle(cx: &mut Cx<'_>, handle: u64) -> Result<KeyId, NtStatus> {
    let entry = handle::entry(cx, Handle(handle), Mode::Kernel)?;
    cx.with(|k| k.cm.open.get(&entry.object).copied()).ok_or(NtStatus::OBJECT_TYPE_MISMATCH)
}

/// What names a key to open or make.
struct Name {
    base: Option<KeyId>,
    path: Vec<u16>,
    kernel: bool,
}

fn name(cx: &mut Cx<'_>, attributes: DriverPtr<OBJECT_ATTRIBUTES>) -> Flow<Result<Name, NtStatus>> {
    let root = cx.read(attributes + OBJECT_ATTRIBUTES::RootDirectory)?;
    let text = cx.read(attributes + OBJECT_ATTRIBUTES::ObjectName)?;
    let path = if text.is_null() { Vec::new() } else { string::read(cx, text)? };
    let kernel = cx.read(attributes + OBJECT_ATTRIBUTES::Attributes)? & OBJ_KERNEL_HANDLE != 0;
    let base = match root {
        0 => None,
        root => match by_handle(cx, root) {
            Ok(base) => Some(base),
            Err(status) => return Ok(Err(status)),
        },
    };
    Ok(Ok(Name { base, path, kernel }))
}

/// Opens `key` and stores its handle.
fn hand_out(
    cx: &mut Cx<'_>,
    to: DriverPtr<u64>,
    key: Result<KeyId, NtStatus>,
    access: u32,
    kernel: bool,
) -> Flow<NtStatus> {
    let opened = match key {
        Ok(key) => open_handle(cx, key, access, kernel)?,
        Err(status) => Err(status),
    };
    match opened {
        Ok(handle) => {
            cx.write(to, handle.0)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// `ZwOpenKey`.
///
/// # Errors
/// A verdict on a bad pointer, here and below.
pub fn open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<NtStatus> {
    let name = match name(cx, attributes)? {
        Ok(name) => name,
        Err(status) => return Ok(status),
    };
    let key = cx.with(|k| k.cm.registry.open(name.base, &name.path));
    hand_out(cx, handle, key, access, name.kernel)
}

/// `ZwOpenKeyEx`.
///
/// # Errors
/// As [`open`].
pub fn open_ex(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    _options: u32,
) -> Flow<NtStatus> {
    open(cx, handle, access, attributes)
}

/// `ZwCreateKey`: opens, or makes, the last component.
///
/// # Errors
/// As [`open`].
#[allow(clippy::too_many_arguments, reason = "the DDI has so many")]
pub fn create(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    _title: u32,
    class: DriverPtr<UNICODE_STRING>,
    _options: u32,
    disposition: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let name = match name(cx, attributes)? {
        Ok(name) => name,
        Err(status) => return Ok(status),
    };
    let class = if class.is_null() { Vec::new() } else { string::read(cx, class)? };
    let created = access::make(cx, name.base, &name.path, false);
    if let Ok((key, true)) = created {
        cx.with(|k| k.cm.registry.set_class(key, class));
    }
    let status = hand_out(cx, handle, created.map(|(key, _)| key), access, name.kernel)?;
    if let (NtStatus::SUCCESS, Ok((_, made))) = (status, created)
        && !disposition.is_null()
    {
        cx.write(disposition, if made { REG_CREATED_NEW_KEY } else { REG_OPENED_EXISTING_KEY })?;
    }
    Ok(status)
}

/// `ZwDeleteKey`.
///
/// # Errors
/// None of its own.
pub fn delete_key(cx: &mut Cx<'_>, handle: u64) -> Flow<NtStatus> {
    let key = by_handle(cx, handle);
    Ok(status(key.and_then(|key| access::delete(cx, key))))
}

/// `ZwFlushKey`: there is no disk to write to.
///
/// # Errors
/// None of its own.
pub fn flush(cx: &mut Cx<'_>, handle: u64) -> Flow<NtStatus> {
    Ok(status(by_handle(cx, handle).map(|_| ())))
}

/// A result as a status.
pub(crate) fn status(result: Result<(), NtStatus>) -> NtStatus {
    result.err().unwrap_or(NtStatus::SUCCESS)
}
