//! What names an object that is to be opened or created.
//!
//! Page: *OBJECT_ATTRIBUTES structure*. Not here: names relative to an open file, security descriptors.

use abi::{DriverPtr, NtStatus, OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES};
use engine::Flow;

use super::handle::{self, Handle, Mode};
use super::object::{self, Kind};
use super::{directory, string};
use crate::cx::Cx;
use crate::verdict::Verdict;

/// What an `OBJECT_ATTRIBUTES` says.
#[derive(Default)]
pub(crate) struct Attributes {
    /// The whole name; empty if it has none.
    pub(crate) name: String,
    /// `OBJ_…`.
    pub(crate) flags: u32,
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
/// A verdict if a pointer is bad, or the name is relative to an open file; inside, `INVALID_PARAMETER` for a structure of another length,
/// and what is wrong with a handle to a directory.
pub(crate) fn read(
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
    Ok(within(cx, root, name)?.map(|name| Attributes { name, flags }))
}

/// The whole name of what is called `name` in the directory that the handle `root` stands for; `name` itself if that is 0.
fn within(cx: &mut Cx<'_>, root: u64, name: String) -> Flow<Result<String, NtStatus>> {
    if root == 0 || name.is_empty() {
        return Ok(Ok(name));
    }
    let entry = match handle::entry(cx, Handle(root), Mode::Kernel) {
        Ok(entry) => entry,
        Err(status) => return Ok(Err(status)),
    };
    if entry.kind == Kind::File {
        return Err(cx.stop(Verdict::not_implemented("a name relative to an open file")));
    }
    let Some(path) = directory::path(cx, entry.object).filter(|_| entry.kind == Kind::Directory) else {
        return Ok(Err(NtStatus::OBJECT_TYPE_MISMATCH));
    };
    Ok(if name.starts_with('\\') {
        Err(NtStatus::OBJECT_PATH_SYNTAX_BAD)
    } else {
        Ok(format!("{path}\\{name}"))
    })
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
