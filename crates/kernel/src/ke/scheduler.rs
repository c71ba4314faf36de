//! Which thread runs on which processor, and for how long.

use engine::Flow;

use crate::cx::Cx;
use crate::nt::Nt;

/// The slice has ended: time passes, interrupts arrive, another thread may run.
pub(crate) fn slice(_cx: &mut Cx<'_>) -> Flow<()> {
    todo!("ke helper")
}

/// Runs threads until `done` says so, nothing can run any more, or the machine stops. Called from outside any strand.
pub fn run(_nt: &Nt, _done: &mut dyn FnMut(&Nt) -> bool) {
    todo!("ke helper")
}
