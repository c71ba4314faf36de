//! The interrupt request level of the current processor. Follows *Managing Hardware Priorities*.

use engine::Flow;

use crate::cx::Cx;

/// The level now.
pub fn current(_cx: &mut Cx<'_>) -> u8 {
    todo!("ke helper")
}

/// Raises; returns the old level. Lowering by it is a verdict.
pub fn raise(_cx: &mut Cx<'_>, _level: u8) -> Flow<u8> {
    todo!("ke helper")
}

/// Lowers, and lets in what was waiting: interrupts, DPCs, another thread.
pub fn lower(_cx: &mut Cx<'_>, _level: u8) -> Flow<()> {
    todo!("ke helper")
}

/// `mov cr8, r`.
pub(crate) fn set_by_cr8(_cx: &mut Cx<'_>, _level: u64) -> Flow<()> {
    todo!("ke helper")
}

/// `cli`, `sti`.
pub(crate) fn set_interrupt_flag(_cx: &mut Cx<'_>, _on: bool) -> Flow<()> {
    todo!("ke helper")
}
