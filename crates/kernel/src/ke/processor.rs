//! Virtual processors: control region, stacks, identity, and the instructions that ask the platform.

use engine::{Flow, Special};

use crate::cx::Cx;

/// A fixed x86-64-v2 processor.
pub(crate) fn cpuid(_leaf: u32, _subleaf: u32) -> [u32; 4] {
    todo!("ke helper")
}

/// The rest.
pub(crate) fn special(_cx: &mut Cx<'_>, _special: Special) -> Flow<u64> {
    todo!("ke helper")
}
