//! Directories of names and symbolic links, by handles.
//!
//! Pages: *ZwCreateDirectoryObject function*, *ZwOpenDirectoryObject function*, *ZwOpenSymbolicLinkObject function*,
//! *ZwQuerySymbolicLinkObject function*, *ZwMakeTemporaryObject function*. A directory that a driver makes goes with its last handle, unless it
//! is permanent or something in it still has a name. There are no shadow directories.

use std::collections::BTreeMap;

use abi::{DriverPtr, NtStatus, OBJ_OPENIF, OBJ_PERMANENT, OBJECT_ATTRIBUTES, UNICODE_STRING};
use engine::Flow;

use super::attributes::{self, Attributes};
use super::handle::{self, Handle, Mode};
use super::names::{Found, Target};
use super::object::{self, Kind, Procedures};
use super::string;
use crate::cx::Cx;
use crate::mm::pool;

/// Bytes of an object, which drivers see as opaque.
const SIZE: u64 = 0x10;

static PROCEDURES: Procedures = Procedures { close: Procedures::nothing, delete };

/// A directory or a link that something has a handle to.
pub(crate) struct Opened {
    /// Its whole name.
    path: String,
    /// Where it leads, if it is a link.
    target: Option<String>,
    /// It was made by a driver and goes with its object.
    is_temporary: bool,
}

/// Those that are open, by the addresses of their bodies.
pub(crate) type State = BTreeMap<u64, Opened>;

/// The last reference is gone.
fn delete(cx: &mut Cx<'_>, body: u64) -> Flow<()> {
    cx.with(|k| {
        if let Some(opened) = k.ob.opened.remove(&body)
            && opened.is_temporary
            && k.ob.names.is_empty(&opened.path)
        {
            k.ob.names.remove(&opened.path);
        }
    });
    Procedures::free(cx, body)
}

/// The whole name of the directory or link at `body`.
pub(crate) fn path(cx: &mut Cx<'_>, body: u64) -> Option<String> {
    cx.with(|k| k.ob.opened.get(&body).map(|opened| opened.path.clone()))
}

/// A handle to what has been found: the object that other handles to it have, or a new one.
fn open(cx: &mut Cx<'_>, new: Opened, access: u32, named: &Attributes) -> Flow<Result<Handle, NtStatus>> {
    let kind = if new.target.is_some() { Kind::SymbolicLink } else { Kind::Directory };
    let known = cx.with(|k| {
        let mut all = k.ob.opened.iter();
        let same = |other: &Opened| (&other.path, &other.target) == (&new.path, &new.target);
        all.find(|(_, other)| same(other)).map(|(body, _)| *body)
    });
    if let Some(body) = known {
        return handle::open(cx, body, access, named.kernel_handle()).map(Ok);
    }
    let body: DriverPtr<()> = pool::allocate(cx, pool::Kind::Paged, SIZE, pool::tag(b"Dire"))?;
    if body.is_null() {
        return Ok(Err(NtStatus::INSUFFICIENT_RESOURCES));
    }
    object::create(cx, body.address, kind, "", &PROCEDURES).expect("it is given no name that could clash");
    cx.with(|k| k.ob.opened.insert(body.address, new));
    let opened = handle::open(cx, body.address, access, named.kernel_handle())?;
    // The handle keeps it from here on.
    object::dereference(cx, body)?;
    Ok(Ok(opened))
}

/// `ZwCreateDirectoryObject`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_create(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<NtStatus> {
    let named = match attributes::read(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    let is_temporary = named.flags & OBJ_PERMANENT == 0;
    let made = cx.with(|k| k.ob.names.insert(&named.name, Target::Directory));
    let (path, status) = match made {
        Ok(path) => (path, NtStatus::SUCCESS),
        Err(NtStatus::OBJECT_NAME_COLLISION) if named.flags & OBJ_OPENIF != 0 => {
            match cx.with(|k| k.ob.names.resolve(&named.name)) {
                Ok(Found { path, target: Target::Directory, .. }) => (path, NtStatus::OBJECT_NAME_EXISTS),
                _ => return Ok(NtStatus::OBJECT_TYPE_MISMATCH),
            }
        }
        Err(status) => return Ok(status),
    };
    let is_temporary = is_temporary && status == NtStatus::SUCCESS;
    let opened = match open(cx, Opened { path: path.clone(), target: None, is_temporary }, access, &named)? {
        Ok(opened) => opened,
        Err(failed) => {
            if status == NtStatus::SUCCESS {
                cx.with(|k| k.ob.names.remove(&path));
            }
            return Ok(failed);
        }
    };
    cx.write(handle, opened.0)?;
    Ok(status)
}

