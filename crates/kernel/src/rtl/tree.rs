//! Binary trees in the driver's memory: a node begins with links to its parent, its left and its right child, in trees that splay and in
//! balanced ones alike. A root that splays is its own parent.
//!
//! Pages: *RtlSplay function*, *RtlDelete function*, *RtlDeleteNoSplay function*, *RtlSubtreeSuccessor function*, *RtlRealSuccessor
//! function* and their mirrors. What stands for a node with two children that is removed is its predecessor in its subtree: no page says.
//!
//! Links are believed as far as they are memory: who damages them gets a verdict on a bad pointer, or on a loop that does not end.

use abi::{DriverPtr, RTL_SPLAY_LINKS};
use engine::Flow;

use crate::cx::Cx;
use crate::ke::budget;

/// A node of either kind.
pub(crate) type Node = DriverPtr<RTL_SPLAY_LINKS>;

/// Which child.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// What a step from node to node counts as: a circular tree is an endless loop, reported as soon as one of calls.
pub(crate) const STEP: u64 = budget::SERVICE;

fn link(node: Node, side: Side) -> DriverPtr<Node> {
    match side {
        Side::Left => node + RTL_SPLAY_LINKS::LeftChild,
        Side::Right => node + RTL_SPLAY_LINKS::RightChild,
    }
}

/// A node's child, or null.
pub(crate) fn child(cx: &mut Cx<'_>, node: Node, side: Side) -> Flow<Node> {
    budget::spend(cx, STEP)?;
    cx.read(link(node, side))
}

pub(crate) fn parent(cx: &mut Cx<'_>, node: Node) -> Flow<Node> {
    budget::spend(cx, STEP)?;
    cx.read(node + RTL_SPLAY_LINKS::Parent)
}

fn set_parent(cx: &mut Cx<'_>, node: Node, parent: Node) -> Flow<()> {
    cx.write(node + RTL_SPLAY_LINKS::Parent, parent)
}

/// `node`, or nothing if it is null, becomes that child of `above`.
fn hang(cx: &mut Cx<'_>, above: Node, side: Side, node: Node) -> Flow<()> {
    cx.write(link(above, side), node)?;
    if node.is_null() { Ok(()) } else { set_parent(cx, node, above) }
}

/// A node without children becomes that child of `above`, or, without one, a tree of its own.
pub(crate) fn attach(cx: &mut Cx<'_>, node: Node, above: Option<(Node, Side)>) -> Flow<()> {
    cx.write(link(node, Side::Left), Node::default())?;
    cx.write(link(node, Side::Right), Node::default())?;
    match above {
        Some((above, side)) => hang(cx, above, side, node),
        None => set_parent(cx, node, node),
    }
}

/// On which side of its parent a node hangs.
pub(crate) fn side_of(cx: &mut Cx<'_>, node: Node, above: Node) -> Flow<Side> {
    Ok(if child(cx, above, Side::Left)? == node { Side::Left } else { Side::Right })
}

/// `by`, or nothing if it is null, stands where `node` stood.
fn replace(cx: &mut Cx<'_>, node: Node, by: Node) -> Flow<()> {
    let above = parent(cx, node)?;
    if above != node {
        let side = side_of(cx, node, above)?;
        return hang(cx, above, side, by);
    }
    if by.is_null() { Ok(()) } else { set_parent(cx, by, by) }
}

/// The last node on that side of all below a node, itself included.
pub(crate) fn outermost(cx: &mut Cx<'_>, mut node: Node, side: Side) -> Flow<Node> {
    loop {
        match child(cx, node, side)? {
            next if next.is_null() => return Ok(node),
            next => node = next,
        }
    }
}

/// The next node on that side among those below a node.
fn within(cx: &mut Cx<'_>, node: Node, side: Side) -> Flow<Option<Node>> {
    let next = child(cx, node, side)?;
    if next.is_null() { Ok(None) } else { outermost(cx, next, side.other()).map(Some) }
}

/// The next node on that side in the whole tree.
pub(crate) fn neighbour(cx: &mut Cx<'_>, mut node: Node, side: Side) -> Flow<Option<Node>> {
    if let Some(below) = within(cx, node, side)? {
        return Ok(Some(below));
    }
    loop {
        let above = parent(cx, node)?;
        if above == node {
            return Ok(None);
        }
        if child(cx, above, side.other())? == node {
            return Ok(Some(above));
        }
        node = above;
    }
}

/// A node takes the place of its parent, which becomes its child.
pub(crate) fn rotate(cx: &mut Cx<'_>, node: Node) -> Flow<()> {
    let above = parent(cx, node)?;
    let side = side_of(cx, node, above)?;
    let inner = child(cx, node, side.other())?;
    if parent(cx, above)? == above {
        set_parent(cx, node, node)?;
    } else {
        replace(cx, above, node)?;
    }
    hang(cx, above, side, inner)?;
    hang(cx, node, side.other(), above)
}

