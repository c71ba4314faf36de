//! Generic tables: elements in the order that the driver's own routine gives, found by it, in memory that the driver's own routines
//! allocate and free. `RTL_GENERIC_TABLE` is over a tree that splays, `RTL_AVL_TABLE` over one that is balanced.
//!
//! Pages: *RtlInitializeGenericTable function*, *RtlInitializeGenericTableAvl function* and those they lead to. Before the driver's data
//! an element has links, and in a table that splays an entry of the list in the order of insertion behind them, as those pages say.
//! An element of a balanced table has no such entry: `RtlGetElementGenericTableAvl` counts in the order of the elements, whatever its
//! page says. It was left open which routines splay: each that finds, makes or enumerates an element splays it, but for those that are
//! named without splaying. An enumeration like a directory's that is to go on behind an element, after elements were deleted, begins at
//! `Buffer` again.

use std::cmp::Ordering;

use abi::{
    DriverPtr, LIST_ENTRY, NtStatus, RTL_AVL_TABLE, RTL_BALANCED_LINKS, RTL_GENERIC_TABLE, RTL_SPLAY_LINKS,
};
use engine::Flow;

use super::tree::{self, Node, Side};
use crate::cx::Cx;
use crate::event::Role;
use crate::ex::list;
use crate::ke::budget;
use crate::ke::callout::call_routine;
use crate::rtl::memory;

/// A driver routine.
type Routine = DriverPtr<abi::Code>;

/// A table of either kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Table {
    /// Over a tree that splays.
    Splay(DriverPtr<RTL_GENERIC_TABLE>),
    /// Over a balanced tree.
    Avl(DriverPtr<RTL_AVL_TABLE>),
}

use Table::{Avl, Splay};

/// A kind of table, by its structure.
pub(crate) trait Form: Sized {
    #[doc(hidden)]
    fn table(at: DriverPtr<Self>) -> Table;
}

impl Form for RTL_GENERIC_TABLE {
    fn table(at: DriverPtr<Self>) -> Table {
        Splay(at)
    }
}

impl Form for RTL_AVL_TABLE {
    fn table(at: DriverPtr<Self>) -> Table {
        Avl(at)
    }
}

/// `TABLE_SEARCH_RESULT`.
const EMPTY_TREE: u32 = 0;
const FOUND_NODE: u32 = 1;
const INSERT_AS_LEFT: u32 = 2;
const INSERT_AS_RIGHT: u32 = 3;

/// Where an element is, or would be.
#[derive(Clone, Copy)]
enum Place {
    Empty,
    Found(Node),
    Below(Node, Side),
}

impl Place {
    fn found(self) -> Option<Node> {
        match self {
            Self::Found(node) => Some(node),
            Self::Empty | Self::Below(..) => None,
        }
    }

    /// From what `RtlLookupElementGenericTableFull` has said.
    fn of(result: u32, node: Node) -> Self {
        match result {
            FOUND_NODE => Self::Found(node),
            INSERT_AS_LEFT => Self::Below(node, Side::Left),
            INSERT_AS_RIGHT => Self::Below(node, Side::Right),
            _ => Self::Empty,
        }
    }
}

impl Table {
    fn address(self) -> u64 {
        match self {
            Splay(table) => table.address,
            Avl(table) => table.address,
        }
    }

    /// Bytes of an element before the driver's data.
    fn header(self) -> u64 {
        match self {
            Splay(_) => (size_of::<RTL_SPLAY_LINKS>() + size_of::<LIST_ENTRY>()) as u64,
            Avl(_) => size_of::<RTL_BALANCED_LINKS>() as u64,
        }
    }

    fn data(self, node: Node) -> u64 {
        node.address.wrapping_add(self.header())
    }

    /// The driver's data of an element, or null without one.
    fn data_or_null(self, node: Option<Node>) -> u64 {
        node.map_or(0, |node| self.data(node))
    }

    fn count(self) -> DriverPtr<u32> {
        match self {
            Splay(table) => table + RTL_GENERIC_TABLE::NumberGenericTableElements,
            Avl(table) => table + RTL_AVL_TABLE::NumberGenericTableElements,
        }
    }

    /// The root of its tree, or null.
    fn root(self, cx: &mut Cx<'_>) -> Flow<Node> {
        match self {
            Splay(table) => cx.read(table + RTL_GENERIC_TABLE::TableRoot),
            Avl(_) => tree::child(cx, self.anchor(), Side::Right),
        }
    }

