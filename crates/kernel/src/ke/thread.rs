//! Threads: what a strand runs, its kernel stack, its object.

use engine::{Flow, StrandId};

use crate::cx::Cx;

/// What a thread of the kernel's own (an application's, a worker) does.
pub type Body = Box<dyn FnOnce(&mut Cx<'_>) -> Flow<()>>;

/// Makes a thread that runs `body` at PASSIVE_LEVEL in the given process (0 = system); ready at once.
pub fn spawn(_cx: &mut Cx<'_>, _name: &str, _body: Body) -> StrandId {
    todo!("ke helper")
}

/// A strand begins: runs what `spawn` was given.
pub(crate) fn run(_cx: &mut Cx<'_>, _id: StrandId) {
    todo!("ke helper")
}
