//! Children that a driver reports for its device: which are new, which are gone, and what a bus driver must not report.
//!
//! Pages: *IRP_MN_QUERY_DEVICE_RELATIONS*, *Enumerating a Device*, *Removing a Device in a Bus Driver*, *IoInvalidateDeviceRelations
//! function*, *Bug Check 0xCA*. A child that is reported is asked who it is, and gets the drivers that the library finds for it; one whose
//! driver is not found starts without, if its bus driver says that it can (`RawDeviceOK`). One that is not reported any more is surprise
//! removed, and removed. A query that fails changes nothing. A child's device object is taken for initialised when it is reported: no page says so, but
//! published bus drivers never clear `DO_DEVICE_INITIALIZING` of their children, and other drivers attach to these.

use abi::{
    BusRelations, DEVICE_CAPABILITIES, DEVICE_OBJECT, DEVICE_RELATIONS, DO_BUS_ENUMERATED_DEVICE,
    DO_DEVICE_INITIALIZING, DriverPtr, IRP_MN_QUERY_DEVICE_RELATIONS,
};
use engine::{Flow, Leave};

use super::enumerate::{ask_who, tell};
use super::node::{Node, NodeId, Origin, State};
use super::problem::{Code, Problem};
use super::request::ask;
use super::start::{self, Drivers};
use super::{capabilities, surprise, tree};
use crate::cx::Cx;
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::{io, ob};

type Device = DriverPtr<DEVICE_OBJECT>;

/// For messages.
const BUS: &str = "bus relations";

/// Asks a started device for its children, and does what the answer asks for.
///
/// # Errors
/// A verdict on a driver of the stack, or of a child's.
pub(super) fn query(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    let answer = ask(cx, id, IRP_MN_QUERY_DEVICE_RELATIONS, [BusRelations.into(), 0, 0, 0])?;
    if !answer.status.is_success() || answer.information == 0 {
        return Ok(());
    }
    let reported = read(cx, id, answer.information)?;
    let before = cx.with(|k| tree::children(k, Some(id)));
    let mut new = Vec::new();
    for pdo in reported.iter().copied() {
        if before.contains(&NodeId(pdo.address)) {
            // It was referenced when it was reported first; this reference is one too many.
            ob::object::dereference(cx, pdo)?;
        } else {
            new.push(adopt(cx, id, pdo)?);
        }
    }
    for child in before {
        if !reported.contains(&child.pdo()) {
            surprise::vanished(cx, child)?;
        }
    }
    new.into_iter().try_for_each(|child| bring_up(cx, child))
}

/// The children in a `DEVICE_RELATIONS`, which is freed, each once.
fn read(cx: &mut Cx<'_>, id: NodeId, list: u64) -> Flow<Vec<Device>> {
    let relations: DriverPtr<DEVICE_RELATIONS> = DriverPtr::new(list);
    let count = cx.read(relations + DEVICE_RELATIONS::Count)?;
    let first = relations + DEVICE_RELATIONS::Objects;
    let mut reported: Vec<Device> = Vec::new();
    for index in 0..count {
        let pdo = cx.read(first.index(index.into()))?;
        if reported.contains(&pdo) {
            let message =
                format!("{} reported its child {:#x} twice in one list", reporter(cx, id, BUS)?, pdo.address);
            cx.report(Verdict::warning("child-reported-twice", message));
            ob::object::dereference(cx, pdo)?;
            continue;
        }
        check(cx, id, pdo, (count, index))?;
        reported.push(pdo);
    }
    pool::free(cx, relations)?;
    Ok(reported)
}

/// Who reports which relations: the driver and its device, in words.
pub(super) fn reporter(cx: &mut Cx<'_>, id: NodeId, what: &str) -> Flow<String> {
    let (driver, device) = cx.with(|k| (k.pnp.node(id).driver, k.pnp.node(id).name.clone()));
    let driver = if driver.is_null() { cx.read(id.pdo() + DEVICE_OBJECT::DriverObject)? } else { driver };
    Ok(format!("{} ({what} of {device})", io::driver::service(cx, driver)))
}

