//! Threads of the kernel's own that wait until there is something for them to do: those of threaded DPCs and of
//! passive-level interrupt routines.

use abi::{DriverPtr, NtStatus};
use engine::{Flow, StrandId};

use crate::cx::{Cx, Kernel};
use crate::ke::waits::dispatcher;
use crate::ke::waits::wait::{self, Timeout};

/// Such a thread, once there was something to do.
#[derive(Default)]
pub(crate) struct KernelWorker {
    /// Itself.
    pub(crate) thread: Option<StrandId>,
    /// It has nothing to do.
    waits: bool,
}

/// There is something to do for the worker that `find` finds; `spawn` makes its thread, if it has none.
///
/// # Errors
/// As `spawn`.
pub(crate) fn wake(
    cx: &mut Cx<'_>,
    find: impl Fn(&mut Kernel) -> &mut KernelWorker,
    spawn: impl FnOnce(&mut Cx<'_>) -> Flow<StrandId>,
) -> Flow<()> {
    match cx.with(|k| find(k).thread) {
        None => {
            let thread = spawn(cx)?;
            cx.with(|k| find(k).thread = Some(thread));
        }
        Some(thread) => cx.with(|k| {
            if std::mem::take(&mut find(k).waits) {
                // It waits for nothing else, so no list of a driver's can be damaged.
                let _ = dispatcher::end_wait(k, thread, NtStatus::SUCCESS, 0);
            }
        }),
    }
    cx.with(|k| k.ke.invalidate_levels());
    Ok(())
}

/// The thread of the worker that `find` finds has nothing to do, and waits until [`wake`].
///
/// # Errors
/// [`engine::Leave`] when the machine ends.
pub(crate) fn rest(
    cx: &mut Cx<'_>,
    what: &'static str,
    find: impl Fn(&mut Kernel) -> &mut KernelWorker,
) -> Flow<()> {
    cx.with(|k| find(k).waits = true);
    let _ = wait::wait(cx, &[], false, Timeout::Never, DriverPtr::NULL, what)?;
    Ok(())
}
