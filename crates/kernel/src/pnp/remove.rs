//! Removing a device: by agreement, or because its card has gone.
//!
//! Pages: *Removing a Device*, *IRP_MN_QUERY_REMOVE_DEVICE*, *IRP_MN_REMOVE_DEVICE*, *IRP_MN_SURPRISE_REMOVAL*, *Handling an
//! IRP_MN_SURPRISE_REMOVAL Request*, *Handling an IRP_MN_QUERY_REMOVE_DEVICE Request* ("Windows … track open handles and fail the query if
//! there are open handles after the IRP_MN_QUERY_REMOVE_DEVICE completes"). Drivers that have the device open are asked first
//! (`notify::target`); applications are not asked whether they close their handles.

use abi::{
    DEVICE_OBJECT, DriverPtr, IRP_MN_CANCEL_REMOVE_DEVICE, IRP_MN_QUERY_REMOVE_DEVICE, IRP_MN_REMOVE_DEVICE,
    IRP_MN_SURPRISE_REMOVAL, NtStatus, PNP_DEVICE_NOT_DISABLEABLE,
};
use engine::Flow;

use super::enumerate::{exclusively, tell};
use super::node::{self, NodeId, State};
use super::request::ask;
use super::{leftovers, notify, stop};
use crate::cx::Cx;
use crate::{io, ke};

/// Asks the device's drivers whether it can be removed; if not, or if files are still open on it then (`DEVICE_BUSY`), tells them that
/// it will not be. A stopped device is started first: its resources are not given anew any more.
///
/// # Errors
/// A verdict on a driver of the stack.
pub fn query_remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    exclusively(cx, |cx| ask_remove(cx, id))
}

fn ask_remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    if node::state(cx, id) == State::Stopped
        && let Err(failure) = stop::restart_while_locked(cx, id)?
    {
        return Ok(failure.status);
    }
    let (state, flags) = cx.with(|k| (k.pnp.node(id).state, k.pnp.node(id).device_state));
    if state != State::Started {
        return Ok(NtStatus::INVALID_DEVICE_STATE);
    }
    if flags & PNP_DEVICE_NOT_DISABLEABLE != 0 {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    }
    let asked = notify::target::query_remove(cx, id)?;
    if !asked.is_success() {
        return Ok(asked);
    }
    tell(cx, id, "query remove");
    let answer = ask(cx, id, IRP_MN_QUERY_REMOVE_DEVICE, [0; 4])?;
    let busy = answer.status.is_success() && open_files(cx, id)? > 0;
    let status = if busy { NtStatus::DEVICE_BUSY } else { answer.status };
    if status.is_success() {
        cx.with(|k| k.pnp.node_mut(id).state = State::RemovePending);
    } else {
        send_cancel(cx, id)?;
    }
    Ok(status)
}

/// Takes a successful [`query_remove`] back.
///
/// # Errors
/// As [`query_remove`].
pub fn cancel_remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    exclusively(cx, |cx| {
        if node::state(cx, id) != State::RemovePending {
            return Ok(NtStatus::INVALID_DEVICE_STATE);
        }
        send_cancel(cx, id)?;
        cx.with(|k| k.pnp.node_mut(id).state = State::Started);
        Ok(NtStatus::SUCCESS)
    })
}

fn send_cancel(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    tell(cx, id, "cancel remove");
    ask(cx, id, IRP_MN_CANCEL_REMOVE_DEVICE, [0; 4])?;
    notify::target::cancelled(cx, id)
}

/// Removes the device's drivers, asking first if [`query_remove`] has not. The card stays, and can be started again.
///
/// # Errors
/// A verdict on a driver of the stack, or on what it left behind.
pub fn remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    exclusively(cx, |cx| remove_while_locked(cx, id))
}

/// As [`remove`], by one who has the device's state to itself.
///
/// # Errors
/// As [`remove`].
pub(super) fn remove_while_locked(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    if matches!(node::state(cx, id), State::Started | State::Stopped) {
        let status = ask_remove(cx, id)?;
        if !status.is_success() {
            // One that did not start again has been removed already.
            let removed = node::state(cx, id) == State::Enumerated;
            return Ok(if removed { NtStatus::SUCCESS } else { status });
        }
    }
    let state = node::state(cx, id);
    // One that has gone and is closed is removed by a thread that may not have come to it yet.
    let overdue = waits_for_files(state) && open_files(cx, id)? == 0;
    if !overdue && !matches!(state, State::RemovePending | State::Added) {
        return Ok(NtStatus::INVALID_DEVICE_STATE);
    }
    send_remove(cx, id)?;
    Ok(NtStatus::SUCCESS)
}