    /// Above the root of a balanced tree, which is its right child.
    fn anchor(self) -> Node {
        DriverPtr::new(self.address())
    }

    /// How an element compares with the driver's `buffer`.
    fn compare(self, cx: &mut Cx<'_>, buffer: u64, node: Node) -> Flow<Ordering> {
        let routine: Routine = match self {
            Splay(table) => cx.read(table + RTL_GENERIC_TABLE::CompareRoutine)?,
            Avl(table) => cx.read(table + RTL_AVL_TABLE::CompareRoutine)?,
        };
        let arguments = [self.address(), buffer, self.data(node)];
        let answer = call_routine(cx, Role::GenericTableCompare, routine, self.address(), &arguments)?;
        Ok(match answer & u64::from(u32::MAX) {
            0 => Ordering::Less,
            1 => Ordering::Greater,
            _ => Ordering::Equal,
        })
    }

    fn allocate(self, cx: &mut Cx<'_>, bytes: u32) -> Flow<Node> {
        let routine: Routine = match self {
            Splay(table) => cx.read(table + RTL_GENERIC_TABLE::AllocateRoutine)?,
            Avl(table) => cx.read(table + RTL_AVL_TABLE::AllocateRoutine)?,
        };
        let arguments = [self.address(), bytes.into()];
        call_routine(cx, Role::GenericTableAllocate, routine, self.address(), &arguments).map(DriverPtr::new)
    }

    fn free(self, cx: &mut Cx<'_>, node: Node) -> Flow<()> {
        let routine: Routine = match self {
            Splay(table) => cx.read(table + RTL_GENERIC_TABLE::FreeRoutine)?,
            Avl(table) => cx.read(table + RTL_AVL_TABLE::FreeRoutine)?,
        };
        let arguments = [self.address(), node.address];
        call_routine(cx, Role::GenericTableFree, routine, self.address(), &arguments).map(|_| ())
    }

    fn find(self, cx: &mut Cx<'_>, buffer: u64) -> Flow<Place> {
        let mut node = self.root(cx)?;
        if node.is_null() {
            return Ok(Place::Empty);
        }
        loop {
            let side = match self.compare(cx, buffer, node)? {
                Ordering::Less => Side::Left,
                Ordering::Greater => Side::Right,
                Ordering::Equal => return Ok(Place::Found(node)),
            };
            match tree::child(cx, node, side)? {
                next if next.is_null() => return Ok(Place::Below(node, side)),
                next => node = next,
            }
        }
    }

    /// An element was found, made or enumerated.
    fn touch(self, cx: &mut Cx<'_>, node: Node) -> Flow<()> {
        if let Splay(table) = self {
            tree::splay_up(cx, node)?;
            cx.write(table + RTL_GENERIC_TABLE::TableRoot, node)?;
        }
        Ok(())
    }

    /// The first element of all.
    fn first(self, cx: &mut Cx<'_>) -> Flow<Option<Node>> {
        let root = self.root(cx)?;
        if root.is_null() { Ok(None) } else { tree::outermost(cx, root, Side::Left).map(Some) }
    }

    /// The element on that side of another.
    fn neighbour(self, cx: &mut Cx<'_>, node: Node, side: Side) -> Flow<Option<Node>> {
        let next = tree::neighbour(cx, node, side)?;
        Ok(next.filter(|next| matches!(self, Splay(_)) || *next != self.anchor()))
    }

    fn insert(
        self,
        cx: &mut Cx<'_>,
        buffer: u64,
        size: u32,
        is_new: DriverPtr<u8>,
        place: Place,
    ) -> Flow<u64> {
        if let Place::Found(node) = place {
            self.touch(cx, node)?;
            self.tell(cx, is_new, false)?;
            return Ok(self.data(node));
        }
        let bytes = u64::from(size) + self.header();
        // More than a ULONG says is no size: nothing is allocated.
        let node = match u32::try_from(bytes) {
            Ok(bytes) => self.allocate(cx, bytes)?,
            Err(_) => Node::default(),
        };
        if node.is_null() {
            self.tell(cx, is_new, false)?;
            return Ok(0);
        }
        memory::copy(cx, self.data(node), buffer, size.into())?;
        let above = match place {
            Place::Below(above, side) => Some((above, side)),
            Place::Empty | Place::Found(_) => None,
        };
        let count = cx.read(self.count())?;
        cx.write(self.count(), count.wrapping_add(1))?;
        match self {
            Splay(table) => {
                tree::attach(cx, node, above)?;
                let head = table + RTL_GENERIC_TABLE::InsertOrderList;
                list::append(cx, "RtlInsertElementGenericTable", head, entry(node))?;
                self.touch(cx, node)?;
            }
            Avl(table) => {
                let above = above.unwrap_or((self.anchor(), Side::Right));
                tree::attach(cx, node, Some(above))?;
                set_balance(cx, node, 0)?;
                grown(cx, table, node)?;
            }
        }
        self.tell(cx, is_new, true)?;
        Ok(self.data(node))
    }

