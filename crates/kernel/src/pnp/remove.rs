//! Removing a device and what goes with it, by agreement; what is gone is [`super::surprise`]'s. Children are asked and removed before their parents, and
//! so are the devices that drivers have named ([`removal_set`]).
//!
//! Pages: *Removing a Device*, *Removing a Device in a Bus Driver*, *IRP_MN_QUERY_REMOVE_DEVICE*, *IRP_MN_REMOVE_DEVICE*, *Handling an
//! IRP_MN_QUERY_REMOVE_DEVICE Request* ("Windows … track open handles and fail the query if there are open handles after the IRP_MN_QUERY_REMOVE_DEVICE
//! completes"). Drivers that have the device open are asked first
//! (`notify::target`); applications are not asked whether they close their handles. Ours: an open that was under way when the drivers agreed is waited for.

use abi::{
    DEVICE_OBJECT, IRP_MN_CANCEL_REMOVE_DEVICE, IRP_MN_QUERY_REMOVE_DEVICE, IRP_MN_REMOVE_DEVICE, NtStatus,
};
use engine::Flow;

use super::enumerate::tell;
use super::lock::exclusively;
use super::node::{self, NodeId, Origin, State};
use super::request::ask;
use super::surprise::remove_ready;
use super::{notify, related, removal_set, remove_check, stop, tree, usage};
use crate::cx::{Cx, Kernel};
use crate::verdict::Verdict;
use crate::{io, ke, ob};

/// Asks the device's drivers whether it can be removed; if not, or if files are still open on it then (`DEVICE_BUSY`), tells them that
/// it will not be. A stopped device is started first: its resources are not given anew any more.
///
/// # Errors
/// A verdict on a driver of the stack.
pub fn query_remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    exclusively(cx, |cx| ask_remove(cx, id, &[]))
}

/// Asks the drivers of the device, and before them those of all that is removed with it.
fn ask_remove(cx: &mut Cx<'_>, id: NodeId, ejected: &[NodeId]) -> Flow<NtStatus> {
    if node::state(cx, id) == State::Stopped
        && let Err(failure) = stop::restart_while_locked(cx, id)?
    {
        return Ok(failure.status);
    }
    if node::state(cx, id) != State::Started {
        return Ok(NtStatus::INVALID_DEVICE_STATE);
    }
    let together = removal_set::of(cx, id, ejected)?;
    for &one in &together {
        if waits_for_files(node::state(cx, one)) && open_files(cx, one)? > 0 {
            return Ok(NtStatus::DEVICE_BUSY);
        }
    }
    let mut all = together.clone();
    all.retain(|one| node::state(cx, *one) == State::Started);
    if cx.with(|k| all.iter().any(|one| tree::reasons_to_stay(k, *one) > 0)) {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    }
    for (asked_before, one) in all.iter().enumerate() {
        let asked = notify::target::query_remove(cx, *one)?;
        if !asked.is_success() {
            all[..asked_before].iter().rev().try_for_each(|one| notify::target::cancelled(cx, *one))?;
            return Ok(asked);
        }
    }
    for (asked, one) in all.iter().enumerate() {
        let status = ask_one(cx, *one)?;
        if !status.is_success() {
            take_back(cx, &all[..asked])?;
            all[asked + 1..].iter().rev().try_for_each(|one| notify::target::cancelled(cx, *one))?;
            return Ok(status);
        }
    }
    cx.with(|k| k.pnp.node_mut(id).removed_with = together);
    Ok(NtStatus::SUCCESS)
}

/// Devices that have agreed to be removed stay, in the order from which they were asked backwards.
fn take_back(cx: &mut Cx<'_>, agreed: &[NodeId]) -> Flow<()> {
    for &one in agreed.iter().rev() {
        send_cancel(cx, one)?;
        cx.with(|k| k.pnp.node_mut(one).state = State::Started);
    }
    Ok(())
}

/// Asks the drivers of one device; if they refuse, or have files open, they get IRP_MN_CANCEL_REMOVE_DEVICE.
fn ask_one(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    tell(cx, id, "query remove");
    let answer = ask(cx, id, IRP_MN_QUERY_REMOVE_DEVICE, [0; 4])?;
    usage::judge_query(cx, id, "IRP_MN_QUERY_REMOVE_DEVICE", answer.status)?;
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
        let mut agreed = cx.with(|k| asked_with(k, id));
        agreed.retain(|one| node::state(cx, *one) == State::RemovePending);
        take_back(cx, &agreed)?;
        Ok(NtStatus::SUCCESS)
    })
}

/// Who was asked with a device, or what hangs on it; from now on each is asked for itself.
fn asked_with(k: &mut Kernel, id: NodeId) -> Vec<NodeId> {
    let sets = &mut k.pnp.nodes.values_mut().map(|node| &mut node.removed_with);
    let set = sets.find(|set| set.contains(&id)).map(std::mem::take);
    set.unwrap_or_else(|| tree::from_below(k, id))
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
    exclusively(cx, |cx| remove_while_locked(cx, id, &[]))
}

