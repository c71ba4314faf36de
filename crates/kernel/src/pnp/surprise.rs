//! A device is gone, or has failed: its drivers get IRP_MN_SURPRISE_REMOVAL, and are removed when the last file on it is closed.
//!
//! Pages: *IRP_MN_SURPRISE_REMOVAL*, *Handling an IRP_MN_SURPRISE_REMOVAL Request*, *Understanding When Remove IRPs Are Issued*. Its children and what its drivers have
//! reported as relations ([`removal_set`]) go with it; for relations the pages say so of agreed removals only.

use abi::{DEVICE_OBJECT, DriverPtr, IRP_MN_SURPRISE_REMOVAL, NtStatus};
use engine::Flow;

use super::enumerate::tell;
use super::lock::exclusively;
use super::node::{self, NodeId, Origin, State};
use super::remove::{delete, open_files, send_remove, waits_for_files};
use super::request::ask;
use super::{notify, removal_set, remove_check, tree};
use crate::cx::{Cx, Kernel};
use crate::hal::hardware::Function;
use crate::{ke, po};

/// The card is pulled out: from now on it answers nothing. Its drivers get IRP_MN_SURPRISE_REMOVAL, and are removed when the last file on the
/// device is closed. A child that a driver reports is there as long as it is reported: its drivers get the same, and are removed.
///
/// # Errors
/// As [`super::remove::remove`].
pub fn surprise_remove(cx: &mut Cx<'_>, id: NodeId) -> Flow<NtStatus> {
    let gone = cx.with(|k| {
        pull(k, id);
        !matches!(k.pnp.node(id).origin, Origin::Child)
    });
    ke::interrupt::deliver(cx)?;
    if cx.with(|k| po::system::sleeps(k)) {
        // Its drivers get to know when the system is awake.
        let tell = move |cx: &mut Cx<'_>| exclusively(cx, |cx| surprise_while_locked(cx, id, gone)).map(drop);
        ke::thread::spawn(cx, "PnP manager", Box::new(tell))?;
        return Ok(NtStatus::SUCCESS);
    }
    let was_there = exclusively(cx, |cx| surprise_while_locked(cx, id, gone))?;
    Ok(if was_there { NtStatus::SUCCESS } else { NtStatus::INVALID_DEVICE_STATE })
}

/// The device's card, if it has one, answers nothing from now on.
fn pull(k: &mut Kernel, id: NodeId) {
    if let Some(card) = k.pnp.node(id).card() {
        k.hal.pulled.add(&card.function);
        k.hal.hardware.set_present(card.function.address, false);
    }
}

/// The device whose card answers there.
pub(crate) fn present_at(k: &Kernel, port: bool, address: u64) -> Option<NodeId> {
    let is_there = |function: &Function| function.windows.iter().any(|window| window.has(port, address));
    let nodes = k.pnp.nodes.iter().filter(|(_, node)| !node.missing && !node.is_loose);
    let mut cards = nodes.filter_map(|(id, node)| Some((*id, &node.card()?.function)));
    cards.find(|(_, function)| is_there(function)).map(|(id, _)| id)
}

/// The card is gone: from now on it answers nothing. The system knows so many nanoseconds later.
///
/// # Errors
/// [`engine::Leave`] of what is let in now.
pub(crate) fn goes(cx: &mut Cx<'_>, id: NodeId, noticed: u64) -> Flow<()> {
    cx.with(|k| {
        k.pnp.node_mut(id).is_loose = true;
        pull(k, id);
    });
    let notice = move |cx: &mut Cx<'_>| {
        ke::wait::sleep(cx, noticed)?;
        surprise_remove(cx, id).map(drop)
    };
    ke::thread::spawn(cx, "PnP manager", Box::new(notice)).map(drop)
}