    fn tell(self, cx: &mut Cx<'_>, is_new: DriverPtr<u8>, new: bool) -> Flow<()> {
        if is_new.is_null() { Ok(()) } else { cx.write(is_new, new.into()) }
    }

    fn delete(self, cx: &mut Cx<'_>, buffer: u64) -> Flow<bool> {
        let Some(node) = self.find(cx, buffer)?.found() else { return Ok(false) };
        match self {
            Splay(table) => {
                let root = tree::delete(cx, node)?;
                cx.write(table + RTL_GENERIC_TABLE::TableRoot, root)?;
                let head = table + RTL_GENERIC_TABLE::InsertOrderList;
                list::take_out(cx, "RtlDeleteElementGenericTable", head, entry(node))?;
            }
            Avl(table) => self.delete_balanced(cx, table, node)?,
        }
        let count = cx.read(self.count())?;
        cx.write(self.count(), count.wrapping_sub(1))?;
        self.free(cx, node)?;
        Ok(true)
    }

    fn delete_balanced(self, cx: &mut Cx<'_>, table: DriverPtr<RTL_AVL_TABLE>, node: Node) -> Flow<()> {
        if cx.read(table + RTL_AVL_TABLE::RestartKey)?.address == node.address {
            let before = self.neighbour(cx, node, Side::Left)?.unwrap_or_default();
            cx.write(table + RTL_AVL_TABLE::RestartKey, before.cast())?;
        }
        let deleted = cx.read(table + RTL_AVL_TABLE::DeleteCount)?;
        cx.write(table + RTL_AVL_TABLE::DeleteCount, deleted.wrapping_add(1))?;
        let removed = tree::remove(cx, node)?;
        if let Some(substitute) = removed.substitute {
            let balance = balance(cx, node)?;
            set_balance(cx, substitute, balance)?;
        }
        match removed.shallower {
            Some((above, side)) => shrunk(cx, table, above, side),
            None => Ok(()),
        }
    }

    /// The driver's data of the element that equals `buffer`, or null.
    fn look_up(self, cx: &mut Cx<'_>, buffer: u64) -> Flow<u64> {
        let found = self.find(cx, buffer)?.found();
        if let Some(node) = found {
            self.touch(cx, node)?;
        }
        Ok(self.data_or_null(found))
    }

    /// The same, and where it is or would be.
    fn look_up_fully(
        self,
        cx: &mut Cx<'_>,
        buffer: u64,
        node_at: DriverPtr<Node>,
        result_at: DriverPtr<u32>,
    ) -> Flow<u64> {
        let place = self.find(cx, buffer)?;
        let (node, result) = match place {
            Place::Empty => (None, EMPTY_TREE),
            Place::Found(node) => (Some(node), FOUND_NODE),
            Place::Below(node, Side::Left) => (Some(node), INSERT_AS_LEFT),
            Place::Below(node, Side::Right) => (Some(node), INSERT_AS_RIGHT),
        };
        if let Some(node) = node {
            cx.write(node_at, node)?;
        }
        cx.write(result_at, result)?;
        if let Some(found) = place.found() {
            self.touch(cx, found)?;
        }
        Ok(self.data_or_null(place.found()))
    }

    /// The element behind the one at `*key`, or the first one if that is null; then `*key` is it.
    fn step(self, cx: &mut Cx<'_>, key: DriverPtr<Node>) -> Flow<u64> {
        let last = cx.read(key)?;
        let next = if last.is_null() { self.first(cx)? } else { self.neighbour(cx, last, Side::Right)? };
        if let Some(next) = next {
            cx.write(key, next)?;
        }
        Ok(self.data_or_null(next))
    }

    fn is_empty(self, cx: &mut Cx<'_>) -> Flow<bool> {
        Ok(self.root(cx)?.is_null())
    }
}

/// An element's entry in the list in the order of insertion.
fn entry(node: Node) -> DriverPtr<LIST_ENTRY> {
    node.cast::<LIST_ENTRY>().byte_add(size_of::<RTL_SPLAY_LINKS>() as u64)
}