/// `ZwOpenDirectoryObject`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_open(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<NtStatus> {
    open_existing(cx, handle, access, attributes, |k, name| match k.ob.names.resolve(name)? {
        Found { path, target: Target::Directory, .. } => Ok((path, None)),
        _ => Err(NtStatus::OBJECT_TYPE_MISMATCH),
    })
}

/// `ZwCreateSymbolicLinkObject`: no page has it; as a directory, a link goes with its last handle, unless it is permanent.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_create_link(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    target: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let named = match attributes::read(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    let target = string::read(cx, target)?;
    if target.is_empty() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    let path = match cx.with(|k| k.ob.names.insert(&named.name, Target::Link(target.clone()))) {
        Ok(path) => path,
        Err(status) => return Ok(status),
    };
    let is_temporary = named.flags & OBJ_PERMANENT == 0;
    let new = Opened { path: path.clone(), target: Some(target), is_temporary };
    match open(cx, new, access, &named)? {
        Ok(opened) => {
            cx.write(handle, opened.0)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => {
            cx.with(|k| k.ob.names.remove(&path));
            Ok(status)
        }
    }
}

/// `ZwOpenSymbolicLinkObject`.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_open_link(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<NtStatus> {
    open_existing(cx, handle, access, attributes, |k, name| match k.ob.names.resolve_link(name)? {
        Found { path, target: Target::Link(to), .. } => Ok((path, Some(to))),
        _ => Err(NtStatus::OBJECT_TYPE_MISMATCH),
    })
}

fn open_existing(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    find: impl FnOnce(&mut crate::cx::Kernel, &str) -> Result<(String, Option<String>), NtStatus>,
) -> Flow<NtStatus> {
    let named = match attributes::read(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    let (path, target) = match cx.with(|k| find(k, &named.name)) {
        Ok(found) => found,
        Err(status) => return Ok(status),
    };
    match open(cx, Opened { path, target, is_temporary: false }, access, &named)? {
        Ok(opened) => {
            cx.write(handle, opened.0)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}

/// `ZwQuerySymbolicLinkObject`: where the link leads, without a zero behind it. `returned` gets the bytes that this takes.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn zw_query_link(
    cx: &mut Cx<'_>,
    link: u64,
    text: DriverPtr<UNICODE_STRING>,
    returned: DriverPtr<u32>,
) -> Flow<NtStatus> {
    let entry = match handle::reference(cx, Handle(link), Some(Kind::SymbolicLink), 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    let target = cx.with(|k| k.ob.opened.get(&entry.object).and_then(|opened| opened.target.clone()));
    object::dereference(cx, DriverPtr::<()>::new(entry.object))?;
    let encoded = string::encode(&target.unwrap_or_default());
    let bytes = &encoded[..encoded.len() - 2];
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    if !returned.is_null() {
        cx.write(returned, length.into())?;
    }
    if cx.read(text + UNICODE_STRING::MaximumLength)? < length {
        return Ok(NtStatus::BUFFER_TOO_SMALL);
    }
    let buffer = cx.read(text + UNICODE_STRING::Buffer)?;
    cx.write_bytes(buffer.address, bytes)?;
    cx.write(text + UNICODE_STRING::Length, length)?;
    Ok(NtStatus::SUCCESS)
}

/// `ZwMakeTemporaryObject`: a permanent object goes with its last handle.
///
/// # Errors
/// A verdict if there is no such handle.
pub(crate) fn zw_make_temporary(cx: &mut Cx<'_>, handle: u64) -> Flow<NtStatus> {
    let entry = match handle::reference(cx, Handle(handle), None, 0, Mode::Kernel)? {
        Ok(entry) => entry,
        Err(status) => return Ok(status),
    };
    cx.with(|k| {
        if let Some(opened) = k.ob.opened.get_mut(&entry.object) {
            opened.is_temporary = true;
        }
    });
    object::dereference(cx, DriverPtr::<()>::new(entry.object))?;
    Ok(NtStatus::SUCCESS)
}