/// What is reported must be a physical device object that is not deleted, and referenced for the PnP manager.
fn check(cx: &mut Cx<'_>, id: NodeId, pdo: Device, (count, index): (u32, u32)) -> Flow<()> {
    let who = reporter(cx, id, BUS)?;
    if pdo.is_null() {
        let message = format!("{who} reported a null pointer as a child, entry {index} of {count}");
        let verdict = Verdict::error("null-child", message);
        return Err(cx.stop(verdict.bug_check(0xCA, [8, id.0, count.into(), index.into()])));
    }
    let (record, references, parent) = cx.with(|k| {
        let record = k.io.devices.get(pdo.address).map(|d| (d.below, d.delete_pending || d.deleted));
        let references = k.ob.objects.get(pdo.address).map_or(0, |object| object.references);
        let node = k.pnp.nodes.get(&NodeId(pdo.address)).filter(|node| node.state != State::Deleted);
        (record, references, node.map(|node| node.parent))
    });
    let Some((below, is_deleted)) = record else {
        let message = format!("{who} reported {:#x} as a child, which is no device object", pdo.address);
        return Err(no_child(cx, pdo, message));
    };
    if is_deleted {
        let message = format!(
            "{who} reported the child {:#x}, which it has deleted (IoDeleteDevice): a child that is there keeps its device object, and one \
             that comes again gets a new one",
            pdo.address
        );
        let verdict = Verdict::error("deleted-child", message);
        return Err(cx.stop(verdict.bug_check(0xCA, [4, pdo.address, 0, 0])));
    }
    if below != 0 || parent.is_some_and(|parent| parent != Some(id)) {
        let what = match parent {
            Some(_) => "the device of another node",
            None => "attached to another device: a function or filter device, not a physical one",
        };
        let message = format!("{who} reported {:#x} as a child, which is {what}", pdo.address);
        return Err(no_child(cx, pdo, message));
    }
    // Its own, the one that the PnP manager keeps for a child that it knows, and one for this list.
    let needed = if parent.is_some() { 3 } else { 2 };
    if references < needed {
        let message = format!(
            "{who} reported the child {:#x} without a reference for the PnP manager: ObReferenceObject each time before it is reported",
            pdo.address
        );
        let verdict = Verdict::error("child-not-referenced", message);
        return Err(cx.stop(verdict.bug_check(0xCA, [5, pdo.address, 0, 0])));
    }
    Ok(())
}

fn no_child(cx: &mut Cx<'_>, pdo: Device, message: String) -> Leave {
    cx.stop(Verdict::error("child-is-no-device", message).bug_check(0xCA, [2, pdo.address, 0, 0]))
}

/// Makes the node of a child that was not known, whose reference the PnP manager keeps.
fn adopt(cx: &mut Cx<'_>, parent: NodeId, pdo: Device) -> Flow<NodeId> {
    let id = NodeId(pdo.address);
    let again = cx.with(|k| k.pnp.nodes.get(&id).is_some_and(|node| !node.freed));
    if again {
        let who = reporter(cx, parent, BUS)?;
        let message = format!(
            "{who} reported the device object {:#x} again, whose device was gone and removed: IoDeleteDevice then, and a new one when it comes \
             again",
            pdo.address
        );
        cx.report(Verdict::warning("child-reused", message));
    }
    let flags = cx.read(pdo + DEVICE_OBJECT::Flags)?;
    let flags = (flags | DO_BUS_ENUMERATED_DEVICE) & !DO_DEVICE_INITIALIZING;
    cx.write(pdo + DEVICE_OBJECT::Flags, flags)?;
    cx.with(|k| {
        let name = format!("a child of {}", k.pnp.node(parent).name);
        let number = k.pnp.next_number();
        k.pnp.nodes.insert(id, Node::new(name, Origin::Child, Some(parent), number));
    });
    Ok(id)
}

/// Asks a new child who it is, and starts it with the drivers that there are for it.
fn bring_up(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    ask_who(cx, id)?;
    cx.with(|k| {
        let name = tree::free_name(k, &k.pnp.node(id).answers.device_id);
        k.pnp.node_mut(id).name = name;
    });
    tell(cx, id, "found");
    check_unique(cx, id)?;
    drive(cx, id)
}