// ---- balance: how much deeper a node's right side is than its left one, −1 to 1 ----

fn balance_of(node: Node) -> DriverPtr<u8> {
    node.cast::<RTL_BALANCED_LINKS>() + RTL_BALANCED_LINKS::Balance
}

fn balance(cx: &mut Cx<'_>, node: Node) -> Flow<i8> {
    Ok(cx.read(balance_of(node))?.cast_signed())
}

fn set_balance(cx: &mut Cx<'_>, node: Node, balance: i8) -> Flow<()> {
    cx.write(balance_of(node), balance.cast_unsigned())
}

/// The balance of a node that is deeper on this side.
fn towards(side: Side) -> i8 {
    match side {
        Side::Left => -1,
        Side::Right => 1,
    }
}

fn deepen(cx: &mut Cx<'_>, table: DriverPtr<RTL_AVL_TABLE>, by: i32) -> Flow<()> {
    let depth = cx.read(table + RTL_AVL_TABLE::DepthOfTree)?;
    cx.write(table + RTL_AVL_TABLE::DepthOfTree, depth.wrapping_add_signed(by))
}

/// A node has become deeper: new, or by what came below it.
fn grown(cx: &mut Cx<'_>, table: DriverPtr<RTL_AVL_TABLE>, mut node: Node) -> Flow<()> {
    loop {
        let above = tree::parent(cx, node)?;
        if above.address == table.address {
            return deepen(cx, table, 1);
        }
        let side = tree::side_of(cx, node, above)?;
        let before = balance(cx, above)?;
        if before == towards(side) {
            return level(cx, above, side).map(|_| ());
        }
        set_balance(cx, above, before + towards(side))?;
        if before != 0 {
            return Ok(());
        }
        node = above;
    }
}

/// A node has become less deep on this side.
fn shrunk(cx: &mut Cx<'_>, table: DriverPtr<RTL_AVL_TABLE>, mut node: Node, mut side: Side) -> Flow<()> {
    while node.address != table.address {
        let before = balance(cx, node)?;
        let mut top = node;
        if before == towards(side.other()) {
            let (risen, shallower) = level(cx, node, side.other())?;
            if !shallower {
                return Ok(());
            }
            top = risen;
        } else {
            set_balance(cx, node, before.saturating_sub(towards(side)))?;
            if before == 0 {
                return Ok(());
            }
        }
        let above = tree::parent(cx, top)?;
        side = tree::side_of(cx, top, above)?;
        node = above;
    }
    deepen(cx, table, -1)
}

/// Turns a node that is too deep by two on this side; who stands there then, and whether that is less deep than it was.
fn level(cx: &mut Cx<'_>, node: Node, side: Side) -> Flow<(Node, bool)> {
    let deeper = tree::child(cx, node, side)?;
    let tilt = balance(cx, deeper)?;
    if tilt != towards(side.other()) {
        tree::rotate(cx, deeper)?;
        let even = tilt == towards(side);
        set_balance(cx, node, if even { 0 } else { towards(side) })?;
        set_balance(cx, deeper, if even { 0 } else { towards(side.other()) })?;
        return Ok((deeper, even));
    }
    let inner = tree::child(cx, deeper, side.other())?;
    let tilt = balance(cx, inner)?;
    tree::rotate(cx, inner)?;
    tree::rotate(cx, inner)?;
    set_balance(cx, node, if tilt == towards(side) { towards(side.other()) } else { 0 })?;
    set_balance(cx, deeper, if tilt == towards(side.other()) { towards(side) } else { 0 })?;
    set_balance(cx, inner, 0)?;
    Ok((inner, true))
}

// ---- the exports ----

/// `RtlInitializeGenericTable`.
///
/// # Errors
/// A verdict on a bad pointer, here and below; whatever the driver's routines come to.
pub(crate) fn initialize(
    cx: &mut Cx<'_>,
    table: DriverPtr<RTL_GENERIC_TABLE>,
    compare: Routine,
    allocate: Routine,
    free: Routine,
    context: DriverPtr<()>,
) -> Flow<()> {
    type T = RTL_GENERIC_TABLE;
    let head = table + T::InsertOrderList;
    cx.write(table + T::TableRoot, Node::default())?;
    cx.write(head + LIST_ENTRY::Flink, head)?;
    cx.write(head + LIST_ENTRY::Blink, head)?;
    cx.write(table + T::OrderedPointer, head)?;
    cx.write(table + T::WhichOrderedElement, 0)?;
    cx.write(table + T::NumberGenericTableElements, 0)?;
    cx.write(table + T::CompareRoutine, compare)?;
    cx.write(table + T::AllocateRoutine, allocate)?;
    cx.write(table + T::FreeRoutine, free)?;
    cx.write(table + T::TableContext, context)
}

