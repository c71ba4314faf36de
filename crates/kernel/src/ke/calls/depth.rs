//! How deep each routine of a driver goes into its stack, where that is asked for ([`crate::nt::Settings::stack_depths`]).
//!
//! Page: *Using the Kernel Stack*. Before such a routine is called, the stack below is cleared; behind it, what is not zero was written.
//! What a routine calls on the same stack counts as its own, through the kernel too. Handlers and filters of exceptions are not counted apart.

use std::collections::BTreeMap;

use engine::windows::PAGE;
use engine::{Engine, Stack};

use super::callout::Callout;
use super::stack;
use crate::cx::{Cx, Kernel};
use crate::event::Role;
use crate::ldr;

/// How deep one routine went at most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Depth {
    /// What kind of routine: `DispatchWrite`, `Isr`, `WorkItem`, …
    pub role: Role,
    /// Its name.
    pub routine: String,
    /// Bytes, from where it was called.
    pub bytes: u64,
}

/// How deep routines went, by role and address.
#[derive(Default)]
pub(crate) struct State {
    routines: BTreeMap<(Role, u64), Depth>,
}

/// A routine that runs.
#[derive(Clone, Copy)]
pub(crate) struct Open {
    /// Where the stack ends below.
    limit: u64,
    /// Where it was called.
    top: u64,
    /// How far down it was seen to go.
    lowest: u64,
}

/// The routine to be called on `stack` is the next one that is measured. False if it is not: no measurement was asked for, or it has no stack.
pub(crate) fn begin(cx: &mut Cx<'_>, stack: Stack) -> bool {
    let top = match stack {
        Stack::At(base) => Some(base),
        Stack::Current => cx.engine().caller().map(|caller| caller.registers.rsp()),
    };
    let Some(top) = top else { return false };
    cx.engine().unattributed(|| cx.with(|k| open(k, top))).is_some()
}

fn open(k: &mut Kernel, top: u64) -> Option<()> {
    let (stack, owner) = stack::around(k, top - 8)?;
    let lowest = lowest(k.engine, stack.limit, top);
    stack::note_depth(&mut k.ke.calls.deepest_stacks, &owner, stack.base - lowest);
    let engine = k.engine;
    let thread = k.ke.thread_mut()?;
    came_down_to(thread.depths.last_mut(), stack.limit, lowest);
    thread.depths.push(Open { limit: stack.limit, top, lowest: top });
    engine.fill(lowest, top - lowest, 0).expect("a stack is mapped as long as it exists");
    Some(())
}

/// The routine that began last has come back, or was left.
pub(crate) fn end(cx: &mut Cx<'_>, call: &Callout) {
    let used = cx.engine().unattributed(|| {
        cx.with(|k| {
            let engine = k.engine;
            let thread = k.ke.thread_mut()?;
            let Open { limit, top, lowest: seen } = thread.depths.pop()?;
            let lowest = seen.min(lowest(engine, limit, top));
            came_down_to(thread.depths.last_mut(), limit, lowest);
            Some(top - lowest)
        })
    });
    let Some(bytes) = used else { return };
    let (role, address) = (call.role, call.routine.address);
    let known = cx.with(|k| match k.ke.calls.depths.as_mut()?.routines.get_mut(&(role, address)) {
        Some(depth) => {
            depth.bytes = depth.bytes.max(bytes);
            Some(())
        }
        None => None,
    });
    if known.is_none() {
        let depth = Depth { role, routine: ldr::symbols::describe(cx, address), bytes };
        cx.with(|k| k.ke.calls.depths.as_mut().map(|depths| depths.routines.insert((role, address), depth)));
    }
}

/// The stack with this end was used down to here while that routine runs, if it is on the same.
fn came_down_to(open: Option<&mut Open>, limit: u64, lowest: u64) {
    if let Some(open) = open.filter(|open| open.limit == limit) {
        open.lowest = open.lowest.min(lowest);
    }
}

/// The lowest address, a multiple of 8, that holds anything; `top` if none does.
fn lowest(engine: Engine, limit: u64, top: u64) -> u64 {
    let mut page = [0; 0x1000];
    let mut at = limit;
    while at < top {
        let (length, part) = ((top - at).min(PAGE), &mut page);
        let part = &mut part[..usize::try_from(length).unwrap_or(0)];
        engine.read_bytes(at, part).expect("a stack is mapped as long as it exists");
        if let Some(first) = part.iter().position(|&byte| byte != 0) {
            return at + (first as u64 & !7);
        }
        at += length;
    }
    top
}

/// How deep routines of drivers went, by role and name; empty if no measurement was asked for.
#[must_use]
pub fn measured(k: &Kernel) -> Vec<Depth> {
    let mut depths: Vec<Depth> =
        k.ke.calls.depths.iter().flat_map(|depths| depths.routines.values().cloned()).collect();
    depths.sort_by(|one, other| (one.role.name(), &one.routine).cmp(&(other.role.name(), &other.routine)));
    depths
}
