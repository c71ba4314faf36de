//! Symbolic links that drivers make for their devices.
//!
//! Pages: *IoCreateSymbolicLink function*, *IoDeleteSymbolicLink function*, *IoCreateUnprotectedSymbolicLink function*.
//! Protection does not exist; a link is remembered with the driver that made it, for the check at unload.

use abi::{DriverPtr, NtStatus, UNICODE_STRING};
use engine::Flow;

use super::driver;
use crate::cx::Cx;
use crate::ob;
use crate::ob::names::Target;

/// `IoCreateSymbolicLink`, `IoCreateUnprotectedSymbolicLink`.
///
/// # Errors
/// A verdict if a string is bad.
pub(crate) fn create(
    cx: &mut Cx<'_>,
    link: DriverPtr<UNICODE_STRING>,
    target: DriverPtr<UNICODE_STRING>,
) -> Flow<NtStatus> {
    let link = ob::string::read(cx, link)?;
    let target = ob::string::read(cx, target)?;
    let owner = driver::calling(cx);
    Ok(cx.with(|k| match k.ob.names.insert(&link, Target::Link(target)) {
        Ok(path) => {
            if let Some(owner) = owner {
                k.io.links.insert(path, owner);
            }
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }))
}

/// `IoDeleteSymbolicLink`.
///
/// # Errors
/// A verdict if the string is bad.
pub(crate) fn delete(cx: &mut Cx<'_>, link: DriverPtr<UNICODE_STRING>) -> Flow<NtStatus> {
    let link = ob::string::read(cx, link)?;
    Ok(cx.with(|k| match k.ob.names.resolve_link(&link) {
        Ok(found) if matches!(found.target, Target::Link(_)) => {
            k.ob.names.remove(&found.path);
            k.io.links.remove(&found.path);
            NtStatus::SUCCESS
        }
        Ok(_) => NtStatus::OBJECT_TYPE_MISMATCH,
        Err(status) => status,
    }))
}