/// `RtlInsertElementGenericTable`, `RtlInsertElementGenericTableAvl`: the driver's data of the new element, or of the equal one that was there; null without memory.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn insert<T: Form>(
    cx: &mut Cx<'_>,
    table: DriverPtr<T>,
    buffer: u64,
    size: u32,
    is_new: DriverPtr<u8>,
) -> Flow<u64> {
    let place = T::table(table).find(cx, buffer)?;
    T::table(table).insert(cx, buffer, size, is_new, place)
}

/// `RtlInsertElementGenericTableFull`, `RtlInsertElementGenericTableFullAvl`: the same, where [`look_up_fully`] has looked.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn insert_fully<T: Form>(
    cx: &mut Cx<'_>,
    table: DriverPtr<T>,
    buffer: u64,
    size: u32,
    is_new: DriverPtr<u8>,
    node: Node,
    result: u32,
) -> Flow<u64> {
    T::table(table).insert(cx, buffer, size, is_new, Place::of(result, node))
}

/// `RtlDeleteElementGenericTable`, `RtlDeleteElementGenericTableAvl`: whether there was one.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn delete<T: Form>(cx: &mut Cx<'_>, table: DriverPtr<T>, buffer: u64) -> Flow<bool> {
    T::table(table).delete(cx, buffer)
}

/// `RtlLookupElementGenericTable`, `RtlLookupElementGenericTableAvl`: the driver's data, or null.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn look_up<T: Form>(cx: &mut Cx<'_>, table: DriverPtr<T>, buffer: u64) -> Flow<u64> {
    T::table(table).look_up(cx, buffer)
}

/// `RtlLookupElementGenericTableFull`, `RtlLookupElementGenericTableFullAvl`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn look_up_fully<T: Form>(
    cx: &mut Cx<'_>,
    table: DriverPtr<T>,
    buffer: u64,
    node: DriverPtr<Node>,
    result: DriverPtr<u32>,
) -> Flow<u64> {
    T::table(table).look_up_fully(cx, buffer, node, result)
}

/// `RtlEnumerateGenericTable`: the first element, or the one behind the root, which is the one that was given last.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn enumerate(cx: &mut Cx<'_>, table: DriverPtr<RTL_GENERIC_TABLE>, restart: bool) -> Flow<u64> {
    let table = Splay(table);
    let root = table.root(cx)?;
    let next =
        if restart || root.is_null() { table.first(cx)? } else { table.neighbour(cx, root, Side::Right)? };
    if let Some(next) = next {
        table.touch(cx, next)?;
    }
    Ok(table.data_or_null(next))
}

/// `RtlEnumerateGenericTableWithoutSplaying`, `RtlEnumerateGenericTableWithoutSplayingAvl`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn enumerate_without_splaying<T: Form>(
    cx: &mut Cx<'_>,
    table: DriverPtr<T>,
    key: DriverPtr<Node>,
) -> Flow<u64> {
    T::table(table).step(cx, key)
}

/// `RtlGetElementGenericTable`: in the order of insertion, from 0 on; null if there are not so many.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn element(cx: &mut Cx<'_>, table: DriverPtr<RTL_GENERIC_TABLE>, index: u32) -> Flow<u64> {
    if index >= cx.read(Splay(table).count())? {
        return Ok(0);
    }
    let mut entry = cx.read(table + RTL_GENERIC_TABLE::InsertOrderList + LIST_ENTRY::Flink)?;
    for _ in 0..index {
        budget::spend(cx, tree::STEP)?;
        entry = cx.read(entry + LIST_ENTRY::Flink)?;
    }
    Ok(entry.address.wrapping_add(size_of::<LIST_ENTRY>() as u64))
}

/// `RtlNumberGenericTableElements`, `RtlNumberGenericTableElementsAvl`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn count<T: Form>(cx: &mut Cx<'_>, table: DriverPtr<T>) -> Flow<u32> {
    cx.read(T::table(table).count())
}

/// `RtlIsGenericTableEmpty`, `RtlIsGenericTableEmptyAvl`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn is_empty<T: Form>(cx: &mut Cx<'_>, table: DriverPtr<T>) -> Flow<bool> {
    T::table(table).is_empty(cx)
}

