//! System services as drivers call them (`Zw…`): a boundary that no exception crosses.
//!
//! Pages: *Using Nt and Zw Versions of the Native System Services Routines*, *PreviousMode*, *Bug Check 0x3B:
//! SYSTEM_SERVICE_EXCEPTION*. An exception that no handler inside the service takes ends Windows there, whatever handlers
//! the caller has. What the services do is elsewhere.

use engine::{Args, Flow};

use crate::cx::Cx;
use crate::exports::Export;

/// Whether calls of an export go through the system service dispatcher.
pub(crate) const fn is_one(name: &str) -> bool {
    matches!(name.as_bytes(), [b'Z', b'w', ..])
}

/// Carries one out.
///
/// # Errors
/// The service's.
#[cold]
pub(crate) fn call(cx: &mut Cx<'_>, export: &Export, args: &Args) -> Flow<u64> {
    let depth = cx.engine().depth();
    cx.with(|k| k.ke.change_thread(|thread| thread.services.push(depth)));
    let result = (export.call)(cx, args);
    cx.with(|k| {
        k.ke.change_thread(|thread| {
            thread.services.pop();
        });
    });
    result
}

/// Whether the driver code of call `depth` waits for a service.
pub(crate) fn is_waited_for(cx: &mut Cx<'_>, depth: u32) -> bool {
    cx.with(|k| k.ke.thread().is_some_and(|thread| thread.services.contains(&depth)))
}
