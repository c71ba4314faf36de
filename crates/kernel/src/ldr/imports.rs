//! Binding of imports: to the kernel's exports, to other drivers' images, or to a named nothing.

use engine::Flow;

use crate::cx::Cx;

/// A driver called export `number`, which dirql does not have: the verdict names it and its caller.
pub(crate) fn call_missing(_cx: &mut Cx<'_>, _number: u32) -> Flow<u64> {
    todo!("mm helper")
}