/// As [`remove`], by one who has the device's state to itself; `ejected` are those that go with it when
/// it is ejected.
///
/// # Errors
/// As [`remove`].
pub(super) fn remove_while_locked(cx: &mut Cx<'_>, id: NodeId, ejected: &[NodeId]) -> Flow<NtStatus> {
    if matches!(node::state(cx, id), State::Started | State::Stopped) {
        let status = ask_remove(cx, id, ejected)?;
        if !status.is_success() {
            // One that did not start again has been removed already.
            let removed = node::state(cx, id) == State::Enumerated;
            return Ok(if removed { NtStatus::SUCCESS } else { status });
        }
    }
    let state = node::state(cx, id);
    // One that has gone and is closed is removed by a thread that may not have come to it yet.
    if waits_for_files(state) {
        let removed = remove_ready(cx, id)?;
        return Ok(if removed { NtStatus::SUCCESS } else { NtStatus::INVALID_DEVICE_STATE });
    }
    if !matches!(state, State::RemovePending | State::Added) {
        return Ok(NtStatus::INVALID_DEVICE_STATE);
    }
    remove_all(cx, id)?;
    Ok(NtStatus::SUCCESS)
}

/// Removes the drivers of all that was asked with a device, and its own. What hangs on it and was not asked, because it has no drivers, is removed
/// where it is taken out of the tree.
fn remove_all(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    let mut together = cx.with(|k| std::mem::take(&mut k.pnp.node_mut(id).removed_with));
    if together.is_empty() {
        together = cx.with(|k| tree::from_below(k, id));
    }
    for one in together {
        match node::state(cx, one) {
            State::RemovePending | State::Added => send_remove(cx, one)?,
            state if waits_for_files(state) => {
                remove_ready(cx, one)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes the children of a device out of the tree, whose drivers are removed: their bus driver does with their device objects what it likes.
fn unlink_children(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    for child in cx.with(|k| tree::children(k, Some(id))) {
        unlink_children(cx, child)?;
        if !cx.with(|k| k.pnp.node(child).told_to_go) {
            send_remove(cx, child)?;
        }
        // One that was missing is out of it by now.
        if node::state(cx, child) != State::Deleted {
            delete(cx, child)?;
        }
    }
    Ok(())
}

/// How long an open that is under way keeps a device from being removed, in steps of this many nanoseconds.
const STEP: u64 = 100_000;
const STEPS: u32 = 10_000;

/// Waits for opens that are under way. No new ones begin, and drivers that have agreed to the removal fail these; until they have, their device objects must be there. One
/// whose driver keeps it has a second of time.
fn await_opens(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    for _ in 0..STEPS {
        if !cx.with(|k| io::file::is_being_opened(k, id.pdo())) {
            break;
        }
        ke::wait::sleep(cx, STEP)?;
    }
    Ok(())
}

/// `IRP_MN_REMOVE_DEVICE`, and what must be gone after it.
pub(super) fn send_remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    unlink_children(cx, id)?;
    let drivers = node::stack(cx, id)?;
    cx.with(|k| {
        k.pnp.node_mut(id).told_to_go = true;
        // The physical device object may be started again, and is looked at by its node.
        let others = drivers.iter().filter(|device| **device != id.pdo());
        others.for_each(|device| k.io.devices.change(device.address, |known| known.going = true));
    });
    await_opens(cx, id)?;
    notify::target::complete(cx, id)?;
    tell(cx, id, "remove");
    let above = remove_check::above(cx, id)?;
    // A bus driver that has deleted the device object of a child already has nothing more to hear.
    if !is_deleted(cx, id) {
        ask(cx, id, IRP_MN_REMOVE_DEVICE, [0; 4])?;
    }
    remove_check::after_remove(cx, id, &above)?;
    let gone = cx.with(|k| {
        let node = k.pnp.node_mut(id);
        let gone = node.missing;
        node.state = State::Enumerated;
        node.forget_drivers();
        (node.device_state, node.resources) = (0, Vec::new());
        node.needs_power_of.clear();
        (node.special_files, node.locked) = ([0; 3], false);
        gone
    });
    tell(cx, id, "removed");
    if gone { delete(cx, id) } else { Ok(()) }
}

/// Whether the driver of a device has deleted it.
pub(super) fn is_deleted(cx: &mut Cx<'_>, id: NodeId) -> bool {
    cx.with(|k| k.io.devices.get(id.0).is_none_or(|device| device.deleted))
}

/// A device is out of the tree, and so is its device object: a child's is its bus driver's to delete.
pub(super) fn delete(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    let (is_child, missing) = cx.with(|k| {
        let node = k.pnp.node_mut(id);
        node.state = State::Deleted;
        let state = (matches!(node.origin, Origin::Child), node.missing);
        io::interface::forget_device(k, id.pdo());
        related::forget(k, id);
        state
    });
    if !is_child {
        return io::device::delete(cx, id.pdo());
    }
    let stays = cx.with(|k| k.io.devices.get(id.0).is_some_and(|d| !d.delete_pending && !d.deleted));
    if missing && stays {
        let driver = cx.read(id.pdo() + DEVICE_OBJECT::DriverObject)?;
        let (service, name) = (io::driver::service(cx, driver), cx.with(|k| k.pnp.node(id).name.clone()));
        let message = format!(
            "{service} does not report {name} any more, completed its IRP_MN_REMOVE_DEVICE, and left its physical device object {:#x} there: \
             IoDeleteDevice",
            id.0
        );
        cx.report(Verdict::warning("child-not-deleted", message));
    }
    ob::object::dereference(cx, id.pdo()).map(|_| ())
}

/// After IRP_MN_SURPRISE_REMOVAL drivers are removed when the last file is closed.
pub(super) const fn waits_for_files(state: State) -> bool {
    matches!(state, State::SurpriseRemoved | State::Failed)
}

/// How many files are open on the devices of a stack.
pub(super) fn open_files(cx: &mut Cx<'_>, id: NodeId) -> Flow<i64> {
    let mut files = 0;
    for device in node::stack(cx, id)? {
        files += i64::from(cx.read(device + DEVICE_OBJECT::ReferenceCount)?);
    }
    Ok(files)
}
