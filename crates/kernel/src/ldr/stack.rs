//! The driver's call stack in original addresses, by unwind data, with symbols.

use crate::cx::Cx;
use crate::verdict::StackLine;

/// The stack of what runs now, innermost first: the driver's instruction, then return addresses.
pub fn lines(_cx: &mut Cx<'_>) -> Vec<StackLine> {
    todo!("mm helper")
}