/// As [`surprise_remove`], for a device that has failed (`gone` is false) or is not on its bus any more. False if it is gone already.
pub(super) fn surprise_while_locked(cx: &mut Cx<'_>, id: NodeId, gone: bool) -> Flow<bool> {
    if matches!(node::state(cx, id), State::Failed | State::SurpriseRemoved | State::Deleted) {
        return Ok(false);
    }
    if gone {
        cx.with(|k| k.pnp.node_mut(id).missing = true);
    }
    // Its drivers are going to be removed, and with them those that they have named.
    let together = removal_set::of(cx, id, &[])?;
    for &one in &together {
        let gone = gone && cx.with(|k| one == id || tree::is_below(k, one, id));
        tell_surprise(cx, one, gone)?;
    }
    for one in together {
        remove_ready(cx, one)?;
    }
    Ok(true)
}

/// The driver of its parent does not report a child any more.
pub(super) fn vanished(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    if !surprise_while_locked(cx, id, true)? {
        // It has failed, and waits for files: it goes with the last of them.
        cx.with(|k| k.pnp.node_mut(id).missing = true);
    }
    Ok(())
}

/// `IRP_MN_SURPRISE_REMOVAL` to the drivers of one device, if it was started.
fn tell_surprise(cx: &mut Cx<'_>, id: NodeId, gone: bool) -> Flow<()> {
    if !matches!(
        node::state(cx, id),
        State::Started | State::StopPending | State::Stopped | State::RemovePending
    ) {
        return Ok(());
    }
    tell(cx, id, "surprise removal of");
    if gone {
        cx.with(|k| k.hal.stale.gone(&k.pnp.node(id).name));
    }
    let above = remove_check::above(cx, id)?;
    ask(cx, id, IRP_MN_SURPRISE_REMOVAL, [0; 4])?;
    remove_check::after_surprise(cx, id, &above)?;
    remove_check::disable_interfaces(cx, id, "IRP_MN_SURPRISE_REMOVAL")?;
    cx.with(|k| k.pnp.node_mut(id).state = if gone { State::SurpriseRemoved } else { State::Failed });
    notify::target::complete(cx, id)
}

/// Removes a device that was surprise-removed, or never started, and has no file open: children first, and it only when all of its
/// children are removed. True if nothing of the device is left to remove.
pub(super) fn remove_ready(cx: &mut Cx<'_>, id: NodeId) -> Flow<bool> {
    let mut ready = true;
    for child in cx.with(|k| tree::children(k, Some(id))) {
        ready &= remove_ready(cx, child)?;
    }
    if !ready {
        return Ok(false);
    }
    match node::state(cx, id) {
        state if waits_for_files(state) => {
            let closed = open_files(cx, id)? == 0;
            if closed {
                send_remove(cx, id)?;
            }
            Ok(closed)
        }
        State::Added => {
            send_remove(cx, id)?;
            Ok(true)
        }
        State::Enumerated => {
            let (missing, is_child) = cx.with(|k| {
                let node = k.pnp.node(id);
                (node.missing, matches!(node.origin, Origin::Child))
            });
            match (missing, is_child) {
                (true, true) => send_remove(cx, id)?,
                (true, false) => delete(cx, id)?,
                (false, _) => {}
            }
            Ok(true)
        }
        state => Ok(state == State::Deleted),
    }
}

/// A file on a device of the stack was closed: a device that has gone is removed with the last of them.
///
/// # Errors
/// [`engine::Leave`] if the machine ends meanwhile.
pub(crate) fn file_closed(cx: &mut Cx<'_>, device: DriverPtr<DEVICE_OBJECT>) -> Flow<()> {
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
                state if waits_for_files(state) => {
                    // A parent may have waited for this one.
                    let top = cx.with(|k| {
                        let waits = |id: &NodeId| waits_for_files(k.pnp.node(*id).state);
                        let above = |id: &NodeId| k.pnp.node(*id).parent.filter(waits);
                        std::iter::successors(Some(id), above).last().unwrap_or(id)
                    });
                    remove_ready(cx, top).map(|_| ())
                }
                _ => Ok(()),
            })
        };
        ke::thread::spawn(cx, "PnP manager", Box::new(work))?;
    }
    Ok(())
}
