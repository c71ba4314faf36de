//! Devices that are related to one otherwise than by a bus: which must be removed with it, which go with it when it is ejected, which must be
//! on before it, which stands behind a file.
//!
//! Page: *IRP_MN_QUERY_DEVICE_RELATIONS* ("EjectionRelations Request", "PowerRelations Request", "RemovalRelations Request",
//! "TargetDeviceRelation Request"). Where it is silent: a query that fails says that there are none; the PnP manager gives a reference back as
//! soon as it has found the device, but that of a target device, which it keeps as long as the registration. Who goes with whom is
//! [`super::removal_set`]'s.

use abi::{
    DEVICE_OBJECT, DEVICE_RELATIONS, DriverPtr, EjectionRelations, FILE_OBJECT, IRP_MJ_PNP,
    IRP_MN_QUERY_DEVICE_RELATIONS, NtStatus, PowerRelations, RemovalRelations, TargetDeviceRelation,
};
use engine::{Flow, Leave};

use super::node::{self, NodeId, Origin, State};
use super::{relations, request, tree};
use crate::cx::{Cx, Kernel};
use crate::io::system_request::{Request, send};
use crate::mm::pool;
use crate::ob;
use crate::verdict::Verdict;

type Device = DriverPtr<DEVICE_OBJECT>;

/// Which devices are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Those that go with the device when it is ejected.
    Ejection,
    /// Those that must be on before it, and off after it.
    Power,
    /// Those whose drivers are removed with its own.
    Removal,
}

impl Kind {
    const fn number(self) -> u32 {
        match self {
            Self::Ejection => EjectionRelations,
            Self::Power => PowerRelations,
            Self::Removal => RemovalRelations,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ejection => "ejection relations",
            Self::Power => "power relations",
            Self::Removal => "removal relations",
        }
    }
}

/// Asks the stack of a device for its relations, each once; those that are gone meanwhile are none.
///
/// # Errors
/// A verdict on a driver of the stack.
pub(super) fn ask(cx: &mut Cx<'_>, id: NodeId, kind: Kind) -> Flow<Vec<NodeId>> {
    let parameters = [kind.number().into(), 0, 0, 0];
    let answer = request::ask(cx, id, IRP_MN_QUERY_DEVICE_RELATIONS, parameters)?;
    if !answer.status.is_success() || answer.information == 0 {
        return Ok(Vec::new());
    }
    let who = relations::reporter(cx, id, kind.name())?;
    let reported = read(cx, &who, answer.information)?;
    let mut found = Vec::new();
    for pdo in reported {
        ob::object::dereference(cx, pdo)?;
        let other = NodeId(pdo.address);
        if other == id || found.contains(&other) {
            continue;
        }
        if kind != Kind::Power && cx.with(|k| tree::is_below(k, other, id)) {
            let child = cx.with(|k| k.pnp.node(other).name.clone());
            let message =
                format!("{who} named {child}, which hangs on the device: it is removed before it anyway");
            cx.report(Verdict::warning("related-is-child", message));
            continue;
        }
        found.push(other);
    }
    Ok(found)
}

/// The devices in a `DEVICE_RELATIONS`, which is freed: each is the physical device object of a device in the tree, with a reference.
fn read(cx: &mut Cx<'_>, who: &str, list: u64) -> Flow<Vec<Device>> {
    let relations: DriverPtr<DEVICE_RELATIONS> = DriverPtr::new(list);
    let count = cx.read(relations + DEVICE_RELATIONS::Count)?;
    let first = relations + DEVICE_RELATIONS::Objects;
    let mut reported = Vec::new();
    for index in 0..count {
        let pdo = cx.read(first.index(index.into()))?;
        check(cx, who, pdo)?;
        reported.push(pdo);
    }
    pool::free(cx, relations)?;
    Ok(reported)
}

