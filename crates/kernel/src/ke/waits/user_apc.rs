//! What interrupts a wait on behalf of an application: user APCs, and the end of the thread. Follows *Waits and APCs*,
//! *KeWaitForSingleObject function*, *Disabling APCs*.
//!
//! The APC's routine is the application's own; here it only ends waits and counts as delivered when the thread returns to its
//! application. An alertable wait in kernel mode is interrupted, and nothing is delivered: *ours,* with STATUS_USER_APC too. An end
//! comes when the thread returns, too. Alerts (STATUS_ALERTED) have no documented source and do not exist here.

use abi::{DriverPtr, KTHREAD, NtStatus};
use engine::{Flow, StrandId};

use super::dispatcher;
use crate::cx::{Cx, Kernel};
use crate::ke::levels::irql;
use crate::ke::sched::thread_record::Thread;

/// Who a wait is made for, and what may interrupt it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WaitMode {
    /// `WaitMode` is `UserMode`.
    user: bool,
    alertable: bool,
}

impl WaitMode {
    /// Nothing interrupts it.
    pub(crate) const KERNEL: Self = Self { user: false, alertable: false };
    /// Of an application that waits for its request.
    pub(crate) const APPLICATION: Self = Self { user: true, alertable: false };

    /// The same, which is alertable.
    pub(crate) const ALERTABLE_APPLICATION: Self = Self { user: true, alertable: true };

    /// From a `KPROCESSOR_MODE` and `Alertable`.
    pub(crate) const fn of(mode: u8, alertable: bool) -> Self {
        Self { user: mode != 0, alertable }
    }
}

/// What an application has for one of its threads.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wanted {
    /// A user APC is queued.
    apc: bool,
    /// It has interrupted a wait in user mode: it comes when the thread returns, and no wait in user mode comes before.
    delivers: bool,
    /// The thread is to end.
    end: bool,
}

/// Whether a wait of this mode must not begin, or go on.
fn interrupts(thread: &Thread, mode: WaitMode) -> bool {
    let Wanted { apc, delivers, end } = thread.wanted;
    let disabled = thread.apc_disable != 0 || thread.special_apc_disable != 0;
    !disabled && ((mode.alertable && apc) || (mode.user && (delivers || end)))
}

/// If a wait of `strand`'s must not begin: its status.
pub(super) fn instead_of_waiting(k: &mut Kernel, strand: StrandId, mode: WaitMode) -> Option<NtStatus> {
    if mode == WaitMode::KERNEL {
        return None;
    }
    let thread = k.ke.sched.threads_mut().get_mut(strand)?;
    let interrupts = interrupts(thread, mode);
    thread.wanted.delivers |= interrupts && mode.user && thread.wanted.apc;
    interrupts.then_some(NtStatus::USER_APC)
}

/// `QueueUserAPC`, or the end of a `ReadFileEx`, for a thread of an application.
///
/// # Errors
/// A verdict on a damaged wait list; [`engine::Leave`] of what runs at once.
pub fn queue(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<()> {
    want(cx, thread, |wanted| wanted.apc = true)
}

/// `TerminateThread`, or the exit of its process: the thread ends when it returns to its application.
///
/// # Errors
/// As [`queue`].
pub fn end(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>) -> Flow<()> {
    want(cx, thread, |wanted| wanted.end = true)
}

fn want(cx: &mut Cx<'_>, thread: DriverPtr<KTHREAD>, what: fn(&mut Wanted)) -> Flow<()> {
    let ended = cx.with(|k| {
        let Some(strand) = k.ke.thread_of(thread.address).map(|thread| thread.strand) else { return Ok(()) };
        let thread = k.ke.sched.threads_mut().get_mut(strand).expect("it was there just now");
        what(&mut thread.wanted);
        let Some(mode) = thread.wait.as_ref().map(|wait| wait.wait_mode) else { return Ok(()) };
        match instead_of_waiting(k, strand, mode) {
            Some(status) => dispatcher::end_wait(k, strand, status, 0),
            None => Ok(()),
        }
    });
    ended.map_err(|broken| dispatcher::stop(cx, thread.cast(), broken))?;
    irql::settle(cx)
}

/// Whether the thread that runs now is to end when it returns to its application.
pub fn is_to_end(cx: &mut Cx<'_>) -> bool {
    cx.with(|k| k.ke.thread().is_some_and(|thread| thread.wanted.end))
}

/// The thread that runs now returns to its application, where its APC is delivered. Whether it is to end there.
pub fn returns(cx: &mut Cx<'_>) -> bool {
    cx.with(|k| {
        let Some(thread) = k.ke.thread_mut() else { return false };
        if thread.wanted.delivers {
            (thread.wanted.apc, thread.wanted.delivers) = (false, false);
        }
        thread.wanted.end
    })
}
