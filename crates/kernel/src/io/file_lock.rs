//! The lock of a file object: a file that was opened for synchronous I/O does one request at a time.
//!
//! Page: *FILE_OBJECT structure*. `Busy`, `Waiters` and `Lock` of the file object are as debuggers see them.

use abi::{DriverPtr, FILE_OBJECT};
use engine::Flow;

use crate::cx::Cx;
use crate::ke;

/// Waits until no other request is under way on the file, and begins one.
///
/// # Errors
/// A verdict on a damaged file object; if the machine ends meanwhile.
pub(crate) fn acquire(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>) -> Flow<()> {
    while cx.read(file + FILE_OBJECT::Busy)? != 0 {
        let waiters = cx.read(file + FILE_OBJECT::Waiters)?;
        cx.write(file + FILE_OBJECT::Waiters, waiters.wrapping_add(1))?;
        let _ = ke::wait::for_object(cx, file + FILE_OBJECT::Lock)?;
        let waiters = cx.read(file + FILE_OBJECT::Waiters)?;
        cx.write(file + FILE_OBJECT::Waiters, waiters.wrapping_sub(1))?;
    }
    cx.write(file + FILE_OBJECT::Busy, 1)
}

/// The request is over; one that waits goes on.
///
/// # Errors
/// As [`acquire`].
pub(crate) fn release(cx: &mut Cx<'_>, file: DriverPtr<FILE_OBJECT>) -> Flow<()> {
    cx.write(file + FILE_OBJECT::Busy, 0)?;
    if cx.read(file + FILE_OBJECT::Waiters)? > 0 {
        ke::event::set(cx, file + FILE_OBJECT::Lock, 0, false)?;
    }
    Ok(())
}