fn check(cx: &mut Cx<'_>, who: &str, pdo: Device) -> Flow<()> {
    if !cx.with(|k| node::is_physical(k, pdo)) {
        let message =
            format!("{who} named {:#x}, which is not the physical device object of a device", pdo.address);
        return Err(no_device(cx, pdo, message));
    }
    let (references, is_child, name) = cx.with(|k| {
        let node = k.pnp.node(NodeId(pdo.address));
        let references = k.ob.objects.get(pdo.address).map_or(0, |object| object.references);
        (references, matches!(node.origin, Origin::Child), node.name.clone())
    });
    // Its own, one that the PnP manager keeps for a child that a driver has reported, and one for this list.
    let needed = if is_child { 3 } else { 2 };
    if references < needed {
        let message = format!(
            "{who} named {name} ({:#x}) without a reference for the PnP manager: ObReferenceObject each time before it is named",
            pdo.address
        );
        let verdict = Verdict::error("related-not-referenced", message);
        return Err(cx.stop(verdict.bug_check(0xCA, [5, pdo.address, 0, 0])));
    }
    Ok(())
}

fn no_device(cx: &mut Cx<'_>, pdo: Device, message: String) -> Leave {
    cx.stop(Verdict::error("related-is-no-device", message).bug_check(0xCA, [2, pdo.address, 0, 0]))
}

/// Asks a started device for its power relations, which hold until it is asked again.
///
/// # Errors
/// As [`ask`].
pub(super) fn query_power(cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
    let needed = ask(cx, id, Kind::Power)?;
    cx.with(|k| k.pnp.node_mut(id).needs_power_of = needed);
    Ok(())
}

/// A device is out of the tree: it has no relations any more.
pub(super) fn forget(k: &mut Kernel, id: NodeId) {
    for node in k.pnp.nodes.values_mut() {
        node.needs_power_of.retain(|other| *other != id);
        node.removed_with.retain(|other| *other != id);
    }
}

/// The started devices in the order in which they get their power back: each after its parent and after those that it has named. Among those that name
/// each other the order is that of the tree.
pub(crate) fn in_power_order(k: &Kernel) -> Vec<NodeId> {
    let mut order = Order { k, seen: Vec::new(), found: Vec::new() };
    tree::all(k).into_iter().for_each(|id| order.visit(id));
    order.found
}

struct Order<'a> {
    k: &'a Kernel,
    seen: Vec<NodeId>,
    found: Vec<NodeId>,
}

impl Order<'_> {
    fn visit(&mut self, id: NodeId) {
        if self.seen.contains(&id) {
            return;
        }
        self.seen.push(id);
        let k = self.k;
        let node = k.pnp.node(id);
        node.parent.into_iter().for_each(|parent| self.visit(parent));
        node.needs_power_of.iter().for_each(|needed| self.visit(*needed));
        if node.state == State::Started {
            self.found.push(id);
        }
    }
}

/// Asks the stack of the device that a file is open on which physical device object stands behind the file (`TargetDeviceRelation`), by the thread
/// that wants to know. (inner) the device, with a reference; else the status of the query.
///
/// # Errors
/// A verdict on a driver of the stack.
pub(super) fn target(
    cx: &mut Cx<'_>,
    device: Device,
    file: DriverPtr<FILE_OBJECT>,
) -> Flow<Result<NodeId, NtStatus>> {
    let request = Request {
        parameters: [TargetDeviceRelation.into(), 0, 0, 0],
        status: NtStatus::NOT_SUPPORTED,
        file,
        ..Request::new(IRP_MJ_PNP, IRP_MN_QUERY_DEVICE_RELATIONS)
    };
    let answer = send(cx, device, &request)?;
    if !answer.status.is_success() {
        return Ok(Err(answer.status));
    }
    if answer.information == 0 {
        return Ok(Err(NtStatus::NO_SUCH_DEVICE));
    }
    let who = format!("a driver of the stack of {:#x} (target device relation)", device.address);
    let mut named = read(cx, &who, answer.information)?.into_iter();
    let Some(pdo) = named.next() else { return Ok(Err(NtStatus::NO_SUCH_DEVICE)) };
    for other in named {
        ob::object::dereference(cx, other)?;
    }
    Ok(Ok(NodeId(pdo.address)))
}
