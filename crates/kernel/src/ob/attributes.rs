//! What names an object that is to be opened or created.
//!
//! Page: *OBJECT_ATTRIBUTES structure*. Not here: security descriptors.

use abi::{DriverPtr, NtStatus, OBJ_KERNEL_HANDLE, OBJ_OPENIF, OBJECT_ATTRIBUTES};
use engine::Flow;

use super::handle::{self, Handle, Mode};
use super::object::{self, Kind};
use super::{directory, string};
use crate::cx::Cx;

/// What an `OBJECT_ATTRIBUTES` says.
#[derive(Default)]
pub(crate) struct Attributes {
    /// The whole name; empty if it has none.
    pub(crate) name: String,
    /// `OBJ_…`.
    pub(crate) flags: u32,
    /// The open file that the name counts from; 0 if it is a whole one. It is not referenced.
    pub(crate) file: u64,
}

impl Attributes {
    /// Whether the handle is to be a kernel handle.
    pub(crate) const fn kernel_handle(&self) -> bool {
        self.flags & OBJ_KERNEL_HANDLE != 0
    }
}

/// Reads them; a null pointer says nothing.
///
/// # Errors
/// A verdict if a pointer is bad; inside, `INVALID_PARAMETER` for a structure of another length, and what is wrong with a handle to a
/// directory: an open file is none.
pub(crate) fn read(
    cx: &mut Cx<'_>,
    from: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<Result<Attributes, NtStatus>> {
    Ok(read_for_file(cx, from)?
        .and_then(|named| if named.file == 0 { Ok(named) } else { Err(NtStatus::OBJECT_TYPE_MISMATCH) }))
}

/// As [`read`], of a file that is to be opened: its name may count from an open file.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_for_file(
    cx: &mut Cx<'_>,
    from: DriverPtr<OBJECT_ATTRIBUTES>,
) -> Flow<Result<Attributes, NtStatus>> {
    if from.is_null() {
        return Ok(Ok(Attributes::default()));
    }
    if cx.read(from + OBJECT_ATTRIBUTES::Length)? as usize != size_of::<OBJECT_ATTRIBUTES>() {
        return Ok(Err(NtStatus::INVALID_PARAMETER));
    }
    let name = cx.read(from + OBJECT_ATTRIBUTES::ObjectName)?;
    let (name, flags) = (string::read(cx, name)?, cx.read(from + OBJECT_ATTRIBUTES::Attributes)?);
    let root = cx.read(from + OBJECT_ATTRIBUTES::RootDirectory)?;
    Ok(within(cx, root, name).map(|(name, file)| Attributes { name, flags, file }))
}

/// The whole name of what is called `name` in the directory that the handle `root` stands for; `name` itself if that is 0, or an open
/// file, which then comes with it.
fn within(cx: &mut Cx<'_>, root: u64, name: String) -> Result<(String, u64), NtStatus> {
    if root == 0 {
        return Ok((name, 0));
    }
    let entry = handle::entry(cx, Handle(root), Mode::Kernel)?;
    if entry.kind == Kind::File {
        return Ok((name, entry.object));
    }
    if name.is_empty() {
        return Ok((name, 0));
    }
    let path = directory::path(cx, entry.object).filter(|_| entry.kind == Kind::Directory);
    let path = path.ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
    if name.starts_with('\\') {
        Err(NtStatus::OBJECT_PATH_SYNTAX_BAD)
    } else {
        Ok((format!("{path}\\{name}"), 0))
    }
}

/// What a routine that makes an object answers if one of that kind, or something else, has the name already: the object is opened if
/// `OBJ_OPENIF` allows it. None: the name is free, or there is none.
///
/// # Errors
/// A verdict if a pointer is bad.
pub(crate) fn open_existing(
    cx: &mut Cx<'_>,
    named: &Attributes,
    kind: Kind,
    access: u32,
    to: DriverPtr<u64>,
) -> Flow<Option<NtStatus>> {
    if named.name.is_empty() {
        return Ok(None);
    }
    let object = match object::named(cx, &named.name, kind) {
        Ok(Ok(object)) => object,
        Ok(Err(status)) => return Ok(Some(status)),
        Err(_) => return Ok(None),
    };
    if named.flags & OBJ_OPENIF == 0 {
        return Ok(Some(NtStatus::OBJECT_NAME_COLLISION));
    }
    let opened = handle::open(cx, object, access, named.kernel_handle())?;
    cx.write(to, opened.0)?;
    Ok(Some(NtStatus::OBJECT_NAME_EXISTS))
}

/// A handle to the object of this kind that `attributes` name.
///
/// # Errors
/// As [`read`].
pub(crate) fn open_named(
    cx: &mut Cx<'_>,
    handle: DriverPtr<u64>,
    access: u32,
    attributes: DriverPtr<OBJECT_ATTRIBUTES>,
    kind: Kind,
) -> Flow<NtStatus> {
    let named = match read(cx, attributes)? {
        Ok(named) => named,
        Err(status) => return Ok(status),
    };
    match object::named(cx, &named.name, kind).and_then(|found| found) {
        Ok(object) => {
            let opened = handle::open(cx, object, access, named.kernel_handle())?;
            cx.write(handle, opened.0)?;
            Ok(NtStatus::SUCCESS)
        }
        Err(status) => Ok(status),
    }
}
