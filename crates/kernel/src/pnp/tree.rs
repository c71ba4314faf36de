//! The device tree: which device hangs on which, in which order they are gone through, and how it looks.
//!
//! Pages: *Device Tree*, *Device Nodes and Device Stacks*. The root itself, and the PCI bus, have no node: cards and root-enumerated devices
//! are the top. Children are in the order in which they were reported.

use std::collections::BTreeSet;

use abi::{DEVICE_OBJECT, PNP_DEVICE_NOT_DISABLEABLE};
use engine::Flow;

use super::node::{self, Node, NodeId, State};
use super::shown;
use crate::cx::{Cx, Kernel};
use crate::event::Event;
use crate::hal::hardware::PciAddress;
use crate::{io, wdf};

/// Where a node stands among those beside it: cards by their places, the others by when they were found.
fn place(node: &Node) -> (bool, PciAddress, u32) {
    let at = node.card().map(|card| card.function.address);
    (at.is_none(), at.unwrap_or(PciAddress { bus: 0, device: 0, function: 0 }), node.number)
}

/// The devices right below one, or at the top.
pub(crate) fn children(k: &Kernel, of: Option<NodeId>) -> Vec<NodeId> {
    let there = k.pnp.nodes.iter().filter(|(_, node)| node.parent == of && node.state != State::Deleted);
    let mut found: Vec<_> = there.map(|(id, node)| (place(node), *id)).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, id)| id).collect()
}

/// A device and all below it, children before their parents: it is the last.
pub(crate) fn from_below(k: &Kernel, id: NodeId) -> Vec<NodeId> {
    let mut found = Vec::new();
    for child in children(k, Some(id)) {
        found.extend(from_below(k, child));
    }
    found.push(id);
    found
}

/// Whether a device hangs on another, or on what hangs on it.
pub(crate) fn is_below(k: &Kernel, id: NodeId, top: NodeId) -> bool {
    let parent = |id: &NodeId| k.pnp.nodes.get(id).and_then(|node| node.parent);
    std::iter::successors(parent(&id), parent).any(|above| above == top)
}

/// Why a device must not be disabled, counted: it said so (`PNP_DEVICE_NOT_DISABLEABLE`), and each child that must not be.
pub(crate) fn reasons_to_stay(k: &Kernel, id: NodeId) -> u32 {
    let own = u32::from(k.pnp.node(id).device_state & PNP_DEVICE_NOT_DISABLEABLE != 0);
    let below = children(k, Some(id)).into_iter().map(|child| u32::from(reasons_to_stay(k, child) > 0));
    own + below.sum::<u32>()
}

/// All devices, with how deep each lies, parents before their children.
fn with_depth(k: &Kernel) -> Vec<(usize, NodeId)> {
    let mut found = Vec::new();
    let mut open: Vec<(usize, NodeId)> = children(k, None).into_iter().rev().map(|id| (0, id)).collect();
    // Most devices have no children: they are not looked for one by one.
    let has_children = k.pnp.nodes.values().any(|node| node.parent.is_some());
    while let Some((depth, id)) = open.pop() {
        found.push((depth, id));
        if has_children {
            open.extend(children(k, Some(id)).into_iter().rev().map(|child| (depth + 1, child)));
        }
    }
    found
}

/// All devices, parents before their children.
pub(crate) fn all(k: &Kernel) -> Vec<NodeId> {
    with_depth(k).into_iter().map(|(_, id)| id).collect()
}

/// How many devices there are above one.
pub(crate) fn depth(k: &Kernel, id: NodeId) -> usize {
    std::iter::successors(Some(id), |id| k.pnp.node(*id).parent).count() - 1
}

/// A name for a device that no other has.
pub(crate) fn free_name(k: &Kernel, id: &str) -> String {
    let there = k.pnp.nodes.values().filter(|node| node.state != State::Deleted);
    let names: BTreeSet<&str> = there.map(|node| &*node.name).collect();
    first_free(id, |name| names.contains(name))
}

/// A name for a device that is not taken: the last part of an id, in small letters, and the first number that is free.
pub fn first_free(id: &str, taken: impl Fn(&str) -> bool) -> String {
    let last = id.rsplit('\\').next().unwrap_or_default();
    let plain = |c: char| {
        let stays = c.is_ascii_alphanumeric() || "_-".contains(c);
        if stays { c.to_ascii_lowercase() } else { '_' }
    };
    let stem: String = last.chars().map(plain).collect();
    let stem = if stem.is_empty() { "device".to_owned() } else { stem };
    let mut names = (0_u32..).map(|number| format!("{stem}#{number}"));
    names.find(|name| !taken(name)).unwrap_or(stem)
}

/// Emits the tree as events, one a line.
///
/// # Errors
/// As [`text`].
pub fn show(cx: &mut Cx<'_>) -> Flow<()> {
    for line in text(cx)? {
        cx.emit(Event::Tree { line });
    }
    Ok(())
}

/// The tree as lines of text: each device with its instance path and what its bus driver says it is and where, and below it its state, the drivers of its stack from the bottom, what it
/// was started with; which container it is in, what is to be known of it besides, and why it does not run.
///
/// # Errors
/// As reading device objects.
pub fn text(cx: &mut Cx<'_>) -> Flow<Vec<String>> {
    let (all, platform) = cx.with(|k| (with_depth(k), k.hal.platform));
    let mut lines = vec!["the root".to_owned()];
    for (depth, id) in all {
        let indent = "  ".repeat(depth + 1);
        let (mut drivers, mut clients) = (Vec::new(), Vec::new());
        for device in node::stack(cx, id)? {
            let driver = cx.read(device + DEVICE_OBJECT::DriverObject)?;
            drivers.push(io::driver::service(cx, driver));
            clients.extend(wdf::shown(cx, driver)?);
        }
        let (head, state, resources, more) = cx.with(|k| {
            let node = k.pnp.node(id);
            let head = format!("{}  {}{}", node.name, node.instance_path(), shown::texts(node));
            let more =
                [shown::container(node), shown::remarks(node, reasons_to_stay(k, id)), shown::problem(node)];
            (head, node.state.name(), shown::resources(&node.resources, platform), more)
        });
        lines.push(format!("{indent}{head}"));
        lines.push(format!("{indent}  {state}; drivers: {}; resources: {resources}", drivers.join(", ")));
        lines.extend(more.into_iter().flatten().chain(clients).map(|line| format!("{indent}  {line}")));
    }
    Ok(lines)
}
