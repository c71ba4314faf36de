//! What names an object that is to be opened or created.
//!
//! Page: *OBJECT_ATTRIBUTES structure*. Not here: names relative to a directory's handle, security descriptors.

use abi::{DriverPtr, NtStatus, OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES};
use engine::Flow;

use super::string;
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
/// A verdict if a pointer is bad, or the name is relative to a handle; inside, `INVALID_PARAMETER` for a structure of another length.
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
    if !name.is_empty() && cx.read(from + OBJECT_ATTRIBUTES::RootDirectory)? != 0 {
        return Err(cx.stop(Verdict::not_implemented("a name relative to the handle of a directory")));
    }
    Ok(Ok(Attributes { name, flags }))
}