/// `RtlInitializeGenericTableAvl`.
///
/// # Errors
/// As [`initialize`], here and below.
pub(crate) fn initialize_avl(
    cx: &mut Cx<'_>,
    table: DriverPtr<RTL_AVL_TABLE>,
    compare: Routine,
    allocate: Routine,
    free: Routine,
    context: DriverPtr<()>,
) -> Flow<()> {
    type T = RTL_AVL_TABLE;
    memory::fill(cx, table.address, size_of::<T>() as u64, 0)?;
    cx.write(table.cast::<RTL_BALANCED_LINKS>() + RTL_BALANCED_LINKS::Parent, table.cast())?;
    cx.write(table + T::CompareRoutine, compare)?;
    cx.write(table + T::AllocateRoutine, allocate)?;
    cx.write(table + T::FreeRoutine, free)?;
    cx.write(table + T::TableContext, context)
}

/// `RtlLookupFirstMatchingElementGenericTableAvl`: of several that equal `buffer`, the first; `*key` is it then.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn look_up_first_avl(
    cx: &mut Cx<'_>,
    table: DriverPtr<RTL_AVL_TABLE>,
    buffer: u64,
    key: DriverPtr<Node>,
) -> Flow<u64> {
    let table = Avl(table);
    let mut first = table.find(cx, buffer)?.found();
    while let Some(node) = first {
        match table.neighbour(cx, node, Side::Left)? {
            Some(before) if table.compare(cx, buffer, before)? == Ordering::Equal => first = Some(before),
            _ => break,
        }
    }
    cx.write(key, first.unwrap_or_default())?;
    Ok(table.data_or_null(first))
}

/// `RtlEnumerateGenericTableAvl`.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn enumerate_avl(cx: &mut Cx<'_>, table: DriverPtr<RTL_AVL_TABLE>, restart: bool) -> Flow<u64> {
    let key = (table + RTL_AVL_TABLE::RestartKey).cast::<Node>();
    if restart {
        cx.write(key, Node::default())?;
    }
    Avl(table).step(cx, key)
}

/// `RtlEnumerateGenericTableLikeADirectory`.
///
/// # Errors
/// As [`initialize`].
#[allow(clippy::too_many_arguments, reason = "the export's own")]
pub(crate) fn enumerate_like_a_directory(
    cx: &mut Cx<'_>,
    table: DriverPtr<RTL_AVL_TABLE>,
    matches: Routine,
    data: DriverPtr<()>,
    skip: u32,
    key: DriverPtr<Node>,
    deleted: DriverPtr<u32>,
    buffer: u64,
) -> Flow<u64> {
    let deletions = cx.read(table + RTL_AVL_TABLE::DeleteCount)?;
    let last = cx.read(key)?;
    let table = Avl(table);
    let stands = !last.is_null() && cx.read(deleted)? == deletions;
    let from = if stands { Place::Found(last) } else { table.find(cx, buffer)? };
    let mut next = match from {
        Place::Empty => None,
        Place::Found(node) if skip != 0 => table.neighbour(cx, node, Side::Right)?,
        Place::Found(node) | Place::Below(node, Side::Left) => Some(node),
        Place::Below(node, Side::Right) => table.neighbour(cx, node, Side::Right)?,
    };
    while let Some(node) = next
        && !matches.is_null()
    {
        let arguments = [table.address(), table.data(node), data.address];
        let answer = call_routine(cx, Role::GenericTableMatch, matches, table.address(), &arguments)?;
        match NtStatus(u32::try_from(answer & u64::from(u32::MAX)).unwrap_or_default()) {
            NtStatus::NO_MATCH => next = table.neighbour(cx, node, Side::Right)?,
            status if status.is_success() => break,
            _ => next = None,
        }
    }
    cx.write(key, next.unwrap_or_default())?;
    cx.write(deleted, deletions)?;
    Ok(table.data_or_null(next))
}

/// `RtlGetElementGenericTableAvl`: in the order of the elements, from 0 on; null if there are not so many.
///
/// # Errors
/// As [`initialize`].
pub(crate) fn element_avl(cx: &mut Cx<'_>, table: DriverPtr<RTL_AVL_TABLE>, index: u32) -> Flow<u64> {
    let table = Avl(table);
    let mut node = table.first(cx)?;
    for _ in 0..index {
        node = match node {
            Some(before) => table.neighbour(cx, before, Side::Right)?,
            None => return Ok(0),
        };
    }
    Ok(table.data_or_null(node))
}