/// Starts a device that was found with the drivers that there are for it.
///
/// # Errors
/// A verdict on one of these drivers.
pub(super) fn drive(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    let installer = cx.with(|k| k.pnp.installer.clone());
    let found = match &installer {
        Some(installer) => installer.install(cx, id)?,
        None => None,
    };
    drop(installer);
    let is_raw = cx.with(|k| {
        capabilities::flags(&k.pnp.node(id).answers.capabilities) & DEVICE_CAPABILITIES::RawDeviceOK != 0
    });
    let drivers = match found {
        Some(drivers) => drivers,
        None if is_raw => Drivers::without_filters(DriverPtr::NULL),
        None => {
            tell(cx, id, "no driver for");
            cx.with(|k| {
                k.pnp.node_mut(id).problem = Some(Problem::new(Code::FailedInstall, ""));
                let (name, path) = (k.pnp.node(id).name.clone(), k.pnp.node(id).instance_path());
                let note =
                    format!("{name}: no INF that was given has a driver for it ({path}); it is not started");
                k.pnp.note(note);
            });
            return Ok(());
        }
    };
    if let Err(failed) = start::start_while_locked(cx, id, &drivers)? {
        cx.with(|k| {
            let note = format!("{}: does not start: {failed}", k.pnp.node(id).name);
            k.pnp.note(note);
        });
    }
    Ok(())
}

/// Two devices with the same instance path would be one. Of one that has said no instance id (its bus driver had no memory for it, say) nothing is known.
fn check_unique(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    if cx.with(|k| k.pnp.node(id).answers.instance_id.is_empty()) {
        return Ok(());
    }
    let (path, other, parent) = cx.with(|k| {
        let path = k.pnp.node(id).instance_path();
        let other = k.pnp.nodes.iter().find(|(other, node)| {
            **other != id && node.state != State::Deleted && node.instance_path().eq_ignore_ascii_case(&path)
        });
        (path, other.map(|(other, node)| (*other, node.parent)), k.pnp.node(id).parent)
    });
    let (Some((other, others_parent)), Some(parent)) = (other, parent) else { return Ok(()) };
    let who = reporter(cx, parent, BUS)?;
    let message = match others_parent {
        Some(others_parent) if others_parent != parent => {
            let other_bus = reporter(cx, others_parent, BUS)?;
            format!(
                "{who} reported the child {:#x}, whose device id and instance id are those of the child {:#x} of {other_bus}: {path}; where an \
                 instance id is unique on its bus only, IRP_MN_QUERY_CAPABILITIES leaves UniqueID clear",
                id.0, other.0
            )
        }
        _ => format!(
            "{who} reported two children, {:#x} and {:#x}, whose device id and instance id are the same: {path}",
            other.0, id.0
        ),
    };
    Err(cx.stop(Verdict::error("duplicate-child", message).bug_check(0xCA, [1, id.0, other.0, 0])))
}

/// A driver deletes a device: a child stays until its bus driver gets IRP_MN_REMOVE_DEVICE, and behind that as long as the bus driver, which goes on, has
/// reported it.
pub(crate) fn device_deleted(cx: &mut Cx<'_>, device: Device) {
    let early = cx.with(|k| {
        let node = k.pnp.nodes.get(&NodeId(device.address))?;
        let parent = k.pnp.nodes.get(&node.parent?)?;
        let is_reported = !node.missing && parent.state == State::Started;
        let early = node.state != State::Deleted && (!node.told_to_go || is_reported);
        early.then(|| (node.name.clone(), node.state, node.told_to_go))
    });
    let Some((name, state, is_being_removed)) = early else { return };
    let why = if is_being_removed {
        "its bus driver has reported it, and keeps it behind IRP_MN_REMOVE_DEVICE until it has been asked for its children and does not report it any more"
            .to_owned()
    } else {
        format!(
            "it is {}, and its bus driver deletes it when it is gone and IRP_MN_REMOVE_DEVICE says so",
            state.name()
        )
    };
    let message =
        format!("IoDeleteDevice on {:#x}, the physical device object of {name}: {why}", device.address);
    cx.report(Verdict::warning("child-deleted-early", message));
}

/// The last reference to a device is gone: one that is still in the tree must not be.
///
/// # Errors
/// Bug check CAh, 5.
pub(crate) fn device_freed(cx: &mut Cx<'_>, device: u64) -> Flow<()> {
    let linked = cx.with(|k| {
        let node = k.pnp.nodes.get_mut(&NodeId(device))?;
        if node.state != State::Deleted && matches!(node.origin, Origin::Child) {
            return Some(node.name.clone());
        }
        node.freed = true;
        None
    });
    let Some(name) = linked else { return Ok(()) };
    let message = format!(
        "the last reference to {device:#x}, the physical device object of {name}, is gone while the device is in the tree: its bus driver has \
         reported it without a reference, or taken one back that was not its own"
    );
    Err(cx.stop(Verdict::error("child-not-referenced", message).bug_check(0xCA, [5, device, 0, 0])))
}
