//! What is removed together: a device, all that hangs on it, and what the drivers of each of these have named.
//!
//! Page: *IRP_MN_QUERY_DEVICE_RELATIONS* ("RemovalRelations Request": "any devices whose drivers must be removed when the drivers for the
//! specified device are removed"; "The order in which removal relations are removed is undefined"). The order here is: whatever was named before who
//! has named it, unless that would be a parent before its child.

use engine::Flow;

use super::node::{self, NodeId, State};
use super::related::{self, Kind};
use super::tree;
use crate::cx::{Cx, Kernel};

/// Asks who is removed with a device: in the order in which they are asked and removed, children before their parents. `ejected` are those
/// that go with it when it is ejected.
///
/// # Errors
/// A verdict on a driver that answers.
pub(super) fn of(cx: &mut Cx<'_>, id: NodeId, ejected: &[NodeId]) -> Flow<Vec<NodeId>> {
    let mut search = Search { seen: Vec::new(), found: Vec::new() };
    // Who has named them comes after them.
    search.seen.push(id);
    for other in ejected {
        search.visit(cx, *other)?;
    }
    search.seen.retain(|seen| *seen != id);
    search.visit(cx, id)?;
    Ok(cx.with(|k| children_first(k, search.found)))
}

struct Search {
    seen: Vec<NodeId>,
    found: Vec<NodeId>,
}

impl Search {
    fn visit(&mut self, cx: &mut Cx<'_>, id: NodeId) -> Flow<()> {
        if self.seen.contains(&id) {
            return Ok(());
        }
        self.seen.push(id);
        for child in cx.with(|k| tree::children(k, Some(id))) {
            self.visit(cx, child)?;
        }
        // A device without drivers, or with its removal begun already, has none that are to be removed.
        if matches!(node::state(cx, id), State::Started | State::StopPending | State::Stopped) {
            for other in related::ask(cx, id, Kind::Removal)? {
                self.visit(cx, other)?;
            }
        }
        self.found.push(id);
        Ok(())
    }
}

/// The same in the same order, but for parents that stand before their children.
fn children_first(k: &Kernel, found: Vec<NodeId>) -> Vec<NodeId> {
    let mut left = found;
    let mut sorted = Vec::new();
    while !left.is_empty() {
        let waits = |id: NodeId| left.iter().any(|other| *other != id && tree::is_below(k, *other, id));
        // No device is below itself, so at least one waits for none.
        let next = left.iter().position(|id| !waits(*id)).unwrap_or(0);
        sorted.push(left.remove(next));
    }
    sorted
}