/// A node becomes the root of its tree, and what lay on the way to it comes up by about half.
pub(crate) fn splay_up(cx: &mut Cx<'_>, node: Node) -> Flow<()> {
    loop {
        let above = parent(cx, node)?;
        if above == node {
            return Ok(());
        }
        let top = parent(cx, above)?;
        if top != above {
            let straight = side_of(cx, node, above)? == side_of(cx, above, top)?;
            rotate(cx, if straight { above } else { node })?;
        }
        rotate(cx, node)?;
    }
}

/// What came of a removal.
pub(crate) struct Removed {
    /// Below which node the tree became less deep, and on which side; none if the root went.
    pub(crate) shallower: Option<(Node, Side)>,
    /// The node that stands where the removed one stood, if another one moved there.
    pub(crate) substitute: Option<Node>,
}

/// Takes a node out of its tree.
pub(crate) fn remove(cx: &mut Cx<'_>, node: Node) -> Flow<Removed> {
    let (left, right) = (child(cx, node, Side::Left)?, child(cx, node, Side::Right)?);
    if left.is_null() || right.is_null() {
        let shallower = place(cx, node)?;
        replace(cx, node, if left.is_null() { right } else { left })?;
        return Ok(Removed { shallower, substitute: None });
    }
    let substitute = outermost(cx, left, Side::Right)?;
    let mut shallower = place(cx, substitute)?;
    let below = child(cx, substitute, Side::Left)?;
    replace(cx, substitute, below)?;
    replace(cx, node, substitute)?;
    for side in [Side::Left, Side::Right] {
        let taken_over = child(cx, node, side)?;
        hang(cx, substitute, side, taken_over)?;
    }
    if let Some((above, _)) = &mut shallower
        && *above == node
    {
        *above = substitute;
    }
    Ok(Removed { shallower, substitute: Some(substitute) })
}

/// Where a node hangs; none for a root.
fn place(cx: &mut Cx<'_>, node: Node) -> Flow<Option<(Node, Side)>> {
    let above = parent(cx, node)?;
    if above == node { Ok(None) } else { Ok(Some((above, side_of(cx, node, above)?))) }
}

/// The root of a node's tree.
fn root(cx: &mut Cx<'_>, mut node: Node) -> Flow<Node> {
    loop {
        match parent(cx, node)? {
            above if above == node => return Ok(node),
            above => node = above,
        }
    }
}

/// `RtlSplay`: the node, which is the root then.
///
/// # Errors
/// A verdict on links that are no memory, here and below.
pub(crate) fn splay(cx: &mut Cx<'_>, node: Node) -> Flow<Node> {
    splay_up(cx, node)?;
    Ok(node)
}

/// `RtlDelete`: the root of what is left, or null. The parent of the node that went is splayed.
///
/// # Errors
/// As [`splay`].
pub(crate) fn delete(cx: &mut Cx<'_>, node: Node) -> Flow<Node> {
    let removed = remove(cx, node)?;
    if let Some((above, _)) = removed.shallower {
        return splay(cx, above);
    }
    only_child(cx, node)
}

/// What was the one child of a root that was removed, or null.
fn only_child(cx: &mut Cx<'_>, node: Node) -> Flow<Node> {
    let left = child(cx, node, Side::Left)?;
    if left.is_null() { child(cx, node, Side::Right) } else { Ok(left) }
}

/// `RtlDeleteNoSplay`: `*root` is the root of what is left, or null.
///
/// # Errors
/// As [`splay`].
pub(crate) fn delete_without_splaying(cx: &mut Cx<'_>, node: Node, root_at: DriverPtr<Node>) -> Flow<()> {
    let removed = remove(cx, node)?;
    let left = match removed.shallower {
        Some((above, _)) => root(cx, above)?,
        None => only_child(cx, node)?,
    };
    cx.write(root_at, left)
}

/// `RtlSubtreeSuccessor`, or null.
///
/// # Errors
/// As [`splay`].
pub(crate) fn subtree_successor(cx: &mut Cx<'_>, node: Node) -> Flow<Node> {
    within(cx, node, Side::Right).map(Option::unwrap_or_default)
}

/// `RtlSubtreePredecessor`, or null.
///
/// # Errors
/// As [`splay`].
pub(crate) fn subtree_predecessor(cx: &mut Cx<'_>, node: Node) -> Flow<Node> {
    within(cx, node, Side::Left).map(Option::unwrap_or_default)
}

/// `RtlRealSuccessor`, or null.
///
/// # Errors
/// As [`splay`].
pub(crate) fn real_successor(cx: &mut Cx<'_>, node: Node) -> Flow<Node> {
    neighbour(cx, node, Side::Right).map(Option::unwrap_or_default)
}

/// `RtlRealPredecessor`, or null.
///
/// # Errors
/// As [`splay`].
pub(crate) fn real_predecessor(cx: &mut Cx<'_>, node: Node) -> Flow<Node> {
    neighbour(cx, node, Side::Left).map(Option::unwrap_or_default)
}