/// `IRP_MN_REMOVE_DEVICE`, and what must be gone after it.
pub(super) fn send_remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    notify::target::complete(cx, id)?;
    tell(cx, id, "remove");
    let above = leftovers::above(cx, id)?;
    ask(cx, id, IRP_MN_REMOVE_DEVICE, [0; 4])?;
    leftovers::after_remove(cx, id, &above)?;
    let gone = cx.with(|k| {
        let node = k.pnp.node_mut(id);
        let gone = node.state == State::SurpriseRemoved;
        node.state = State::Enumerated;
        node.forget_drivers();
        (node.device_state, node.resources) = (0, Vec::new());
        gone
    });
    tell(cx, id, "removed");
    if gone { delete(cx, id) } else { Ok(()) }
}

/// The card is pulled out: from now on it answers nothing. Its drivers are told, and removed when the last file on the
/// device is closed.
///
/// # Errors
/// As [`remove`].
pub fn surprise_remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    let at = cx.with(|k| k.pnp.node(id).function.address);
    cx.with(|k| k.hal.hardware.set_present(at, false));
    ke::interrupt::deliver(cx)?;
    let was_there = exclusively(cx, |cx| surprise_while_locked(cx, id, true))?;
    Ok(if was_there { NtStatus::SUCCESS } else { NtStatus::INVALID_DEVICE_STATE })
}

/// As [`surprise_remove`], for a device that has failed (`gone` is false) or whose card has gone. False if it is gone already.
pub(super) fn surprise_while_locked(cx: &mut Cx<'_>, id: NodeId, gone: bool) -> Flow<bool> {
    match node::state(cx, id) {
        State::Started | State::StopPending | State::Stopped | State::RemovePending => {}
        State::Added => {
            send_remove(cx, id)?;
            return Ok(true);
        }
        State::Enumerated => {
            if gone {
                delete(cx, id)?;
            }
            return Ok(true);
        }
        State::Failed | State::SurpriseRemoved | State::Deleted => return Ok(false),
    }
    tell(cx, id, "surprise removal of");
    let above = leftovers::above(cx, id)?;
    ask(cx, id, IRP_MN_SURPRISE_REMOVAL, [0; 4])?;
    leftovers::after_surprise(cx, id, &above)?;
    leftovers::disable_interfaces(cx, id, "IRP_MN_SURPRISE_REMOVAL")?;
    cx.with(|k| k.pnp.node_mut(id).state = if gone { State::SurpriseRemoved } else { State::Failed });
    notify::target::complete(cx, id)?;
    if open_files(cx, id)? == 0 {
        send_remove(cx, id)?;
    }
    Ok(true)
}

/// The card is gone, and so is its device object.
fn delete(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    cx.with(|k| {
        k.pnp.node_mut(id).state = State::Deleted;
        io::interface::forget_device(k, id.pdo());
    });
    io::device::delete(cx, id.pdo())
}

/// A file on a device of the stack was closed: a device that has gone is removed with the last of them.
///
/// # Errors
/// [`engine::Leave`] if the machine ends meanwhile.
pub fn file_closed(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
    let waiting: Vec<NodeId> = cx.with(|k| {
        let nodes = k.pnp.nodes.iter();
        nodes.filter(|(_, node)| waits_for_files(node.state)).map(|(id, _)| *id).collect()
    });
    for id in waiting {
        if !node::stack(cx, id)?.contains(&device) || open_files(cx, id)? > 0 {
            continue;
        }
        let work = move |cx: &mut Cx<'_>| {
            exclusively(cx, |cx| match node::state(cx, id) {
                state if waits_for_files(state) => send_remove(cx, id),
                _ => Ok(()),
            })
        };
        ke::thread::spawn(cx, "PnP manager", Box::new(work))?;
    }
    Ok(())
}

/// Drivers that were told that their device is gone are removed when the last file is closed.
const fn waits_for_files(state: State) -> bool {
    matches!(state, State::SurpriseRemoved | State::Failed)
}

/// How many files are open on the devices of a stack.
fn open_files(cx: &mut Cx<'_>, id: NodeId) -> Flow<i64> {
    let mut files = 0;
    for device in node::stack(cx, id)? {
        files += i64::from(cx.read(device + DEVICE_OBJECT::ReferenceCount)?);
    }
    Ok(files)
}
