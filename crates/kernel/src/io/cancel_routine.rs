//! Which code set the cancel routine of an IRP, and which removed it: for the moments that a verdict names.
//!
//! Page: *IoSetCancelRoutine function*. It is inlined into drivers as one exchange, so nothing is called: in a checked machine the
//! word is marked ([`shadow::WATCHED`]), and each write to it is noted here first. A machine that is not checked knows nothing.
//! IRPs in memory of a driver's own are not watched.

use std::collections::BTreeMap;

use abi::{Code, DriverPtr, IRP};
use engine::{Flow, Touch, TouchKind};

use crate::cx::{Cx, Kernel};
use crate::mm::shadow;
use crate::witness;

/// So many changes of one IRP's are remembered, the last ones.
const REMEMBERED: usize = 8;

/// The changes of each live IRP's cancel routine, the last at the end.
pub(crate) type Changes = BTreeMap<u64, Vec<Change>>;

/// One write.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    moment: u64,
    /// The routine before.
    before: u64,
    /// The routine afterwards; none if a driver's instruction has it: it is what is found next.
    after: Option<u64>,
}

fn word(irp: u64) -> DriverPtr<DriverPtr<Code>> {
    DriverPtr::<IRP>::new(irp) + IRP::CancelRoutine
}

/// There is a new IRP at this address.
pub(super) fn watch(k: &mut Kernel, irp: u64) {
    if k.engine.is_checked() {
        k.io.irps.cancels.remove(&irp);
        k.engine.mark(word(irp).address, 8, shadow::WATCHED);
    }
}

/// A driver's instruction is about to touch the word.
pub(crate) fn touched(cx: &mut Cx<'_>, touch: &Touch) {
    let irp = touch.address.wrapping_sub(IRP::CancelRoutine.offset());
    if touch.kind == TouchKind::Write && cx.with(|k| k.io.irps.live.contains(irp)) {
        note(cx, irp, None);
    }
}

/// The kernel sets the routine of an IRP, or removes it (`NULL`), in a call of a driver's.
///
/// # Errors
/// A verdict if the IRP is no memory.
pub(crate) fn set(cx: &mut Cx<'_>, irp: DriverPtr<IRP>, routine: DriverPtr<Code>) -> Flow<()> {
    if cx.engine().is_checked() {
        note(cx, irp.address, Some(routine.address));
    }
    cx.write(irp + IRP::CancelRoutine, routine)
}

#[cold]
fn note(cx: &mut Cx<'_>, irp: u64, after: Option<u64>) {
    let Ok(before) = cx.engine().read(word(irp)) else { return };
    let moment = witness::moment(cx);
    let change = Change { moment, before: before.address, after };
    cx.with(|k| {
        let all = k.io.irps.cancels.entry(irp).or_default();
        // Of two at one moment the second run sees the first.
        if all.last().is_some_and(|last| last.moment == moment) {
            return;
        }
        if all.len() == REMEMBERED {
            all.remove(0);
        }
        all.push(change);
    });
}

/// When the routine that an IRP has or had last was set, and when it was removed, if it was.
pub(crate) fn moments(k: &Kernel, irp: u64) -> [(&'static str, Option<u64>); 2] {
    let all = k.io.irps.cancels.get(&irp).map_or(&[][..], Vec::as_slice);
    let now = k.engine.read(word(irp)).map_or(0, |routine| routine.address);
    let after = |index: usize| {
        let next = all.get(index + 1).map_or(now, |next| next.before);
        all[index].after.unwrap_or(next)
    };
    let set = (0..all.len()).rev().find(|index| ![0, all[*index].before].contains(&after(*index)));
    let behind = set.map_or(0, |set| set + 1);
    let removed = (behind..all.len()).rev().find(|index| all[*index].before != 0 && after(*index) == 0);
    let moment = |index: Option<usize>| index.map(|index| all[index].moment);
    [("cancel routine set", moment(set)), ("cancel routine removed", moment(removed))]
}
