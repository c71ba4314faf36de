//! Threads that look at another process's address space for a while.
//!
//! Pages: *KeStackAttachProcess function*, *KeUnstackDetachProcess function*, *Bug Check 0x5: INVALID_PROCESS_ATTACH_ATTEMPT*, *Bug Check 0x6:
//! INVALID_PROCESS_DETACH_ATTEMPT*. An attached thread's process is the other one, for memory and handles; its own stays what it was made in
//! ([`Thread::home`]). Not here: that completions of requests wait meanwhile.

use abi::{DriverPtr, KAPC_STATE, KPROCESS};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::ke::sched::thread_record::Thread;
use crate::mm::spaces;
use crate::ps;
use crate::verdict::Verdict;

/// One attachment of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attached {
    /// The caller's `KAPC_STATE`; 0 of `KeAttachProcess`.
    state: u64,
    /// The process it was in before.
    from: u64,
}

impl Thread {
    /// The process that it belongs to, whatever it is attached to.
    pub(crate) fn home(&self) -> u64 {
        self.attached.first().map_or(self.process, |first| first.from)
    }
}

/// `KeStackAttachProcess`.
///
/// # Errors
/// A verdict if that is no process, or `state` cannot be written.
pub(crate) fn stack_attach(
    cx: &mut Cx<'_>,
    process: DriverPtr<KPROCESS>,
    state: DriverPtr<KAPC_STATE>,
) -> Flow<()> {
    let key = key_of(cx, "KeStackAttachProcess", process)?;
    let before = ps::process::current_object(cx);
    cx.write_bytes(state.address, &[0; size_of::<KAPC_STATE>()])?;
    cx.write(state + KAPC_STATE::Process, before)?;
    attach(cx, key, state.address);
    Ok(())
}

fn attach(cx: &mut Cx<'_>, key: u64, state: u64) {
    cx.with(|k| {
        k.ke.change_thread(|thread| {
            thread.attached.push(Attached { state, from: thread.process });
            thread.process = key;
        });
        spaces::enter(k);
    });
}

fn key_of(cx: &mut Cx<'_>, name: &str, process: DriverPtr<KPROCESS>) -> Flow<u64> {
    let key = cx.with(|k| {
        let mut all = k.ps.processes.iter();
        all.find(|(_, known)| known.object == process).map(|(key, _)| *key)
    });
    key.ok_or_else(|| {
        let message = format!("{name} was called for {:#x}, which is no process", process.address);
        cx.stop(Verdict::error("not-a-process", message))
    })
}

/// `KeUnstackDetachProcess`: back to where the thread was when it attached with this state.
///
/// # Errors
/// A verdict if that was not its last attachment.
pub(crate) fn unstack_detach(cx: &mut Cx<'_>, state: DriverPtr<KAPC_STATE>) -> Flow<()> {
    let last = cx.with(|k| k.ke.thread().and_then(|thread| thread.attached.last().copied()));
    let what = match last {
        Some(last) if last.state == state.address => {
            detach(cx);
            return Ok(());
        }
        Some(last) if last.state == 0 => "the thread was attached last by KeAttachProcess",
        Some(_) => "the thread was attached last with another state",
        None => "the thread is attached to no process",
    };
    let message = format!("KeUnstackDetachProcess was given the state {:#x}, and {what}", state.address);
    Err(cx.stop(Verdict::error("process-detach", message).bug_check(0x6, [0; 4])))
}

fn detach(cx: &mut Cx<'_>) {
    cx.with(|k| {
        k.ke.change_thread(|thread| {
            if let Some(last) = thread.attached.pop() {
                thread.process = last.from;
            }
        });
        spaces::enter(k);
    });
}

/// `KeAttachProcess`: obsolete, and only for a thread that is not attached.
///
/// # Errors
/// A verdict if it is, to another process; or that is no process.
pub(crate) fn attach_once(cx: &mut Cx<'_>, process: DriverPtr<KPROCESS>) -> Flow<()> {
    let key = key_of(cx, "KeAttachProcess", process)?;
    let (current, attached) = cx.with(|k| attachment(k));
    if current == key {
        return Ok(());
    }
    if attached {
        let message = format!(
            "KeAttachProcess was called for the process {:#x} by a thread that is attached to another already",
            process.address
        );
        let now = ps::process::current_object(cx).address;
        let verdict = Verdict::error("process-attach", message);
        return Err(cx.stop(verdict.bug_check(0x5, [process.address, now, 1, 0])));
    }
    attach(cx, key, 0);
    Ok(())
}

/// The process of the current thread, and whether that is attached to it.
fn attachment(k: &Kernel) -> (u64, bool) {
    k.ke.thread().map_or((ps::process::SYSTEM, false), |thread| (thread.process, !thread.attached.is_empty()))
}

/// `KeDetachProcess`; nothing, if the thread is not attached.
///
/// # Errors
/// A verdict if it was attached last by `KeStackAttachProcess`.
pub(crate) fn detach_once(cx: &mut Cx<'_>) -> Flow<()> {
    match cx.with(|k| k.ke.thread().and_then(|thread| thread.attached.last().copied())) {
        None => {}
        Some(last) if last.state == 0 => detach(cx),
        Some(_) => {
            let message =
                "KeDetachProcess was called by a thread that KeStackAttachProcess has attached".to_owned();
            return Err(cx.stop(Verdict::error("process-detach", message).bug_check(0x6, [0; 4])));
        }
    }
    Ok(())
}
